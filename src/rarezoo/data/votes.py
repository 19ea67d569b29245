"""Votes of volunteers as one float32 array.

A table may hold these values for an answer:

    column missing, null, NaN, 0    no volunteer gave the answer; a question whose total is 0 was not asked, is masked
    whole number                    the number of volunteers
    fractional number               weighted votes (Galaxy Zoo weighs its volunteers), kept as they are
    fractions of one                an error, unless ``scale`` says how many volunteers they stand for
    negative, infinite, text        an error
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32

from rarezoo import tables
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import DataError

# The fractions of a question add up to one, up to the rounding of published tables.
_SUM_TOLERANCE = 0.02
# Endings of derived columns, which published tables have beside the counts.
_DERIVED = ("_fraction", "_debiased", "_mask", "_count", "_weighted", "_total-votes", "_flag")


def votes_of(
    table: pa.Table, tree: QuestionTree, *, source: str, scale: float = 0.0
) -> Float32[np.ndarray, "galaxies answers"]:
    """Return the votes of a table, one row per row of the table.

    Parameters
    ----------
    table
        Table with columns that are named like the answers of the tree.
    tree
        The question tree.
    source
        Name of the table, for messages.
    scale
        Number of volunteers per question that the vote fractions in the table stand for; 0 = the table holds counts.

    Returns
    -------
    numpy.ndarray
        (galaxies, answers) float32.

    Raises
    ------
    DataError
        No column fits, an answer is unknown to the tree, or a value is not a vote.
    """
    present = [answer for answer in tree.answers if answer in table.column_names]
    if not present:
        raise DataError(
            f"{source}: no column of tree {tree.name}", value=", ".join(table.column_names[:8]),
            fix=f"Rename the vote columns ({', '.join(tree.answers[:3])}, …) or choose another tree: data.votes=NAME.",
        )  # fmt: skip
    # A column that begins like a question of the tree and is not an answer of it means that the tree is the wrong one.
    foreign = [
        column
        for column in table.column_names
        if column.startswith(tuple(f"{question.name}_" for question in tree.questions))
        and column not in tree.answers
        and not column.endswith(_DERIVED)
    ]
    if foreign:
        raise DataError(
            f"{source}: vote columns that tree {tree.name} lacks", value=", ".join(foreign[:6]),
            fix="Choose the tree of that campaign (data.votes=NAME), or drop those columns.",
        )  # fmt: skip
    votes = np.zeros((table.num_rows, len(tree.answers)), dtype=np.float32)
    for answer in present:
        votes[:, tree.answers.index(answer)] = _counts(table, answer, source=source)
    if scale:
        return votes * np.float32(scale)
    totals = tree.totals(votes)
    asked = totals[totals > 0]
    if len(asked) and np.any(votes != np.round(votes)) and np.all(asked <= 1 + _SUM_TOLERANCE):
        raise DataError(
            f"{source}: these are vote fractions, not counts (no question has more than one vote)",
            value=f"largest total {asked.max():.2f}",
            fix="Set the number of volunteers that they stand for: data.votes_scale=40.",
        )
    return votes


def _counts(table: pa.Table, answer: str, *, source: str) -> np.ndarray:
    column = table.column(answer)
    try:
        counts = pd.to_numeric(pd.Series(column.to_pylist(), dtype=object)).to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as problem:
        raise DataError(
            f"{source}: votes that are no numbers in {answer}", value=problem, fix="Correct them."
        ) from problem
    counts = np.where(np.isnan(counts), 0.0, counts)
    bad = np.flatnonzero((counts < 0) | ~np.isfinite(counts))
    if len(bad):
        named = tables.ID in table.column_names
        ids = table.column(tables.ID).take(pa.array(bad)).to_pylist() if named else [f"row {row}" for row in bad]
        raise DataError(
            f"{source}: votes must be finite and not negative, {answer}", value=counts[bad[0]],
            fix="Correct or empty those cells.", ids=list(map(str, ids)),
        )  # fmt: skip
    return counts
