"""List the classes of a search in a terminal: ``rarezoo classes list``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.searches.result import Search
from rarezoo.searches.systematics import CLEAN
from rarezoo.settings import Settings, setting

# Predicted answers that are listed per class.
_ANSWERS = 3


@dataclass(kw_only=True)
class ListRun(Settings):
    """List the classes of a search.

    By default there is one line per class: grade, size, share of the galaxies, persistence, false discovery rate,
    stability (mean over refits of the best Jaccard index, and the share of refits in which the class is kept), the
    share beyond the predicted answers, its cause, and the answers that distinguish it. The grade says how strong the
    evidence is: ``significant and stable``, ``significant`` or ``candidate``; a candidate is no discovery. The class to
    look at first is first. In searches that gave no ranks it is the most significant class, or the most persistent one
    where significance was not measured.

    With a numeric column of the survey's catalogue the list holds the mean of the column per class, the highest first,
    over the members for which it is known.
    """

    search: str = setting(help="folder of a finished search", positional=True)
    column: str = setting("", "numeric column of the survey's catalogue, whose mean per class is listed instead")

    def run(self) -> str:
        """Return the list as a Markdown table.

        Raises
        ------
        StoreError
            The folder holds no finished search.
        ConfigError
            The catalogue has no such column, or it does not hold numbers.
        """
        search = Search.open(self.search)
        return means_table(search, self.column) if self.column else classes_table(search)


def classes_table(search: Search) -> str:
    """Return the classes of a search as a Markdown table, see :class:`ListRun`."""
    classes = search.table("classes").to_pylist()
    measured = any(row[tables.SIGNIFICANCE] is not None for row in classes)
    measure = tables.SIGNIFICANCE if measured else tables.PERSISTENCE
    classes = sorted(
        classes, key=lambda row: (row[tables.RANK] or len(classes) + 1, row[measure] is None, -(row[measure] or 0))
    )
    kinds = search.kinds
    head = ["class", "grade", "galaxies", "share", "persistence", "false discovery", "stability", "beyond", "cause"]
    rows = [
        [
            str(row[tables.CLASS_ID]),
            row[tables.GRADE] or "–",
            str(row[tables.SIZE]),
            f"{row[tables.FRACTION]:.2%}",
            "–" if row[tables.PERSISTENCE] is None else f"{row[tables.PERSISTENCE]:.3f}",
            "–" if row[tables.FALSE_DISCOVERY] is None else f"{row[tables.FALSE_DISCOVERY]:.2g}",
            _stability(row),
            "–" if row[tables.BEYOND] is None else f"{row[tables.BEYOND]:.2f}",
            _cause(row),
            *([_kind(kinds[row[tables.CLASS_ID]])] if kinds else []),
            "; ".join(row[tables.TOP_ANSWERS][:_ANSWERS]),
        ]
        for row in classes
    ]
    head += ["known"] if kinds else []
    return tables.markdown([*head, "predicted answers that differ most"], rows)


def _stability(row: Mapping[str, Any]) -> str:
    if row[tables.STABILITY] is None:
        return "not measured"
    survived = row.get(tables.SURVIVED)
    return f"{row[tables.STABILITY]:.2f}" + ("" if survived is None else f", kept in {survived:.0%}")


def _kind(row: Mapping[str, Any]) -> str:
    names = "; ".join(row[tables.KNOWN_AS])
    return f"{row[tables.VERDICT]} ({names})" if names else str(row[tables.VERDICT])


def _cause(row: Mapping[str, Any]) -> str:
    cause = row[tables.CAUSE] or "–"
    return cause if cause in ("–", CLEAN) else f"{cause} ({row[tables.CAUSE_REASON]})"


def means_table(search: Search, column: str) -> str:
    """Return the mean of a catalogue column in each class, and in all galaxies, as a Markdown table."""
    catalogue = search.survey().catalogue
    kind = catalogue.schema.field(column).type if column in catalogue.column_names else None
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        names = ", ".join(catalogue.column_names)
        raise ConfigError("the survey's catalogue has no such column of numbers", value=column, fix=f"It has: {names}.")
    rows = tables.aligned(catalogue.select([tables.ID, column]), search.ids, source="the catalogue")
    values = rows.column(column).cast(pa.float64()).to_numpy()
    known = np.isfinite(values)
    groups = {str(class_id): known & (search.labels == class_id) for class_id in np.unique(search.labels[known])}
    groups.pop(str(tables.NO_CLASS), None)
    ranked = sorted(groups.items(), key=lambda group: -values[group[1]].mean())
    cells = [[name, str(inside.sum()), f"{values[inside].mean():.4f}"] for name, inside in [("all", known), *ranked]]
    return tables.markdown(["class", "galaxies with a value", f"mean {column}"], cells)
