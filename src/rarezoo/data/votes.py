"""Votes of volunteers as one float32 array.

A table may hold these values for an answer:

    column missing, null, NaN, 0    no volunteer gave the answer; a question whose total is 0 was not asked, is masked
    whole number                    the number of volunteers
    fractional number               weighted votes (Galaxy Zoo weighs its volunteers), kept as they are
    fractions of one                an error, unless ``scale`` says how many volunteers they stand for
    percentages, per mille          an error, also if only the first questions add up to 100, as cumulative ones do
    negative, above 2²⁴, text       an error

Whether numbers are fractions is decided for the whole table. A question of a galaxy looks like fractions if no answer
is above one, some answer is not a whole number, and the total is at most 1.5: debiased and cumulative fractions do not
add up to one.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64

from rarezoo import tables
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import DataError

# A fraction is at most one, up to the rounding of published tables.
_ONE = 1.02
# Debiased fractions of a question add up to less than this.
_LARGEST_SUM = 1.5
# A number is whole if it differs by less than float32 arithmetic would leave.
_WHOLE = 1e-4
# Shares of questions that look like fractions from which on weighted votes are not believed: among the questions that
# every galaxy is asked, and among all. Few volunteers reach the last questions, whose weighted votes are often below 1.
_FEW_FIRST, _FEW = 0.05, 0.5
# Percentages and parts of a thousand: the totals, their relative tolerance, the share of totals within it, and the
# number of totals needed: fewer if they are sums of numbers that are not whole, which counts rarely are.
_PARTS, _NEAR, _MOST, _ENOUGH, _ENOUGH_NOT_WHOLE = (100, 1000), 0.02, 0.9, 10, 3
# float32, which training computes with, holds every number of votes up to this one.
MOST_VOTES = 2**24
# Endings of derived columns, which published tables have beside the counts.
_DERIVED = ("_fraction", "_debiased", "_mask", "_count", "_weighted", "_total-votes", "_flag")


def votes_of(
    table: pa.Table, tree: QuestionTree, *, source: str, scale: float = 0.0, ids: Sequence[str] | None = None
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
        Number of volunteers per question that the vote fractions in the table stand for; 0 = the table holds counts;
        1 = numbers are kept as they are, whatever they look like.
    ids
        Ids of the rows, for messages; by default the column ``id_str``, if there is one.

    Returns
    -------
    numpy.ndarray
        (galaxies, answers) float32.

    Raises
    ------
    DataError
        No column fits, an answer is unknown to the tree, or a value is not a vote; or the table holds fractions
        without a scale, or counts with one.
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
    spelled = {_plain_name(column): column for column in table.column_names if column not in tree.answers}
    misspelt = {spelled[name]: answer for answer in tree.answers
                if answer not in present and (name := _plain_name(answer)) in spelled}  # fmt: skip
    if misspelt:
        raise DataError(
            f"{source}: vote columns that differ from answers of tree {tree.name} in their spelling",
            value=", ".join(f"{column} (for {answer})" for column, answer in list(misspelt.items())[:3]),
            fix="Rename them: votes in a column of another name would not be counted.",
        )  # fmt: skip
    if ids is None:
        ids = (
            list(map(str, table.column(tables.ID).to_pylist()))
            if tables.ID in table.column_names
            else [f"row {row}" for row in range(table.num_rows)]
        )
    votes = np.zeros((table.num_rows, len(tree.answers)))
    for answer in present:
        votes[:, tree.answers.index(answer)] = _numbers(table, answer, source=source, ids=ids)
    if scale and scale != 1:
        _refuse_counts(votes, tree, source=source, ids=ids)
        return (votes.astype(np.float32) * np.float32(scale)).astype(np.float32)
    if not scale:
        _refuse_fractions(votes, tree, source=source, ids=ids)
    return votes.astype(np.float32)


def _refuse_fractions(
    votes: Float64[np.ndarray, "galaxies answers"], tree: QuestionTree, *, source: str, ids: Sequence[str]
) -> None:
    """Raise DataError if a table that should hold counts holds fractions or percentages, also in some rows only."""
    totals, whole = tree.totals(votes), _whole_questions(votes, tree)
    largest = np.stack([votes[:, part].max(axis=1) for part in tree.slices], axis=1)
    asked = totals > 0
    fractions = asked & ~whole & (largest <= _ONE) & (totals <= _LARGEST_SUM)
    counts = asked & (totals > _LARGEST_SUM)
    way_out = (
        "Set the number of volunteers that they stand for: data.votes_scale=40. "
        "If they are votes of weighted volunteers, data.votes_scale=1 keeps them as they are."
    )
    if np.any(counts & ~whole):
        # Votes of weighted volunteers: a few small totals are to be expected, above all far down the tree.
        first = np.array([question.asked_after is None for question in tree.questions])
        shares = [
            (np.sum((fractions & places) & asked) / max(1, np.sum(asked & places)), few)
            for places, few in ((first[None, :], _FEW_FIRST), (np.ones_like(first)[None, :], _FEW))
        ]
        mixed = any(share > few for share, few in shares)
    else:
        mixed = bool(fractions.any())
    if mixed:
        rows = np.flatnonzero(fractions.any(axis=1))
        amount = f"in {len(rows):,} of {int(asked.any(axis=1).sum()):,} galaxies with votes"
        raise DataError(
            f"{source}: these are vote fractions, not counts ({amount} a question has no answer above 1)",
            value=f"largest total of such a question {totals[fractions].max():.2f}", fix=way_out,
            ids=[ids[int(row)] for row in rows] if counts.any() else (),
        )  # fmt: skip
    parts = _percentages(totals, whole)
    if parts:
        raise DataError(
            f"{source}: these look like percentages (the answers of a question add up to {parts} for most galaxies)",
            value=f"{len(votes):,} galaxies",
            fix=f"Divide them by {parts} and set the number of volunteers: data.votes_scale=40. "
            "If they are votes, data.votes_scale=1 keeps them as they are.",
        )  # fmt: skip


def _refuse_counts(
    votes: Float64[np.ndarray, "galaxies answers"], tree: QuestionTree, *, source: str, ids: Sequence[str]
) -> None:
    """Raise DataError if numbers that are to be multiplied are not fractions."""
    totals, whole = tree.totals(votes), _whole_questions(votes, tree)
    parts = _percentages(totals, whole)
    if parts:
        raise DataError(
            f"{source}: data.votes_scale is for fractions, and these look like percentages",
            value=f"the answers of a question add up to {parts} for most galaxies", fix=f"Divide them by {parts}.",
        )  # fmt: skip
    several = np.any((totals > _LARGEST_SUM) & whole, axis=1)
    rows = np.flatnonzero(several | (votes > _ONE).any(axis=1))
    if len(rows):
        raise DataError(
            f"{source}: data.votes_scale is for fractions, and these are counts ({len(rows):,} of {len(votes):,} rows "
            "hold more than 1)",
            value=f"largest {votes.max():g}",
            fix="Leave data.votes_scale out, or write the whole table as fractions.",
            ids=[ids[int(row)] for row in rows],
        )  # fmt: skip


def _whole_questions(
    votes: Float64[np.ndarray, "galaxies answers"], tree: QuestionTree
) -> Bool[np.ndarray, "galaxies questions"]:
    """Return whether all answers of a question have whole numbers."""
    whole = np.abs(votes - np.round(votes)) <= _WHOLE
    return np.stack([whole[:, part].all(axis=1) for part in tree.slices], axis=1)


def _percentages(
    totals: Float64[np.ndarray, "galaxies questions"], whole: Bool[np.ndarray, "galaxies questions"]
) -> int:  # fmt: skip
    """Return 100 or 1000 if the answers of the questions, or of one of them, add up to it; 0 if to neither.

    Cumulative percentages add up to 100 only for the questions that every galaxy is asked.
    """
    for parts in _PARTS:
        for values, are_whole in (*zip(totals.T, whole.T, strict=True), (totals, whole)):
            known = values[values > 0]
            enough = _ENOUGH if are_whole[values > 0].all() else _ENOUGH_NOT_WHOLE
            near = np.abs(known - parts) <= _NEAR * parts
            if len(known) >= enough and float(np.mean(near)) >= _MOST:
                return parts
    return 0


def _plain_name(column: str) -> str:
    """Return the name of a column without what programs change in it: case, hyphens, underscores and spaces."""
    return re.sub(r"[-_ .]+", "_", column.strip().casefold())


def _numbers(table: pa.Table, answer: str, *, source: str, ids: Sequence[str]) -> Float64[np.ndarray, " galaxies"]:
    """Return the numbers of one answer, 0 where there is none."""
    column = table.column(answer)
    try:
        if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type):
            raise TypeError(f"cells of type {column.type}")
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            numbers = column.cast(pa.float64()).to_numpy()
        else:
            numbers = pd.to_numeric(pd.Series(column.to_pylist(), dtype=object)).to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as problem:
        raise DataError(
            f"{source}: votes that are no numbers in {answer}", value=problem, fix="Correct them."
        ) from problem
    numbers = np.where(np.isnan(numbers), 0.0, numbers)
    bad = np.flatnonzero((numbers < 0) | ~(numbers <= MOST_VOTES))
    if len(bad):
        raise DataError(
            f"{source}: votes must be finite, not negative and at most {MOST_VOTES:,}, {answer}", value=numbers[bad[0]],
            fix="Correct or empty those cells.", ids=[ids[int(row)] for row in bad],
        )  # fmt: skip
    return numbers
