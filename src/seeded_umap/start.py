"""Positions at which the optimisation starts: principal components, smoothed over the graph.

umap-learn starts from the lowest eigenvectors of the graph, which takes minutes. Thirty rounds of averaging over
neighbours, with the components kept independent, come near to them. Where the graph consists of several parts, the
principal components say how the parts lie. Shape letters: n points, D their width, k dimensions of the map.
"""

import numba
import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

_ROUNDS = 30
# umap-learn's start: a square of side 10, and noise.
_SIDE, _NOISE = 10.0, 1e-4
# Quantiles of the points that are brought to that side; points outside are moved to within half a side of it.
_MIDDLE = (0.01, 0.99)
# Number of points on which the quantiles are measured.
_SAMPLE = 20_000


def initial_positions(
    points: Float32[np.ndarray, "n D"], graph: csr_array, *, dimensions: int, seed: int
) -> Float32[np.ndarray, "n k"]:
    """Return the first positions of points whose graph has the strengths ``graph`` (n, n)."""
    random = np.random.default_rng(seed)
    # One thread: BLAS would add in an order that depends on their number.
    with threadpool_limits(1, user_api="blas"):
        values = _components(points, random, count=dimensions)
        degrees = np.maximum(np.asarray(graph.sum(axis=1), np.float64).ravel(), np.finfo(np.float32).tiny)
        for _ in range(_ROUNDS):
            values = _averaged(graph.indptr, graph.indices, graph.data, degrees, values)
            values = _independent(values, degrees)
    return _boxed(values, random)


def _components(points: np.ndarray, random: np.random.Generator, *, count: int) -> Float64[np.ndarray, "n k"]:
    """Return principal components of unit variance; noise where the points vary in fewer directions."""
    nearby = _without_outliers(points, random)
    centred = nearby - nearby.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    variances, axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    axes = axes[:, variances > variances[0] * points.shape[1] * np.finfo(np.float32).eps ** 2]
    scores = centred @ axes
    noise = random.normal(size=(len(scores), count - scores.shape[1]))
    return np.hstack([scores / scores.std(axis=0), noise])


def _without_outliers(points: np.ndarray, random: np.random.Generator) -> Float32[np.ndarray, "n D"]:
    """Return points with outliers moved inwards along each axis: one of them would fill a component alone.

    Along each axis, no point is farther from the middle than the width of the middle.
    """
    sample = points[random.choice(len(points), min(_SAMPLE, len(points)), replace=False)]
    low, high = np.quantile(sample, _MIDDLE, axis=0)
    return np.clip(points, 2 * low - high, 2 * high - low).astype(np.float32)


def _independent(values: np.ndarray, degrees: np.ndarray) -> Float64[np.ndarray, "n k"]:
    """Return the same space in orthogonal directions, without the direction in which all points are equal."""
    weights = np.sqrt(degrees)[:, None]
    values = values - np.average(values, axis=0, weights=degrees)
    directions, triangle = np.linalg.qr(values * weights)
    return directions * np.where(np.diag(triangle) < 0, -1, 1) / weights


def _boxed(values: np.ndarray, random: np.random.Generator) -> Float32[np.ndarray, "n k"]:
    """Scale values to the square, with some noise."""
    low, high = np.quantile(values, _MIDDLE, axis=0)
    scaled = np.clip((values - low) / np.where(high > low, high - low, 1), -0.5, 1.5) * _SIDE
    return (scaled + random.normal(scale=_NOISE, size=values.shape)).astype(np.float32)


@numba.njit(parallel=True, cache=True)
def _averaged(
    starts: np.ndarray, ends: np.ndarray, strengths: np.ndarray, degrees: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Move every point halfway to the mean of its neighbours."""
    averaged = np.empty_like(values)
    for row in numba.prange(len(values)):
        mine = np.zeros(values.shape[1])
        for edge in range(starts[row], starts[row + 1]):
            mine += strengths[edge] * values[ends[edge]]
        averaged[row] = (values[row] + mine / degrees[row]) / 2
    return averaged
