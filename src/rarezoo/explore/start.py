"""Which galaxies a person sees first, while nothing is known: by turns one of every sort, and one drawn at random.

The survey is divided into pieces by k-means. The most typical galaxy of the smallest piece comes first, then that of
the next larger one; after one galaxy of each piece, the second most typical ones follow. So a person meets every sort
of galaxy early, rare sorts first. Between any two of them stands a galaxy that is drawn at random: what a person looks
for may be common, such as rings, and lie in the large pieces. The order of the local outlier factor, which others start
with, is a choice of ``acquisition=``.
"""

import numpy as np
from jaxtyping import Float32, Int64

# Pieces at most, and galaxies per piece at least.
_PIECES, _FEWEST = 200, 10
# Galaxies on which the pieces are fitted at most.
_FITTED = 20_000
# Galaxies that are placed at a time.
_BLOCK = 2**16


def start_values(features: Float32[np.ndarray, "n d"], *, seed: int = 0) -> Float32[np.ndarray, " n"]:
    """Return the value of showing each galaxy first, from 1 (the first) to 0 (the last).

    Parameters
    ----------
    features : (n, d) array of floats
    seed : int
        Seed of k-means and of the random draws.

    Examples
    --------
    Three of 300 galaxies lie apart. They are a piece of their own, and one of them is among the first 60, which are a
    galaxy of each of 30 pieces and 30 random ones:

    >>> features = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    >>> features[60:63] += 40
    >>> first = np.argsort(-start_values(features))[:60]
    >>> bool(np.isin(first, [60, 61, 62]).any())
    True
    """
    from sklearn.cluster import KMeans

    count = len(features)
    pieces = min(_PIECES, max(1, count // _FEWEST))
    rng = np.random.default_rng(seed)
    subset = rng.permutation(count)[:_FITTED]
    kmeans = KMeans(pieces, n_init=1, random_state=seed).fit(features[np.sort(subset)])
    piece, distance = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    for begin in range(0, count, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        piece[block] = kmeans.predict(features[block])
        distance[block] = np.linalg.norm(features[block] - kmeans.cluster_centers_[piece[block]], axis=1)
    values = np.empty(count, dtype=np.float32)
    values[_alternating(_turn_by_turn(piece, distance), rng.permutation(count))] = np.linspace(
        1, 0, count, dtype=np.float32
    )
    return values


def _alternating(first: Int64[np.ndarray, " n"], second: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the rows of two orders by turns; a row stands where the earlier of the two has it.

    >>> _alternating(np.array([0, 1, 2]), np.array([2, 0, 1])).tolist()
    [0, 2, 1]
    """
    merged = np.stack([first, second], axis=1).ravel()
    places = np.unique(merged, return_index=True)[1]
    return merged[np.sort(places)]


def _turn_by_turn(piece: Int64[np.ndarray, " n"], distance: Float32[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return rows by turns: a turn takes the next most typical galaxy of each piece, small pieces first."""
    sizes = np.bincount(piece)
    by_piece = np.lexsort((distance, piece))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    turn = np.empty(len(piece), dtype=np.int64)
    turn[by_piece] = np.arange(len(piece)) - starts[piece[by_piece]]
    return np.lexsort((piece, sizes[piece], turn))
