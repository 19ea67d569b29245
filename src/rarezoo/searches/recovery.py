"""Compare the classes of a search of a mock survey with the populations that were planted in it."""

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.statistics import Recovery

ORDINARY = "ordinary"
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
        none), its ``purity`` and ``completeness`` (0–1), and ``found``, see
        :class:`rarezoo.statistics.Recovery`.

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
    classes, members_of = np.unique(labels[labels != tables.NO_CLASS], return_counts=True)
    sizes = np.array([np.sum(populations == name) for name in planted], dtype=np.int64)
    inside = [labels[(populations == name) & (labels != tables.NO_CLASS)] for name in planted]
    counts = np.zeros((len(planted), len(classes)), dtype=np.int64)
    for place, of_population in enumerate(inside):
        counts[place] = np.bincount(np.searchsorted(classes, of_population), minlength=len(classes))
    found = Recovery.of(counts, populations=sizes, classes=members_of).found
    rows = []
    for place, name in enumerate(planted):
        row = {tables.POPULATION: name, tables.SIZE: int(sizes[place]), FOUND: bool(found[place])}
        if counts[place].any():
            best = int(counts[place].argmax())
            shared = counts[place, best]
            row |= {
                BEST_CLASS: int(classes[best]),
                PURITY: float(shared / members_of[best]),
                COMPLETENESS: float(shared / sizes[place]),
            }
        else:
            row |= {BEST_CLASS: tables.NO_CLASS, PURITY: 0.0, COMPLETENESS: 0.0}
        rows.append(row)
    return pa.Table.from_pylist(rows, _SCHEMA)
