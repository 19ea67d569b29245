"""Where the descent starts: principal components, made smooth over the graph.

n: galaxies. D: embedding width. k: dimensions of the map.
"""

from typing import Any

import numba
import numpy as np
from jaxtyping import Float32, Float64
from threadpoolctl import threadpool_limits

# As umap-learn's start: a side of 10, and noise of 1e-4 of it.
_SIDE, _NOISE = 10.0, 1e-4


def started(
    embeddings: Float32[np.ndarray, "n D"], graph: Any, *, dimensions: int, rounds: int, seed: int
) -> Float32[np.ndarray, "n k"]:
    """First positions."""
    with threadpool_limits(1, user_api="blas"):
        centred = (embeddings - embeddings.mean(axis=0)).astype(np.float64)
        _, axes = np.linalg.eigh(centred.T @ centred)
        axes = axes[:, ::-1][:, :dimensions]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dimensions)])
        values = centred @ axes
        degree = np.asarray(graph.sum(axis=1)).ravel()
        for _ in range(rounds):
            values = _spread(graph.indptr, graph.indices, graph.data, degree, values)
            values = values - np.average(values, axis=0, weights=degree)
            values, r = np.linalg.qr(values * np.sqrt(degree)[:, None])
            values = values * np.sign(np.diag(r)) / np.sqrt(degree)[:, None]
    return scaled(values, np.random.default_rng(seed))


def scaled(values, random):
    low, high = values.min(axis=0), values.max(axis=0)
    values = (values - low) / np.where(high > low, high - low, 1) * _SIDE
    return (values + random.normal(scale=_NOISE * _SIDE, size=values.shape)).astype(np.float32)


@numba.njit(parallel=True, cache=True)
def _spread(starts, ends, strengths, degree, values):
    """Every galaxy halfway to the mean of its neighbours."""
    spread = np.empty_like(values)
    for row in numba.prange(len(values)):
        spread[row] = values[row] / 2
        for edge in range(starts[row], starts[row + 1]):
            for axis in range(values.shape[1]):
                spread[row, axis] += strengths[edge] / degree[row] / 2 * values[ends[edge], axis]
    return spread
