"""Labels from wherever they are: a table, a mapping, a folder of images, or what was rated on the rating page."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.data.own_labels import AUTO, BINARY, TAGS, OwnLabels
from rarezoo.data.reading import read_any_table
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import DataError
from rarezoo.explore.choose import INTERESTING as HALF
from rarezoo.explore.labels import FILE, INTERESTING, Labels, survey_key

# Columns by which an export of ratings is known.
_OF_RATINGS = {tables.ID, tables.LABEL, tables.VALUE, tables.BY}
_ENDINGS = (".csv", ".parquet", ".pq")


def own_labels(
    source: Any,
    store: EmbeddingStore,
    *,
    label: str | Sequence[str] = "",
    kind: str = AUTO,
    id_column: str = "",
) -> OwnLabels:
    """Read labels of one's own, also from ratings.

    Parameters
    ----------
    source : mapping, table, Path, str, Labels or OwnLabels
        What :meth:`~rarezoo.data.own_labels.OwnLabels.read` takes; or ratings: a database of the rating page, the
        folder of a search or store that holds one (``labels.sqlite``), or a file that ``rarezoo labels export`` wrote.
    store : EmbeddingStore
        The store that they are for: ratings of another survey are refused.
    label : str or sequence of str
        Column of the label. For ratings what was judged, by default ``interesting``; several, with commas between
        them, are tags. A galaxy is one of the label if the mean over people is above one half.
    kind, id_column
        See :meth:`~rarezoo.data.own_labels.OwnLabels.read`.

    Raises
    ------
    DataError
        There are no such labels or ratings.
    """
    if isinstance(source, Labels):
        return _rated(source, label)
    if isinstance(source, (str, Path)):
        path = Path(source)
        place = path / FILE if (path / FILE).is_file() else path
        if place.suffix in (".sqlite", ".db") and place.is_file():
            with Labels.open(place, survey=survey_key(store), read_only=True) as ratings:
                return _rated(ratings, label)
        if path.is_file() and path.suffix.lower() in _ENDINGS:
            names = read_any_table(path, text=(tables.ID,), choose=lambda names: names).column_names
            if set(names) >= _OF_RATINGS:
                return _of_export(path, label, survey_key(store))
    return OwnLabels.read(source, label=label, kind=kind, id_column=id_column)


def _of_export(path: Path, label: str | Sequence[str], survey: str) -> OwnLabels:
    """Read an export through a database of its own, so that what was taken back is not a label."""
    with tempfile.TemporaryDirectory() as folder, Labels.open(Path(folder) / FILE, survey=survey) as ratings:
        ratings.read_table(path)
        return _rated(ratings, label)


def _rated(ratings: Labels, label: str | Sequence[str]) -> OwnLabels:
    names = [name.strip() for name in (label.split(",") if isinstance(label, str) else label) if name.strip()]
    names = names or [INTERESTING]
    values = {name: ratings.interest(name, artifacts=True) for name in names}
    empty = [name for name, found in values.items() if not found]
    if empty:
        known = sorted(set(ratings.current()[tables.LABEL].to_pylist()))
        raise DataError(
            "nothing was rated under this label", value=", ".join(empty),
            fix=f"Labels with ratings: {', '.join(known) or 'none'}. Name one with label=.",
        )  # fmt: skip
    ids = list(dict.fromkeys(galaxy for found in values.values() for galaxy in found))
    columns = np.array([[values[name].get(galaxy, np.nan) for name in names] for galaxy in ids], dtype=np.float32)
    decided = np.where(np.isnan(columns), np.nan, columns > HALF).astype(np.float32)
    kind = BINARY if len(names) == 1 else TAGS
    return OwnLabels(np.array(ids, dtype=object), kind, tuple(names), decided, f"the ratings in {ratings.where}")
