"""Where the truth is known (mock surveys): which planted populations did the search find?"""

import numpy as np
import pyarrow as pa

from rarezoo import tables

ORDINARY = "ordinary"
# A population is found when one class is mostly made of it and holds most of it.
PURE, COMPLETE = 0.5, 0.5

BEST_CLASS, PURITY, COMPLETENESS, FOUND = "best_class", "purity", "completeness", "found"


def recovery(members: pa.Table, truth: pa.Table) -> pa.Table:
    """One row per planted population: its size among the galaxies searched, and the class that holds most of it.

    Args:
        members: MEMBERS table.
        truth: TRUTH table; galaxies of it that were not searched are ignored.

    Returns:
        Columns population, size, best_class (−1: none), purity, completeness (both 0–1), found
        (purity and completeness of the best class both above one half).
    """
    population_of = dict(zip(truth[tables.ID].to_pylist(), truth[tables.POPULATION].to_pylist(), strict=True))
    populations = np.array([population_of[one] for one in members[tables.ID].to_pylist()], dtype=object)
    labels = members[tables.CLASS_ID].to_numpy()
    planted = sorted(set(truth[tables.POPULATION].to_pylist()) - {ORDINARY})
    return pa.Table.from_pylist([_best_class(name, populations == name, labels) for name in planted], _SCHEMA)


def _best_class(name: str, planted: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    inside = labels[planted & (labels != tables.NO_CLASS)]
    size = int(planted.sum())
    row = {tables.POPULATION: name, tables.SIZE: size, BEST_CLASS: tables.NO_CLASS, PURITY: 0.0, COMPLETENESS: 0.0}
    if not len(inside):
        return {**row, FOUND: False}
    classes, shared = np.unique(inside, return_counts=True)
    best = int(classes[np.argmax(shared)])
    purity, completeness = shared.max() / np.sum(labels == best), shared.max() / size
    found = bool(purity > PURE and completeness > COMPLETE)
    return {**row, BEST_CLASS: best, PURITY: float(purity), COMPLETENESS: float(completeness), FOUND: found}


_SCHEMA = pa.schema(
    {
        tables.POPULATION: pa.string(),
        tables.SIZE: pa.int64(),
        BEST_CLASS: pa.int32(),
        PURITY: pa.float64(),
        COMPLETENESS: pa.float64(),
        FOUND: pa.bool_(),
    }
)
