"""The classes and members tables: what the classes are made of.

Shape letters: n galaxies, k dimensions of the map.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float64, Int64
from scipy.spatial.distance import cdist

from rarezoo import tables
from rarezoo.searches.cluster import Clustering
from rarezoo.searches.significance import MainGroup

MOST_EXEMPLARS = 24
MOST_ANSWERS = 6
# Largest class whose medoid is found by all pairs. In a larger one it is the galaxy nearest to the mean, because all
# pairs would need gigabytes.
_EXACT_MEDOID = 2000
# Galaxies outside a class, nearest to its mean, among which those nearest to a member are sought.
_OUTSIDE_COMPARED = 20_000
COINCIDENT = "coincident"


def share_in_no_class(classes: pa.Table, *, searched: int) -> float:
    """Return the share of the galaxies searched that are in none of the classes of a CLASSES table.

    >>> share_in_no_class(pa.table({"size": [20, 10]}), searched=100)
    0.7
    """
    return (searched - sum(classes.column(tables.SIZE).to_pylist())) / max(searched, 1)


def class_table(
    clustering: Clustering,
    *,
    ids: Sequence[str] | np.ndarray,
    positions: Float[np.ndarray, "galaxies k"],
    predictions: pa.Table | None = None,
) -> pa.Table:
    """Return the CLASSES table, one row per class. No class is a legitimate result.

    What needs more than the clustering (significance, stability, what is beyond the labels, the cause) is null: not
    measured yet. ``coincident`` in ``flags`` marks a class around galaxies at one and the same position, which
    identical images have.

    Parameters
    ----------
    clustering : Clustering
        n galaxies in classes.
    ids : (n,) sequence of str
        Ids.
    positions : (n, k) array of floats
        Positions on the map that was clustered.
    predictions : pyarrow.Table, optional
        Table of n rows with the predicted fraction columns; without it ``top_answers`` is empty.
    """
    names = np.asarray(ids, dtype=object).astype(str)
    members = []
    for class_id in range(len(clustering)):
        rows = np.flatnonzero(clustering.labels == class_id)
        members.append(rows[np.argsort(names[rows], kind="stable")])
    columns = {
        tables.CLASS_ID: range(len(clustering)),
        tables.NODE: clustering.nodes,
        tables.SIZE: clustering.sizes,
        tables.FRACTION: clustering.sizes / max(len(names), 1),
        tables.BIRTH: clustering.births,
        tables.DEATH: clustering.deaths,
        tables.PERSISTENCE: clustering.persistences,
        tables.TOP_ANSWERS: top_answers(predictions, members) if predictions is not None else [[]] * len(clustering),
        tables.EXEMPLARS: [list(names[nearest_to_medoid(positions, rows)]) for rows in members],
        tables.FLAGS: [[COINCIDENT] if np.isinf(death) else [] for death in clustering.deaths],
    }
    unmeasured = [None] * len(clustering)
    return pa.table(
        {name: pa.array(columns.get(name, unmeasured), kind) for name, kind in tables.CLASSES.columns.items()}
    )


def main_group_table(
    groups: Sequence[MainGroup],
    *,
    ids: Sequence[str] | np.ndarray,
    positions: Float[np.ndarray, "galaxies k"],
    predictions: pa.Table | None = None,
) -> pa.Table:
    """Return the MAIN_GROUPS table, one row per group in the order given.

    Parameters
    ----------
    groups : sequence of MainGroup
        What significance says of each group; see :attr:`rarezoo.searches.significance.TreeScores.main_groups`.
    ids, positions, predictions
        See :func:`class_table`.
    """
    names = np.asarray(ids, dtype=object).astype(str)
    members = [group.members[np.argsort(names[group.members], kind="stable")] for group in groups]
    columns = {
        tables.MAIN_GROUP: range(len(groups)),
        tables.NODE: [group.node for group in groups],
        tables.SIZE: [len(rows) for rows in members],
        tables.FRACTION: [len(rows) / max(len(names), 1) for rows in members],
        tables.SIGNIFICANCE: [group.significance for group in groups],
        tables.P_VALUE: [group.p_value for group in groups],
        tables.TOP_ANSWERS: top_answers(predictions, members) if predictions is not None else [[]] * len(groups),
        tables.EXEMPLARS: [list(names[nearest_to_medoid(positions, rows)]) for rows in members],
    }
    return pa.table({name: pa.array(columns[name], kind) for name, kind in tables.MAIN_GROUPS.columns.items()})


def with_columns(classes: pa.Table, columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """Return a CLASSES table in which some columns are replaced by measured values."""
    for name, values in columns.items():
        index = classes.column_names.index(name)
        classes = classes.set_column(index, name, pa.array(values, tables.CLASSES.columns[name]))
    return classes


def member_table(clustering: Clustering, *, ids: Sequence[str] | np.ndarray) -> pa.Table:
    """Return the MEMBERS table, one row per galaxy searched, whether in a class or not."""
    columns = {
        tables.ID: np.asarray(ids, dtype=object),
        tables.CLASS_ID: clustering.labels,
        tables.PROBABILITY: clustering.probabilities,
        tables.OUTLIER_SCORE: clustering.outlier_scores,
    }
    return pa.table({name: pa.array(columns[name], kind) for name, kind in tables.MEMBERS.columns.items()})


def nearest_to_medoid(
    positions: Float[np.ndarray, "galaxies k"], rows: Int64[np.ndarray, " members"], *, most: int = MOST_EXEMPLARS
) -> Int64[np.ndarray, " nearest"]:
    """Return the members of a class that are nearest to its medoid, the medoid first.

    Parameters
    ----------
    positions : (n, k) array of floats
        Positions of all galaxies.
    rows : array of integers
        Rows of the members; equal distances stay in this order.
    most : int
        Largest number of rows that is returned.

    Examples
    --------
    >>> nearest_to_medoid(np.array([[0.0], [1.0], [5.0], [9.0]]), np.array([0, 1, 2]), most=2)
    array([1, 0])
    """
    places = np.asarray(positions[rows], dtype=np.float64)
    if len(rows) <= _EXACT_MEDOID:
        medoid = places[np.argmin(cdist(places, places).sum(axis=1))]
    else:
        medoid = places[np.argmin(np.linalg.norm(places - places.mean(axis=0), axis=1))]
    distances = np.linalg.norm(places - medoid, axis=1)
    return rows[np.argsort(distances, kind="stable")[:most]]


def nearest_outside(
    positions: Float[np.ndarray, "galaxies k"], rows: Int64[np.ndarray, " members"], *, most: int = MOST_EXEMPLARS
) -> Int64[np.ndarray, " nearest"]:
    """Return the galaxies outside a class that are nearest to any of its members, the nearest first.

    In a large sample only the galaxies nearest to the mean of the class are compared, so that those near a distant arm
    of the class may be missed.

    Parameters
    ----------
    positions, rows, most
        See :func:`nearest_to_medoid`.
    """
    from scipy.spatial import KDTree

    places = np.asarray(positions, dtype=np.float64)
    outside = np.setdiff1d(np.arange(len(places)), rows)
    squares = np.square(places[outside] - places[rows].mean(axis=0)).sum(axis=1)
    compared = outside[np.argsort(squares, kind="stable")[: max(_OUTSIDE_COMPARED, 2 * len(rows))]]
    distances = KDTree(places[rows]).query(places[compared])[0]
    return compared[np.argsort(distances, kind="stable")[:most]]


def top_answers(predictions: pa.Table, members: Sequence[Int64[np.ndarray, " _"]]) -> list[list[str]]:
    """Return the predicted answers of each class whose mean fraction differs most from that of the whole sample.

    Each reads like ``bar_strong 0.61 (sample 0.12)``. NaN fractions are left out of the means.

    Parameters
    ----------
    predictions : pyarrow.Table
        Predicted fractions of the whole sample.
    members : sequence of arrays of integers
        Rows of the members of each class.
    """
    columns = [name for name in predictions.column_names if tables.is_fraction_column(name)]
    answers = [str(tables.answer_of(name)) for name in columns]
    values = [predictions.column(name).cast(pa.float64()).to_numpy() for name in columns]
    fractions = np.column_stack(values or [np.empty((len(predictions), 0))])
    sample, texts = mean_fractions(fractions), []
    for rows in members:
        inside = mean_fractions(fractions[rows])
        differences = np.nan_to_num(np.abs(inside - sample), nan=0.0)
        largest = np.argsort(-differences, kind="stable")[:MOST_ANSWERS]
        texts.append([f"{answers[i]} {inside[i]:.2f} (sample {sample[i]:.2f})" for i in largest if differences[i] > 0])
    return texts


def mean_fractions(fractions: Float[np.ndarray, "galaxies answers"]) -> Float64[np.ndarray, " answers"]:
    """Return the mean of each column without its NaN, added in double precision; NaN for a column of NaN only.

    >>> mean_fractions(np.array([[0.25, np.nan], [0.75, np.nan]]))
    array([0.5, nan])
    """
    known = np.isfinite(fractions)
    counts = known.sum(axis=0)
    sums = np.where(known, fractions, 0).sum(axis=0, dtype=np.float64)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
