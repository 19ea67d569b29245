"""Compare the classes of a search of a mock survey with the populations that were planted in it."""

import numpy as np
import pyarrow as pa

from rarezoo import tables

ORDINARY = "ordinary"
# A population is found if one class consists mostly of it and contains most of it.
PURE, COMPLETE = 0.5, 0.5

BEST_CLASS, PURITY, COMPLETENESS, FOUND = "best_class", "purity", "completeness", "found"
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


def is_found(purity: float, completeness: float) -> bool:
    """Return whether a population is found by a class with this purity and completeness: both above one half.

    >>> is_found(0.8, 0.6), is_found(0.5, 0.9)
    (True, False)
    """
    return bool(purity > PURE and completeness > COMPLETE)


def recovery(members: pa.Table, truth: pa.Table) -> pa.Table:
    """Find the class that contains most of each planted population.

    Parameters
    ----------
    members
        MEMBERS table.
    truth
        TRUTH table; galaxies that were not searched are ignored.

    Returns
    -------
    pyarrow.Table
        One row per planted population: ``population``, ``size`` among the galaxies searched, ``best_class`` (−1 for
        none), its ``purity`` and ``completeness`` (0–1), and ``found``, see :func:`is_found`.

    Raises
    ------
    StoreError
        A galaxy is missing from the truth.

    Examples
    --------
    >>> ids = ["a", "b", "c", "d"]
    >>> members = pa.table({"id_str": ids, "class_id": [0, 0, -1, -1]})
    >>> truth = pa.table({"id_str": ids, "population": ["ring", "ring", "ring", "ordinary"]})
    >>> recovery(members, truth).select(["population", "best_class", "found"]).to_pylist()
    [{'population': 'ring', 'best_class': 0, 'found': True}]
    """
    populations = tables.strings(tables.aligned(truth, members[tables.ID], source="the truth"), tables.POPULATION)
    labels = members[tables.CLASS_ID].to_numpy()
    planted = sorted(set(truth[tables.POPULATION].to_pylist()) - {ORDINARY})
    return pa.Table.from_pylist([_best_class(name, populations == name, labels) for name in planted], _SCHEMA)


def _best_class(name: str, planted: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    inside = labels[planted & (labels != tables.NO_CLASS)]
    size = int(planted.sum())
    best, purity, completeness = tables.NO_CLASS, 0.0, 0.0
    if len(inside):
        classes, shared = np.unique(inside, return_counts=True)
        best = int(classes[np.argmax(shared)])
        purity, completeness = float(shared.max() / np.sum(labels == best)), float(shared.max() / size)
    return {
        tables.POPULATION: name,
        tables.SIZE: size,
        BEST_CLASS: best,
        PURITY: purity,
        COMPLETENESS: completeness,
        FOUND: is_found(purity, completeness),
    }
