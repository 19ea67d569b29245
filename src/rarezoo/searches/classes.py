"""What the classes are made of: the CLASSES and MEMBERS tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64
from scipy.spatial.distance import cdist

from rarezoo import tables
from rarezoo.searches.cluster import Clustering

MOST_EXEMPLARS = 24
MOST_ANSWERS = 6
# Above this the medoid is taken to be the galaxy nearest to the mean: all pairs would need gigabytes.
_EXACT_MEDOID = 2000
_OUTSIDE_ASKED = 20_000
COINCIDENT = "coincident"


def class_table(
    clustering: Clustering,
    *,
    ids: Sequence[str] | np.ndarray,
    positions: Float32[np.ndarray, "galaxies k"],
    predictions: pa.Table | None = None,
) -> pa.Table:
    """CLASSES, one row per class; none is a legitimate result.

    What takes more than the clustering to know (significance, stability, what is beyond the labels, its cause) is
    null: not measured yet. ``coincident`` in ``flags`` marks a class around galaxies at one and the same position, as
    identical images give.

    Args:
        clustering: n galaxies in classes.
        ids: (n,) id strings.
        positions: (n, k) on the map that was clustered.
        predictions: table of n rows with the predicted fraction columns; None leaves ``top_answers`` empty.
    """
    names = np.asarray(ids, dtype=object).astype(str)
    members = [_members(clustering, one, names) for one in range(len(clustering))]
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


def with_columns(classes: pa.Table, columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """CLASSES with some of its columns measured."""
    for name, values in columns.items():
        index = classes.column_names.index(name)
        classes = classes.set_column(index, name, pa.array(values, tables.CLASSES.columns[name]))
    return classes


def member_table(clustering: Clustering, *, ids: Sequence[str] | np.ndarray) -> pa.Table:
    """MEMBERS, one row per galaxy searched, whether in a class or not."""
    columns = {
        tables.ID: np.asarray(ids, dtype=object),
        tables.CLASS_ID: clustering.labels,
        tables.PROBABILITY: clustering.probabilities,
        tables.OUTLIER_SCORE: clustering.outlier_scores,
    }
    return pa.table({name: pa.array(columns[name], kind) for name, kind in tables.MEMBERS.columns.items()})


def nearest_to_medoid(
    positions: Float32[np.ndarray, "galaxies k"], rows: Int64[np.ndarray, " members"], *, most: int = MOST_EXEMPLARS
) -> Int64[np.ndarray, " nearest"]:
    """Rows of the class's members nearest to its medoid, the medoid first; equal distances in the order of ``rows``."""
    places = np.asarray(positions[rows], dtype=np.float64)
    if len(rows) <= _EXACT_MEDOID:
        medoid = places[np.argmin(cdist(places, places).sum(axis=1))]
    else:
        medoid = places[np.argmin(np.linalg.norm(places - places.mean(axis=0), axis=1))]
    distances = np.linalg.norm(places - medoid, axis=1)
    return rows[np.argsort(distances, kind="stable")[:most]]


def nearest_outside(
    positions: Float32[np.ndarray, "galaxies k"], rows: Int64[np.ndarray, " members"], *, most: int = MOST_EXEMPLARS
) -> Int64[np.ndarray, " nearest"]:
    """Rows of the galaxies outside a class that lie nearest to any of its members, the nearest first.

    Of a large sample those nearest to the class's mean are asked only, so that a far arm of it may be missed.
    """
    from scipy.spatial import KDTree

    places = np.asarray(positions, dtype=np.float64)
    outside = np.setdiff1d(np.arange(len(places)), rows)
    squares = np.square(places[outside] - places[rows].mean(axis=0)).sum(axis=1)
    asked = outside[np.argsort(squares, kind="stable")[: max(_OUTSIDE_ASKED, 2 * len(rows))]]
    distances = KDTree(places[rows]).query(places[asked])[0]
    return asked[np.argsort(distances, kind="stable")[:most]]


def top_answers(predictions: pa.Table, members: Sequence[Int64[np.ndarray, " members"]]) -> list[list[str]]:
    """For each class the predicted answers whose mean fraction differs most from the whole sample's.

    Each reads like ``bar_strong 0.61 (sample 0.12)``; NaN fractions are left out of the means.
    """
    columns = [name for name in predictions.column_names if tables.is_fraction_column(name)]
    answers = [str(tables.answer_of(name)) for name in columns]
    fractions = np.column_stack([_numbers(predictions, name) for name in columns] or [np.empty((len(predictions), 0))])
    sample = _means(fractions)
    return [_most_different(answers, _means(fractions[rows]), sample) for rows in members]


def _most_different(answers: Sequence[str], inside: np.ndarray, sample: np.ndarray) -> list[str]:
    differences = np.nan_to_num(np.abs(inside - sample), nan=0.0)
    best = np.argsort(-differences, kind="stable")[:MOST_ANSWERS]
    return [f"{answers[i]} {inside[i]:.2f} (sample {sample[i]:.2f})" for i in best if differences[i] > 0]


def _means(fractions: Float64[np.ndarray, "galaxies answers"]) -> Float64[np.ndarray, " answers"]:
    """Mean of each column without its NaN; NaN where there is nothing else."""
    known = np.isfinite(fractions)
    counts = known.sum(axis=0)
    return np.where(counts > 0, np.where(known, fractions, 0).sum(axis=0) / np.maximum(counts, 1), np.nan)


def _numbers(table: pa.Table, column: str) -> Float64[np.ndarray, " galaxies"]:
    return table.column(column).cast(pa.float64()).to_numpy()


def _members(clustering: Clustering, class_id: int, names: np.ndarray) -> Int64[np.ndarray, " members"]:
    """Rows of a class, by id."""
    rows = np.flatnonzero(clustering.labels == class_id)
    return rows[np.argsort(names[rows], kind="stable")]
