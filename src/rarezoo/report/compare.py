"""The comparison of searches: a folder of static pages that opens from disk, without a network.

    index.html      the searches, how well each pair agrees, and what became of every class
    A-B.html        one page per pair: matrix, flows, both maps, classes side by side
    assets/         the points of each map, as scripts
    images/         mosaics

The same searches give the same bytes.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from tqdm.auto import tqdm

from rarezoo import __version__, tables
from rarezoo.report import flows, gallery, palette
from rarezoo.report.gallery import Cutouts, Gallery, Thumbnail
from rarezoo.report.pages import environment
from rarezoo.report.prototypes import ShownPrototype, shown_prototype
from rarezoo.searches.compare import ComparedSearch, SearchPair
from rarezoo.searches.grades import MEANINGS
from rarezoo.searches.matching import ClassOverlap

# Galaxies in each mosaic of two classes side by side.
_SHOWN = 8
# Classes of the other search that are named where a class has no counterpart.
_NAMED = 3
# Side of a cell of the matrix, px: the largest and the smallest, and the longest side of the whole matrix.
_LARGEST_CELL, _SMALLEST_CELL, _MATRIX = 26, 9, 760


def write_comparison(
    folder: Path,
    ids: Shaped[np.ndarray, " galaxies"],
    searches: tuple[ComparedSearch, ...],
    pairs: tuple[SearchPair, ...],
    *,
    cutouts: Cutouts | None,
    seed: int = 0,
) -> Path:
    """Write the pages of a comparison.

    Parameters
    ----------
    folder
        Folder of the pages. Pages that are there already are replaced.
    ids
        (galaxies,) ids of the galaxies that all searches have.
    searches
        Two or more searches.
    pairs
        Every pair of them.
    cutouts
        Function from ids to uint8 (H, W, 3) each; None without images.
    seed
        Seed of the random draws.

    Returns
    -------
    Path
        The index page.

    Raises
    ------
    DataError
        A cutout cannot be read.
    OutputError
        The folder cannot be written or is full.
    """
    try:
        return ComparisonPages(folder, ids, searches, pairs, cutouts, seed).write()
    except OSError as problem:
        raise tables.unwritable(folder, problem) from problem


@dataclass(frozen=True)
class SideBySide:
    """Two classes side by side, or one that has no counterpart (-1 for the other).

    Attributes
    ----------
    first, second
        Class ids.
    row
        Row of MATCHES.
    galleries
        Galaxies in both, in the first only, in the second only. For a class without counterpart: its own.
    elsewhere
        For a class without counterpart: where the other search has its galaxies, as class id (-1: no class) and number
        of galaxies, the largest number first.
    prototypes
        Prototypes of both classes, whether they passed or not; None where none was made.
    """

    first: int
    second: int
    row: Mapping[str, Any]
    galleries: tuple[Gallery, ...]
    elsewhere: tuple[tuple[int, int], ...] = ()
    prototypes: tuple[ShownPrototype | None, ShownPrototype | None] = (None, None)


@dataclass(frozen=True)
class MatrixCell:
    """Two classes that share galaxies: the place of the cell (px), the number of shared galaxies, the Jaccard index."""

    first: int
    second: int
    across: float
    down: float
    shared: int
    jaccard: float


@dataclass(frozen=True)
class ClassMatrix:
    """Shared galaxies of every class of one search with every class of the other, in the order of the flows."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    side: float
    cells: tuple[MatrixCell, ...]

    @property
    def most(self) -> float:
        """The largest Jaccard index, 0-1."""
        return max((cell.jaccard for cell in self.cells), default=0.0)


@dataclass(frozen=True)
class ComparisonPages:
    """A comparison that is being written as pages; see :func:`write_comparison`."""

    folder: Path
    ids: Shaped[np.ndarray, " galaxies"]
    searches: tuple[ComparedSearch, ...]
    pairs: tuple[SearchPair, ...]
    cutouts: Cutouts | None
    seed: int = 0

    def write(self) -> Path:
        """Write every file, the index page last, and return the path of the index page."""
        self._write_points()
        shared: dict[str, Any] = {
            "about": {"version": __version__}, "palette": palette, "runs": self.searches, "pairs": self.pairs,
            "galaxies": len(self.ids), "images": self.cutouts is not None, "folder": self.folder,
            "meanings": MEANINGS, "style": "\n".join(asset(name) for name in ("style.css", "compare.css")),
        }  # fmt: skip
        pages = environment()
        for pair in self.pairs:
            label = f"classes {pair.first.letter}, {pair.second.letter}"
            rows = tqdm(pair.matches, desc=label, unit="row", mininterval=1.0)
            page = pages.get_template("compare_pair.html.jinja").render(
                **shared, pair=pair, compared=[self._side_by_side(pair, row) for row in rows],
                flows=flows.flows(pair.overlap), drawing=flows, matrix=matrix(pair.overlap),
                script=asset("compare.js"),
            )  # fmt: skip
            self._save(pair.page, page)
        return self._save("index.html", pages.get_template("compare.html.jinja").render(**shared))

    def _save(self, name: str, text: str) -> Path:
        with tables.atomic(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return self.folder / name

    def _write_points(self) -> None:
        """Write points and ids as scripts, because a page that is opened from disk may not fetch other files."""
        scripts = {"ids": json.dumps([str(galaxy) for galaxy in self.ids])}
        for search in self.searches:
            scripts[f"run-{search.letter}"] = json.dumps(
                {
                    "letter": search.letter,
                    "colours": {str(class_id): palette.mark(class_id).colour for class_id in search.classes.tolist()},
                    "positions": base64.b64encode(search.positions.astype("<f4").tobytes()).decode(),
                    "labels": base64.b64encode(search.labels.astype("<i4").tobytes()).decode(),
                }
            )
        for name, content in scripts.items():
            self._save(f"assets/{name}.js", f"(window.rarezooCompare ??= {{}})[{json.dumps(name)}] = {content};\n")

    def _side_by_side(self, pair: SearchPair, row: Mapping[str, Any]) -> SideBySide:
        a, b = row[tables.CLASS_A], row[tables.CLASS_B]
        in_a, in_b = pair.first.labels == a, pair.second.labels == b
        names = f"{pair.first.letter} {a}", f"{pair.second.letter} {b}"
        elsewhere: list[tuple[int, int]] = []
        if b == tables.NO_CLASS:
            parts = [("all", names[0], in_a)]
            elsewhere = Counter(pair.second.labels[in_a].tolist()).most_common(_NAMED)
        elif a == tables.NO_CLASS:
            parts = [("all", names[1], in_b)]
            elsewhere = Counter(pair.first.labels[in_b].tolist()).most_common(_NAMED)
        else:
            parts = [
                ("both", "in both", in_a & in_b), ("first", f"only in {names[0]}", in_a & ~in_b),
                ("second", f"only in {names[1]}", in_b & ~in_a),
            ]  # fmt: skip
        files = f"{pair.first.letter}{a}-{pair.second.letter}{b}".replace(str(tables.NO_CLASS), "")
        galleries = (self._gallery(f"{files}-{kind}", title, inside, seeds=(a, b)) for kind, title, inside in parts)
        prototypes = tuple(
            None if search.folder is None or class_id == tables.NO_CLASS else shown_prototype(search.folder, class_id)
            for search, class_id in ((pair.first, a), (pair.second, b))
        )
        shown = tuple(part for part in galleries if part.thumbnails)
        return SideBySide(a, b, row, shown, tuple(elsewhere), (prototypes[0], prototypes[1]))

    def _gallery(self, name: str, title: str, inside: np.ndarray, *, seeds: tuple[int, int]) -> Gallery:
        rows = np.flatnonzero(inside)
        by_id = rows[np.argsort(self.ids[rows].astype(str), kind="stable")]
        random = np.random.default_rng([self.seed, *(class_id + 1 for class_id in seeds)])
        drawn = random.choice(by_id, min(_SHOWN, len(by_id)), replace=False)
        ids = [str(galaxy) for galaxy in self.ids[drawn]]
        image = None
        if self.cutouts is not None and ids:
            image = f"images/{name}.jpg"
            gallery.save(gallery.mosaic(self.cutouts(ids)), self.folder / image)
        thumbnails = tuple(
            Thumbnail(galaxy, int(row), "", *gallery.place(index, len(ids)))
            for index, (galaxy, row) in enumerate(zip(ids, drawn, strict=True))
        )
        about = f"{len(rows):,}" + (f", {len(ids)} drawn at random" if len(rows) > len(ids) else "")
        return Gallery(name, title, about, thumbnails, image, *gallery.shape(len(ids)))


def matrix(overlap: ClassOverlap) -> ClassMatrix:
    """Lay out the matrix of two searches: the cells in which galaxies are shared."""
    rows, columns = flows.orders(overlap)
    longest = max(len(rows), len(columns), 1)
    side = float(np.clip(_MATRIX / longest, _SMALLEST_CELL, _LARGEST_CELL))
    down, across = (np.argsort(order) for order in (rows, columns))
    cells = tuple(
        MatrixCell(
            int(overlap.old[i]), int(overlap.new[j]), float(across[j] * side), float(down[i] * side),
            int(overlap.counts[i, j]), float(overlap.jaccards[i, j]),
        )
        for i, j in np.argwhere(overlap.counts > 0)
    )  # fmt: skip
    return ClassMatrix(tuple(overlap.old[rows].tolist()), tuple(overlap.new[columns].tolist()), side, cells)


def asset(name: str) -> str:
    """Return the text of an asset of the package that is put into a page."""
    return (resources.files("rarezoo.report") / "assets" / name).read_text(encoding="utf-8")
