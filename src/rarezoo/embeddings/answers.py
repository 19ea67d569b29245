"""Known answers: kinds of galaxies by which embeddings are measured, from a catalogue, a table or a mock sky."""

import difflib
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

from rarezoo import tables
from rarezoo.data.reading import ids_of, matched_rows, no_column, read_any_table, refuse_doubled
from rarezoo.data.surveys.gz2 import question_of
from rarezoo.errors import ConfigError

log = logging.getLogger(__name__)
_FORM = re.compile(r"(?P<name>[^=]+)=(?P<column>[^=>]+)(?:>(?P<above>[^=>]+)|==(?P<equals>.+))?")
_HALF = 0.5


@dataclass(frozen=True)
class Criterion:
    """A kind of galaxy: those whose column is above a threshold or is a certain text. NaN and null mean: not known.

    Attributes
    ----------
    name : str
        Name of the kind, such as ``ring``.
    column : str
        Column of the survey's catalogue, or of a table of answers.
    above : float, optional
        Threshold; None for a text, and for a column of 0 and 1.
    equals : str
        The text; empty: the column holds numbers.

    Examples
    --------
    >>> Criterion.parsed("ring=Class8.1>0.3")
    Criterion(name='ring', column='Class8.1', above=0.3, equals='')
    >>> str(Criterion.parsed("odd=c5==odd"))
    'odd (c5 is odd)'
    """

    name: str
    column: str
    above: float | None = None
    equals: str = ""

    @classmethod
    def parsed(cls, text: str) -> "Criterion":
        """Read a criterion from ``NAME=COLUMN>VALUE``, ``NAME=COLUMN==TEXT``, or ``NAME=COLUMN`` (of 0 and 1).

        Raises
        ------
        ConfigError
            The text has another form.
        """
        parts = _FORM.fullmatch(text.strip())
        try:
            if parts:
                above = None if parts["above"] is None else float(parts["above"].replace("_", "no number"))
                if above is not None and not np.isfinite(above):
                    raise ValueError("no threshold")
                return cls(parts["name"].strip(), parts["column"].strip(), above, (parts["equals"] or "").strip())
        except ValueError:
            pass
        raise ConfigError(
            "an answer reads NAME=COLUMN>VALUE, NAME=COLUMN==TEXT or NAME=COLUMN", value=text,
            fix="For example ring=Class8.1>0.3.",
        )  # fmt: skip

    def __str__(self) -> str:
        condition = f"is {self.equals}" if self.equals else "is 1" if self.above is None else f"> {self.above:g}"
        return f"{self.name} ({self.column} {condition})"

    @property
    def threshold(self) -> float:
        """Number above which a value counts: one half for a text and for a column of 0 and 1."""
        return _HALF if self.above is None else self.above

    def values(self, table: pa.Table) -> Float64[np.ndarray, " n"]:
        """Return the column as numbers, NaN where it is not known; of a text, 1 where it is the wanted one, else 0.

        Raises
        ------
        ConfigError
            The table has no such column, it does not hold numbers, it holds more than 0 and 1 and there is no
            threshold, or no galaxy has the wanted text.
        """
        if self.column not in table.column_names:
            names = table.column_names
            near = difflib.get_close_matches(self.column, names, n=3) or names[:8]
            raise ConfigError(
                "the catalogue has no column", value=self.column, fix=f"Did you mean {' or '.join(near)}?"
            )
        column = table[self.column]
        if self.equals:
            try:
                texts = pc.cast(column, pa.string())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
                raise ConfigError(
                    "not a column of texts", value=f"{self.column} ({column.type})",
                    fix="Choose a column of texts or numbers.",
                ) from problem  # fmt: skip
            spelled = [text for text in pc.unique(texts).drop_null().to_pylist() if text != self.equals]
            alike = [text for text in spelled if text.strip().casefold() == self.equals.casefold()]
            if alike and pc.any(pc.equal(texts, self.equals)).as_py():
                log.warning(
                    "column %s also holds %r, which differs from %s only in spelling and counts as another text",
                    self.column, alike[0], self.equals,
                )  # fmt: skip
            if not pc.any(pc.equal(texts, self.equals)).as_py():
                known = sorted(set(texts.drop_null().to_pylist()))[:8]
                raise ConfigError(
                    f"no galaxy has this text in column {self.column}", value=self.equals,
                    fix=f"The column holds: {', '.join(known) or 'nothing'}.",
                )  # fmt: skip
            return np.asarray(pc.cast(pc.equal(texts, self.equals), pa.float64()).to_numpy(), dtype=np.float64)
        try:
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            # CSV files have True and False as texts, and Arrow casts no booleans to floats.
            numbers = column.cast(pa.bool_()) if is_text and self.above is None else column
            numbers = numbers.cast(pa.int8()) if pa.types.is_boolean(numbers.type) else numbers
            values = np.asarray(numbers.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
            raise ConfigError(
                "not a column of numbers", value=self.column,
                fix=f"Choose a column to which a threshold applies, or a text: {self.name}={self.column}==TEXT.",
            ) from problem  # fmt: skip
        if self.above is None and not np.isin(values[np.isfinite(values)], (0, 1)).all():
            raise ConfigError(
                "a column with more than 0 and 1 needs a threshold", value=self.column,
                fix=f"Say above which value a galaxy is of the kind: {self.name}={self.column}>VALUE.",
            )  # fmt: skip
        return values

    def in_sample(self, answers: Collection[str]) -> bool:
        """Return whether a network that predicts these answers was trained on this one."""
        question = question_of(self.column)
        if question:
            return any(answer.rpartition("_")[0] == question for answer in answers)
        return self.column in answers or tables.answer_of(self.column) in answers


# Rare answers of Galaxy Zoo 2, which its networks do not see in training: data.leave_out.
DEFAULT_CRITERIA = {
    "gz2": (
        Criterion("ring", "Class8.1", 0.3),
        Criterion("merger", "Class8.6", 0.3),
        Criterion("irregular", "Class8.4", 0.3),
        Criterion("odd", "Class6.1", 0.5),
    )
}
# Two more by which embeddings are measured, where the survey has them: one is very rare, the other is known of seven
# times as many galaxies.
FURTHER_CRITERIA = {"gz2": (Criterion("disturbed", "Class8.3", 0.3), Criterion("odd_c5", "c5", equals="odd"))}


@dataclass(frozen=True)
class Answer:
    """The galaxies of one kind, among those for which it is known.

    Attributes
    ----------
    criterion : Criterion
    known : (n,) booleans
        Whether it is known of each galaxy.
    positive : (m,) booleans
        Whether each galaxy of which it is known is of the kind.
    fraction : (m,) float64
        The vote fraction of these galaxies, if the column holds numbers from 0 to 1; otherwise 0 and 1.

    Examples
    --------
    >>> answer = Answer.of(Criterion("ring", "votes", 0.3), np.array([0.5, np.nan, 0.1]))
    >>> answer.positive.tolist(), answer.fraction.tolist()
    ([True, False], [0.5, 0.1])
    """

    criterion: Criterion
    known: Bool[np.ndarray, " n"]
    positive: Bool[np.ndarray, " m"]
    fraction: Float64[np.ndarray, " m"]

    @classmethod
    def of(cls, criterion: Criterion, values: Float64[np.ndarray, " n"]) -> "Answer":
        """Return the answer for the numbers of a column, NaN where it is not known."""
        known = np.isfinite(values)
        positive = values[known] > criterion.threshold
        a_fraction = np.all((values[known] >= 0) & (values[known] <= 1))
        return cls(criterion, known, positive, values[known] if a_fraction else positive.astype(np.float64))

    def without(self, left_out: Bool[np.ndarray, " n"]) -> "Answer":
        """Return the answer with some galaxies no longer known."""
        kept = ~left_out[self.known]
        return replace(
            self, known=self.known & ~left_out, positive=self.positive[kept], fraction=self.fraction[kept]
        )  # fmt: skip

    @property
    def positives(self) -> int:
        """Number of galaxies of the kind."""
        return int(self.positive.sum())

    @property
    def galaxies(self) -> int:
        """Number of galaxies of which it is known."""
        return len(self.positive)


def read_answers(file: Path | str, ids: Sequence[str] | np.ndarray, *, id_column: str = tables.ID) -> pa.Table:
    """Read a table of answers, and return its rows in the order of some galaxies; a galaxy without a row has nulls.

    Parameters
    ----------
    file : Path or str
        CSV, Parquet, FITS, VOTable or ECSV file with one row per galaxy.
    ids : sequence of n ids
        Galaxies in the wanted order.
    id_column : str
        Column of ids of the table.

    Raises
    ------
    DataError
        The table is missing or unreadable, has no such column, has doubled ids, or none of the galaxies.
    """
    table = read_any_table(Path(file), text=(id_column,))
    if id_column not in table.column_names:
        raise no_column(table, id_column, source=str(file), setting_name="id_column")
    names = ids_of(table, id_column, source=str(file))
    refuse_doubled(names, source=str(file))
    rows = matched_rows(
        list(map(str, ids)), names, source="the store", other_source=str(file),
        fix="Give a table with the ids of the store, or name their column: id_column=….",
    )  # fmt: skip
    return table.take(pa.array(rows, mask=rows < 0))
