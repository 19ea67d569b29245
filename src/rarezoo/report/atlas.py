"""The atlas's data: scripts in assets/ that the page loads when it needs them, since a page from disk may not fetch.

    map.js            positions and classes, read by every page
    ids.js ra.js dec.js slots.js sky.js tree.js
    column-000.js     one value per galaxy: a predicted answer, a catalogue column
    card-003.js       what is known of a class
    images/sheet-0000.jpg   thumbnails, neighbours on the map side by side

Numbers are base64 of little-endian arrays, in the order of the sample's rows. n: galaxies.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int32, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.report import gallery, palette
from rarezoo.report.gallery import Cutouts, Gallery
from rarezoo.report.hierarchy import branches
from rarezoo.report.sample import Sample
from rarezoo.report.shown import ShownClass, file_name
from rarezoo.searches.decisions import search_key
from rarezoo.searches.systematics import ColumnTest, answer_tests, column_kind

_UNASSIGNED = np.uint16(65535)
# Thumbnails in a row of a sheet, and their side, px.
_SHEET, _PIXELS = 16, 64
# Categories with a colour of their own; the others share one. 255: unknown.
_NAMED, _UNKNOWN = len(palette.LIGHT), 255
# Cells of 5° in which the sample's places are counted, and dots of a class's.
_SKY_WIDE, _SKY_HIGH, _SKY_DOTS = 72, 36, 2000
# A colour scale spans what all but this share of the galaxies has, at either end.
_TAIL = 0.01

# What the card of a class takes over as it is.
_TOLD = (
    "id", "size", "share", "persistence", "significance", "p_value", "false_discovery", "isolation", "stability",
    "beyond", "beyond_reason", "cause", "cause_reason", "warnings",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """Values that the map can be coloured by.

    Attributes:
        key: of the menu's entry.
        label: for people.
        group: predicted answers, catalogue or search.
        kind: number or category.
        file: script that holds it, without .js.
        low, high: ends of the colour scale.
        names: categories, in the order of their codes.
    """

    key: str
    label: str
    group: str
    kind: str
    file: str
    low: float = 0.0
    high: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Atlas:
    """The data of one search's atlas.

    Attributes:
        assets: folder of the scripts.
        sample: the galaxies searched.
        shown: classes, in the order in which they are offered.
        tree: TREE table.
        measure: that orders the classes.
        catalogue: CATALOGUE rows of the sample, in its order; None if no survey is at hand.
        cutouts: ids → uint8 (H, W, 3) each; None if no images are at hand.
        thumbnails: most galaxies that are shown as images on the map.
        tests: of each class against the catalogue.
        seed: of the galaxies drawn.
    """

    assets: Path
    sample: Sample
    shown: Sequence[ShownClass]
    tree: pa.Table
    measure: str
    title: str
    catalogue: pa.Table | None
    cutouts: Cutouts | None
    thumbnails: int
    tests: Mapping[int, Sequence[ColumnTest]]
    seed: int

    def write(self) -> None:
        """Every script and sheet; map.js last, which tells the page what there is."""
        columns = [self._written(column, values) for column, values in self._columns()]
        self._script("ids", [str(one) for one in self.sample.ids])
        self._script("tree", branches(self.tree, nodes={one.node: one.id for one in self.shown}))
        placed = self._write_sky()
        sheets = self._write_sheets()
        self._write_cards()
        content = {
            "points": len(self.sample), "title": self.title, "measure": self.measure, "ramp": palette.RAMP,
            "search": search_key(self.sample.ids, self.sample.labels), "sky": placed,
            "thumbnails": {"side": _SHEET, "pixels": _PIXELS} if sheets else None,
            "columns": [asdict(column) for column in columns], "classes": [self._on_map(one) for one in self.shown],
            "positions": _packed(self.sample.positions.astype("<f4")), "labels": _packed(self._labels),
        }  # fmt: skip
        (self.assets / "map.js").write_text(f"window.rarezooMap = {json.dumps(content)};\n")

    @property
    def _labels(self) -> np.ndarray:
        return np.where(self.sample.labels == tables.NO_CLASS, _UNASSIGNED, self.sample.labels).astype("<u2")

    def _script(self, name: str, content: object) -> None:
        told = json.dumps(tables.plain(content), separators=(",", ":"))
        (self.assets / f"{name}.js").write_text(f"rarezooData[{json.dumps(name)}]={told};\n", encoding="utf-8")

    def _written(self, column: Column, values: np.ndarray) -> Column:
        """The column with its scale, after its file was written."""
        self._script(column.file, _packed(values))
        if column.kind == "category":
            return column
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, [_TAIL, 1 - _TAIL]) if len(known) else (0, 1)
        if low == high and len(known):
            low, high = known.min(), known.max()
        return replace(column, low=float(low), high=float(high))

    def _columns(self) -> Iterator[tuple[Column, np.ndarray]]:
        sample = self.sample
        numbers = [
            *((answer, "predicted answers", sample.fractions[:, k]) for k, answer in enumerate(sample.answers)),
            ("membership", "search", sample.probabilities),
            ("outlier score", "search", sample.outlier_scores),
        ]
        found = [Column(f"{group}: {name}", name, group, "number", "") for name, group, _ in numbers]
        values = [given.astype("<f4") for _, _, given in numbers]
        for name, column in self._catalogue_columns():
            kind, names, given = _coded(column)
            found.append(Column(f"catalogue: {name}", name, "catalogue", kind, "", names=names))
            values.append(given)
        for place, (told, given) in enumerate(zip(found, values, strict=True)):
            yield replace(told, file=f"column-{place:03d}"), given

    def _catalogue_columns(self) -> list[tuple[str, pa.ChunkedArray]]:
        if self.catalogue is None:
            return []
        found = [(name, self.catalogue[name]) for name in self.catalogue.column_names]
        return [(name, one) for name, one in found if name not in (tables.ID, tables.IMAGE) and column_kind(one)]

    def _write_sky(self) -> bool:
        """Whether any galaxy's place is known."""
        ra, dec = self._places
        known = np.isfinite(ra)
        if not known.any():
            return False
        self._script("ra", _packed(ra.astype("<f8")))
        self._script("dec", _packed(dec.astype("<f8")))
        span = [[-90, 90], [0, 360]]
        counts, _, _ = np.histogram2d(dec[known], ra[known], bins=(_SKY_HIGH, _SKY_WIDE), range=span)
        self._script("sky", {"wide": _SKY_WIDE, "high": _SKY_HIGH, "counts": counts.astype(int).ravel().tolist()})
        return True

    @cached_property
    def _places(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Right ascension (0 to 360) and declination, deg; both NaN where either is unknown."""
        if self.catalogue is None:
            return np.full(len(self.sample), np.nan), np.full(len(self.sample), np.nan)
        ra, dec = (self.catalogue[one].cast(pa.float64()).to_numpy() for one in (tables.RA, tables.DEC))
        unknown = ~(np.isfinite(ra) & np.isfinite(dec))
        return np.where(unknown, np.nan, ra % 360), np.where(unknown, np.nan, dec)

    def _write_sheets(self) -> int:
        """Sheets of thumbnails written, and each galaxy's place in them (−1: none)."""
        if self.cutouts is None or not self.thumbnails:
            return 0
        rows = _neighbours_together(self.sample.positions, self._with_image())
        slots: Int32[np.ndarray, " n"] = np.full(len(self.sample), -1, dtype="<i4")
        slots[rows] = np.arange(len(rows))
        sheets = [rows[first : first + _SHEET**2] for first in range(0, len(rows), _SHEET**2)]
        for number, those in enumerate(tqdm(sheets, desc="thumbnails", unit="sheet", mininterval=1.0)):
            sheet = gallery.mosaic(self.cutouts(list(self.sample.ids[those])), columns=_SHEET, side=_PIXELS, gap=0)
            whole = gallery.padded(sheet, side=_SHEET * _PIXELS)
            gallery.save(whole, self.assets.parent / "images" / f"sheet-{number:04d}.jpg")
        self._script("slots", _packed(slots))
        return len(sheets)

    def _with_image(self) -> Int64[np.ndarray, " shown"]:
        """Members of classes first, then others, drawn blindly."""
        random = np.random.default_rng([self.seed, len(self.sample)])
        order = np.argsort(self.sample.ids.astype(str), kind="stable")
        order = order[random.permutation(len(order))]
        return order[np.argsort(self.sample.labels[order] == tables.NO_CLASS, kind="stable")][: self.thumbnails]

    def _write_cards(self) -> None:
        ids = [one.id for one in self.shown]
        answers = answer_tests(self.sample.fractions, labels=self.sample.labels, ids=ids, answers=self.sample.answers)
        for one in self.shown:
            self._script(f"card-{one.id:03d}", self._card(one, answers[one.id]))

    def _card(self, one: ShownClass, answers: Sequence[ColumnTest]) -> dict[str, Any]:
        ra, dec = self._places
        rows = self.sample.members(one.id)
        rows = rows[np.isfinite(ra[rows])]
        dots = rows[:: -(-len(rows) // _SKY_DOTS)] if len(rows) else rows
        means = {
            f"{asked.name}_{one.name}": (one.inside, one.sample) for asked in one.questions for one in asked.answers
        }
        told = {name: getattr(one, name) for name in _TOLD}
        return {
            **told, "group": None if one.group is None else asdict(one.group),
            "populations": [asdict(share) for share in one.populations[:3]],
            "galleries": [_gallery(found) for found in one.galleries],
            "answers": [
                {"name": test.column, "inside": means[test.column][0], "sample": means[test.column][1],
                 "effect": test.effect, "q": test.q}
                for test in sorted(answers, key=lambda test: -abs(test.effect)) if test.column in means
            ],
            "tests": [
                {"column": test.column, "words": test.words, "effect": test.effect, "q": test.q, "raised": test.raised}
                for test in sorted(self.tests.get(one.id, ()), key=lambda test: -abs(test.effect))
            ],
            "sky": {"ra": ra[dots].round(4), "dec": dec[dots].round(4)},
        }  # fmt: skip

    def _on_map(self, one: ShownClass) -> dict[str, Any]:
        """What the map knows of a class; x and y are its median."""
        x, y = np.median(self.sample.positions[self.sample.members(one.id)].astype(np.float64), axis=0)
        mark = palette.mark(one.id)
        return {
            "id": one.id, "page": f"{file_name(one.id)}.html", "size": one.size, "node": one.node,
            "group": None if one.group is None else one.group.node,
            "colour": mark.colour, "shape": mark.shape, "x": x, "y": y,
        }  # fmt: skip


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _gallery(found: Gallery) -> dict[str, Any]:
    galaxies = [asdict(one) for one in found.thumbnails]
    told = {name: getattr(found, name) for name in ("name", "title", "about", "image", "wide", "high")}
    return {**told, "galaxies": galaxies}


def _coded(column: pa.ChunkedArray) -> tuple[str, tuple[str, ...], np.ndarray]:
    """Kind, names and values of a catalogue column: float32 numbers, or uint8 codes of the commonest categories."""
    if column_kind(column) == "number":
        return "number", (), np.asarray(column.cast(pa.float64(), safe=False).to_numpy()).astype("<f4")
    texts = column.cast(pa.string())
    counts = sorted(pc.value_counts(texts.drop_null()).to_pylist(), key=lambda one: (-one["counts"], one["values"]))
    names = [one["values"] for one in counts[:_NAMED]]
    codes = pc.index_in(texts, value_set=pa.array(names, pa.string()))
    values = np.asarray(pc.fill_null(codes, _NAMED).to_numpy()).astype(np.uint8)
    values[np.asarray(texts.is_null().to_numpy())] = _UNKNOWN
    return "category", (*names, "other") if len(counts) > _NAMED else tuple(names), values


def _neighbours_together(positions: np.ndarray, rows: Int64[np.ndarray, " shown"]) -> Int64[np.ndarray, " shown"]:
    """Rows along a curve that fills the map (Morton 1966), so that what is seen together lies in few sheets."""
    places = positions[rows].astype(np.float64)
    cells = ((places - places.min(axis=0)) / max(np.ptp(places, axis=0).max(), 1e-9) * 0xFFFF).astype(np.uint64)
    spread = cells.copy()
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    return rows[np.argsort(spread[:, 0] | (spread[:, 1] << np.uint64(1)), kind="stable")]
