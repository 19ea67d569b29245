"""The properties of a joined table that can be compared: numbers, and shares of galaxies with a given category.

A column becomes one of these::

    numbers                 a property with a median; a missing value that is written as a number, such as −9999, is
                            unknown
    yes and no              the share of galaxies with yes
    texts with few values   the share of galaxies with each value
    texts that are numbers  numbers
    everything else         left out, and said
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from rarezoo import tables
from rarezoo.data.reading import UNIT
from rarezoo.errors import ConfigError, DataError

log = logging.getLogger(__name__)

NUMBER, SHARE = "number", "share"
# Numbers that catalogues write for "unknown", if they lie this many interquartile ranges from the other values.
_UNKNOWN, _FAR = (-99999.0, -9999.0, -999.0, -99.0, 99.0, 999.0, 9999.0, 99999.0), 10.0
# Share of galaxies with the same value up to which a number is continuous.
_MOST_EQUAL = 0.2
# Texts have at most so many values, each of them for so many galaxies.
_MOST_VALUES, _FEWEST_OF_ONE = 8, 20


@dataclass(frozen=True)
class Property:
    """A property of n galaxies.

    Attributes
    ----------
    column
        Name of its column.
    kind
        ``number`` or ``share``.
    values
        (n,) numbers, or 1 and 0 for a share; NaN where unknown.
    unit
        Unit of the column, or empty.
    category
        Value of the column that is counted, for a share; empty for a column of yes and no.

    Examples
    --------
    >>> Property("bar", "share", np.array([1.0, 0.0]), category="strong").name
    'bar = strong'
    """

    column: str
    kind: str
    values: Float64[np.ndarray, " n"]
    unit: str = ""
    category: str = ""

    @cached_property
    def is_continuous(self) -> bool:
        """Whether it is a number of which few galaxies have the same value, so that a regression means something."""
        known = self.values[np.isfinite(self.values)]
        if self.kind != NUMBER or not len(known):
            return False
        return bool(np.unique(known, return_counts=True)[1].max() <= _MOST_EQUAL * len(known))

    @property
    def name(self) -> str:
        """Its name in tables and on pages."""
        return f"{self.column} = {self.category}" if self.category else self.column


def numbers_of(table: pa.Table) -> dict[str, Float64[np.ndarray, " n"]]:
    """Return the columns of numbers, NaN where unknown; those without any number are left out.

    Examples
    --------
    >>> numbers_of(pa.table({"id_str": ["a", "b"], "mass": [10.5, None], "note": ["x", "y"]}))
    {'mass': array([10.5,  nan])}
    """
    found = {}
    for name in table.column_names:
        values = None if name == tables.ID else _numbers(name, table.column(name))
        if values is not None and np.isfinite(values).any():
            found[name] = values
    return found


def properties_of(table: pa.Table, *, named: Sequence[str] = (), without: Iterable[str] = ()) -> list[Property]:
    """Return the properties of a table.

    Parameters
    ----------
    table
        Table with ``id_str``.
    named
        Columns to compare; empty: all.
    without
        Columns that are no properties, such as covariates.

    Raises
    ------
    ConfigError
        A named column does not exist.
    DataError
        No column can be compared.
    """
    left_out = {tables.ID, *without}
    columns = [name for name in (named or table.column_names) if name not in left_out]
    unknown = [name for name in named if name not in table.column_names]
    if unknown:
        raise ConfigError(
            "properties: no such column", value=unknown[0],
            fix=f"Columns are: {', '.join(name for name in table.column_names if name != tables.ID)}.",
        )  # fmt: skip
    found: list[Property] = []
    refused: dict[str, str] = {}
    for name in columns:
        column = table.column(name)
        unit = (table.schema.field(name).metadata or {}).get(UNIT, b"").decode()
        values = None if pa.types.is_boolean(column.type) else _numbers(name, column)
        if values is not None and not np.isfinite(values).any():
            refused[name] = "no value is known"
        elif values is not None and np.ptp(values[np.isfinite(values)]) == 0:
            refused[name] = "all values are equal"
        elif values is not None:
            found.append(Property(name, NUMBER, values, unit))
        elif shares := _shares(name, column):
            found += shares
        else:
            refused[name] = f"its texts have more than {_MOST_VALUES} values or occur fewer than {_FEWEST_OF_ONE} times"
    if refused:
        listed = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        if not found:
            raise DataError(
                "no column can be compared", value=listed + more,
                fix="Join a catalogue with numbers, or with categories that many galaxies share: with=FILE.",
            )  # fmt: skip
        log.warning("columns that are not compared: %s%s", listed, more)
    if not found:
        raise DataError(
            "there is no property besides the covariates",
            value=", ".join(sorted(left_out - {tables.ID})) or "no column",
            fix="Join a catalogue with further columns (with=FILE), or match in fewer: covariates=COLUMN.",
        )  # fmt: skip
    return found


def _numbers(name: str, column: pa.ChunkedArray) -> Float64[np.ndarray, " n"] | None:
    """Return a column as numbers, or None if it holds something else."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind):
        if column.null_count == len(column):
            return np.full(len(column), np.nan)
        try:
            column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column).cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return None
    values = np.array(column.cast(pa.float64(), safe=False).to_pandas(), dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    for unknown in _UNKNOWN:
        stands = values == unknown
        rest = values[~stands & np.isfinite(values)]
        if stands.sum() > 1 and len(rest) > 1:
            low, high = np.quantile(rest, (0.25, 0.75))
            # A value beyond all others, far from their quartiles.
            beyond = unknown < rest.min() or unknown > rest.max() or abs(unknown) >= 999
            if beyond and not low - _FAR * (high - low) <= unknown <= high + _FAR * (high - low):
                log.warning("column %s: %d values of %g are taken as unknown", name, int(stands.sum()), unknown)
                values[stands] = np.nan
    return values


def _shares(name: str, column: pa.ChunkedArray) -> list[Property]:
    if not (pa.types.is_boolean(column.type) or pa.types.is_string(column.type)):
        return []
    cells = np.array(column.to_pylist(), dtype=object)
    known = np.array([cell is not None for cell in cells])
    if pa.types.is_boolean(column.type):
        values = np.where(known, [float(bool(cell)) for cell in cells], np.nan)
        return [Property(name, SHARE, values)] if len(set(values[known])) > 1 else []
    categories, counts = np.unique(cells[known].astype(str), return_counts=True)
    if not 2 <= len(categories) <= _MOST_VALUES or counts.max() < _FEWEST_OF_ONE:
        return []
    return [
        Property(name, SHARE, np.where(known, (cells == category).astype(float), np.nan), category=str(category))
        for category, count in zip(categories, counts, strict=True)
        if count >= _FEWEST_OF_ONE
    ]
