"""Labels that a search brings itself: types in the catalogue of its survey, and the predicted answers of volunteers.

Shape letters: n galaxies of a search.
"""

import difflib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rarezoo import tables
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.physical.known_list import Label
from rarezoo.searches.result import Search

log = logging.getLogger(__name__)

VOTES, CATALOGUE = "votes", "catalogue"
# Columns that hold types along the Hubble sequence, and their bins (RC3: −6 to 10).
_T_TYPE = re.compile(r"t|tt|t[_ -]?type|hubble[_ -]?(type|stage|t)|type[_ -]?t", re.IGNORECASE)
_T_BINS = {
    "elliptical": (-7, -4),
    "lenticular": (-4, 0),
    "early spiral": (0, 3),
    "late spiral": (3, 8),
    "irregular": (8, 12),
}
# Share of those who were asked a question that makes an answer the galaxy's own; and fewest galaxies of a category.
_MAJORITY, _FEWEST_OF_CATEGORY, _MOST_CATEGORIES = 0.5, 5, 20
# Columns of a catalogue that hold no types.
_NO_TYPES = (tables.ID, tables.IMAGE, tables.SURVEY, tables.SPLIT)
# Texts that all name files hold no types either.
_FILE_NAME = r"\.[a-z]{2,4}(\.gz)?$"


def catalogue_labels(search: Search, columns: Sequence[str] = ()) -> list[Label]:
    """Return the types in the catalogue of a search's survey as labels: T-types in bins, and columns of few categories.

    Parameters
    ----------
    search
        The search.
    columns
        Columns to use; empty uses T-types, known by their names, and columns of text with 2 to 20 values.

    Raises
    ------
    ConfigError
        A column that is named does not exist or does not hold types.
    """
    try:
        catalogue = search.survey().catalogue
    except RarezooError as problem:
        if columns:
            raise
        log.info("classes are not compared with the catalogue: %s", problem)
        return []
    rows = tables.aligned(catalogue, search.ids, source="the catalogue")
    labels: list[Label] = []
    for name in columns or [name for name in rows.column_names if name not in _NO_TYPES]:
        if name not in rows.column_names:
            near = difflib.get_close_matches(name, rows.column_names, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                "columns=: the catalogue has no such column",
                value=name,
                fix=f"{hint}It has: {', '.join(rows.column_names)}.",
            )
        found = _types(name, rows.column(name))
        if columns and not found:
            raise ConfigError(
                "columns=: this column holds no types", value=name,
                fix=f"Name T-types, or a column with 2 to {_MOST_CATEGORIES} values.",
            )  # fmt: skip
        labels += found
    return labels


def _types(name: str, column: pa.ChunkedArray) -> list[Label]:
    kind = column.type
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and _T_TYPE.fullmatch(name):
        values = column.cast(pa.float64(), safe=False).to_pandas().to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        binned = {label: known & (values > low) & (values <= high) for label, (low, high) in _T_BINS.items()}
        return [Label(CATALOGUE, f"{name} {label}", known, has) for label, has in binned.items() if has.any()]
    if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        return []
    if pa.types.is_string(kind) and pc.all(pc.match_substring_regex(column, _FILE_NAME)).as_py():
        return []
    counts = {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
    values = [value for value, count in counts.items() if value not in (None, "") and count >= _FEWEST_OF_CATEGORY]
    if not 2 <= len([value for value in counts if value not in (None, "")]) <= _MOST_CATEGORIES:
        return []
    cells = column.to_pylist()
    known = np.array([cell not in (None, "") for cell in cells])
    return [Label(CATALOGUE, f"{name} {value}", known, np.array([cell == value for cell in cells])) for value in values]


def vote_labels(search: Search) -> list[Label]:
    """Return the predicted answers of a search as labels.

    A galaxy has an answer if at least half of those who are asked the question are predicted to give it. It is covered
    by a question that at least half of all volunteers are predicted to be asked.
    """
    try:
        predicted = search.predictions
    except RarezooError as problem:
        log.info("classes are not compared with predicted answers: %s", problem)
        return []
    columns = [name for name in predicted.column_names if tables.is_fraction_column(name)]
    if not columns:
        return []
    answers = [str(tables.answer_of(name)) for name in columns]
    values = [predicted.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in columns]
    fractions = np.column_stack(values)
    asked = np.ones(fractions.shape)
    tree = None
    with suppress(RarezooError):
        tree = search.survey().tree
    if tree is not None and tuple(answers) == tree.answers:
        shares = tree.totals(tree.joint_fractions(np.nan_to_num(fractions)))
        asked = np.repeat(shares, [len(question.answers) for question in tree.questions], axis=1)
    covered = np.isfinite(fractions) & (asked >= _MAJORITY)
    return [
        Label(VOTES, answer, covered[:, number], covered[:, number] & (fractions[:, number] >= _MAJORITY))
        for number, answer in enumerate(answers)
        if (covered[:, number] & (fractions[:, number] >= _MAJORITY)).any()
    ]
