"""The data of the atlas: scripts in assets/, because a page that is opened from disk may not fetch other files.

The page loads each script when it needs it:

    map.js            positions and classes, read by every page
    ids.js ra.js dec.js slots.js sky.js tree.js
    column-000.js     one value per galaxy: a predicted answer, a catalogue column
    card-003.js       the card of a class
    similar.js        the galaxies that are most alike to each galaxy with a thumbnail, among those with a thumbnail
    images/sheet-0000.jpg   thumbnails, neighbours on the map side by side

Numbers are base64 of little-endian arrays, in the order of the sample's rows. In shapes, n is the number of galaxies.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Float64, Int32, Int64
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.report import gallery, palette
from rarezoo.report.contents import Sample, ShownClass, file_name
from rarezoo.report.gallery import Cutouts
from rarezoo.searches import grades
from rarezoo.searches.decisions import search_key
from rarezoo.searches.systematics import ColumnTest, answer_tests, column_kind

_UNASSIGNED = np.uint16(65535)
# Thumbnails in a row of a sheet, and their side, px.
_SHEET, _PIXELS = 16, 64
# Similar galaxies of each galaxy with a thumbnail.
_SIMILAR = 12
# Number of categories with a colour of their own; the others share one colour. 255: unknown.
_NAMED, _UNKNOWN = len(palette.LIGHT), 255
# Number of 5° cells in which the sample is counted on the sky, and largest number of dots of a class.
_SKY_WIDE, _SKY_HIGH, _SKY_DOTS = 72, 36, 2000
# Share of the galaxies beyond either end of a colour scale.
_TAIL = 0.01

# Attributes of a class that its card holds unchanged.
_ON_CARD = (
    "id", "grade", "size", "share", "persistence", "significance", "p_value", "false_discovery", "isolation",
    "stability", "beyond", "beyond_reason", "cause", "cause_reason", "warnings",
)  # fmt: skip


@dataclass(frozen=True)
class AtlasColumn:
    """Values that can colour the map.

    Attributes
    ----------
    key
        Key of the menu entry.
    label
        Text of the menu entry.
    group
        ``predicted answers``, ``catalogue`` or ``search``.
    kind
        ``number`` or ``category``.
    file
        Name of the script with the values, without .js.
    low, high
        Ends of the colour scale.
    names
        Names of the categories, in the order of their codes.
    """

    key: str
    label: str
    group: str
    kind: str
    file: str
    low: float = 0.0
    high: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """The data of the atlas of one search.

    Attributes
    ----------
    assets
        Folder of the scripts.
    sample
        The galaxies searched.
    shown
        Classes, in the order in which they are listed.
    tree
        TREE table.
    measure
        Column by which the classes are ordered, ``grade`` where they have grades.
    title
        Title of the search.
    catalogue
        CATALOGUE rows of the sample, in its order; None without a survey.
    cutouts
        Function from ids to uint8 (H, W, 3) each; None without images.
    vectors
        Function from ids to embeddings (m, D) of unit length, which say how alike galaxies are; None without them.
    thumbnails
        Largest number of galaxies that are shown as images on the map.
    tests
        Tests of each class against the catalogue, by class id.
    seed
        Seed of the random draw of thumbnails.
    """

    assets: Path
    sample: Sample
    shown: Sequence[ShownClass]
    tree: pa.Table
    measure: str
    title: str
    catalogue: pa.Table | None
    cutouts: Cutouts | None
    vectors: Callable[[np.ndarray], Float32[np.ndarray, "m D"]] | None
    thumbnails: int
    tests: Mapping[int, Sequence[ColumnTest]]
    seed: int

    def write(self) -> None:
        """Write every script and sheet; ``map.js`` last, because it tells the page what the others hold."""
        columns = [self._write_column(column, values) for column, values in self._columns()]
        self._write_script("ids", [str(galaxy) for galaxy in self.sample.ids])
        self._write_script("tree", branches(self.tree, classes={shown.node: shown.id for shown in self.shown}))
        has_sky = self._write_sky()
        pictured = self._write_sheets()
        has_similar = self._write_similar(pictured)
        for class_id, card in self.cards().items():
            self._write_script(f"card-{class_id:03d}", card)
        labels = np.where(self.sample.labels == tables.NO_CLASS, _UNASSIGNED, self.sample.labels).astype("<u2")
        content = {
            "points": len(self.sample), "title": self.title, "measure": self.measure, "ramp": palette.RAMP,
            "meanings": grades.MEANINGS,
            "search": search_key(self.sample.ids, self.sample.labels), "sky": has_sky,
            "thumbnails": {"side": _SHEET, "pixels": _PIXELS} if len(pictured) else None, "similar": has_similar,
            "columns": [asdict(column) for column in columns],
            "classes": [self._class_on_map(shown) for shown in self.shown],
            "positions": _packed(self.sample.positions.astype("<f4")), "labels": _packed(labels),
        }  # fmt: skip
        (self.assets / "map.js").write_text(f"window.rarezooMap = {json.dumps(content)};\n")

    def _write_script(self, name: str, content: object) -> None:
        text = json.dumps(tables.plain(content), separators=(",", ":"))
        (self.assets / f"{name}.js").write_text(f"rarezooData[{json.dumps(name)}]={text};\n", encoding="utf-8")

    def _write_column(self, column: AtlasColumn, values: np.ndarray) -> AtlasColumn:
        """Write the values of a column and return the column with the ends of its colour scale."""
        self._write_script(column.file, _packed(values))
        if column.kind == "category":
            return column
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, [_TAIL, 1 - _TAIL]) if len(known) else (0, 1)
        if low == high and len(known):
            low, high = known.min(), known.max()
        return replace(column, low=float(low), high=float(high))

    def _columns(self) -> Iterator[tuple[AtlasColumn, np.ndarray]]:
        """Yield every column with its values: predicted answers, membership, then the catalogue."""
        sample = self.sample
        numbers = [
            *((answer, "predicted answers", sample.fractions[:, k]) for k, answer in enumerate(sample.answers)),
            ("membership", "search", sample.probabilities),
            ("outlier score", "search", sample.outlier_scores),
        ]
        columns = [
            (AtlasColumn(f"{group}: {name}", name, group, "number", ""), values.astype("<f4"))
            for name, group, values in numbers
        ]
        for name in self.catalogue.column_names if self.catalogue is not None else ():
            values = self.catalogue[name]  # type: ignore[index]
            if name not in (tables.ID, tables.IMAGE) and column_kind(values):
                kind, names, coded = _coded(values)
                columns.append((AtlasColumn(f"catalogue: {name}", name, "catalogue", kind, "", names=names), coded))
        for place, (column, values) in enumerate(columns):
            yield replace(column, file=f"column-{place:03d}"), values

    def _write_sky(self) -> bool:
        """Write the positions on the sky and return whether any is known."""
        ra, dec = self._sky_positions
        known = np.isfinite(ra)
        if not known.any():
            return False
        self._write_script("ra", _packed(ra.astype("<f8")))
        self._write_script("dec", _packed(dec.astype("<f8")))
        self._write_script("sky", self.sky_cells())
        return True

    def sky_cells(self) -> dict[str, Any]:
        """Return the number of galaxies in each cell of the sky, row by row from the south, and how many cells."""
        ra, dec = self._sky_positions
        known, span = np.isfinite(ra), [[-90, 90], [0, 360]]
        counts, _, _ = np.histogram2d(dec[known], ra[known], bins=(_SKY_HIGH, _SKY_WIDE), range=span)
        return {"wide": _SKY_WIDE, "high": _SKY_HIGH, "counts": counts.astype(int).ravel().tolist()}

    @cached_property
    def _sky_positions(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Right ascension (0 to 360) and declination, degrees; both NaN where either is unknown."""
        if self.catalogue is None:
            return np.full(len(self.sample), np.nan), np.full(len(self.sample), np.nan)
        ra, dec = (self.catalogue[name].cast(pa.float64()).to_numpy() for name in (tables.RA, tables.DEC))
        unknown = ~(np.isfinite(ra) & np.isfinite(dec))
        return np.where(unknown, np.nan, ra % 360), np.where(unknown, np.nan, dec)

    def _write_sheets(self) -> Int64[np.ndarray, " shown"]:
        """Write sheets of thumbnails and each galaxy's place in them (-1: none); return the rows in that order.

        Members of classes come first, then other galaxies, drawn at random. Neighbours on the map share a sheet.
        """
        if self.cutouts is None or not self.thumbnails:
            return np.empty(0, dtype=np.int64)
        random = np.random.default_rng([self.seed, len(self.sample)])
        order = np.argsort(self.sample.ids.astype(str), kind="stable")
        order = order[random.permutation(len(order))]
        order = order[np.argsort(self.sample.labels[order] == tables.NO_CLASS, kind="stable")]
        rows = _neighbours_together(self.sample.positions, order[: self.thumbnails])
        slots: Int32[np.ndarray, " n"] = np.full(len(self.sample), -1, dtype="<i4")
        slots[rows] = np.arange(len(rows))
        sheets = [rows[first : first + _SHEET**2] for first in range(0, len(rows), _SHEET**2)]
        for number, inside in enumerate(tqdm(sheets, desc="thumbnails", unit="sheet", mininterval=1.0)):
            sheet = gallery.mosaic(self.cutouts(list(self.sample.ids[inside])), columns=_SHEET, side=_PIXELS, gap=0)
            whole = gallery.padded(sheet, side=_SHEET * _PIXELS)
            gallery.save(whole, self.assets.parent / "images" / f"sheet-{number:04d}.jpg")
        self._write_script("slots", _packed(slots))
        return rows

    def _write_similar(self, rows: Int64[np.ndarray, " shown"]) -> bool:
        """Write for each galaxy with a thumbnail those that are most alike, and return whether this is known."""
        if self.vectors is None or len(rows) < 2:
            return False
        vectors = self.vectors(self.sample.ids[rows])
        finite = np.isfinite(vectors).all(axis=1)
        if np.count_nonzero(finite) < 2:
            return False
        graph = NeighbourIndex(vectors[finite], seed=self.seed).graph(_SIMILAR)
        nearest: Int32[np.ndarray, "shown k"] = np.full((len(rows), graph.shape[1]), -1, dtype="<i4")
        nearest[finite] = rows[finite][graph]
        self._write_script("similar", {"each": graph.shape[1], "rows": _packed(nearest)})
        return True

    def cards(self) -> dict[int, dict[str, Any]]:
        """Return the card of each class: its numbers, galleries, answers, tests against the catalogue, and sky."""
        sample, ids = self.sample, [shown.id for shown in self.shown]
        answers = answer_tests(sample.fractions, labels=sample.labels, ids=ids, answers=sample.answers)
        return {shown.id: self._card(shown, answers[shown.id]) for shown in self.shown}

    def _card(self, shown: ShownClass, answers: Sequence[ColumnTest]) -> dict[str, Any]:
        ra, dec = self._sky_positions
        rows = self.sample.members(shown.id)
        rows = rows[np.isfinite(ra[rows])]
        dots = rows[:: -(-len(rows) // _SKY_DOTS)] if len(rows) else rows
        means = {
            f"{question.name}_{answer.name}": answer for question in shown.questions for answer in question.answers
        }
        galleries = [
            {
                **{name: getattr(part, name) for name in ("name", "title", "about", "image", "wide", "high")},
                "galaxies": [asdict(thumbnail) for thumbnail in part.thumbnails],
            }
            for part in shown.galleries
        ]
        return {
            **{name: getattr(shown, name) for name in _ON_CARD},
            "group": None if shown.group is None else asdict(shown.group),
            "populations": [asdict(share) for share in shown.populations[:3]],
            "galleries": galleries,
            "answers": [
                {"name": test.column, "inside": means[test.column].inside, "sample": means[test.column].sample,
                 "effect": test.effect, "q": test.q}
                for test in sorted(answers, key=lambda test: -abs(test.effect)) if test.column in means
            ],
            "tests": [
                {"column": test.column, "words": test.words, "effect": test.effect, "q": test.q, "raised": test.raised}
                for test in sorted(self.tests.get(shown.id, ()), key=lambda test: -abs(test.effect))
            ],
            "sky": {"ra": ra[dots].round(4), "dec": dec[dots].round(4)},
        }  # fmt: skip

    def _class_on_map(self, shown: ShownClass) -> dict[str, Any]:
        """Return what the map shows of a class; x and y are its median position."""
        x, y = np.median(self.sample.positions[self.sample.members(shown.id)].astype(np.float64), axis=0)
        mark = palette.mark(shown.id)
        return {
            "id": shown.id, "grade": shown.grade, "page": f"{file_name(shown.id)}.html",
            "size": shown.size, "node": shown.node,
            "group": None if shown.group is None else shown.group.node,
            "colour": mark.colour, "shape": mark.shape, "x": x, "y": y,
        }  # fmt: skip


def branches(tree: pa.Table, *, classes: Mapping[int | None, int]) -> dict[str, list[int] | list[float]]:
    """Return the tree without single galaxies, as columns: node, parent (-1: the root's), birth, death, size, class.

    Parameters
    ----------
    tree
        TREE table.
    classes
        Class id by node.
    """
    parents, children, density, sizes = (
        tree.column(name).to_numpy() for name in (tables.PARENT, tables.CHILD, tables.LAMBDA, tables.CHILD_SIZE)
    )
    last = int(max(parents.max(), children.max())) if len(parents) else -1
    deaths = np.zeros(last + 1)
    np.maximum.at(deaths, parents, density)
    inner = sizes > 1
    roots = np.setdiff1d(parents, children)
    births = [*(float(density[parents == root].min()) for root in roots), *density[inner].tolist()]
    nodes = [*roots.tolist(), *children[inner].tolist()]
    return {
        "node": nodes,
        "parent": [-1] * len(roots) + parents[inner].tolist(),
        "birth": births,
        "death": [max(float(deaths[node]), birth) for node, birth in zip(nodes, births, strict=True)],
        "size": [*(int(sizes[parents == root].sum()) for root in roots), *sizes[inner].tolist()],
        "class": [classes.get(node, tables.NO_CLASS) for node in nodes],
    }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _coded(column: pa.ChunkedArray) -> tuple[str, tuple[str, ...], np.ndarray]:
    """Return kind, names and values of a catalogue column.

    The values are float32 numbers, or uint8 codes of the most frequent categories.
    """
    if column_kind(column) == "number":
        return "number", (), np.asarray(column.cast(pa.float64(), safe=False).to_numpy()).astype("<f4")
    texts = column.cast(pa.string())
    counts = pc.value_counts(texts.drop_null()).to_pylist()
    counts.sort(key=lambda count: (-count["counts"], count["values"]))
    names = [count["values"] for count in counts[:_NAMED]]
    codes = pc.index_in(texts, value_set=pa.array(names, pa.string()))
    values = np.asarray(pc.fill_null(codes, _NAMED).to_numpy()).astype(np.uint8)
    values[np.asarray(texts.is_null().to_numpy())] = _UNKNOWN
    return "category", (*names, "other") if len(counts) > _NAMED else tuple(names), values


def _neighbours_together(positions: np.ndarray, rows: Int64[np.ndarray, " shown"]) -> Int64[np.ndarray, " shown"]:
    """Sort rows along a curve that fills the map (Morton 1966), so that galaxies seen together lie in few sheets."""
    places = positions[rows].astype(np.float64)
    cells = ((places - places.min(axis=0)) / max(np.ptp(places, axis=0).max(), 1e-9) * 0xFFFF).astype(np.uint64)
    spread = cells.copy()
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    return rows[np.argsort(spread[:, 0] | (spread[:, 1] << np.uint64(1)), kind="stable")]
