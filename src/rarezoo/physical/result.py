"""What the classes of a search are physically: tables, cards for pages, and a table for a paper."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64, Int

from rarezoo import __version__, tables
from rarezoo.data.reading import plain_columns
from rarezoo.errors import ConfigError, OutputError
from rarezoo.physical.controls import Matched
from rarezoo.physical.differences import DIFFERS, VERDICTS, Difference
from rarezoo.physical.join import Joined
from rarezoo.physical.properties import NUMBER, Property
from rarezoo.physical.substructure import Split
from rarezoo.report import physical as cards
from rarezoo.report.exports import write_fits, write_votable
from rarezoo.tables import plain

# Bins of a histogram, and the share of galaxies that its ends leave out on either side.
_BINS, _OUTSIDE = 16, 0.005
_FILES = {
    "differences": tables.DIFFERENCES, "balance": tables.BALANCES, "controls": tables.CONTROLS, "splits": tables.SPLITS,
    "joined": tables.JOINED,
}  # fmt: skip
# Columns of the table for a paper: unit, UCD and description.
_MEANINGS = {
    tables.PROPERTY: ("", "meta.id", "property"),
    tables.UNIT: ("", "meta.unit", "unit of the property"),
    tables.WITHIN: ("", "meta.note", "range of a column that the members are in; empty: all members"),
    tables.SETS: ("", "meta.number", "members with controls for which the property is known"),
    tables.OF_MEMBERS: ("", "stat.median", "median of the members; for a share, the share"),
    tables.OF_CONTROLS: ("", "stat.median", "the same of their controls"),
    tables.DIFFERENCE: ("", "stat.value;arith.diff", "median difference within the sets, adjusted for the covariates"),
    tables.DIFFERENCE_LOW: ("", "stat.min", "lower end of its 95 % interval"),
    tables.DIFFERENCE_HIGH: ("", "stat.max", "upper end of its 95 % interval"),
    tables.EFFECT: ("", "stat.value", "share of pairs in which the member is higher minus lower, -1 to 1"),
    tables.P_CORRECTED: ("", "stat.probability", "p-value, corrected over all classes and properties"),
    tables.VERDICT: ("", "meta.code.qual", "differs, explained, none shown, or not tested"),
}


@dataclass(frozen=True)
class Physical:
    """The classes of a search against their matched controls; a table in a notebook.

    Attributes
    ----------
    joined
        The catalogues, joined to the n galaxies searched.
    labels
        (n,) class of each galaxy, −1 for none.
    covariates
        Names of the columns in which controls were matched.
    matched
        Controls by class id.
    differences
        One per class, property and range.
    splits
        Whether each class splits by its properties.
    completeness
        What the survey's cuts hide, in sentences, by class id.
    planted
        For mock galaxies: what their populations add to a property, by (class id, property).
    title
        Name of the search.

    Examples
    --------
    >>> Physical(joined=Joined(pa.table({"id_str": ["a"]}), ()), labels=np.array([-1]), title="mine")
    Physical(mine: 0 classes, 0 differences)
    """

    joined: Joined
    labels: Int[np.ndarray, " n"]
    covariates: tuple[str, ...] = ()
    matched: Mapping[int, Matched] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    splits: Sequence[Split] = ()
    completeness: Mapping[int, Sequence[str]] = field(default_factory=dict)
    planted: Mapping[tuple[int, str], float] = field(default_factory=dict)
    title: str = ""

    def __repr__(self) -> str:
        differing = sum(one.verdict == DIFFERS for one in self.differences)
        return f"Physical({self.title}: {len(self.matched)} classes, {differing} differences)"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.summary())}</p>{self.paper().to_html(index=False)}"

    def summary(self) -> str:
        """Return what was joined, matched and found, in sentences."""
        matched = [one for one in self.matched.values() if one.is_balanced]
        differing = [one for one in self.differences if one.verdict == DIFFERS]
        splitting = [str(one.class_id) for one in self.splits if one.splits]
        lines = [str(match) for match in self.joined.matches]
        lines.append(
            f"{len(matched)} of {len(self.matched)} classes have matched controls (in {', '.join(self.covariates)})."
        )
        lines.append(
            f"{len(differing)} of {len(self.differences)} comparisons differ after correction, in "
            f"{len({one.class_id for one in differing})} classes."
        )
        lines.append(f"Classes that split by their properties: {', '.join(splitting) or 'none'}.")
        return "\n".join(lines)

    def verdicts(self) -> str:
        """Return how many classes have each verdict in each property, as a Markdown table."""
        counts: dict[str, Counter[str]] = {}
        for one in self.differences:
            if not one.within.column:
                counts.setdefault(one.of.name, Counter())[one.verdict] += 1
        rows = [[name, *(str(found[verdict]) for verdict in VERDICTS)] for name, found in counts.items()]
        return tables.markdown(["property", *VERDICTS], rows)

    @cached_property
    def table(self) -> pa.Table:
        """The differences as a DIFFERENCES table."""
        rows = [
            {
                tables.CLASS_ID: one.class_id, tables.PROPERTY: one.of.name, tables.UNIT: one.of.unit,
                tables.KIND: one.of.kind, tables.WITHIN: one.within.column, tables.WITHIN_LOW: one.within.low,
                tables.WITHIN_HIGH: one.within.high, tables.SETS: one.sets, tables.OF_MEMBERS: one.members.value,
                tables.OF_CONTROLS: one.controls.value, tables.DIFFERENCE: one.difference.value,
                tables.DIFFERENCE_LOW: one.difference.low, tables.DIFFERENCE_HIGH: one.difference.high,
                tables.EFFECT: one.effect, tables.P_VALUE: one.p, tables.P_CORRECTED: one.q,
                tables.RAW_DIFFERENCE: one.raw, tables.RAW_P: one.raw_p, tables.RAW_P_CORRECTED: one.raw_q,
                tables.VERDICT: one.verdict, tables.REASON: one.why or one.note,
            }
            for one in self.differences
        ]  # fmt: skip
        return _table(rows, tables.DIFFERENCES)

    @cached_property
    def balance(self) -> pa.Table:
        """The standardised mean differences of the covariates as a BALANCES table."""
        rows = [
            {tables.CLASS_ID: class_id, tables.COVARIATE: name, tables.BEFORE: before, tables.AFTER: after}
            for class_id, one in sorted(self.matched.items())
            for name, before, after in one.balance
        ]
        return _table(rows, tables.BALANCES)

    @cached_property
    def controls(self) -> pa.Table:
        """Each member with each of its controls as a CONTROLS table; its column ``id_str`` is the member."""
        ids = tables.strings(self.joined.table, tables.ID)
        rows = [
            {tables.CLASS_ID: class_id, tables.ID: ids[member], tables.CONTROL: ids[control]}
            for class_id, one in sorted(self.matched.items())
            for member, controls in zip(one.members, one.controls, strict=True)
            for control in controls[controls >= 0]
        ]
        return _table(rows, tables.CONTROLS)

    @cached_property
    def substructure(self) -> pa.Table:
        """Whether each class splits by its properties, as a SPLITS table."""
        rows = [
            {
                tables.CLASS_ID: one.class_id, tables.GALAXIES: one.members, tables.PROPERTIES: list(one.properties),
                tables.DELTA_BIC: one.delta_bic, tables.SMALLER_SHARE: one.share, tables.SEPARATION: one.separation,
                tables.P_VALUE: one.p, tables.P_CORRECTED: one.q, tables.REASON: one.why,
            }
            for one in self.splits
        ]  # fmt: skip
        return _table(rows, tables.SPLITS)

    def paper(self, classes: Sequence[int] = ()) -> pd.DataFrame:
        """Return the table for a paper: one row per class and property, without those that were not tested.

        Parameters
        ----------
        classes
            Ids of classes; empty: all.
        """
        frame = self.table.to_pandas()
        frame = frame[frame[tables.SETS] > 0]
        frame = frame[frame[tables.CLASS_ID].isin(classes)] if len(classes) else frame
        ranged = frame[tables.WITHIN] != ""
        texts = [
            f"{name} {low:.4g} to {high:.4g}" if name else ""
            for name, low, high in zip(
                frame[tables.WITHIN], frame[tables.WITHIN_LOW], frame[tables.WITHIN_HIGH], strict=True
            )
        ]
        columns = [name for name in (tables.CLASS_ID, *_MEANINGS) if name != tables.WITHIN or ranged.any()]
        return frame.assign(**{tables.WITHIN: texts})[columns].reset_index(drop=True)

    def export(self, path: Path | str, *, classes: Sequence[int] = ()) -> Path:
        """Write the table for a paper; the ending of the file says how: .fits, .vot, .tex or .csv.

        Parameters
        ----------
        path
            File to write.
        classes
            Ids of classes; empty: all.

        Raises
        ------
        ConfigError
            The ending is another one.
        OutputError
            The file cannot be written.
        """
        path, table = Path(path), plain_columns(pa.Table.from_pandas(self.paper(classes), preserve_index=False))
        about = {"search": self.title, "covariates": ", ".join(self.covariates), "rarezoo": __version__}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".fits":
                return write_fits(path, table, about, meanings=_MEANINGS)
            if path.suffix in (".vot", ".xml"):
                return write_votable(path, table, about, meanings=_MEANINGS)
            if path.suffix == ".csv":
                return tables.write_csv(table, path)
            if path.suffix == ".tex":
                with tables.atomic(path) as temporary:
                    temporary.write_text(self.latex(classes), encoding="utf-8")
                return path
        except OSError as problem:
            raise tables.unwritable(path, problem) from problem
        raise ConfigError("unknown kind of table", value=path.name, fix="Choose .fits, .vot, .tex or .csv.")

    def latex(self, classes: Sequence[int] = ()) -> str:
        """Return the table for a paper as LaTeX, with intervals as errors."""
        head = ["Class", "Property", "Sets", "Members", "Controls", "Difference", "Effect", "$q$"]
        lines = []
        frame = self.paper(classes)
        for row in frame.to_dict("records"):
            unit = f" ({row[tables.UNIT]})" if row[tables.UNIT] else ""
            within = f", {row[tables.WITHIN]}" if row.get(tables.WITHIN) else ""
            ends = (tables.DIFFERENCE, tables.DIFFERENCE_LOW, tables.DIFFERENCE_HIGH)
            value, low, high = (row[name] for name in ends)
            q = row[tables.P_CORRECTED]
            cells = [
                str(row[tables.CLASS_ID]), _latex(f"{row[tables.PROPERTY]}{unit}{within}"),
                str(row[tables.SETS]), f"{row[tables.OF_MEMBERS]:.3g}", f"{row[tables.OF_CONTROLS]:.3g}",
                f"${value:+.3g}_{{{low - value:+.2g}}}^{{{high - value:+.2g}}}$",
                f"${row[tables.EFFECT]:+.2f}$", f"${q:.3f}$" if q >= 0.001 else "$<0.001$",
            ]  # fmt: skip
            lines.append(" & ".join(cells))
        note = (
            "Members against controls of no class, matched in "
            f"{_latex(', '.join(self.covariates))}. Differences are medians within matched sets with 95\\% intervals; "
            "$q$ is corrected over all classes and properties (Benjamini \\& Hochberg 1995)."
        )
        body = " \\\\\n".join(lines)
        return (
            f"\\begin{{table}}\n\\caption{{{note}}}\n\\begin{{tabular}}{{llrrrrrr}}\n\\hline\n{' & '.join(head)} \\\\\n"
            f"\\hline\n{body} \\\\\n\\hline\n\\end{{tabular}}\n\\end{{table}}\n"
        )

    def card(self, class_id: int) -> dict[str, Any]:
        """Return what the page of a class shows: numbers, histograms, balance and completeness."""
        matched, own = self.matched[class_id], [one for one in self.differences if one.class_id == class_id]
        split = next((one for one in self.splits if one.class_id == class_id), None)
        counts = matched.counts
        shown = sorted(
            (one for one in own if not one.within.column and one.of.kind == NUMBER and not one.why),
            key=lambda one: (one.verdict != DIFFERS, one.p),
        )
        return plain(
            {
                "class_id": class_id, "size": matched.size, "matched": len(matched.members),
                "controls": int(counts.sum()), "most": int(counts.max(initial=0)), "reason": matched.reason,
                "covariates": [one._asdict() for one in matched.balance],
                "rows": [self._card_row(one) for one in own],
                "histograms": [self._histogram(one.of, matched) for one in shown],
                "completeness": list(self.completeness.get(class_id, ())),
                "split": "" if split is None else str(split), "splits": bool(split is not None and split.splits),
                "mock": bool(self.planted), "within": next((one.within.column for one in own if one.within.column), ""),
            }
        )  # fmt: skip

    def _card_row(self, one: Difference) -> dict[str, Any]:
        planted = self.planted.get((one.class_id, one.of.name))
        truth = None
        if planted is not None and not one.within.column:
            inside = None if one.why else one.difference.low <= planted <= one.difference.high
            truth = {"offset": planted, "inside": inside}
        return {
            "property": one.of.name, "unit": one.of.unit, "kind": one.of.kind,
            "within": str(one.within) if one.within.column else "", "sets": one.sets, "members": list(one.members),
            "controls": list(one.controls), "difference": list(one.difference), "effect": one.effect, "raw": one.raw,
            "q": one.q, "verdict": one.verdict, "why": one.why, "note": one.note, "planted": truth,
        }  # fmt: skip

    def _histogram(self, one: Property, matched: Matched) -> dict[str, Any]:
        values = one.values
        members, controls = values[matched.members], values[matched.pool]
        both = np.concatenate([members, controls])
        low, high = np.nanquantile(both, (_OUTSIDE, 1 - _OUTSIDE))
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        return {
            "name": one.name, "unit": one.unit, "low": float(edges[0]), "high": float(edges[-1]),
            "members": _shares(members, edges), "controls": _shares(controls, edges),
        }  # fmt: skip

    def write(self, folder: Path | str, *, back: str = "") -> Path:
        """Write tables, cards, the table for a paper, and a page; the path of the page.

        Parameters
        ----------
        folder
            Where.
        back
            Address of the page that the page links back to; empty for none.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        folder = Path(folder)
        if folder.is_file():
            raise OutputError("the output path is a file", value=folder, fix="Choose a folder: out=DIR.")
        found = {
            "differences": self.table, "balance": self.balance, "controls": self.controls, "splits": self.substructure,
            "joined": self.joined.table,
        }  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, table in found.items():
                tables.write(table, folder / f"{name}.parquet", _FILES[name], search=self.title)
            for ending in ("fits", "vot", "tex", "csv"):
                self.export(folder / f"table.{ending}")
            shown = {class_id: self.card(class_id) for class_id in sorted(self.matched)}
            tables.write_json({str(class_id): card for class_id, card in shown.items()}, folder / cards.FILE)
            return cards.write_page(
                folder, shown, title=self.title, lines=self.summary().splitlines(), covariates=self.covariates,
                back=back,
            )  # fmt: skip
        except OSError as problem:
            raise tables.unwritable(folder, problem) from problem


def _table(rows: Sequence[Mapping[str, Any]], kind: tables.Kind) -> pa.Table:
    schema = pa.schema(list(kind.columns.items()))
    return tables.check(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), kind)


def _shares(values: Float64[np.ndarray, " n"], edges: np.ndarray) -> list[float]:
    known = values[np.isfinite(values)]
    counts, _ = np.histogram(known, edges)
    return [round(float(count) / max(len(known), 1), 4) for count in counts]


def _latex(text: str) -> str:
    for letter in "&%$#_{}":
        text = text.replace(letter, f"\\{letter}")
    return text
