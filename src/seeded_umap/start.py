"""Where the descent starts: principal components, made smooth over the graph.

So many rounds of averaging over neighbours, with the components kept independent, bring them near the graph's lowest
eigenvectors, which umap-learn starts from and takes minutes to find. Where the graph falls apart, the principal
components say how its parts lie; there is nothing to solve. n: galaxies. D: embedding width. k: dimensions of the map.
"""

import numba
import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

_ROUNDS = 30
# umap-learn's start: a side of 10, and noise.
_SIDE, _NOISE = 10.0, 1e-4
# The middle of the galaxies that is brought to that side; those further out are drawn in to half a side from it.
_MIDDLE = (0.01, 0.99)
# Galaxies by which the middle of the embeddings is found.
_SAMPLE = 20_000


def started(
    embeddings: Float32[np.ndarray, "n D"], graph: csr_array, *, dimensions: int, seed: int
) -> Float32[np.ndarray, "n k"]:
    """First positions. ``graph`` holds the strengths (n, n)."""
    random = np.random.default_rng(seed)
    # One thread: BLAS would add in an order that depends on their number.
    with threadpool_limits(1, user_api="blas"):
        values = _components(embeddings, random, count=dimensions)
        degrees = np.maximum(np.asarray(graph.sum(axis=1), np.float64).ravel(), np.finfo(np.float32).tiny)
        for _ in range(_ROUNDS):
            values = _averaged(graph.indptr, graph.indices, graph.data, degrees, values)
            values = _independent(values, degrees)
    return _boxed(values, random)


def _components(embeddings: np.ndarray, random: np.random.Generator, *, count: int) -> Float64[np.ndarray, "n k"]:
    """Principal components of unit variance; noise where the embeddings vary in fewer directions."""
    nearby = _without_far(embeddings, random)
    centred = nearby - nearby.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    variances, axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    axes = axes[:, variances > variances[0] * embeddings.shape[1] * np.finfo(np.float32).eps ** 2]
    scores = centred @ axes
    noise = random.normal(size=(len(scores), count - scores.shape[1]))
    return np.hstack([scores / scores.std(axis=0), noise])


def _without_far(embeddings: np.ndarray, random: np.random.Generator) -> Float32[np.ndarray, "n D"]:
    """Far galaxies drawn in along each axis, to the width of the middle from it: one would fill a component alone."""
    sample = embeddings[random.choice(len(embeddings), min(_SAMPLE, len(embeddings)), replace=False)]
    low, high = np.quantile(sample, _MIDDLE, axis=0)
    return np.clip(embeddings, 2 * low - high, 2 * high - low).astype(np.float32)


def _independent(values: np.ndarray, degrees: np.ndarray) -> Float64[np.ndarray, "n k"]:
    """The same space in orthogonal directions, without the one in which all are equal."""
    weights = np.sqrt(degrees)[:, None]
    values = values - np.average(values, axis=0, weights=degrees)
    directions, triangle = np.linalg.qr(values * weights)
    return directions * np.where(np.diag(triangle) < 0, -1, 1) / weights


def _boxed(values: np.ndarray, random: np.random.Generator) -> Float32[np.ndarray, "n k"]:
    low, high = np.quantile(values, _MIDDLE, axis=0)
    scaled = np.clip((values - low) / np.where(high > low, high - low, 1), -0.5, 1.5) * _SIDE
    return (scaled + random.normal(scale=_NOISE, size=values.shape)).astype(np.float32)


@numba.njit(parallel=True, cache=True)
def _averaged(
    starts: np.ndarray, ends: np.ndarray, strengths: np.ndarray, degrees: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Every galaxy halfway to the mean of its neighbours."""
    averaged = np.empty_like(values)
    for row in numba.prange(len(values)):
        mine = np.zeros(values.shape[1])
        for edge in range(starts[row], starts[row + 1]):
            mine += strengths[edge] * values[ends[edge]]
        averaged[row] = (values[row] + mine / degrees[row]) / 2
    return averaged
