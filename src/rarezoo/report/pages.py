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
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from rarezoo import tables
from rarezoo.explore.systematics import CLEAN
from rarezoo.report import downloads, gallery, palette
from rarezoo.report.answers import Question, mean_fractions, questions
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.hierarchy import relatives
from rarezoo.report.sample import Sample
from rarezoo.report.truth import Share, planted, shares

Cutouts = Callable[[Sequence[str]], list[np.ndarray]]

_UNASSIGNED = np.uint16(65535)
_ASSETS = ("atlas.js", "style.css")
# What the pages say of a search, if its caller knows it.
_ABOUT = (
    "title", "survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "version", "galaxies", "cuts", "settings",
    "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class ShownClass:
    """A class as the pages show it.

    Attributes:
        id: number of the class.
        size: members.
        share: of the galaxies searched, 0–1.
        birth, death: λ = 1 / map distance at which it appears and is gone.
        persistence, significance, p_value, isolation, stability: see CLASSES; None if not measured.
        answers: what the network says of it, the most telling first.
        warnings: flags.
        beyond: share of its separation that the predicted answers leave, 0–1; None if not measured.
        beyond_reason: the same in words: verdict, interval, what was measured.
        cause: ``clean``, ``systematics``, ``artifact`` or ``shredded``; None if nothing could be tested.
        cause_reason: what decided it.
        relatives: ids of the classes nearest in the tree.
        galleries: exemplars, random draw, outskirts.
        questions: predicted answers against the whole sample.
        populations: what it is made of (mock surveys; else empty).
    """

    id: int
    size: int
    share: float
    birth: float
    death: float
    persistence: float | None
    significance: float | None
    p_value: float | None
    isolation: float | None
    stability: float | None
    answers: tuple[str, ...]
    warnings: tuple[str, ...]
    beyond: float | None
    beyond_reason: str
    cause: str | None
    cause_reason: str
    relatives: tuple[int, ...]
    galleries: tuple[Gallery, ...]
    questions: tuple[Question, ...]
    populations: tuple[Share, ...]


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
    told = {**dict.fromkeys(_ABOUT), **about}
    report = Report(Path(folder), sample, classes, tree, cutouts, told, truth, seed)
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
        measure = _measure(self.classes)
        shown = _ranked(self._shown_classes(), measure=measure)
        self._write_map(shown)
        self._write_tables(shown)
        shared = {
            "about": self.about, "images": self.cutouts is not None, "palette": palette, "file": _file,
            "classes": shown, "measure": measure, "searched": len(self.sample),
        }  # fmt: skip
        pages = environment()
        for place, one in enumerate(shown):
            page = pages.get_template("class.html.jinja").render(**shared, one=one, place=place)
            self._save(f"{_file(one.id)}.html", page)
        page = pages.get_template("index.html.jinja").render(
            **shared, everything=self._everything(), settings=_flat(self.about["settings"] or {}),
            unassigned=float(np.mean(self.sample.labels == tables.NO_CLASS)),
            planted=None if self.truth is None else planted(self.sample, truth=self.truth),
        )  # fmt: skip
        return self._save("index.html", page)

    def _clear(self) -> None:
        """Remove what an earlier report left, so that no page of a class that is gone stays."""
        (self.folder / "index.html").unlink(missing_ok=True)
        for inner in (self.folder, self.folder / "images", self.folder / "tables"):
            inner.mkdir(parents=True, exist_ok=True)
            for old in inner.glob("class-[0-9]*.*"):
                old.unlink()

    def _save(self, name: str, page: str) -> Path:
        with tables.atomic(self.folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return self.folder / name

    def _shown_classes(self) -> list[ShownClass]:
        near = relatives(self.classes, tree=self.tree)
        made_of = {} if self.truth is None else shares(self.sample, truth=self.truth, classes=list(near))
        return [
            ShownClass(
                id=row[tables.CLASS_ID], size=row[tables.SIZE], share=row[tables.FRACTION],
                birth=row[tables.BIRTH], death=row[tables.DEATH], persistence=_measured(row[tables.PERSISTENCE]),
                significance=_measured(row[tables.SIGNIFICANCE]), p_value=_measured(row[tables.P_VALUE]),
                isolation=_measured(row[tables.ISOLATION]), stability=_measured(row[tables.STABILITY]),
                answers=tuple(row[tables.TOP_ANSWERS] or ()), warnings=tuple(row[tables.FLAGS] or ()),
                beyond=_measured(row[tables.BEYOND]), beyond_reason=_beyond(row),
                cause=row[tables.CAUSE], cause_reason=row[tables.CAUSE_REASON] or "",
                relatives=tuple(near[row[tables.CLASS_ID]]), galleries=self._galleries(row),
                questions=self._questions(row[tables.CLASS_ID]), populations=made_of.get(row[tables.CLASS_ID], ()),
            )
            for row in tqdm(self.classes.to_pylist(), desc="galleries", unit="class", mininterval=1.0)
        ]  # fmt: skip

    def _questions(self, class_id: int) -> tuple[Question, ...]:
        inside = mean_fractions(self.sample.fractions[self.sample.members(class_id)])
        return questions(self.sample.answers, inside=inside, sample=self._sample_means)

    @cached_property
    def _sample_means(self) -> np.ndarray:
        return mean_fractions(self.sample.fractions)

    def _galleries(self, row: Mapping[str, Any]) -> tuple[Gallery, ...]:
        class_id, size, sample = row[tables.CLASS_ID], row[tables.SIZE], self.sample
        sections = [
            ("exemplars", "Exemplars", "The members nearest to the class's medoid, the medoid first: what the class is "
             "at its clearest. They are the most alike, so judge the class by the random draw instead.",
             sample.rows(row[tables.EXEMPLARS][:gallery.SHOWN])),
            ("random", "Random draw", _drawn(size, of="members") + " the honest spread of the class.",
             sample.drawn(class_id, most=gallery.SHOWN, seed=self.seed)),
            ("outskirts", "Outskirts", "The members with the lowest membership probability, the lowest first: where "
             "the class ends, and where it would begin to mix with its surroundings.",
             sample.outskirts(class_id, most=gallery.SHOWN)),
        ]  # fmt: skip
        return tuple(self._gallery(_file(class_id), *section) for section in sections)

    def _everything(self) -> Gallery:
        about = _drawn(len(self.sample), of="galaxies searched") + " what to compare the classes with."
        rows = self.sample.drawn(None, most=gallery.SHOWN, seed=self.seed)
        return self._gallery("sample", "random", "The sample at large", about, rows)

    def _gallery(self, prefix: str, name: str, title: str, about: str, rows: np.ndarray) -> Gallery:
        ids = [str(one) for one in self.sample.ids[rows]]
        image = None
        if self.cutouts is not None:
            image = f"images/{prefix}-{name}.jpg"
            gallery.save(gallery.mosaic(self.cutouts(ids)), self.folder / image)
        thumbnails = tuple(
            Thumbnail(one, int(row), float(self.sample.probabilities[row]), *gallery.place(index, len(ids)))
            for index, (one, row) in enumerate(zip(ids, rows, strict=True))
        )
        return Gallery(name, title, about, thumbnails, image, *gallery.shape(len(ids)))

    def _write_map(self, shown: Sequence[ShownClass]) -> None:
        """assets/: style, code, and the points as a script, since a page from disk may not fetch."""
        assets = self.folder / "assets"
        assets.mkdir(parents=True, exist_ok=True)
        for name in _ASSETS:
            with resources.as_file(resources.files("rarezoo.report") / "assets" / name) as path:
                shutil.copyfile(path, assets / name)
        labels = np.where(self.sample.labels == tables.NO_CLASS, _UNASSIGNED, self.sample.labels).astype("<u2")
        content = {
            "points": len(self.sample),
            "classes": [self._on_map(one) for one in shown],
            "positions": base64.b64encode(self.sample.positions.astype("<f4").tobytes()).decode(),
            "labels": base64.b64encode(labels.tobytes()).decode(),
        }
        (assets / "map.js").write_text(f"window.rarezooMap = {json.dumps(content)};\n")

    def _on_map(self, one: ShownClass) -> dict[str, Any]:
        """What atlas.js knows of a class; x and y are its median."""
        x, y = np.median(self.sample.positions[self.sample.members(one.id)].astype(np.float64), axis=0)
        mark = palette.mark(one.id)
        page = f"{_file(one.id)}.html"
        return {
            "id": one.id,
            "page": page,
            "size": one.size,
            "colour": mark.colour,
            "shape": mark.shape,
            "x": x,
            "y": y,
        }

    def _write_tables(self, shown: Sequence[ShownClass]) -> None:
        inside = np.flatnonzero(self.sample.labels != tables.NO_CLASS)
        for name, rows in [("members", inside), *((_file(one.id), self.sample.members(one.id)) for one in shown)]:
            downloads.write_csv(self.folder / "tables" / f"{name}.csv", self.sample, rows=rows)
            downloads.write_fits(self.folder / "tables" / f"{name}.fits", self.sample, rows=rows)


def _file(class_id: int) -> str:
    """Name of a class's files."""
    return f"class-{class_id:03d}"


def _drawn(size: int, *, of: str) -> str:
    return (
        f"{gallery.SHOWN} of {size:,} {of}, drawn blindly:"
        if size > gallery.SHOWN
        else f"All {size} {of}, in no order:"
    )


def _measure(classes: pa.Table) -> str:
    """The column by which classes are ranked: significance once it is measured, persistence until then."""
    significances = classes.column(tables.SIGNIFICANCE).to_pylist()
    known = any(_measured(value) is not None for value in significances)
    return tables.SIGNIFICANCE if known else tables.PERSISTENCE


def _beyond(row: Mapping[str, Any]) -> str:
    """What the answers leave of a class, in words; empty if it was not asked."""
    verdict, low, high = (row[name] for name in (tables.BEYOND_VERDICT, tables.BEYOND_LOW, tables.BEYOND_HIGH))
    interval = "" if low is None else f"{_share(low)} to {_share(high)} (95 % interval)"
    return "; ".join(part for part in (verdict, interval, row[tables.BEYOND_REASON]) if part)


def _measured(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _ranked(classes: Sequence[ShownClass], *, measure: str) -> list[ShownClass]:
    """Classes by how interesting they are: with a warning or a cause last, then by their measure, highest first."""

    def dullness(one: ShownClass) -> tuple[bool, bool, float, int]:
        value = one.significance if measure == tables.SIGNIFICANCE else one.persistence
        return bool(one.warnings) or one.cause not in (None, CLEAN), value is None, -(value or 0.0), one.id

    return sorted(classes, key=dullness)


def _flat(settings: Mapping[str, Any]) -> Mapping[Any, Any]:
    """Settings under dotted names."""
    return pd.json_normalize(dict(settings), sep=".").to_dict("records")[0] if settings else {}


def environment() -> jinja2.Environment:
    """Templates, with every value escaped: ids and titles may hold anything."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("rarezoo.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters.update(
        share=_share, number=_number, words=_words, setting=_setting, digits=lambda how, value: f"{value:{how}}"
    )
    return pages


def _share(value: float) -> str:
    """0.01234 → 1.2 %; never 0 % or 100 % of what is not."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    if 0.999 < value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if 0 < value < 0.0995 or 0.99 < value < 1 else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    """Three digits; what was not measured says so."""
    if value is None:
        return "not measured"
    return "∞" if np.isinf(value) else f"{value:.3g}"


def _words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
