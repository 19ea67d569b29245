"""The report: a folder of static pages that opens from disk, without a network.

    index.html            the map, the classes, how the search was made
    atlas.html            the map to work in: select, search, judge
    class-003.html        one page per class
    assets/               style, the pages' code and their data (atlas.py)
    images/               mosaics
    tables/               members of each class, as CSV and FITS

The same search gives the same bytes.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32
from tqdm import tqdm

from rarezoo import tables
from rarezoo.report import downloads, gallery, palette
from rarezoo.report.answers import Question, mean_fractions, questions
from rarezoo.report.atlas import Atlas
from rarezoo.report.gallery import Cutouts, Gallery, Thumbnail
from rarezoo.report.hierarchy import groups, relatives
from rarezoo.report.sample import Sample, rows_of
from rarezoo.report.shown import ShownClass, file_name
from rarezoo.report.truth import planted, shares
from rarezoo.searches.classes import nearest_outside
from rarezoo.searches.systematics import CLEAN, ColumnTest

# Files that a second report may not have: pages, mosaics and tables of classes; sheets, columns and cards.
_OURS = ("class", "sheet", "column", "card")
_ASSETS = ("atlas.js", "atlas-licences.txt", "atlas.css", "style.css")
# Galaxies with a thumbnail on the map, about 2 kB each.
THUMBNAILS = 20_000
# Share of false classes up to which classes count, where the settings do not tell.
_LEVEL = 0.05
# What the pages say of a search, if its caller knows it.
_ABOUT = (
    "title", "survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "version", "galaxies", "cuts", "settings",
    "seconds",
)  # fmt: skip


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
    searched_map: pa.Table | None = None,
    catalogue: pa.Table | None = None,
    tests: Mapping[int, Sequence[ColumnTest]] | None = None,
    thumbnails: int = THUMBNAILS,
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
        searched_map: MAP table of the same galaxies in the space that was clustered, in which neighbours are sought;
            None: ``map_2d``.
        catalogue: CATALOGUE table in which all of them are; None if no survey is at hand.
        tests: of each class against the catalogue, by class id.
        thumbnails: most galaxies that the atlas shows as images on its map.
        seed: of the galaxies drawn at random.

    Raises:
        StoreError: the tables are not of the same galaxies.
        DataError: a cutout cannot be read.
        OutputError: the folder cannot be written or is full.
    """
    sample = Sample.joined(members, map_2d=map_2d, predictions=predictions)
    told = {**dict.fromkeys(_ABOUT), **about}
    places = rows_of(members.column(tables.ID), map_2d if searched_map is None else searched_map, source="the map")
    known = None if catalogue is None else rows_of(members.column(tables.ID), catalogue, source="the catalogue")
    report = Report(
        Path(folder), sample, classes, tree, cutouts, told, truth, tables.matrix(places, tables.POSITION), known,
        tests or {}, thumbnails, seed,
    )  # fmt: skip
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
    positions: Float32[np.ndarray, "galaxies k"]
    catalogue: pa.Table | None
    tests: Mapping[int, Sequence[ColumnTest]]
    thumbnails: int
    seed: int

    def write(self) -> Path:
        """Write every file, the index page last; the path of the index page."""
        self._clear()
        measure = _measure(self.classes)
        shown = _ranked(self._shown_classes(), measure=measure)
        self._write_atlas(shown, measure=measure)
        self._write_tables(shown)
        shared = {
            "about": self.about, "images": self.cutouts is not None, "palette": palette, "file": file_name,
            "classes": shown, "measure": measure, "searched": len(self.sample),
        }  # fmt: skip
        pages = environment()
        for place, one in enumerate(shown):
            page = pages.get_template("class.html.jinja").render(**shared, one=one, place=place)
            self._save(f"{file_name(one.id)}.html", page)
        self._save("atlas.html", pages.get_template("atlas.html.jinja").render(**shared))
        level = ((self.about["settings"] or {}).get("significance") or {}).get("level", _LEVEL)
        page = pages.get_template("index.html.jinja").render(
            **shared, everything=self._everything(), settings=_flat(self.about["settings"] or {}),
            outstanding=_outstanding(self.classes, level=level), level=level,
            unassigned=float(np.mean(self.sample.labels == tables.NO_CLASS)),
            planted=None if self.truth is None else planted(self.sample, truth=self.truth),
        )  # fmt: skip
        return self._save("index.html", page)

    def _clear(self) -> None:
        """Remove what an earlier report left, so that no page of a class that is gone stays."""
        (self.folder / "index.html").unlink(missing_ok=True)
        for inner in (self.folder, *(self.folder / name for name in ("assets", "images", "tables"))):
            inner.mkdir(parents=True, exist_ok=True)
            for old in (one for kind in _OURS for one in inner.glob(f"{kind}-[0-9]*.*")):
                old.unlink()

    def _write_atlas(self, shown: Sequence[ShownClass], *, measure: str) -> None:
        assets = self.folder / "assets"
        for name in _ASSETS:
            with resources.as_file(resources.files("rarezoo.report") / "assets" / name) as path:
                shutil.copyfile(path, assets / name)
        Atlas(
            assets, self.sample, shown, self.tree, measure, str(self.about["title"] or "Rare galaxy classes"),
            self.catalogue, self.cutouts, self.thumbnails, self.tests, self.seed,
        ).write()  # fmt: skip

    def _save(self, name: str, page: str) -> Path:
        with tables.atomic(self.folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return self.folder / name

    def _shown_classes(self) -> list[ShownClass]:
        near, together = relatives(self.classes, tree=self.tree), groups(self.classes, tree=self.tree)
        made_of = {} if self.truth is None else shares(self.sample, truth=self.truth, classes=list(near))
        return [
            ShownClass(
                id=row[tables.CLASS_ID], name=row.get(tables.NAME) or "", node=row[tables.NODE],
                size=row[tables.SIZE], share=row[tables.FRACTION],
                birth=row[tables.BIRTH], death=row[tables.DEATH], persistence=_measured(row[tables.PERSISTENCE]),
                significance=_measured(row[tables.SIGNIFICANCE]), p_value=_measured(row[tables.P_VALUE]),
                false_discovery=_measured(row[tables.FALSE_DISCOVERY]),
                isolation=_measured(row[tables.ISOLATION]), stability=_measured(row[tables.STABILITY]),
                answers=tuple(row[tables.TOP_ANSWERS] or ()), warnings=tuple(row[tables.FLAGS] or ()),
                beyond=_measured(row[tables.BEYOND]), beyond_reason=_beyond(row),
                cause=row[tables.CAUSE], cause_reason=row[tables.CAUSE_REASON] or "",
                relatives=tuple(near[row[tables.CLASS_ID]]), group=together.get(row[tables.CLASS_ID]),
                galleries=self._galleries(row),
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
            ("outside", "Nearest outside", "The galaxies that are nearest to the class without being in it, the "
             "nearest first: what the class would take in next.",
             nearest_outside(self.positions, sample.members(class_id), most=gallery.SHOWN)),
        ]  # fmt: skip
        return tuple(self._gallery(file_name(class_id), *section) for section in sections)

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
            Thumbnail(
                one,
                int(row),
                _said(int(self.sample.labels[row]), self.sample.probabilities[row], of=prefix),
                *gallery.place(index, len(ids)),
            )
            for index, (one, row) in enumerate(zip(ids, rows, strict=True))
        )
        return Gallery(name, title, about, thumbnails, image, *gallery.shape(len(ids)))

    def _write_tables(self, shown: Sequence[ShownClass]) -> None:
        inside = np.flatnonzero(self.sample.labels != tables.NO_CLASS)
        for name, rows in [("members", inside), *((file_name(one.id), self.sample.members(one.id)) for one in shown)]:
            downloads.write_csv(self.folder / "tables" / f"{name}.csv", self.sample, rows=rows)
            downloads.write_fits(self.folder / "tables" / f"{name}.fits", self.sample, rows=rows)


def _said(label: int, probability: float, *, of: str) -> str:
    """What a thumbnail's label says of membership, in a gallery of one class or of the sample."""
    if of == file_name(label):
        return f"membership {probability:.2f}"
    return "in no class" if label == tables.NO_CLASS else f"class {label}"


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


def _outstanding(classes: pa.Table, *, level: float) -> int | None:
    """How many classes stand out at that false discovery rate; None if no class was held against noise."""
    rates = [rate for rate in classes.column(tables.FALSE_DISCOVERY).to_pylist() if _measured(rate) is not None]
    return sum(rate <= level for rate in rates) if rates else None


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
        share=_share,
        number=_number,
        grade=_grade,
        words=_words,
        setting=_setting,
        digits=lambda how, value: f"{value:{how}}",
    )  # fmt: skip
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


def _grade(value: float | None) -> str:
    """What lies between 0 and 1 by nature, with two digits."""
    return "not measured" if value is None else f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
