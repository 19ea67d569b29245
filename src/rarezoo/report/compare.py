"""The comparison of searches: a folder of static pages that opens from disk, without a network.

    index.html      the searches, how far each pair agrees, and what became of every class
    A-B.html        one page per pair: matrix, flows, both maps, classes side by side
    assets/         the points of each map, as scripts
    images/         mosaics

The same searches give the same bytes.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rarezoo import __version__, tables
from rarezoo.report import flows, gallery, palette
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.pages import environment
from rarezoo.searches.compare import ComparedSearch, SearchPair
from rarezoo.searches.matching import ClassOverlap

Cutouts = Callable[[Sequence[str]], list[np.ndarray]]

# Galaxies in one sheet: a row.
_SHOWN = 8
# Classes of the other run in which a class alone has most of its galaxies.
_PLACES = 3
# Sides of a matrix's cell, px, between which it fits the page.
_SMALL_CELL, _LARGE_CELL, _MATRIX = 9, 26, 760


@dataclass(frozen=True)
class Exhibit:
    """Two classes side by side, or one that has no counterpart (−1 for the other).

    Attributes:
        first, second: class ids.
        row: of MATCHES.
        sheets: galaxies in both, in the first only, in the second only; of a class alone, its own.
        elsewhere: of a class alone, where the other run has its galaxies: class (−1 for none) and how many, the
            commonest first.
    """

    first: int
    second: int
    row: Mapping[str, Any]
    sheets: tuple[Gallery, ...]
    elsewhere: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix: two classes that share galaxies, where it stands and what it says."""

    first: int
    second: int
    across: float
    down: float
    shared: int
    jaccard: float


@dataclass(frozen=True)
class Matrix:
    """Shared galaxies of every class of one run with every class of the other, in the order of the flows."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    side: float
    cells: tuple[Cell, ...]

    @property
    def most(self) -> float:
        """The largest Jaccard index, 0–1."""
        return max((cell.jaccard for cell in self.cells), default=0.0)


@dataclass(frozen=True)
class Contrast:
    """Searches about to be written as pages.

    Attributes:
        folder: where; pages that are there already are replaced.
        ids: (n,) the galaxies that all runs have.
        runs: two or more.
        pairs: every two of them.
        cutouts: ids → uint8 (H, W, 3) each; None if no images are at hand.
        seed: of the galaxies drawn at random.
    """

    folder: Path
    ids: np.ndarray
    runs: tuple[ComparedSearch, ...]
    pairs: tuple[SearchPair, ...]
    cutouts: Cutouts | None
    seed: int = 0

    def write(self) -> Path:
        """Write every file, the index page last; the path of the index page.

        Raises:
            DataError: a cutout cannot be read.
            OutputError: the folder cannot be written or is full.
        """
        try:
            return self._written()
        except OSError as problem:
            raise tables.unwritable(self.folder, problem) from problem

    def _written(self) -> Path:
        self._write_points()
        shared: dict[str, Any] = {
            "about": {"version": __version__}, "palette": palette, "runs": self.runs, "pairs": self.pairs,
            "galaxies": len(self.ids), "images": self.cutouts is not None,
            "style": "\n".join(asset(name) for name in ("style.css", "contrast.css")),
        }  # fmt: skip
        pages = environment()
        for pair in self.pairs:
            drawn = flows.flows(pair.overlap)
            page = pages.get_template("contrast_pair.html.jinja").render(
                **shared, pair=pair, exhibits=self._exhibits(pair), flows=drawn, drawing=flows,
                matrix=matrix(pair.overlap), script=asset("contrast.js"),
            )  # fmt: skip
            self._save(pair.page, page)
        return self._save("index.html", pages.get_template("contrast.html.jinja").render(**shared))

    def _save(self, name: str, page: str) -> Path:
        with tables.atomic(self.folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return self.folder / name

    def _write_points(self) -> None:
        """assets/: points and ids as scripts, since a page from disk may not fetch."""
        self._save_script("ids", json.dumps([str(one) for one in self.ids]))
        for run in self.runs:
            marks = {str(one): palette.mark(one).colour for one in run.classes.tolist()}
            content = {
                "letter": run.letter,
                "colours": marks,
                "positions": base64.b64encode(run.positions.astype("<f4").tobytes()).decode(),
                "labels": base64.b64encode(run.labels.astype("<i4").tobytes()).decode(),
            }
            self._save_script(f"run-{run.letter}", json.dumps(content))

    def _save_script(self, name: str, content: str) -> None:
        script = f"(window.rarezooContrast ??= {{}})[{json.dumps(name)}] = {content};\n"
        self._save(f"assets/{name}.js", script)

    def _exhibits(self, pair: SearchPair) -> list[Exhibit]:
        about = f"classes {pair.first.letter}, {pair.second.letter}"
        return [self._exhibit(pair, row) for row in tqdm(pair.matches, desc=about, unit="row", mininterval=1.0)]

    def _exhibit(self, pair: SearchPair, row: Mapping[str, Any]) -> Exhibit:
        a, b = row[tables.CLASS_A], row[tables.CLASS_B]
        ours, theirs = pair.first.labels == a, pair.second.labels == b
        names = f"{pair.first.letter} {a}", f"{pair.second.letter} {b}"
        parts = [
            ("both", "in both", ours & theirs), ("first", f"only in {names[0]}", ours & ~theirs),
            ("second", f"only in {names[1]}", theirs & ~ours),
        ]  # fmt: skip
        elsewhere: tuple[tuple[int, int], ...] = ()
        if b == tables.NO_CLASS:
            parts, elsewhere = [("all", names[0], ours)], _commonest(pair.second.labels[ours])
        elif a == tables.NO_CLASS:
            parts, elsewhere = [("all", names[1], theirs)], _commonest(pair.first.labels[theirs])
        place = f"{pair.first.letter}{a}-{pair.second.letter}{b}".replace(str(tables.NO_CLASS), "")
        sheets = tuple(self._sheet(f"{place}-{kind}", title, rows, seeds=(a, b)) for kind, title, rows in parts)
        return Exhibit(a, b, row, tuple(one for one in sheets if one.thumbnails), elsewhere)

    def _sheet(self, name: str, title: str, inside: np.ndarray, *, seeds: tuple[int, int]) -> Gallery:
        rows = np.flatnonzero(inside)
        by_id = rows[np.argsort(self.ids[rows].astype(str), kind="stable")]
        random = np.random.default_rng([self.seed, *(one + 1 for one in seeds)])
        drawn = random.choice(by_id, min(_SHOWN, len(by_id)), replace=False)
        ids = [str(one) for one in self.ids[drawn]]
        image = None
        if self.cutouts is not None and ids:
            image = f"images/{name}.jpg"
            gallery.save(gallery.mosaic(self.cutouts(ids)), self.folder / image)
        thumbnails = tuple(
            Thumbnail(one, int(row), "", *gallery.place(index, len(ids)))
            for index, (one, row) in enumerate(zip(ids, drawn, strict=True))
        )
        about = f"{len(rows):,}" + (f", {len(ids)} drawn blindly" if len(rows) > len(ids) else "")
        return Gallery(name, title, about, thumbnails, image, *gallery.shape(len(ids)))


def _commonest(labels: np.ndarray) -> tuple[tuple[int, int], ...]:
    return tuple(Counter(labels.tolist()).most_common(_PLACES))


def matrix(comparison: ClassOverlap) -> Matrix:
    """The cells of two searches' matrix in which galaxies are shared."""
    rows, columns = flows.orders(comparison)
    longest = max(len(rows), len(columns), 1)
    side = float(np.clip(_MATRIX / longest, _SMALL_CELL, _LARGE_CELL))
    down, across = (np.argsort(order) for order in (rows, columns))
    cells = tuple(
        Cell(
            int(comparison.old[i]), int(comparison.new[j]), float(across[j] * side), float(down[i] * side),
            int(comparison.counts[i, j]), float(comparison.jaccards[i, j]),
        )
        for i, j in np.argwhere(comparison.counts > 0)
    )  # fmt: skip
    return Matrix(tuple(comparison.old[rows].tolist()), tuple(comparison.new[columns].tolist()), side, cells)


def asset(name: str) -> str:
    """The text of a file of the package that is put into a page."""
    return (resources.files("rarezoo.report") / "assets" / name).read_text(encoding="utf-8")
