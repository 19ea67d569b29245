"""The classes of a search as a table for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.data.survey import open_survey
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.searches.systematics import CLEAN

_TOP = 3


def classes_table(folder: Path | str, *, column: str = "") -> str:
    """Classes of a search: size, share, persistence, false discovery rate, stability, what is beyond the answers,
    cause, the answers that set it apart. By significance, highest first, or by persistence where that was not measured.

    Stability is the mean over refits of the class's best Jaccard, and the share of the refits in which it is kept.

    With a numeric column of the survey's catalogue: its mean per class instead, highest first, over the members for
    whom it is known, beside the mean of all galaxies.

    Raises:
        StoreError: no finished search there.
        ConfigError: the catalogue has no such column.
    """
    if column:
        return _means_table(Path(folder), column)
    classes = tables.read(Path(folder) / "classes.parquet", tables.CLASSES).to_pylist()
    measured = any(one[tables.SIGNIFICANCE] is not None for one in classes)
    measure = tables.SIGNIFICANCE if measured else tables.PERSISTENCE
    rows = [
        [
            str(one[tables.CLASS_ID]),
            str(one[tables.SIZE]),
            f"{one[tables.FRACTION]:.2%}",
            "–" if one[tables.PERSISTENCE] is None else f"{one[tables.PERSISTENCE]:.3f}",
            "–" if one[tables.FALSE_DISCOVERY] is None else f"{one[tables.FALSE_DISCOVERY]:.2g}",
            _stability(one),
            "–" if one[tables.BEYOND] is None else f"{one[tables.BEYOND]:.2f}",
            _told(one),
            "; ".join(one[tables.TOP_ANSWERS][:_TOP]),
        ]
        for one in sorted(classes, key=lambda one: (one[measure] is None, -(one[measure] or 0)))
    ]
    told = ["false discovery", "stability", "beyond", "cause", "predicted answers that differ most"]
    return tables.markdown(["class", "galaxies", "share", "persistence", *told], rows)


def _stability(one: dict[str, Any]) -> str:
    if one[tables.STABILITY] is None:
        return "not measured"
    survived = one.get(tables.SURVIVED)
    return f"{one[tables.STABILITY]:.2f}" + ("" if survived is None else f", kept in {survived:.0%}")


def _told(one: Mapping[str, Any]) -> str:
    """What made a class: clean needs no reason."""
    cause = one[tables.CAUSE] or "–"
    return cause if cause in ("–", CLEAN) else f"{cause} ({one[tables.CAUSE_REASON]})"


def _means_table(folder: Path, column: str) -> str:
    members = tables.read(folder / "members.parquet", tables.MEMBERS)
    store = EmbeddingStore.open(tables.provenance(members)["settings"]["store"])
    catalogue = open_survey(store.manifest.survey_settings).open().catalogue
    if column not in catalogue.column_names:
        names = ", ".join(catalogue.column_names)
        raise ConfigError("the survey's catalogue has no column", value=column, fix=f"There are: {names}.")
    value_of = dict(zip(catalogue[tables.ID].to_pylist(), catalogue[column].to_pylist(), strict=True))
    values = np.array([value_of[one] for one in members[tables.ID].to_pylist()], dtype=np.float64)
    labels, known = members[tables.CLASS_ID].to_numpy(), np.isfinite(values)
    groups = {str(one): known & (labels == one) for one in np.unique(labels[known]) if one != tables.NO_CLASS}
    ranked = sorted(groups.items(), key=lambda group: -values[group[1]].mean())
    rows = [[name, str(rows.sum()), f"{values[rows].mean():.4f}"] for name, rows in [("all", known), *ranked]]
    return tables.markdown(["class", "galaxies for whom it is known", f"mean {column}"], rows)
