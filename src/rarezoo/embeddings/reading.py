"""Embeddings of other people's networks, read from their tables."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo.data.reading import ids_of, read_any_table
from rarezoo.errors import DataError, StoreError


def read_vectors(file: Path, *, id_column: str, columns: str | Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Read ids and embeddings from a table.

    Parameters
    ----------
    file : Path
        Parquet, CSV, FITS, VOTable or ECSV file, or a folder of Parquet files. Of Parquet only the columns that are
        needed are read.
    id_column : str
        Column of ids.
    columns : str or list of str
        One column of vectors, columns of numbers in the wanted order, or patterns such as ``feat_pca_*``, whose columns
        are ordered by the numbers in their names.

    Returns
    -------
    ids : list of n str
    vectors : (n, D) array of floats

    Raises
    ------
    DataError
        The file is missing or unreadable, or has no such column.
    StoreError
        Vectors have different widths or hold no numbers.
    """
    table = read_any_table(
        file, text=(id_column,), choose=lambda names: _matching(names, id_column, columns, file=file)
    )
    content = {name: _array(table, name) for name in table.column_names if name != id_column}
    ids = ids_of(table, id_column, source=str(file))
    parts = [values if values.ndim > 1 else values[:, None] for values in content.values()]
    return ids, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _matching(names: Sequence[str], id_column: str, columns: str | Sequence[str], *, file: Path) -> list[str]:
    """Return the id column and the names that columns and patterns stand for."""
    if id_column not in names:
        raise DataError(
            f"{file} has no column", value=id_column,
            fix=f"Name the column of ids: id_column=…; there are: {', '.join(list(names)[:12])}.",
        )  # fmt: skip
    chosen = [id_column]
    for pattern in [columns] if isinstance(columns, str) else columns:
        fitting = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not fitting:
            raise DataError(
                f"{file} has no column", value=pattern,
                fix=f"Name the columns of the embedding: columns=…; there are: {', '.join(list(names)[:12])}.",
            )  # fmt: skip
        chosen += [name for name in sorted(fitting, key=_numbers_in) if name not in chosen]
    return chosen


def _numbers_in(name: str) -> tuple[Any, ...]:
    """Sort key by which ``feat_10`` comes after ``feat_9``."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name))


def _array(table: pa.Table, name: str) -> np.ndarray:
    """Return a column of numbers (n,) or of lists of numbers (n, D)."""
    column = table.column(name).combine_chunks()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if column.null_count:
            raise StoreError("rows without a vector", value=f"{column.null_count} in column {name}", fix="Drop them.")
        widths = np.unique(pa.compute.list_value_length(column).to_numpy(zero_copy_only=False))
        if len(widths) > 1:
            raise StoreError(
                f"vectors of different widths in column {name}", value=", ".join(map(str, widths[:5])),
                fix="Give every galaxy a vector of the same width.",
            )  # fmt: skip
        values = column.flatten()
        shape: tuple[int, ...] = (len(column), int(widths[0]) if len(widths) else 0)
    else:
        values, shape = column, (len(column),)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise StoreError("a column that does not hold numbers", value=f"{name} ({kind})", fix="Name another column.")
    numbers = values.to_numpy(zero_copy_only=False)
    return np.asarray(numbers, dtype=None if np.issubdtype(numbers.dtype, np.floating) else np.float64).reshape(shape)
