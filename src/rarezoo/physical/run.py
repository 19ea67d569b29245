"""``rarezoo physical``: the classes of a search against matched controls, in the properties of any catalogues."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.data.surveys.mock import planted_offset
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.physical.completeness import completeness
from rarezoo.physical.controls import MAHALANOBIS, PROPENSITY, Matched, Matching, Roles, chosen_covariates
from rarezoo.physical.differences import Bin, bins_of, differences
from rarezoo.physical.join import AUTO, BY_ID, BY_POSITION, LARGEST_RADIUS, join
from rarezoo.physical.properties import numbers_of, properties_of
from rarezoo.physical.result import Physical
from rarezoo.physical.substructure import splits
from rarezoo.report import physical as cards
from rarezoo.runs import claim, fingerprint, path_sha256, table_sha256
from rarezoo.searches.metadata import Metadata
from rarezoo.searches.result import Search
from rarezoo.searches.systematics import Systematics
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)

# Roles whose columns say how a galaxy was observed, and are no properties unless they are named.
_OBSERVING = ("redshift", "magnitude", "psf", "depth")
FOLDER = "physical"


@dataclass(kw_only=True)
class PhysicalRun(Settings):
    """Compare the classes of a finished search with matched controls.

    Examples
    --------
    >>> PhysicalRun(search="runs/cluster", catalogues=["masses.fits"]).folder
    PosixPath('runs/cluster/physical')
    """

    search: str = setting(help="folder of a finished search", positional=True)
    catalogues: list[str] = setting(
        [],
        "catalogues to join, also called with=: CSV, Parquet, FITS, VOTable or ECSV files, or xmatch:TABLE and "
        "vizier:TABLE at the CDS; empty: only the columns of the survey",
    )
    out: str = setting("", "output folder; empty: physical/ in the folder of the search, which its report shows")
    radius: float = setting(1.0, "largest distance of a match by position", unit="arcsec", gt=0, le=LARGEST_RADIUS)
    by: str = setting(AUTO, "how catalogues are joined; auto: by id where ids fit", choices=(AUTO, BY_ID, BY_POSITION))
    id_column: str = setting(tables.ID, "column of the catalogues with the ids of the survey")
    ra_column: str = setting("", "column with the right ascension; empty: one of the usual names")
    dec_column: str = setting("", "column with the declination; empty: one of the usual names")
    covariates: list[str] = setting(
        [], "columns to match in; empty: redshift, mass or else magnitude, size, PSF and depth, by their names"
    )
    properties: list[str] = setting([], "columns to compare; empty: all others")
    controls: int = setting(5, "largest number of controls for each member", unit="galaxies", ge=1, le=5)
    distance: str = setting(MAHALANOBIS, "distance by which controls are found", choices=(MAHALANOBIS, PROPENSITY))
    caliper: float = setting(
        0.2, "largest difference of the logits of the propensity, in their standard deviations", gt=0, le=5
    )
    within: str = setting("", "column in whose ranges classes are compared too, such as the mass; empty: none")
    edges: list[float] = setting([], "ends of these ranges; empty: three ranges with equal numbers of members")
    limit: float | None = setting(None, "faint limit of the survey; null: its faintest galaxies", unit="mag")
    seed: int = setting(0, "seed of the bootstrap and the nulls", ge=0)

    def check(self) -> None:
        """Raise ConfigError if ranges have no column or ends that do not rise, or a file is given twice."""
        doubled = [name for place, name in enumerate(self.catalogues) if name in self.catalogues[:place]]
        if doubled:
            raise ConfigError(
                "the same catalogue is given twice", value=doubled[0], fix="Give each once: with=FILE,FILE."
            )
        if self.edges and not self.within:
            raise ConfigError("edges need a column", value=self.edges, fix="Name it: within=COLUMN.")
        if len(self.edges) == 1 or not all(np.diff(self.edges) > 0) or not np.isfinite(self.edges).all():
            raise ConfigError(
                "edges must be at least two numbers that rise", value=self.edges, fix="Such as edges=9,10,11."
            )

    @property
    def folder(self) -> Path:
        """Folder of the result."""
        return Path(self.out) if self.out else Path(self.search) / FOLDER

    def run(self) -> "PhysicalDone":
        """Compare, write the result, and show the cards on the class pages of the report.

        Raises
        ------
        StoreError
            There is no finished search.
        ConfigError, DataError
            A catalogue cannot be joined, or nothing can be matched or compared.
        OutputError
            The folder cannot be written, or holds another run.
        """
        return self.write(Search.open(self.search))

    def write(self, search: Search, catalogues: Sequence[Any] | None = None) -> "PhysicalDone":
        """Compare the classes of an open search and write the result; see :meth:`run` and :meth:`measure`."""
        given = list(self.catalogues if catalogues is None else catalogues)
        # What cannot be measured claims no folder.
        measured = self.measure(search, given)
        files = {
            Path(one).name: path_sha256(one) for one in given if isinstance(one, (str, Path)) and Path(one).exists()
        }
        settings = {name: value for name, value in asdict(self).items() if name not in ("search", "catalogues", "out")}
        settings["catalogues"] = [match.source for match in measured.joined.matches]
        inputs: dict[str, Any] = {"classes": fingerprint(search.labels, ids=search.ids), "catalogues": files}
        if len(files) < len(given):
            # Tables in memory and fetched ones have no file.
            inputs["joined"] = table_sha256(measured.joined.table)
        folder = claim(self.folder, verb="physical", settings=settings, inputs=lambda: inputs)
        return PhysicalDone(measured, write(measured, folder, search))

    def measure(self, search: Search, catalogues: Sequence[Any] | None = None) -> Physical:
        """Compare the classes of an open search; nothing is written.

        Parameters
        ----------
        search
            The search.
        catalogues
            Catalogues, also tables in memory; None: those of the settings.
        """
        own, truth = _survey_columns(search)
        given = list(self.catalogues if catalogues is None else catalogues)
        joined = join(
            search.ids, *_sky(search, given), given, self.radius, by=self.by, id_column=self.id_column,
            ra_column=self.ra_column, dec_column=self.dec_column, own=own,
        )  # fmt: skip
        labels, numbers = search.labels, numbers_of(joined.table)
        ids = [int(class_id) for class_id in sorted(set(labels.tolist()) - {tables.NO_CLASS})]
        names = chosen_covariates(self.covariates, numbers, labels >= 0)
        covariates = {name: numbers[name] for name in names}
        roles = Roles.of(list(numbers))
        self._check_limit(numbers, roles.first("magnitude"))
        observed = {name for role in _OBSERVING for name in roles.columns[role]} - set(self.properties)
        compared = properties_of(joined.table, named=self.properties, without=[*names, *observed])
        matching = Matching(controls=self.controls, distance=self.distance, caliper=self.caliper)
        matched = {one: matching.match(covariates, labels, one, ids=search.ids) for one in ids}
        binned = self._binned(numbers, labels, ids)
        found = differences(compared, covariates, labels, matched, binned=binned, seed=self.seed)
        others = labels == tables.NO_CLASS
        return Physical(
            joined=joined, labels=labels, covariates=tuple(names), matched=matched, differences=found,
            splits=splits(compared, covariates, labels, seed=self.seed),
            completeness={one: completeness(numbers, labels == one, others, limit=self.limit) for one in ids},
            planted=_planted(truth, labels, matched, [one.name for one in compared]),
            title=search.folder.resolve().name,
        )  # fmt: skip

    def _check_limit(self, numbers: Mapping[str, np.ndarray], magnitude: str | None) -> None:
        """Raise ConfigError if a limit is given and no galaxy has a magnitude within it."""
        if self.limit is None:
            return
        if magnitude is None:
            raise ConfigError(
                "limit= needs a magnitude, and no column is one by its name", value=self.limit,
                fix="Leave it out, or join a catalogue with a column such as mag_r.",
            )  # fmt: skip
        if not np.nanmin(numbers[magnitude]) <= self.limit:
            raise ConfigError(
                f"limit= is brighter than every galaxy: {magnitude} begins at {np.nanmin(numbers[magnitude]):.4g}",
                value=self.limit, fix="Give the faint limit of the survey in mag.",
            )  # fmt: skip

    def _binned(
        self, numbers: Mapping[str, np.ndarray], labels: np.ndarray, ids: Sequence[int]
    ) -> dict[int, list[tuple[Bin, np.ndarray]]]:
        if not self.within:
            return {}
        if self.within not in numbers:
            listed = ", ".join(list(numbers)[:12])
            raise ConfigError("within: no column of numbers", value=self.within, fix=f"Columns of numbers: {listed}.")
        column = numbers[self.within]
        binned = {one: list(bins_of(self.within, column, labels == one, self.edges)) for one in ids}
        if not any((inside & (labels >= 0)).any() for ranges in binned.values() for _, inside in ranges):
            raise ConfigError(
                "within: no member of a class is in these ranges",
                value=f"{self.within} is {np.nanmin(column):.4g} to {np.nanmax(column):.4g}",
                fix="Choose other edges=, or a column in which galaxies differ.",
            )  # fmt: skip
        return binned


@dataclass(frozen=True)
class PhysicalDone:
    """A result that was written: what was found, and its page."""

    measured: Physical
    page: Path

    def summary(self) -> str:
        """Return what a terminal shows."""
        return f"{self.measured.summary()}\n\n{self.measured.verdicts()}\n\n{self.page}"


def write(measured: Physical, folder: Path, search: Search) -> Path:
    """Write a result, and show its cards on the class pages of the report if the folder is that of the search."""
    of_search = folder.resolve() == (search.folder / FOLDER).resolve()
    back = "../report/index.html" if of_search and search.page.exists() else ""
    page = measured.write(folder, back=back)
    if of_search:
        cards.show_on_pages(search.page.parent, cards.read_cards(search.folder))
    return page


def _sky(search: Search, catalogues: Sequence[Any]) -> tuple[Any, Any]:
    """Return the positions of the galaxies; without a survey catalogues can still be joined by id."""
    if not catalogues:
        return None, None
    try:
        return search.sky
    except RarezooError as problem:
        log.warning("galaxies are joined by id only: %s", problem)
        return None, None


def _survey_columns(search: Search) -> tuple[pa.Table | None, pa.Table | None]:
    """Return the columns of the survey's own catalogue that may be properties, and the truth of a mock survey."""
    try:
        galaxies = search.survey() if search.has_survey else None
    except RarezooError as problem:
        log.warning("the columns of the survey are not compared: %s", problem)
        return None, None
    if galaxies is None:
        return None, None
    columns = [name for name in Metadata.of(galaxies, systematics=Systematics()).columns if name != tables.SURVEY]
    own = tables.aligned(galaxies.catalogue, search.ids, source="the survey").select(columns)
    truth = None if galaxies.truth is None else tables.aligned(galaxies.truth, search.ids, source="the truth")
    return own, truth


def _planted(
    truth: pa.Table | None, labels: np.ndarray, matched: Mapping[int, Matched], names: Sequence[str]
) -> dict[tuple[int, str], float]:
    """Return the mean of what the populations of the matched members add to each property of a mock sky.

    Of a class that cannot be matched, all members count.
    """
    if truth is None:
        return {}
    populations = tables.strings(truth, tables.POPULATION)
    planted = {}
    for class_id, one in matched.items():
        for name in names:
            members = one.members if one.is_balanced else labels == class_id
            offsets = [planted_offset(str(population), name) for population in populations[members]]
            known = [offset for offset in offsets if offset is not None]
            if known:
                planted[class_id, name] = float(np.mean(known))
    return planted
