"""How strongly galaxies hold together: UMAP's fuzzy graph (McInnes et al. 2018, §3.1).

umap-learn's own functions add in an order that depends on the number of threads. n: galaxies. k: neighbours.
"""

import numba
import numpy as np
from jaxtyping import Float32
from scipy.sparse import csr_array

from seeded_umap.neighbours import Neighbours

# umap-learn's: halvings of the search for a bandwidth, how near it must come, and the least in mean distances.
_HALVINGS, _NEAR, _LEAST = 64, 1e-5, 1e-3


def mutual(found: Neighbours) -> csr_array:
    """Strengths 0–1 (n, n) of the galaxies' own neighbours: a + b − ab of the two directions."""
    galaxies, k = found.rows.shape
    values = strengths(found.distances, True)
    values[found.rows == np.arange(galaxies)[:, None]] = 0
    one_way = csr_array((values.ravel(), found.rows.ravel(), np.arange(galaxies + 1) * k), (galaxies, galaxies))
    one_way.eliminate_zeros()
    other_way = one_way.T.tocsr()
    both = csr_array(one_way + other_way - one_way * other_way)
    both.sort_indices()
    return both


@numba.njit(parallel=True, cache=True)
def strengths(distances: Float32[np.ndarray, "n k"], among: bool) -> Float32[np.ndarray, "n k"]:
    """exp(−(d − ρ) / σ), with σ such that a galaxy's sum to log2 k.

    Args:
        distances: the nearest first.
        among: the galaxies are among those searched: the first neighbour is the galaxy itself, and ρ is the distance
            of the nearest other. If not, ρ is 0, as in umap-learn's transform.
    """
    found = np.empty_like(distances)
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
            if abs(total - wanted) < _NEAR:
                break
            low, high = (low, width) if total > wanted else (width, high)
            width = 2 * width if high == np.inf else (low + high) / 2
        width = max(width, _LEAST * np.float64(np.mean(distances[row])), 1e-300)
        found[row] = np.exp(-mine / width)
    return found


def to_others(found: Neighbours, values: Float32[np.ndarray, "m k"], *, others: int) -> csr_array:
    """Strengths (m, others), a galaxy's largest being 1, so that nobody else's change how often it is pulled."""
    galaxies, k = found.rows.shape
    values = values / values.max(axis=1, keepdims=True)
    return csr_array((values.ravel(), found.rows.ravel(), np.arange(galaxies + 1) * k), (galaxies, others))
