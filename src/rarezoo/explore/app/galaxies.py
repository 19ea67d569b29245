"""What the page shows of single galaxies: image, position, catalogue row, predicted answers, class."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import DataError
from rarezoo.searches.result import Search, cutouts_of

# Pages about a position, by name; the same as in web/src/galaxy.js.
PAGES = {
    "Legacy Survey": "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&layer=ls-dr10&zoom=16&mark={ra},{dec}",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={ra}%20{dec}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec",
    "Aladin": "https://aladin.cds.unistra.fr/AladinLite/?target={ra}%20{dec}&fov=0.03",
}
_WAY_OUT = "Bring the survey back to where it was, or leave images and catalogue out: images=false."
# Images that are looked at before the page is served.
_LOOKED_AT = 5
# Columns of a catalogue that are shown elsewhere, or that are of no use to a reader.
_HIDDEN = frozenset({tables.ID, tables.IMAGE, tables.SPLIT})


class ShownGalaxies:
    """The galaxies of a search or store, with the catalogue and the images of their survey.

    Parameters
    ----------
    source
        A search or a store.
    images
        Whether to open the survey. A store of imported embeddings may have none.

    Raises
    ------
    DataError
        The survey cannot be opened, or none of its images can be read.
    StoreError
        The survey has changed since it was embedded.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> vectors = np.eye(3, dtype=np.float32)
    >>> predicted = {"ring_yes": [0.1, 0.2, 0.9]}
    >>> store = EmbeddingStore.from_array(["a", "b", "c"], vectors, out=mkdtemp(), fractions=predicted)
    >>> ShownGalaxies(store).about("c")["answers"]
    [{'name': 'ring_yes', 'fraction': 0.9}]
    """

    def __init__(self, source: Search | EmbeddingStore, *, images: bool = True) -> None:
        self.source = source
        self.survey: Galaxies | None = None
        if images and source.has_survey:
            self.survey = (
                source.survey(way_out=_WAY_OUT) if isinstance(source, Search) else source.galaxies(way_out=_WAY_OUT)
            )
            _refuse_absent_images(self.survey)

    @property
    def title(self) -> str:
        """What the page is about."""
        if isinstance(self.source, Search):
            return str(self.source.about.get("title") or self.source.folder.name)
        return self.source.folder.name

    @property
    def has_images(self) -> bool:
        """Whether there are images to show."""
        return self.survey is not None

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each galaxy that can be shown in the store, by id."""
        return {galaxy: row for row, galaxy in enumerate(self.store.ids.tolist())}

    @cached_property
    def _catalogue_rows(self) -> Mapping[str, int]:
        return {} if self.survey is None else {galaxy: row for row, galaxy in enumerate(self.survey.ids.tolist())}

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store that holds the galaxies. It has more of them than the search if the search made cuts."""
        return self.source.store if isinstance(self.source, Search) else self.source

    @cached_property
    def _predictions(self) -> pa.Table:
        answers = [tables.fraction_column(answer) for answer in self.store.manifest.answers]
        return self.store.read([tables.ID, *answers])

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        search = self.source
        return dict(zip(search.ids.tolist(), search.labels.tolist(), strict=True)) if isinstance(search, Search) else {}

    @cached_property
    def cutouts(self) -> Callable[[list[str]], list[np.ndarray]]:
        """Function from ids to uint8 (height, width, 3) each; a crossed square stands for an unreadable image."""
        if self.survey is None:
            raise DataError(
                "there are no images", value=self.source.folder, fix="Name the survey when the embeddings are imported."
            )
        return cutouts_of(self.survey)

    def cutout(self, galaxy: str) -> np.ndarray:
        """Return the image of one galaxy, uint8 (height, width, 3)."""
        return self.cutouts([galaxy])[0]

    def class_of(self, galaxy: str) -> int | None:
        """Return the class of a galaxy; None for no class."""
        label = self._labels.get(galaxy, tables.NO_CLASS)
        return None if label == tables.NO_CLASS else label

    def position(self, galaxy: str) -> tuple[float, float] | None:
        """Return right ascension and declination in degrees; None if unknown."""
        row = self._catalogue_row(galaxy)
        ra, dec = row.get(tables.RA), row.get(tables.DEC)
        known = isinstance(ra, float) and isinstance(dec, float) and np.isfinite([ra, dec]).all()
        return (ra % 360, dec) if known else None  # type: ignore[operator, return-value]

    def _catalogue_row(self, galaxy: str) -> dict[str, Any]:
        if self.survey is None:
            return {}
        return dict(self.survey.catalogue.slice(self._catalogue_rows[galaxy], 1).to_pylist()[0])

    def about(self, galaxy: str) -> dict[str, Any]:
        """Return what is known of a galaxy, as JSON can hold it.

        The keys are ``id_str``, ``class_id``, ``ra``, ``dec``, ``links`` (pages about its position), ``catalogue``
        (name and value of each column) and ``answers`` (predicted fractions, the highest first).
        """
        place = self.position(galaxy)
        shown = [[name, _text(value)] for name, value in self._catalogue_row(galaxy).items() if name not in _HIDDEN]
        about = {
            "id_str": galaxy, "class_id": self.class_of(galaxy),
            "ra": None if place is None else place[0], "dec": None if place is None else place[1],
            "links": links(place), "catalogue": shown, "answers": self._answers(galaxy),
        }  # fmt: skip
        return dict(tables.plain(about))

    def _answers(self, galaxy: str) -> list[dict[str, Any]]:
        row = self._predictions.slice(self.rows[galaxy], 1).to_pylist()[0]
        known = [(tables.answer_of(name), value) for name, value in row.items() if tables.is_fraction_column(name)]
        known = [(name, round(float(value), 4)) for name, value in known if value is not None and np.isfinite(value)]
        return [{"name": name, "fraction": value} for name, value in sorted(known, key=lambda one: -one[1])]


def links(place: tuple[float, float] | None) -> list[dict[str, str]]:
    """Return the pages of others about a position in degrees.

    >>> links((185.7, 15.8))[2]["url"]
    'https://aladin.cds.unistra.fr/AladinLite/?target=185.700000%2015.800000&fov=0.03'
    """
    if place is None:
        return []
    ra, dec = (f"{value:.6f}" for value in place)
    return [{"name": name, "url": page.format(ra=ra, dec=dec)} for name, page in PAGES.items()]


def _text(value: object) -> object:
    """Return a value of a catalogue as JSON can hold it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _refuse_absent_images(survey: Galaxies) -> None:
    """Raise DataError if none of a few images, spread over the survey, can be read: they have moved."""
    problem: DataError | None = None
    for row in np.unique(np.linspace(0, len(survey) - 1, _LOOKED_AT).astype(int)):
        try:
            survey.images.cutout(int(row))
            return
        except DataError as met:
            problem = met
    if problem is not None:
        raise DataError(
            f"the images of the survey cannot be read ({problem.what})", value=problem.value, ids=problem.ids,
            fix=_WAY_OUT,
        ) from problem  # fmt: skip
