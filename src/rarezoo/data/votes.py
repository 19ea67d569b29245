"""Volunteers' votes as one float32 array.

What a table may hold for an answer, and what it means:

    column missing, null, NaN, 0    nobody gave that answer; a question whose total is 0 was not asked and is masked
    whole number                    that many volunteers
    fractional number               weighted votes (Galaxy Zoo weighs its volunteers), kept as they are
    fractions of one                refused unless ``scale`` says how many volunteers they stand for
    negative, infinite, text        refused
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float32

from rarezoo import tables
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import DataError

# A question's fractions sum to one up to the rounding of published tables.
_SUM_TOLERANCE = 0.02


def votes_of(
    table: pa.Table, tree: QuestionTree, *, source: str, scale: float = 0.0
) -> Float32[np.ndarray, "galaxies answers"]:
    """Votes per answer of the tree, one row per row of the table.

    Args:
        table: any table that has columns named as the tree's answers.
        tree: the question tree.
        source: the table's name, for messages.
        scale: volunteers per question that the table's vote fractions stand for; 0 = the table holds counts.

    Raises:
        DataError: no column fits, an answer is unknown to the tree, or a value has no meaning as a vote.
    """
    present = [answer for answer in tree.answers if answer in table.column_names]
    if not present:
        raise DataError(
            f"{source}: no column of tree {tree.name}", value=", ".join(table.column_names[:8]),
            fix=f"Rename the vote columns ({', '.join(tree.answers[:3])}, …) or choose another tree: data.votes=NAME.",
        )  # fmt: skip
    _refuse_foreign_answers(table, tree, source=source)
    votes = np.zeros((table.num_rows, len(tree.answers)), dtype=np.float32)
    for answer in present:
        votes[:, tree.answers.index(answer)] = _counts(table, answer, source=source)
    if scale:
        return votes * np.float32(scale)
    _refuse_fractions(votes, tree, source=source)
    return votes


def _counts(table: pa.Table, answer: str, *, source: str) -> np.ndarray:
    column = table.column(answer)
    try:
        counts = pd.to_numeric(pd.Series(column.to_pylist(), dtype=object)).to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as problem:
        raise DataError(
            f"{source}: votes that are no numbers in {answer}", value=problem, fix="Mend them."
        ) from problem
    counts = np.where(np.isnan(counts), 0.0, counts)
    bad = np.flatnonzero((counts < 0) | ~np.isfinite(counts))
    if len(bad):
        raise DataError(
            f"{source}: votes must be finite and not negative, {answer}", value=counts[bad[0]],
            fix="Mend or blank those cells.", ids=_ids(table, bad),
        )  # fmt: skip
    return counts


def _ids(table: pa.Table, rows: np.ndarray) -> list[str]:
    if tables.ID not in table.column_names:
        return [f"row {row}" for row in rows]
    return [str(one) for one in table.column(tables.ID).take(pa.array(rows)).to_pylist()]


def _refuse_foreign_answers(table: pa.Table, tree: QuestionTree, *, source: str) -> None:
    """A column that begins like a question of the tree but is no answer of it means the wrong tree."""
    names = tuple(f"{question.name}_" for question in tree.questions)
    # Published tables carry derived columns beside the counts.
    derived = ("_fraction", "_debiased", "_mask", "_count", "_weighted", "_total-votes", "_flag")
    foreign = [
        column
        for column in table.column_names
        if column.startswith(names) and column not in tree.answers and not column.endswith(derived)
    ]
    if foreign:
        raise DataError(
            f"{source}: vote columns that tree {tree.name} lacks", value=", ".join(foreign[:6]),
            fix="Choose the tree of that campaign (data.votes=NAME), or drop those columns.",
        )  # fmt: skip


def _refuse_fractions(votes: np.ndarray, tree: QuestionTree, *, source: str) -> None:
    totals = tree.totals(votes)
    asked = totals[totals > 0]
    fractional = np.any(votes != np.round(votes))
    if len(asked) and fractional and np.all(asked <= 1 + _SUM_TOLERANCE):
        raise DataError(
            f"{source}: these are vote fractions, not counts (no question has more than one vote)",
            value=f"largest total {asked.max():.2f}",
            fix="Say how many volunteers they stand for: data.votes_scale=40.",
        )
