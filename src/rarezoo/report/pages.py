"""The report of a search: a folder of static pages that opens from disk, without a network.

    index.html            the map, the classes, how the search was made
    atlas.html            the interactive map: select, search, decide about classes
    class-003.html        one page per class
    assets/               style, the code of the pages and their data (see atlas.py)
    images/               mosaics
    tables/               members of each class, as CSV and FITS

The same search gives the same bytes.
"""

import base64
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from markupsafe import Markup
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.errors import StoreError
from rarezoo.escapes import visible
from rarezoo.report import exports, gallery, palette, physical
from rarezoo.report.atlas import Atlas
from rarezoo.report.contents import (
    MainGroup,
    Sample,
    ShownClass,
    class_groups,
    class_relatives,
    file_name,
    planted_populations,
    population_shares,
    question_means,
)
from rarezoo.report.evidence import draw_evidence
from rarezoo.report.gallery import Gallery, Thumbnail
from rarezoo.report.prototypes import shown_prototype
from rarezoo.searches import grades
from rarezoo.searches.classes import mean_fractions, nearest_outside, share_in_no_class
from rarezoo.searches.cluster import ISOLATED
from rarezoo.searches.recovery import recovery_text
from rarezoo.searches.result import Search
from rarezoo.searches.systematics import CLEAN, ColumnTest
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)
# Beginnings of the names of files that an earlier report may have left: pages, mosaics and tables of classes; thumbnail
# sheets, columns and cards of the atlas; mosaics of main groups.
_NUMBERED = ("class", "sheet", "column", "card", "main-group")
_ASSETS = ("atlas.js", "atlas-licences.txt", "atlas.css", "style.css")
# Largest number of galaxies with a thumbnail on the map, about 2 kB each.
THUMBNAILS = 20_000
# Picture of the groups beside those of null surveys.
_EVIDENCE = "images/evidence.webp"
# Page of rarezoo known in the folder of a search.
KNOWN_PAGE = "known/index.html"
# Share of false classes up to which classes count as outstanding, if the settings of the search do not say it.
_LEVEL = 0.05
# Exemplars of a main group: one row of a gallery.
_OF_MAIN_GROUP = gallery.COLUMNS
# Headings of the sections of the index page.
_GRADE_TITLES = {
    grades.STABLE: "Significant and stable", grades.SIGNIFICANT: "Significant", grades.CANDIDATE: "Candidates",
    None: "Without a grade",
}  # fmt: skip
# Entries of run.json that the pages show. Those that are missing are left out.
_ABOUT = (
    "title", "survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "version", "galaxies", "cuts", "settings",
    "seconds", "large",
)  # fmt: skip


@dataclass(kw_only=True)
class ReportRun(Settings):
    """Write the report of a finished search again.

    Examples
    --------
    >>> ReportRun(search="runs/cluster").folder
    PosixPath('runs/cluster/report')
    """

    search: str = setting(help="folder of a finished search", positional=True)
    out: str = setting("", "folder of the report; empty: report/ in the folder of the search")
    images: bool = setting(True, "show galaxies; false if the survey cannot be opened")
    thumbnails: int = setting(THUMBNAILS, "largest number of images on the map of the atlas", unit="galaxies", ge=0)

    @property
    def folder(self) -> Path:
        """Folder of the report."""
        return Path(self.out) if self.out else Path(self.search) / "report"

    def run(self) -> Path:
        """Write the report and return the path of its index page.

        Raises
        ------
        StoreError
            There is no finished search, or a table or store that it needs is missing.
        DataError
            The survey cannot be opened, or an image cannot be read.
        OutputError
            The folder cannot be written.
        """
        return write_report(
            Search.open(self.search), self.folder, images=self.images, thumbnails=self.thumbnails
        )  # fmt: skip


def write_report(
    search: Search,
    folder: Path | str | None = None,
    *,
    images: bool = True,
    survey: bool | None = None,
    thumbnails: int = THUMBNAILS,
    seed: int | None = None,
) -> Path:
    """Write the report of a search.

    Parameters
    ----------
    search
        The search.
    folder
        Folder of the report. A report that is there already is replaced. None: ``report`` in the search's folder.
    images
        Show galaxies. This opens the survey.
    survey
        Use the catalogue of the survey and, for a mock survey, the truth. None: as ``images``.
    thumbnails
        Largest number of galaxies that the atlas shows as images on its map.
    seed
        Seed of the random draws. None: the seed of the search.

    Returns
    -------
    Path
        The index page.

    Raises
    ------
    StoreError
        The tables of the search are not of the same galaxies, or its drawn map is not two-dimensional.
    DataError
        The survey cannot be opened, or a cutout cannot be read.
    OutputError
        The folder cannot be written or is full.
    """
    settings = search.about.get("settings") or {}
    report = _Report(
        search=search,
        folder=search.folder / "report" if folder is None else Path(folder),
        galaxies=search.survey() if (images if survey is None else survey) else None,
        images=images,
        thumbnails=thumbnails,
        seed=int(settings.get("seed", 0)) if seed is None else seed,
    )
    try:
        return report.write()
    except OSError as problem:
        raise tables.unwritable(report.folder, problem) from problem


def class_cards(search: Search, *, survey: Galaxies | None) -> dict[int, dict[str, Any]]:
    """Return the card of each class as the atlas shows it, by class id; nothing is written.

    Parameters
    ----------
    search
        The search.
    survey
        Its survey; None leaves out the positions on the sky.

    Returns
    -------
    dict
        Numbers, galleries (of ids, without images), answers, tests against the catalogue, positions on the sky, and
        the numbers of all galaxies in the cells of the sky.

    Raises
    ------
    StoreError
        The tables of the search are not of the same galaxies.
    """
    seed = int((search.about.get("settings") or {}).get("seed", 0))
    report = _Report(
        search=search, folder=search.folder / "report", galaxies=survey, images=False, thumbnails=0, seed=seed
    )
    return {class_id: dict(tables.plain(card)) for class_id, card in report.cards().items()}


@dataclass(frozen=True, kw_only=True)
class _Report:
    """A search that is being written as pages; see :func:`write_report`."""

    search: Search
    folder: Path
    galaxies: Galaxies | None
    images: bool
    thumbnails: int
    seed: int

    @cached_property
    def sample(self) -> Sample:
        """The galaxies searched, without predicted answers if the embedding store is not there any more."""
        members = self.search.table("members")
        try:
            predictions = self.search.predictions
        except StoreError as problem:
            log.warning("the report shows no predicted answers: %s", problem)
            predictions = members.select([tables.ID])
        return Sample.joined(members, map_2d=self.search.table("map_2d"), predictions=predictions)

    @cached_property
    def tests(self) -> Mapping[int, Sequence[ColumnTest]]:
        """Tests of each class against the catalogue, by class id."""
        return self.search.tests if self.sample.answers else {}

    def write(self) -> Path:
        """Write every file, the index page last, and return the path of the index page."""
        about = {**dict.fromkeys(_ABOUT), **self.search.about}
        settings = about["settings"] or {}
        classes, truth = self.search.table("classes"), self.galaxies.truth if self.galaxies else None
        sample = self.sample
        self._clear()
        measure = tables.GRADE if any(classes.column(tables.GRADE).to_pylist()) else _measure(classes)
        shown = _ranked(self._shown_classes(classes, truth), measure=measure)
        self._write_atlas(shown, measure=measure, title=str(about["title"] or "Rare galaxy classes"))
        self._write_tables(shown)
        shared = {
            "about": about, "images": self.images, "palette": palette, "file": file_name,
            "classes": shown, "measure": measure, "searched": self.search.searched, "drawn": len(sample),
            "kinds": self.search.kinds,
            "kinds_page": f"../{KNOWN_PAGE}" if (self.search.folder / KNOWN_PAGE).exists() else None,
        }  # fmt: skip
        level = (settings.get("significance") or {}).get("level", _LEVEL)
        evidence = self._evidence(shown, settings, level=level)
        shared |= {"meanings": grades.MEANINGS, "titles": _GRADE_TITLES, "evidence": evidence}
        pages = environment()
        cards = physical.read_cards(self.search.folder)
        link = physical.link_of(self.folder, self.search.folder)
        for place, found in enumerate(shown):
            card = cards.get(found.id)
            section = physical.section(card, link=link) if card and card["size"] == found.size else ""
            page = pages.get_template("class.html.jinja").render(
                **shared, shown=found, place=place, physical=section,
                prototype=shown_prototype(self.search.folder, found.id),
            )  # fmt: skip
            self._save(f"{file_name(found.id)}.html", page)
        self._save("atlas.html", pages.get_template("atlas.html.jinja").render(**shared))
        rates = [rate for rate in map(_known, classes.column(tables.FALSE_DISCOVERY).to_pylist()) if rate is not None]
        index = pages.get_template("index.html.jinja").render(
            **shared, everything=self._whole_sample(), level=level,
            settings=pd.json_normalize(dict(settings), sep=".").to_dict("records")[0] if settings else {},
            sections=_by_grade(shown), counts=grades.counts([found.grade for found in shown]),
            outstanding=sum(rate <= level for rate in rates) if rates else None,
            main_groups=self._main_groups(),
            unassigned=share_in_no_class(classes, searched=self.search.searched),
            planted=None if truth is None else planted_populations(sample, truth=truth, classes=classes),
            recovery_text=recovery_text,
        )  # fmt: skip
        return self._save("index.html", index)

    def _clear(self) -> None:
        """Remove the files of an earlier report, so that no page of a class that is gone stays."""
        (self.folder / "index.html").unlink(missing_ok=True)
        for inner in (self.folder, *(self.folder / name for name in ("assets", "images", "tables"))):
            inner.mkdir(parents=True, exist_ok=True)
            for beginning in _NUMBERED:
                for old in inner.glob(f"{beginning}-[0-9]*.*"):
                    old.unlink()
        (self.folder / _EVIDENCE).unlink(missing_ok=True)

    def _write_atlas(self, shown: Sequence[ShownClass], *, measure: str, title: str) -> None:
        assets = self.folder / "assets"
        for name in _ASSETS:
            with resources.as_file(resources.files("rarezoo.report") / "assets" / name) as path:
                shutil.copyfile(path, assets / name)
        self._atlas(shown, measure=measure, title=title).write()

    def cards(self) -> dict[int, dict[str, Any]]:
        """Return the card of each class, see :func:`class_cards`."""
        truth = self.galaxies.truth if self.galaxies else None
        shown = self._shown_classes(self.search.table("classes"), truth)
        atlas = self._atlas(shown, measure=tables.GRADE, title="")
        cells = atlas.sky_cells()
        return {class_id: {**card, "cells": cells} for class_id, card in atlas.cards().items()}

    def _atlas(self, shown: Sequence[ShownClass], *, measure: str, title: str) -> Atlas:
        catalogue = None
        if self.galaxies is not None:
            ids = self.search.table("members").column(tables.ID)
            catalogue = tables.aligned(self.galaxies.catalogue, ids, source="the catalogue")
        return Atlas(
            assets=self.folder / "assets", sample=self.sample, shown=shown, tree=self.search.table("tree"),
            measure=measure, title=title, catalogue=catalogue, cutouts=self.search.cutouts if self.images else None,
            vectors=self._vectors, thumbnails=self.thumbnails, tests=self.tests, seed=self.seed,
        )  # fmt: skip

    @property
    def _vectors(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Function from ids to embeddings as unit vectors; None if the embedding store is not there any more."""
        try:
            store = self.search.store
        except StoreError:
            return None

        def vectors(ids: np.ndarray) -> np.ndarray:
            rows = tables.rows_of(ids, pa.table({tables.ID: store.ids}), source="the embedding store")
            return np.asarray(store.index.centred.directions[rows])

        return vectors

    def _save(self, name: str, page: str) -> Path:
        with tables.atomic(self.folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return self.folder / name

    def _shown_classes(self, classes: pa.Table, truth: pa.Table | None) -> list[ShownClass]:
        sample, tree = self.sample, self.search.table("tree")
        relatives, groups = class_relatives(classes, tree=tree), class_groups(classes, tree=tree)
        populations = {} if truth is None else population_shares(sample, truth=truth, classes=relatives)
        sample_means = mean_fractions(sample.fractions)
        positions = tables.aligned(
            self.search.table("map"), self.search.table("members").column(tables.ID), source="the map"
        )
        shown = []
        for row in tqdm(classes.to_pylist(), desc="galleries", unit="class", mininterval=1.0):
            class_id = row[tables.CLASS_ID]
            inside = mean_fractions(sample.fractions[sample.members(class_id)])
            measures = {
                name: _known(row[name])
                for name in (
                    tables.PERSISTENCE, tables.SIGNIFICANCE, tables.P_VALUE, tables.FALSE_DISCOVERY, tables.ISOLATION,
                    tables.STABILITY, tables.BEYOND,
                )
            }  # fmt: skip
            shown.append(
                ShownClass(
                    id=class_id, name=row.get(tables.NAME) or "", node=row[tables.NODE], size=row[tables.SIZE],
                    share=row[tables.FRACTION], birth=row[tables.BIRTH], death=row[tables.DEATH], **measures,
                    answers=tuple(row[tables.TOP_ANSWERS] or ()), warnings=tuple(row[tables.FLAGS] or ()),
                    beyond_reason=_beyond_text(row), grade=row[tables.GRADE], rank=row[tables.RANK],
                    cause=row[tables.CAUSE], cause_reason=row[tables.CAUSE_REASON] or "",
                    relatives=relatives[class_id], group=groups.get(class_id),
                    galleries=self._class_galleries(row, tables.matrix(positions, tables.POSITION)),
                    questions=question_means(sample.answers, inside=inside, sample=sample_means),
                    populations=populations.get(class_id, ()),
                )
            )  # fmt: skip
        return shown

    def _class_galleries(self, row: Mapping[str, Any], positions: np.ndarray) -> tuple[Gallery, ...]:
        class_id, sample, most = row[tables.CLASS_ID], self.sample, gallery.SHOWN
        exemplars = tables.rows_of(row[tables.EXEMPLARS][:most], self.search.table("members"), source="the sample")
        sections = [
            (
                "exemplars", "Exemplars",
                "The members closest to the centre of the class (its medoid), the closest first. They show the class "
                "at its clearest and are more alike than other members, so judge the class by the random draw instead.",
                exemplars,
            ),
            (
                "random", "Random draw",
                _draw_text(row[tables.SIZE], of="members") + " They show how diverse the class is.",
                sample.drawn(class_id, most=most, seed=self.seed),
            ),
            (
                "outskirts", "Outskirts",
                "The members with the lowest membership probability, the lowest first. They show where the class ends "
                "and where it begins to mix with its surroundings.",
                sample.outskirts(class_id, most=most),
            ),
            (
                "outside", "Nearest outside",
                "The galaxies that are closest to the class without being in it, the closest first. A slightly larger "
                "class would contain them.",
                nearest_outside(positions, sample.members(class_id), most=most),
            ),
        ]  # fmt: skip
        return tuple(self._gallery(file_name(class_id), *section) for section in sections)

    def _evidence(self, shown: Sequence[ShownClass], settings: Mapping[str, Any], *, level: float) -> str | None:
        """Draw the groups beside those of null surveys; None if the classes were not chosen by them."""
        chosen = (settings.get("clusterer") or {}).get("selection") == ISOLATED
        if not chosen or not self.search.has_table("nodes"):
            return None
        labels = {found.node: str(found.id) for found in shown if found.node is not None}
        drawn = draw_evidence(self.search.table("nodes"), self.folder / _EVIDENCE, level=level, labels=labels)
        return _EVIDENCE if drawn else None

    def _main_groups(self) -> list[MainGroup]:
        members, groups = self.search.table("members"), []
        for row in self.search.main_groups.to_pylist():
            number = row[tables.MAIN_GROUP]
            exemplars = tables.rows_of(row[tables.EXEMPLARS][:_OF_MAIN_GROUP], members, source="the sample")
            about = "The galaxies closest to the centre of the group, the closest first."
            groups.append(
                MainGroup(
                    number=number, size=row[tables.SIZE], share=row[tables.FRACTION],
                    significance=_known(row[tables.SIGNIFICANCE]), p_value=_known(row[tables.P_VALUE]),
                    answers=tuple(row[tables.TOP_ANSWERS] or ()),
                    exemplars=self._gallery(f"main-group-{number:03d}", "exemplars", "Exemplars", about, exemplars),
                )
            )  # fmt: skip
        return groups

    def _whole_sample(self) -> Gallery:
        chosen = None
        if "large" in self.search.about:
            # What a search out of core shows is mostly members of classes. Only its sample has outlier scores.
            chosen = np.flatnonzero(np.isfinite(self.sample.outlier_scores))
        rows = self.sample.drawn(None, most=gallery.SHOWN, seed=self.seed, among=chosen)
        number, of = (
            (len(self.sample), "galaxies searched") if chosen is None else (len(chosen), "galaxies of the sample")
        )
        text = _draw_text(number, of=of) + " Compare the classes with it."
        return self._gallery("sample", "random", "The whole sample", text, rows)

    def _gallery(self, prefix: str, name: str, title: str, about: str, rows: np.ndarray) -> Gallery:
        sample = self.sample
        ids = [str(galaxy) for galaxy in sample.ids[rows]]
        image = None
        if self.images:
            image = f"images/{prefix}-{name}.jpg"
            gallery.save(gallery.mosaic(self.search.cutouts(ids)), self.folder / image)
        thumbnails = []
        for index, (galaxy, row) in enumerate(zip(ids, rows, strict=True)):
            label = int(sample.labels[row])
            if prefix == file_name(label):
                membership = f"membership {sample.probabilities[row]:.2f}"
            else:
                membership = "in no class" if label == tables.NO_CLASS else f"class {label}"
            thumbnails.append(Thumbnail(galaxy, int(row), membership, *gallery.place(index, len(ids))))
        return Gallery(name, title, about, tuple(thumbnails), image, *gallery.shape(len(ids)))

    def _write_tables(self, shown: Sequence[ShownClass]) -> None:
        classes = self.search.table("classes")
        inside = np.flatnonzero(self.sample.labels != tables.NO_CLASS)
        parts = [("members", inside), *((file_name(found.id), self.sample.members(found.id)) for found in shown)]
        for name, rows in parts:
            members = exports.with_grades(self.sample.member_table(rows), classes)
            exports.write_csv(self.folder / "tables" / f"{name}.csv", members)
            exports.write_fits(self.folder / "tables" / f"{name}.fits", members)


def _draw_text(size: int, *, of: str) -> str:
    if size > gallery.SHOWN:
        return f"{gallery.SHOWN} of {size:,} {of}, drawn at random."
    return f"All {size} {of}, in random order."


def _measure(classes: pa.Table) -> str:
    """Return the column by which classes are ranked: significance if it was measured, else persistence."""
    significances = classes.column(tables.SIGNIFICANCE).to_pylist()
    known = any(_known(value) is not None for value in significances)
    return tables.SIGNIFICANCE if known else tables.PERSISTENCE


def _beyond_text(row: Mapping[str, Any]) -> str:
    """Describe how much of a class remains without the answers; empty if that was not measured."""
    verdict, low, high = (row[name] for name in (tables.BEYOND_VERDICT, tables.BEYOND_LOW, tables.BEYOND_HIGH))
    interval = "" if low is None else f"{share_text(low)} to {share_text(high)} (95 % interval)"
    return "; ".join(part for part in (verdict, interval, row[tables.BEYOND_REASON]) if part)


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _ranked(classes: Sequence[ShownClass], *, measure: str) -> list[ShownClass]:
    """Sort classes by grade; in a grade those with a warning or a cause last, then by rank.

    Classes without a rank follow by their measure, highest first.
    """

    def key(shown: ShownClass) -> tuple[float, ...]:
        value = shown.significance if measure == tables.SIGNIFICANCE else shown.persistence
        doubtful = bool(shown.warnings) or shown.cause not in (None, CLEAN)
        rank = len(classes) + 1 if shown.rank is None else shown.rank
        return _place(shown.grade), doubtful, rank, value is None, -(value or 0.0), shown.id

    return sorted(classes, key=key)


def _place(grade: str | None) -> int:
    """Return the place of a grade among the sections of the index page."""
    return grades.GRADES.index(grade) if grade in grades.GRADES else len(grades.GRADES)


def _by_grade(classes: Sequence[ShownClass]) -> list[tuple[str | None, list[ShownClass]]]:
    """Return the classes of each grade that occurs, in their order; those without a grade last."""
    return [(grade, list(inside)) for grade, inside in groupby(classes, key=lambda shown: shown.grade)]


def environment(package: str = "rarezoo.report") -> jinja2.Environment:
    """Return the templates of a package; every value is escaped, because ids and titles may hold anything.

    Characters that a page cannot show, such as control characters, are written as Python's escapes.
    """
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader(package), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_shown,
    )  # fmt: skip
    pages.globals["policy"] = security_policy
    pages.filters.update(
        share=share_text,
        number=number_text,
        index=lambda value: "not measured" if value is None else f"{value:.2f}",
        words=lambda name: name.replace("-", " ").replace("_", " "),
        setting=setting_text,
    )
    return pages


def _shown(value: Any) -> Any:
    """Return a value of a template as a page can show it; what is HTML already stays as it is."""
    return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def security_policy(*scripts: str, compiles: bool = False, served: bool = False) -> str:
    """Return the Content-Security-Policy of a page: only files beside it, and these scripts inside it.

    A page that is opened from disk has the scheme ``file:`` and no origin of its own.

    Parameters
    ----------
    *scripts
        Texts of the scripts that the page holds.
    compiles
        Scripts may compile functions and start workers, as the library does that draws the points of a map.
    served
        The page comes from a server, which its scripts may ask; it holds no script and no style sheet.
    """
    if served:
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    more = ["'unsafe-eval'"] if compiles else []
    allowed = " ".join(["'self'", "file:", *more, *(f"'sha256-{digest}'" for digest in digests)])
    return (
        f"default-src 'none'; script-src {allowed}; {'worker-src blob:; ' if compiles else ''}"
        "style-src 'self' file: 'unsafe-inline'; img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )


def share_text(value: float) -> str:
    """Write a share between 0 and 1 in per cent; only exactly 0 and 1 become 0 % and 100 %.

    >>> [share_text(value) for value in (0, 0.0001, 0.01234, 0.25, 0.9999, 1)]
    ['0 %', '< 0.1 %', '1.2 %', '25 %', '> 99.9 %', '100 %']
    """
    if 0 < value < 0.001:
        return "< 0.1 %"
    if 0.999 < value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if 0 < value < 0.0995 or 0.99 < value < 1 else f"{100 * value:.0f} %"


def number_text(value: float | None) -> str:
    """Write a number with three digits.

    >>> [number_text(value) for value in (None, float("inf"), 3.14159)]
    ['not measured', '∞', '3.14']
    """
    if value is None:
        return "not measured"
    return "∞" if np.isinf(value) else f"{value:.3g}"


def setting_text(value: object) -> str:
    """Write the value of a setting.

    >>> [setting_text(value) for value in (None, [], ["a", "b"], 3)]
    ['none', 'none', 'a; b', '3']
    """
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
