"""Labels from wherever they are: a table, a mapping, a folder of images, or what was rated on the rating page."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.data.own_labels import AUTO, BINARY, TAGS, OwnLabels, is_ratings
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import DataError
from rarezoo.explore.choose import INTERESTING as HALF
from rarezoo.explore.labels import FILE, INTERESTING, Labels, survey_key


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
        return _rated(source, names_of(label))
    if isinstance(source, (str, Path)) and is_ratings(Path(source)):
        return rated(Path(source), names_of(label), survey=survey_key(store))
    return OwnLabels.read(source, label=label, kind=kind, id_column=id_column)


def rated(path: Path, names: Sequence[str], *, survey: str | None = None) -> OwnLabels:
    """Read ratings as labels; :meth:`~rarezoo.data.own_labels.OwnLabels.read` does so when a path holds ratings.

    Parameters
    ----------
    path : Path
        A database of the rating page, a folder that holds one, or a file that ``rarezoo labels export`` wrote.
    names : sequence of str
        What was judged; empty: ``interesting``.
    survey : str, optional
        Key of the survey that the ratings must be of; by default any. Ids that are not in a survey are reported when
        labels are matched with it.

    Raises
    ------
    DataError
        Nothing was rated under one of the names.
    StoreError
        It is no database of ratings, or one of another survey.
    """
    place = path / FILE if path.is_dir() else path
    if place.suffix in (".sqlite", ".db"):
        with Labels.open(place, survey=survey, read_only=True) as ratings:
            return _rated(ratings, names)
    # An export is read through a database of its own, so that what was taken back is not a label.
    with tempfile.TemporaryDirectory() as folder, Labels.open(Path(folder) / FILE, survey=survey or "") as ratings:
        ratings.read_table(place)
        return _rated(ratings, names, source=str(place))


def names_of(label: str | Sequence[str]) -> list[str]:
    """Return names that are written with commas between them, or given one by one.

    >>> names_of("ring, bar"), names_of("")
    (['ring', 'bar'], [])
    """
    return [name.strip() for name in (label.split(",") if isinstance(label, str) else label) if name.strip()]


def _rated(ratings: Labels, names: Sequence[str], *, source: str = "") -> OwnLabels:
    names = list(names) or [INTERESTING]
    values = {name: ratings.interest(name, artifacts=True) for name in names}
    empty = [name for name, found in values.items() if not found]
    if empty:
        known = sorted(set(ratings.current()[tables.LABEL].to_pylist()))
        raise DataError(
            "nothing was rated under this label",
            value=", ".join(empty),
            fix=f"Labels with ratings: {', '.join(known) or 'none'}. Name one with label=.",
        )
    ids = list(dict.fromkeys(galaxy for found in values.values() for galaxy in found))
    columns = np.array([[values[name].get(galaxy, np.nan) for name in names] for galaxy in ids], dtype=np.float32)
    decided = np.where(np.isnan(columns), np.nan, columns > HALF).astype(np.float32)
    kind = BINARY if len(names) == 1 else TAGS
    return OwnLabels(
        np.array(ids, dtype=object), kind, tuple(names), decided, f"the ratings in {source or ratings.where}"
    )
