"""Strengths of the edges between neighbours: UMAP's fuzzy graph (McInnes et al. 2018, §3.1).

We keep our own functions because umap-learn's add numbers in an order that depends on the number of threads.
Shape letters: n points, m points to transform, k neighbours.
"""

import numba
import numpy as np
from jaxtyping import Float32
from scipy.sparse import csr_array

from seeded_umap.neighbours import Neighbours

# umap-learn's values: number of halvings of the search for a bandwidth, its tolerance, and the smallest bandwidth in
# units of the mean distance.
_HALVINGS, _TOLERANCE, _SMALLEST = 64, 1e-5, 1e-3


def mutual_graph(nearest: Neighbours) -> csr_array:
    """Return the strengths (n, n), 0 to 1, of a graph of points and their neighbours among themselves.

    The strengths a and b of the two directions of an edge become a + b − ab.
    """
    points, k = nearest.rows.shape
    values = edge_strengths(nearest.distances, True)
    values[nearest.rows == np.arange(points)[:, None]] = 0
    one_way = csr_array((values.ravel(), nearest.rows.ravel(), np.arange(points + 1) * k), (points, points))
    one_way.eliminate_zeros()
    other_way = one_way.T.tocsr()
    both = csr_array(one_way + other_way - one_way * other_way)
    both.sort_indices()
    return both


@numba.njit(parallel=True, cache=True)
def edge_strengths(distances: Float32[np.ndarray, "n k"], among: bool) -> Float32[np.ndarray, "n k"]:
    """Return exp(−(d − ρ) / σ), with σ such that the strengths of a point add up to log2 k.

    Parameters
    ----------
    distances : (n, k) float32
        Distances to the neighbours, the nearest first.
    among : bool
        The points are among those searched. The first neighbour is then the point itself, and ρ is the distance of the
        nearest other point. Otherwise ρ is 0, as in umap-learn's transform.
    """
    strengths = np.empty_like(distances)
    for row in numba.prange(len(distances)):
        mine = distances[row].astype(np.float64)
        if among:
            for column in range(len(mine)):
                if distances[row, column] > 0:
                    mine -= mine[column]
                    break
        mine = np.maximum(mine, 0.0)
        wanted = np.log2(len(mine)) + among
        low, width, high = 0.0, 1.0, np.inf
        for _ in range(_HALVINGS):
            total = np.sum(np.exp(-mine / width))
            if abs(total - wanted) < _TOLERANCE:
                break
            low, high = (low, width) if total > wanted else (width, high)
            width = 2 * width if high == np.inf else (low + high) / 2
        width = max(width, _SMALLEST * np.float64(np.mean(distances[row])), 1e-300)
        strengths[row] = np.exp(-mine / width)
    return strengths


def graph_to_anchors(nearest: Neighbours, values: Float32[np.ndarray, "m k"], *, anchors: int) -> csr_array:
    """Return strengths (m, anchors) from points to fitted points.

    The largest strength of each point is 1, so that the strengths of other points do not change how often it is pulled.
    """
    points, k = nearest.rows.shape
    values = values / values.max(axis=1, keepdims=True)
    return csr_array((values.ravel(), nearest.rows.ravel(), np.arange(points + 1) * k), (points, anchors))
