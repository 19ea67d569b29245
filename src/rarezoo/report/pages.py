"""The report: a folder of static pages that opens from disk, without a network.

    index.html            the map, the classes, how the search was made
    class-003.html        one page per class
    assets/               style, the map's code and its points
    images/               mosaics
    tables/               members of each class, as CSV and FITS

The same search gives the same bytes.
"""

import base64
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa

from rarezoo import tables
from rarezoo.explore import recovery
from rarezoo.report import downloads, gallery, palette
from rarezoo.report.answers import questions
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.hierarchy import relatives
from rarezoo.report.sample import Sample

Cutouts = Callable[[Sequence[str]], list[np.ndarray]]

# Galaxies per gallery: three rows on a laptop.
_SHOWN = 24
# What the pages say of a search, if its caller knows it.
_ABOUT = (
    "title", "survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "version", "galaxies", "cuts", "settings",
    "seconds",
)  # fmt: skip
_UNASSIGNED = np.uint16(65535)
_ASSETS = ("atlas.js", "style.css")


def write_report(
    folder: Path | str,
    *,
    members: pa.Table,
    classes: pa.Table,
    tree: pa.Table,
    map_2d: pa.Table,
    predictions: pa.Table,
    cutouts: Cutouts | None,
    about: Mapping[str, Any],
    truth: pa.Table | None = None,
    seed: int = 0,
) -> Path:
    """Write the report; the path of its index page.

    Args:
        folder: where; a report that is there already is replaced.
        members: MEMBERS table of n galaxies.
        classes: CLASSES table.
        tree: TREE table.
        map_2d: MAP table of the same galaxies, two-dimensional.
        predictions: id and predicted fractions of the same galaxies.
        cutouts: ids → uint8 (H, W, 3) each; None if no images are at hand.
        about: title, survey, checkpoint, settings, cuts … of the search; what it lacks is not shown.
        truth: TRUTH table, of mock surveys only.
        seed: of the galaxies drawn at random.

    Raises:
        StoreError: the tables are not of the same galaxies.
        DataError: a cutout cannot be read.
        OutputError: the folder cannot be written or is full.
    """
    sample = Sample.joined(members, map_2d=map_2d, predictions=predictions)
    report = Report(Path(folder), sample, classes, tree, cutouts, {**dict.fromkeys(_ABOUT), **about}, truth, seed)
    try:
        return report.write()
    except OSError as problem:
        raise tables.unwritable(report.folder, problem) from problem


@dataclass(frozen=True)
class Report:
    """One search about to be written as pages; see :func:`write_report`."""

    folder: Path
    sample: Sample
    classes: pa.Table
    tree: pa.Table
    cutouts: Cutouts | None
    about: Mapping[str, Any]
    truth: pa.Table | None
    seed: int

    def write(self) -> Path:
        """Write every file, the index page last; the path of the index page."""
        self._clear()
        pages = _environment()
        ranked = _ranked(self.classes.to_pylist())
        galleries = [self._class_galleries(one) for one in ranked]
        shared = {"about": self.about, "images": self.cutouts is not None, "palette": palette, "file": _file}
        self._write_map(ranked)
        self._write_tables(ranked)
        kin = relatives(self.classes, tree=self.tree)
        for place, (one, shown) in enumerate(zip(ranked, galleries, strict=True)):
            page = pages.get_template("class.html.jinja").render(
                **shared, one=one, galleries=shown, relatives=kin[one[tables.CLASS_ID]], place=place + 1,
                ranked=[other[tables.CLASS_ID] for other in ranked], measure=_measure(ranked),
                questions=questions(self.sample.answers, self.sample.fractions, rows=self._rows(one)),
                planted=self._planted_in(one), searched=len(self.sample),
            )  # fmt: skip
            (self.folder / f"{_file(one[tables.CLASS_ID])}.html").write_text(page, encoding="utf-8")
        page = pages.get_template("index.html.jinja").render(
            **shared, cards=list(zip(ranked, [shown[0] for shown in galleries], strict=True)),
            measure=_measure(ranked), everything=self._everything(), searched=len(self.sample),
            unassigned=float(np.mean(self.sample.labels == tables.NO_CLASS)), settings=_flat(self.about),
            planted=self._planted(), found=recovery.FOUND, planted_in={
                one[tables.CLASS_ID]: self._planted_in(one)[:1] for one in ranked
            },
        )  # fmt: skip
        index = self.folder / "index.html"
        with tables.atomic(index) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return index

    def _clear(self) -> None:
        """Remove what an earlier report left, so that no page of a class that is gone stays."""
        (self.folder / "index.html").unlink(missing_ok=True)
        for inner in (self.folder, self.folder / "images", self.folder / "tables"):
            inner.mkdir(parents=True, exist_ok=True)
            for old in inner.glob("class-[0-9]*.*"):
                old.unlink()

    def _rows(self, one: Mapping[str, Any]) -> np.ndarray:
        return self.sample.members(one[tables.CLASS_ID])

    def _class_galleries(self, one: Mapping[str, Any]) -> list[Gallery]:
        class_id, size = one[tables.CLASS_ID], one[tables.SIZE]
        sample, draw = self.sample, min(_SHOWN, size)
        sections = [
            ("exemplars", "Exemplars", "The members nearest to the class's medoid, the medoid first: what the class is "
             "at its clearest. They are the most alike, so judge the class by the random draw instead.",
             sample.rows(one[tables.EXEMPLARS][:_SHOWN])),
            ("random", "Random draw", f"{draw} of {size:,} members, drawn blindly: the honest spread of the class.",
             sample.drawn(class_id, most=_SHOWN, seed=self.seed)),
            ("outskirts", "Outskirts", "The members with the lowest membership probability, the lowest first: where "
             "the class ends, and where it would begin to mix with its surroundings.",
             sample.outskirts(class_id, most=_SHOWN)),
        ]  # fmt: skip
        return [self._gallery(_file(class_id), *section) for section in sections]

    def _everything(self) -> Gallery:
        rows = self.sample.drawn(None, most=_SHOWN, seed=self.seed)
        about = f"{len(rows)} of {len(self.sample):,} galaxies searched, drawn blindly, to compare the classes with."
        return self._gallery("sample", "random", "The sample at large", about, rows)

    def _gallery(self, prefix: str, name: str, title: str, about: str, rows: np.ndarray) -> Gallery:
        shown = [self.sample.row(row) for row in rows]
        wide, high = gallery.shape(len(shown))
        image = None
        if self.cutouts is not None:
            image = f"images/{prefix}-{name}.jpg"
            gallery.save(gallery.mosaic(self.cutouts([one["id"] for one in shown])), self.folder / image)
        thumbnails = tuple(
            Thumbnail(**one, across=place[0], down=place[1])
            for index, one in enumerate(shown)
            for place in [gallery.place(index, len(shown))]
        )
        return Gallery(name, title, about, thumbnails, image, wide, high)

    def _write_map(self, ranked: Sequence[Mapping[str, Any]]) -> None:
        """assets/: style, code, and the points as a script, since a page from disk may not fetch."""
        assets = self.folder / "assets"
        assets.mkdir(parents=True, exist_ok=True)
        for name in _ASSETS:
            source = resources.files("rarezoo.report") / "assets" / name
            with resources.as_file(source) as path:
                shutil.copyfile(path, assets / name)
        labels = np.where(self.sample.labels == tables.NO_CLASS, _UNASSIGNED, self.sample.labels).astype("<u2")
        content = {
            "points": len(self.sample),
            "classes": [self._drawn_class(one) for one in ranked],
            "positions": base64.b64encode(self.sample.positions.astype("<f4").tobytes()).decode(),
            "labels": base64.b64encode(labels.tobytes()).decode(),
        }
        (assets / "map.js").write_text(f"window.rarezooMap = {json.dumps(content)};\n")

    def _drawn_class(self, one: Mapping[str, Any]) -> dict[str, Any]:
        class_id = one[tables.CLASS_ID]
        x, y = np.median(self.sample.positions[self._rows(one)].astype(np.float64), axis=0)
        mark = palette.mark(class_id)
        return {
            "id": class_id, "page": f"{_file(class_id)}.html", "size": one[tables.SIZE],
            "colour": mark.colour, "shape": mark.shape, "x": float(x), "y": float(y),
        }  # fmt: skip

    def _write_tables(self, ranked: Sequence[Mapping[str, Any]]) -> None:
        inside = np.flatnonzero(self.sample.labels != tables.NO_CLASS)
        files = [("members", inside)] + [(_file(one[tables.CLASS_ID]), self._rows(one)) for one in ranked]
        for name, rows in files:
            downloads.write_csv(self.folder / "tables" / f"{name}.csv", self.sample, rows=rows)
            downloads.write_fits(self.folder / "tables" / f"{name}.fits", self.sample, rows=rows)

    def _planted(self) -> list[dict[str, Any]] | None:
        """Mock surveys: what became of each planted population."""
        if self.truth is None:
            return None
        members = pa.table({tables.ID: self.sample.ids, tables.CLASS_ID: self.sample.labels})
        return recovery.recovery(members, self.truth).to_pylist()

    def _planted_in(self, one: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Mock surveys: the populations in a class, commonest first, with their share of it and its share of them."""
        if self.truth is None:
            return []
        searched = self.truth.filter(pa.compute.is_in(self.truth[tables.ID], pa.array(self.sample.ids)))
        everywhere = pd.Series(searched[tables.POPULATION].to_pylist()).value_counts()
        members = searched.filter(pa.compute.is_in(searched[tables.ID], pa.array(self.sample.ids[self._rows(one)])))
        inside = pd.Series(members[tables.POPULATION].to_pylist(), dtype=object).value_counts()
        return [
            {
                tables.POPULATION: population, tables.SIZE: int(count),
                recovery.PURITY: count / len(members), recovery.COMPLETENESS: count / everywhere[population],
            }
            for population, count in sorted(inside.items(), key=lambda item: (-item[1], item[0]))
        ]  # fmt: skip


def _file(class_id: int) -> str:
    return f"class-{class_id:03d}"


def _measure(classes: Sequence[Mapping[str, Any]]) -> str:
    """The column by which classes are ranked: significance once it is measured, persistence until then."""
    return tables.SIGNIFICANCE if any(_known(one[tables.SIGNIFICANCE]) for one in classes) else tables.PERSISTENCE


def _ranked(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Classes by how interesting they are: those with a warning last, then by their measure, highest first."""
    measure = _measure(classes)

    def dullness(one: Mapping[str, Any]) -> tuple[bool, bool, float, int]:
        known = _known(one[measure])
        return bool(one[tables.FLAGS]), not known, -one[measure] if known else 0.0, one[tables.CLASS_ID]

    return sorted(classes, key=dullness)


def _known(value: float | None) -> bool:
    return value is not None and not np.isnan(value)


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """The search's settings as dotted names."""
    settings = about["settings"] or {}
    return pd.json_normalize(dict(settings), sep=".").to_dict("records")[0] if settings else {}


def _environment() -> jinja2.Environment:
    """Templates, with every value escaped: ids and titles may hold anything."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("rarezoo.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters.update(share=_share, number=_number, words=_words, setting=_setting)
    return pages


def _share(value: float) -> str:
    """0.01234 → 1.2 %; never 0 % or 100 % of what is not."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.1f} %" if value < 0.0995 or 0.995 < value < 1 else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    """Three digits; what was not measured says so."""
    if value is None or np.isnan(value):
        return "not measured"
    return "∞" if np.isinf(value) else f"{value:.3g}"


def _words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _setting(value: Any) -> str:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return "none"
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
