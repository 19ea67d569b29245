"""Is a class a known kind? Classes against named lists, the catalogue's own types, and the predicted answers.

For each class and each label of each list, the galaxies that the list covers are counted. The p-value says how often as
many members would have the label if the class were a random draw from the covered galaxies (hypergeometric, exact); the
p-values of all classes and labels are corrected together (Benjamini & Hochberg 1995). :class:`KnownRule` makes a
verdict of the numbers.

Shape letters: n galaxies of a search.
"""

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int

from rarezoo import __version__, tables
from rarezoo.errors import ConfigError, DataError, RarezooError
from rarezoo.physical.join import LARGEST_RADIUS
from rarezoo.physical.known_list import AUTO, POSITIVES, ROWS, TABLE, KnownList, Label
from rarezoo.physical.own_labels import catalogue_labels, vote_labels
from rarezoo.runs import claim, fingerprint, path_sha256
from rarezoo.searches.result import TABLES, Search
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)
# A setting is called list, which hides the type in its class.
_Texts = list[str]

KIND, PART, MIX, NEW, NOT_COVERED = (
    "known kind", "part of a known kind", "mix", "not in these lists", "not covered by these lists",
)  # fmt: skip
FOLDER, SUMMARY_FILE, PAGE = "known", "known.json", "index.html"
MEANINGS = {
    KIND: "Most members have one label, and most galaxies with that label are in the class.",
    PART: "Most members have one label, but most galaxies with that label are elsewhere.",
    MIX: "Labels are more frequent than elsewhere, but none has most of the members.",
    NEW: "No label is clearly more frequent among the members. The class need not be new: the lists may miss the kind.",
    NOT_COVERED: "Too few members are covered by any list.",
}


@dataclass
class KnownRule(Settings):
    """How the numbers of a class become a verdict.

    For a class with n covered members, of which k have a label that K of N covered galaxies have::

        purity, completeness = k / n, k / K
        lift = (k / n) / (K / N), its interval from that of the share k / n (Wilson 1927)
        clear labels = those with n >= fewest, corrected p <= level and lower end of lift >= lift

        not covered by these lists   n < fewest in every list
        known kind                   a clear label has purity >= most and completeness >= most
        part of a known kind         otherwise, if a clear label has purity >= most
        mix                          otherwise, if a clear label has purity >= some
        not in these lists           otherwise

    Of several such labels the verdict names the one with the largest product of purity and completeness (known kind),
    all with their purities (mix), or the one with the largest lower end of lift (part of a known kind).

    Examples
    --------
    >>> has = np.arange(200) < 40
    >>> ring = Label("mine", "ring", np.ones(200, dtype=bool), has)
    >>> known = compare(np.where(np.arange(200) < 50, 0, -1), [ring], classes=[0])
    >>> known.verdicts["verdict"].to_pylist(), known.verdicts["known_as"].to_pylist()
    (['known kind'], [['mine: ring 80 %']])
    """

    prefix: ClassVar[str] = "rule"

    fewest: int = setting(10, "fewest covered members from which a class is judged", unit="galaxies", ge=1)
    level: float = setting(0.05, "largest p-value, corrected for all classes and labels", gt=0, lt=1)
    lift: float = setting(1.5, "least lower end of the 95 % interval of the lift", ge=1)
    most: float = setting(
        0.5, "share from which a label has most of the members, or a class most of a label", gt=0, le=1
    )
    some: float = setting(0.2, "share of the members from which a label is part of a mix", gt=0, le=1)

    def verdict(self, pairs: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], str]:
        """Return the verdict on a class, the labels that it names, and the reason, from its rows of the KNOWN table."""
        judged = [pair for pair in pairs if pair[tables.COVERED] >= self.fewest]
        if not judged:
            most = max((pair[tables.COVERED] for pair in pairs), default=0)
            return NOT_COVERED, [], f"at most {most} members are covered by a list; {self.fewest} are needed"
        clear = [
            pair for pair in judged if pair[tables.P_CORRECTED] <= self.level and pair[tables.LIFT_LOW] >= self.lift
        ]
        pure = [pair for pair in clear if pair[tables.PURITY] >= self.most]
        whole = [pair for pair in pure if pair[tables.COMPLETENESS] >= self.most]
        if whole:
            best = max(whole, key=lambda pair: pair[tables.PURITY] * pair[tables.COMPLETENESS])
            return KIND, [_named(best)], _reason(best)
        if pure:
            best = max(pure, key=lambda pair: pair[tables.LIFT_LOW])
            return PART, [_named(best)], _reason(best)
        parts = sorted(
            (pair for pair in clear if pair[tables.PURITY] >= self.some), key=lambda pair: -pair[tables.PURITY]
        )
        if parts:
            return MIX, [_named(pair) for pair in parts], "; ".join(map(_reason, parts))
        nearest = max(judged, key=lambda pair: (pair in clear, pair[tables.LIFT_LOW]))
        if not nearest[tables.LIFT] > 1:
            return NEW, [], "no label is more frequent among the members than among all galaxies"
        return NEW, [], f"the nearest label is {_named(nearest)}: {_reason(nearest)}"


@dataclass(frozen=True)
class Known:
    """What lists say about the classes of a search.

    Attributes
    ----------
    pairs
        KNOWN table: one row per class and label.
    verdicts
        KINDS table: one row per class.
    about
        Lists, how each covers the galaxies, and the rule.
    page
        Page that was written; None if none was.
    """

    pairs: pa.Table
    verdicts: pa.Table
    about: Mapping[str, Any]
    page: Path | None = None

    def to_pandas(self) -> pd.DataFrame:
        """Return the verdicts, one row per class."""
        return self.verdicts.to_pandas().set_index(tables.CLASS_ID)

    @cached_property
    def text(self) -> str:
        """The verdicts as a Markdown table."""
        rows = [
            [str(row[tables.CLASS_ID]), row[tables.VERDICT], "; ".join(row[tables.KNOWN_AS]), row[tables.REASON]]
            for row in self.verdicts.to_pylist()
        ]
        return tables.markdown(["class", "verdict", "known as", "reason"], rows)

    def summary(self) -> str:
        """Return what a terminal shows."""
        covered = "\n".join(f"{name}: {text}" for name, text in self.about.get("coverage", {}).items())
        return "\n\n".join(part for part in (covered, self.text, str(self.page or "")) if part)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        frame = self.to_pandas()
        frame[tables.KNOWN_AS] = ["; ".join(names) for names in frame[tables.KNOWN_AS]]
        return f"<p>{html.escape('; '.join(self.about.get('coverage', {})))}</p>{frame.to_html()}"


def compare(
    labels: Int[np.ndarray, " n"],
    known: Sequence[Label],
    *,
    classes: Sequence[int],
    rule: KnownRule | None = None,
    about: Mapping[str, Any] | None = None,
) -> Known:
    """Compare classes with the labels of known galaxies.

    Parameters
    ----------
    labels
        Class of each of n galaxies, −1 for none.
    known
        Labels of the same galaxies.
    classes
        Ids of the classes.
    rule
        Thresholds; by default those of :class:`KnownRule`.
    about
        What the result remembers of the lists.
    """
    from scipy.stats import binomtest, false_discovery_control, hypergeom

    rule = rule or KnownRule()
    rows = []
    for label in known:
        total, carriers = int(label.covered.sum()), int((label.has & label.covered).sum())
        for class_id in classes:
            inside = label.covered & (labels == class_id)
            covered, overlap = int(inside.sum()), int((inside & label.has).sum())
            base, share = carriers / max(total, 1), overlap / covered if covered else np.nan
            ends = binomtest(overlap, covered).proportion_ci(method="wilson") if covered else (np.nan, np.nan)
            lift, low, high = (float(value / base) if base else np.nan for value in (share, *ends))
            rows.append({
                tables.CLASS_ID: class_id, tables.LIST: label.list, tables.LABEL: label.label,
                tables.SIZE: int(np.sum(labels == class_id)), tables.COVERED: covered, tables.OVERLAP: overlap,
                tables.LABELLED: carriers, tables.GALAXIES: total, tables.PURITY: share,
                tables.COMPLETENESS: overlap / carriers if carriers else np.nan,
                tables.LIFT: lift, tables.LIFT_LOW: low, tables.LIFT_HIGH: high,
                # The probability of at least as many, among draws of as many galaxies from those covered.
                tables.P_VALUE: float(hypergeom.sf(overlap - 1, total, carriers, covered)) if covered else 1.0,
            })  # fmt: skip
    corrected = false_discovery_control([row[tables.P_VALUE] for row in rows]) if rows else np.empty(0)
    for row, value in zip(rows, corrected, strict=True):
        row[tables.P_CORRECTED] = float(value)
    verdicts = []
    for class_id in classes:
        verdict, names, reason = rule.verdict([row for row in rows if row[tables.CLASS_ID] == class_id])
        verdicts.append(
            {tables.CLASS_ID: class_id, tables.VERDICT: verdict, tables.KNOWN_AS: names, tables.REASON: reason}
        )
    return Known(
        tables.check(pa.Table.from_pylist(rows, pa.schema(list(tables.KNOWN.columns.items()))), tables.KNOWN),
        tables.check(pa.Table.from_pylist(verdicts, pa.schema(list(tables.KINDS.columns.items()))), tables.KINDS),
        {"rule": asdict(rule), **(about or {})},
    )


@dataclass(kw_only=True)
class KnownRun(Settings):
    """Say of each class whether it is a known kind, part of one, a mix, or not in the given lists.

    Besides the lists, classes are compared with the types in the survey's catalogue (T-types and columns of few
    categories) and with the predicted answers to the questions of the votes. Only galaxies that a list covers count:
    those that were classified, as members or not. A list that holds members only covers the parts of the sky where it
    has entries.
    """

    search: str = setting(help="folder of a finished search", positional=True)
    list: _Texts = setting(
        [], "tables of known galaxies, which you have downloaded: CSV, Parquet, FITS, VOTable or ECSV"
    )
    kind: _Texts = setting(
        [], "what each table is: efigi, gz2, lenses, … (see the how-to page), table for any table of ids or positions "
        "and labels, or a YAML file that describes it; one for all tables, or one for each"
    )  # fmt: skip
    radius: float = setting(1.0, "largest distance of a match by position", unit="arcsec", gt=0, le=LARGEST_RADIUS)
    id_column: str = setting("", "column of ids in the tables; empty: those of the list")
    ra_column: str = setting("", "column of right ascensions in the tables; empty: those of the list")
    dec_column: str = setting("", "column of declinations in the tables; empty: those of the list")
    label_column: str = setting("", "column of labels for kind=table, or of a list whose column has no known name")
    coverage: str = setting(
        AUTO, "rows: a table holds every galaxy that was classified; positives: it holds members only; auto: as is "
        "known of the list, and for kind=table positives only if all its rows have the same label",
        choices=(AUTO, ROWS, POSITIVES),
    )  # fmt: skip
    votes: bool = setting(True, "compare with the predicted answers too")
    catalogue: bool = setting(True, "compare with the types in the survey's catalogue too")
    columns: _Texts = setting(
        [], "columns of the catalogue that hold types; empty: T-types and columns of few categories"
    )
    rule: KnownRule = setting(KnownRule, "thresholds of the verdict")
    out: str = setting("", "output folder; empty: known/ in the folder of the search, where its report finds it")

    def run(self) -> Known:
        """Compare and write tables and a page.

        Raises
        ------
        StoreError
            There is no finished search.
        ConfigError, DataError, OutputError
            See the message; nothing is written then.
        """
        search = Search.open(self.search)
        kinds = self._kinds()
        known, coverage = self._labels(search, kinds)
        folder = claim(
            self.out or search.folder / FOLDER, verb="known",
            settings={name: value for name, value in asdict(self).items() if name not in ("search", "out", "list")},
            inputs=lambda: {
                "classes": fingerprint(search.labels, ids=search.ids), "survey": search.about.get("survey_sha256"),
                "checkpoint": search.about.get("checkpoint_sha256"),
                "lists": {str(number): path_sha256(file) for number, file in enumerate(self.list)},
            },
        )  # fmt: skip
        about = {
            "coverage": coverage, "version": __version__, "search": str(search.folder),
            "lists": [
                {"file": Path(file).name, "kind": kind.name, "title": kind.title, "citation": kind.citation}
                for file, kind in zip(self.list, kinds, strict=True)
            ],
        }  # fmt: skip
        classes = search.table("classes").column(tables.CLASS_ID).to_pylist()
        result = compare(search.labels, known, classes=classes, rule=self.rule, about=about)
        for name, table in (("known", result.pairs), ("kinds", result.verdicts)):
            file, kind = TABLES[name]
            tables.write(table, folder / Path(file).name, kind, lists=about["lists"])
        tables.write_csv(result.pairs, folder / "known.csv")
        tables.write_json({**result.about, "text": result.text}, folder / SUMMARY_FILE)
        return Known(result.pairs, result.verdicts, result.about, write_page(result, folder, search))

    def _kinds(self) -> Sequence[KnownList]:
        if not (self.list or self.votes or self.catalogue):
            raise ConfigError("nothing to compare with", value="list=", fix="Give a table: list=FILE kind=KIND.")
        if self.kind and not self.list:
            raise ConfigError("kind= needs a table", value=", ".join(self.kind), fix="Give it: list=FILE.")
        kinds = self.kind or [TABLE]
        kinds = kinds * len(self.list) if len(kinds) == 1 else kinds
        if len(kinds) != len(self.list):
            raise ConfigError(
                "list= and kind= differ in number", value=f"{len(self.list)} and {len(kinds)}",
                fix="Give one kind for all tables, or one for each, in their order.",
            )  # fmt: skip
        pairs = list(zip(self.list, kinds, strict=True))
        doubled = [file for place, (file, kind) in enumerate(pairs) if (file, kind) in pairs[:place]]
        if doubled:
            raise ConfigError("the same list is given twice", value=doubled[0], fix="Give each once: list=FILE,FILE.")
        return [KnownList.named(kind) for kind in kinds]

    def _labels(self, search: Search, kinds: Sequence[KnownList]) -> tuple[Sequence[Label], dict[str, str]]:
        known: Any = []
        coverage: dict[str, str] = {}
        searched = search.about.get("searched", 0)
        shown = search.about.get("shown", searched)
        if shown < searched:
            coverage["all lists"] = (
                f"only {shown:,} of {searched:,} galaxies are compared, the members of all classes and a sample of the "
                "others, so that lift and completeness are not those of the survey"
            )
        columns = ("radius", "id_column", "ra_column", "dec_column", "label_column", "coverage")
        sky: Any = (None, None)
        if self.list:
            try:
                sky = search.sky
            except RarezooError as problem:
                log.warning("galaxies are matched by id only: %s", problem)
        for file, kind in zip(self.list, kinds, strict=True):
            labels, words = kind.read(file, ids=search.ids, sky=sky, **{name: getattr(self, name) for name in columns})
            known += labels
            coverage[f"{kind.name} ({Path(file).name})"] = words
        if self.catalogue or self.columns:
            known += catalogue_labels(search, self.columns)
        if self.votes:
            known += vote_labels(search)
        if not known:
            raise DataError(
                "there is nothing to compare the classes with", value=search.folder,
                fix="The search has neither predicted answers nor types in its catalogue: give a table, list=FILE "
                "kind=KIND.",
            )  # fmt: skip
        return known, coverage


def write_page(known: Known, folder: Path, search: Search) -> Path:
    """Write the page of the verdicts, with the labels of each class that are most frequent; return its path.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    from rarezoo.report import palette
    from rarezoo.report.pages import environment

    pairs: dict[int, list[Mapping[str, Any]]] = {}
    for pair in known.pairs.to_pylist():
        pairs.setdefault(pair[tables.CLASS_ID], []).append(pair)
    shown = [
        {**row, "pairs": sorted(
            (pair for pair in pairs.get(row[tables.CLASS_ID], []) if pair[tables.OVERLAP]),
            key=lambda pair: (pair[tables.P_CORRECTED], -(pair[tables.LIFT_LOW] or 0)),
        )[:8]}
        for row in known.verdicts.to_pylist()
    ]  # fmt: skip
    style = (resources.files("rarezoo.report") / "assets" / "style.css").read_text(encoding="utf-8")
    page = environment().get_template("known.html.jinja").render(
        about={**search.about, **known.about}, palette=palette, style=style, rows=shown, meanings=MEANINGS,
        title=str(search.about.get("title") or search.folder.name), names=tables,
    )  # fmt: skip
    with tables.atomic(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / PAGE


def _named(pair: Mapping[str, Any]) -> str:
    return f"{pair[tables.LIST]}: {pair[tables.LABEL]} {pair[tables.PURITY]:.0%}".replace("%", " %")


def _reason(pair: Mapping[str, Any]) -> str:
    lift, low, high = (pair[name] for name in (tables.LIFT, tables.LIFT_LOW, tables.LIFT_HIGH))
    return (
        f"{pair[tables.OVERLAP]} of {pair[tables.COVERED]} covered members have the label {pair[tables.LABEL]}, "
        f"{lift:.1f} ({low:.1f}–{high:.1f}) times as many as among all, and {pair[tables.COMPLETENESS]:.0%} of all "
        f"galaxies that have it are members; corrected p = {pair[tables.P_CORRECTED]:.2g}"
    ).replace("%", " %")
