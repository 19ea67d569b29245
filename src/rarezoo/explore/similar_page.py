"""Similar galaxies as a page that opens from disk, and as files of other tools.

index.html      the examples, the galaxies that are most alike to them, and what was left out
similar.csv     the same galaxies as a table
images/         mosaics
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from rarezoo import __version__, tables
from rarezoo.data.images import shown_cutouts
from rarezoo.errors import OutputError
from rarezoo.explore.places import distance_text
from rarezoo.explore.similar import NEAR, LeftOut, SimilarGalaxies
from rarezoo.report import gallery, palette
from rarezoo.report.compare import asset
from rarezoo.report.exports import Meanings, write_csv, write_fits, write_votable
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.pages import environment

PAGE, CSV, FITS, VOTABLE = FORMATS = ("page", "csv", "fits", "votable")
_PAGE_FILE, _TABLE_FILE = "index.html", "similar.csv"
# Galaxies on a page at most: a mosaic of more would be a picture of more than 8,000 px.
_MOST = 480
_MEANINGS: Meanings = {
    tables.SCORE: ("", "stat.value", "how similar; higher is more similar"),
    tables.RANK: ("", "stat.rank", "place in the ranking; 1: the most similar"),
    tables.SKY_DISTANCE: ("arcsec", "pos.angDistance", "distance from the nearest example"),
}
_VIEWER = "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&layer=ls-dr10&zoom=16&mark={ra},{dec}"
_SIMBAD = "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={ra}%20{dec}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec"
_ALADIN = "https://aladin.cds.unistra.fr/AladinLite/?target={ra}%20{dec}&fov=0.03"


@dataclass(frozen=True)
class Shown:
    """A galaxy on the page.

    Attributes
    ----------
    id : str
        Its id, or the name of an image file.
    kind : str
        ``example`` or ``counter-example``; empty for a result.
    rank : int
        Place in the ranking.
    score : str
        Its score.
    class_id : int or None
        Class of the search, −1 for none; None if there is no search.
    position : str
        Right ascension and declination in degrees; empty if unknown.
    links : sequence of (str, str)
        Names and addresses of pages about this place of the sky.
    """

    id: str
    kind: str = ""
    rank: int = 0
    score: str = ""
    class_id: int | None = None
    position: str = ""
    links: Sequence[tuple[str, str]] = ()


def summary_of(result: SimilarGalaxies) -> str:
    """Say how many galaxies were left out, and why."""
    about = result.about["left_out"]
    parts = []
    if about["examples"]:
        parts.append(_counted(about["examples"], "example", "examples"))
    if result.pool.positions is not None and result.apart and len(result.query.rows):
        entries = _counted(about["within_apart"], "entry", "entries")
        parts.append(f"{entries} within {distance_text(result.apart)} of an example")
    if result.compared:
        what = "near-identical image" if result.compared == "images" else "galaxy with the same embedding as another"
        several = "near-identical images" if result.compared == "images" else "galaxies with the same embedding"
        parts.append(_counted(about["near_identical"], what, several))
    text = f"Left out: {', '.join(parts)}." if parts else "Nothing was left out."
    if result.pool.positions is None and len(result.query.rows):
        text += " Positions on the sky are not known, so entries near an example could not be left out."
    return text


def table_of(result: SimilarGalaxies) -> pa.Table:
    """Return the galaxies as an Arrow table, null where a position is unknown."""
    return pa.Table.from_pandas(result.frame(), preserve_index=False).replace_schema_metadata(None)


def write_file(result: SimilarGalaxies, path: Path, *, format: str, title: str) -> Path:
    """Write the galaxies as a file of another tool.

    Parameters
    ----------
    result : SimilarGalaxies
        The galaxies.
    path : Path
        File to write.
    format : {"csv", "fits", "votable"}
        Its format.
    title : str
        What was asked for.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write = {CSV: write_csv, FITS: write_fits, VOTABLE: write_votable}[format]
    return write(path, table_of(result), {**origin_of(result), "query": title}, meanings=_MEANINGS)


def origin_of(result: SimilarGalaxies) -> dict[str, str]:
    """Return where the galaxies are from and how they were ranked, as text."""
    manifest = result.pool.store.manifest
    origin = {"survey": manifest.survey, "checkpoint": manifest.checkpoint}
    if result.pool.search is not None:
        origin["search"] = result.pool.search.folder.name
    return {**origin, "ranking": result.way, "rarezoo": __version__}


def write_page(
    result: SimilarGalaxies,
    folder: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    own_images: Sequence[UInt8[np.ndarray, "_ _ 3"]] = (),
) -> Path:
    """Write the galaxies as a page, and return its path.

    Parameters
    ----------
    result : SimilarGalaxies
        The galaxies.
    folder : Path
        Folder of the page: a new one, or that of an earlier page, which is replaced.
    title : str
        What was asked for.
    notes, warnings : sequences of str
        What a reader should know.
    own_images : sequence of (h, w, 3) uint8
        Pixels of the images that were given as examples, in their order.

    Raises
    ------
    OutputError
        The folder cannot be written, or holds something else.
    """
    if folder.is_file():
        raise OutputError("the output path is a file", value=folder, fix="Choose a folder: out=DIR.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _TABLE_FILE).exists():
        raise OutputError("the folder holds something else", value=folder, fix="Choose another folder: out=DIR.")
    page = _Page(result, folder, tuple(own_images))
    try:
        return page.write(title=title, notes=notes, warnings=warnings)
    except OSError as problem:
        raise tables.unwritable(folder, problem) from problem


@dataclass(frozen=True)
class _Page:
    """A page that is being written; see :func:`write_page`."""

    result: SimilarGalaxies
    folder: Path
    own_images: Sequence[np.ndarray]

    def write(self, *, title: str, notes: Sequence[str], warnings: Sequence[str]) -> Path:
        result = self.result
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (self.folder / "images").glob("*.jpg"):
            old.unlink()
        write_csv(self.folder / _TABLE_FILE, table_of(result))
        examples = self._examples()
        page = environment().get_template("similar.html.jinja").render(
            about={**result.about, "version": __version__}, palette=palette, title=title, notes=notes,
            warnings=warnings, examples=examples, shown_examples=self._example_gallery(examples),
            galaxies=self._galaxies(), shown=self._gallery("galaxies", result.rows[:_MOST]),
            more=len(result.rows) > _MOST, left_out=self._left_out(), summary=summary_of(result),
            origin={**origin_of(result), "ranking": ""},
            style="\n".join(asset(name) for name in ("style.css", "similar.css")),
        )  # fmt: skip
        with tables.atomic(self.folder / _PAGE_FILE) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return self.folder / _PAGE_FILE

    def _galaxies(self) -> list[Shown]:
        result, rows = self.result, self.result.rows[:_MOST]
        classes = [None] * len(rows) if result.pool.search is None else result.pool.search_class(rows).tolist()
        return [
            Shown(galaxy, "", rank, _score_text(result.scores[rank - 1]), class_id, *self._place(int(row)))
            for rank, (galaxy, row, class_id) in enumerate(
                zip(result.ids[:_MOST], rows, classes, strict=True), start=1
            )
        ]  # fmt: skip

    def _examples(self) -> list[Shown]:
        """Return examples, counter-examples and own images, in the order of their pictures."""
        query, pool = self.result.query, self.result.pool
        kinds = [("example", query.rows), ("counter-example", query.against)]
        galaxies = [
            Shown(galaxy, kind, 0, "", None, *self._place(int(row)))
            for kind, rows in kinds
            for galaxy, row in zip(pool.names(rows[:_MOST]), rows[:_MOST], strict=True)
        ]
        return galaxies + [Shown(name, "example") for name in query.names]

    def _place(self, row: int) -> tuple[str, Sequence[tuple[str, str]]]:
        """Return the position of a galaxy as text, and links to pages about it."""
        if self.result.pool.positions is None:
            return "", ()
        ra, dec = (float(values[row]) for values in self.result.pool.positions)
        if not np.isfinite(ra + dec):
            return "", ()
        at = {"ra": quote(f"{ra:.6f}"), "dec": quote(f"{dec:.6f}")}
        pages = (("Legacy Survey", _VIEWER), ("SIMBAD", _SIMBAD), ("Aladin", _ALADIN))
        return f"{ra:.5f}, {dec:+.5f}", tuple((name, address.format(**at)) for name, address in pages)

    def _left_out(self) -> list[dict[str, Any]]:
        ids = self.result.pool.names(np.array([entry.row for entry in self.result.left_out], dtype=np.int64))
        return [
            {"id": galaxy, "why": self._why(entry), "score": _score_text(entry.score)}
            for galaxy, entry in zip(ids, self.result.left_out, strict=True)
        ]

    def _why(self, entry: LeftOut) -> str:
        if entry.reason == NEAR:
            return f"within {distance_text(self.result.apart)} of {entry.of}"
        what = "image" if self.result.compared == "images" else "embedding"
        return f"near-identical {what} of {entry.of}"

    def _gallery(self, name: str, rows: np.ndarray) -> Gallery | None:
        pool = self.result.pool
        if pool.galaxies is None or not len(rows):
            return None
        cutouts = shown_cutouts(pool.galaxies.images, pool.catalogue_rows[rows].tolist(), named=set())
        return self._mosaic(name, pool.names(rows), cutouts)

    def _example_gallery(self, examples: Sequence[Shown]) -> Gallery | None:
        query, pool = self.result.query, self.result.pool
        rows = np.concatenate([query.rows[:_MOST], query.against[:_MOST]])
        if not examples or (pool.galaxies is None and not self.own_images):
            return None
        black = np.zeros((8, 8, 3), dtype=np.uint8)
        cutouts = [black] * len(rows)
        if pool.galaxies is not None:
            cutouts = shown_cutouts(pool.galaxies.images, pool.catalogue_rows[rows].tolist(), named=set())
        own = self.own_images or [black] * len(query.names)
        return self._mosaic("examples", [example.id for example in examples], [*cutouts, *own])

    def _mosaic(self, name: str, ids: Sequence[str], cutouts: Sequence[np.ndarray]) -> Gallery:
        image = f"images/{name}.jpg"
        gallery.save(gallery.mosaic(cutouts), self.folder / image)
        thumbnails = tuple(
            Thumbnail(galaxy, index, "", *gallery.place(index, len(ids))) for index, galaxy in enumerate(ids)
        )
        return Gallery(name, name, "", thumbnails, image, *gallery.shape(len(ids)))


def folder_name(title: str, digest: str) -> str:
    """Return the name of the folder of a page: readable, and its own for each query.

    >>> folder_name("185.7 15.8 & more", "3f2a")
    '185.7-15.8-more-3f2a'
    """
    plain = re.sub(r"[^A-Za-z0-9.+_]+", "-", title).strip("-.")[:40]
    return f"{plain}-{digest}" if plain else digest


def _score_text(score: float) -> str:
    return f"{score:.4f}"


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
