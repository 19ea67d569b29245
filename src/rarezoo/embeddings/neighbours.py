"""The nearest-neighbour index of the package: every search for similar galaxies goes through it.

Shape letters: n vectors in the index, m vectors that are asked for, d their width, k neighbours.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from rarezoo.cache import Cache

METRICS = ("euclidean", "cosine")
# Vectors up to which an index of the cosine compares all of them, unless it is told otherwise. In 128-D they take 5 GB
# on the disk, which is read in seconds.
MOST_COMPARED = 10_000_000
# Products of vectors that are in memory at once, and vectors that are asked for at once.
_PRODUCTS, _ASKED = 2**22, 512
# Further candidates whose distances are computed again in double precision, because products are rounded.
_CANDIDATES = 8


class Neighbours(NamedTuple):
    """The nearest neighbours of m vectors, the nearest first.

    Attributes
    ----------
    rows : (m, k) integers
        Rows of the index.
    distances : (m, k) floats
        Distances to them. With ``metric="cosine"`` this is the length of the difference of two directions, 0 to 2: it
        orders pairs as the angle does. Where an exact index of the cosine has fewer than k finite vectors, the row is
        −1 and the distance infinite.
    """

    rows: Int[np.ndarray, "m k"]
    distances: Float[np.ndarray, "m k"]


class Centred(NamedTuple):
    """Vectors as seen from their mean: direction and length of each.

    Attributes
    ----------
    directions : (n, d) float32
        Unit vectors; zero for a vector that is the mean or that is not finite.
    lengths : (n,) float32
        Distances from the mean; NaN for a vector that is not finite.
    mean, spread : (d,) float32
        Mean of the finite vectors, and their standard deviation along each axis; 1 where all are equal.
    """

    directions: Float32[np.ndarray, "n d"]
    lengths: Float32[np.ndarray, " n"]
    mean: Float32[np.ndarray, " d"]
    spread: Float32[np.ndarray, " d"]


class NeighbourIndex:
    """Find the nearest neighbours among n vectors.

    Up to 20,000 vectors every search is exact. Above that, an index of ``exact=False`` cuts the vectors into cells and
    finds 99 % of the true neighbours, in parallel and with the same result on any number of threads
    (:mod:`seeded_umap.neighbours`).

    Parameters
    ----------
    vectors : (n, d) array of floats
        Rows to search among.
    metric : {"euclidean", "cosine"}
        ``cosine`` compares directions from the mean of the n vectors.
    exact : bool
        Compare with every vector, whatever their number (euclidean: scikit-learn's k-d tree for few dimensions, else
        its brute force; cosine: products of blocks of vectors, which may lie on the disk).
    seed : int
        Seed of the cells.

    Examples
    --------
    >>> import numpy as np
    >>> index = NeighbourIndex(np.array([[0.0], [1.0], [5.0]], dtype=np.float32))
    >>> index.graph(1).ravel().tolist()
    [1, 0, 1]
    >>> index.query(np.array([[4.0]], dtype=np.float32), 2).rows.tolist()
    [[2, 1]]
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "n d"],
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        exact: bool = False,
        seed: int = 0,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r}: choose euclidean or cosine")
        self.metric, self.exact, self.seed = metric, exact, seed
        self._centred: Centred | None = None
        if metric == "cosine":
            self._centred = centred(lambda: [vectors], shape=(len(vectors), vectors.shape[1]))
            vectors = self._centred.directions
        self.vectors: Float32[np.ndarray, "n d"] = np.ascontiguousarray(vectors, dtype=np.float32)
        self._cells: dict[int, Any] = {}

    @classmethod
    def of(cls, vectors: Centred, *, exact: bool | None = None, seed: int = 0) -> "NeighbourIndex":
        """Return an index of the cosine for vectors that are centred already, and may lie on the disk.

        Parameters
        ----------
        vectors : Centred
            What :func:`centred` returned. Vectors that are not finite are nobody's neighbours.
        exact : bool, optional
            Compare with every vector; by default up to 10 million of them (``MOST_COMPARED``).
        seed : int
            Seed of the cells.

        Examples
        --------
        >>> import numpy as np
        >>> vectors = np.array([[0.0, 1.0], [0.1, 1.0], [5.0, 0.0]], dtype=np.float32)
        >>> NeighbourIndex.of(centred(lambda: [vectors], shape=(3, 2))).graph(1).ravel().tolist()
        [1, 0, 1]
        """
        index = cls.__new__(cls)
        index.metric, index.seed = "cosine", seed
        index.exact = len(vectors.lengths) <= MOST_COMPARED if exact is None else exact
        index._centred, index.vectors, index._cells = vectors, vectors.directions, {}
        return index

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        kind = "exact" if self.exact else "cells"
        return f"NeighbourIndex({len(self)} vectors of width {self.vectors.shape[1]}, {self.metric}, {kind})"

    @property
    def centred(self) -> Centred:
        """The vectors as seen from their mean; only an index of the cosine has them."""
        if self._centred is None:
            raise ValueError("only an index with metric='cosine' has centred vectors")
        return self._centred

    @cached_property
    def finite(self) -> Bool[np.ndarray, " n"]:
        """Which vectors of an index of the cosine are finite."""
        return np.asarray(np.isfinite(self.centred.lengths))

    def graph(self, k: int) -> Int32[np.ndarray, "n k"]:
        """Return each row's k nearest other rows, the nearest first; n − 1 of them if k is larger."""
        k = min(k, len(self) - 1)
        if self.exact:
            return self._exact(self.vectors, k, np.arange(len(self))).rows.astype(np.int32)
        # The cells' own order keeps what is searched together close together in memory.
        cells, order = self._cut(k + 1)
        nearest = Neighbours(*cells.neighbours(self.vectors[order], k=k + 1))
        others = without_itself(nearest, np.arange(len(self))).rows
        graph = np.empty((len(self), k), dtype=np.int32)
        graph[order] = order[others]
        return graph

    def query(
        self, vectors: Float[np.ndarray, "m d"], k: int, *, itself: Int[np.ndarray, " m"] | None = None
    ) -> Neighbours:
        """Return the k nearest rows of some vectors, the nearest first.

        Parameters
        ----------
        vectors : (m, d) array of floats
            Vectors to ask for.
        k : int
            Number of neighbours, at most n; with ``itself`` at most n − 1.
        itself : (m,) array of integers, optional
            Row of each vector in the index, −1 for a vector that is not in it. A vector is then not its own neighbour.
        """
        if self.metric == "cosine":
            vectors = unit_vectors(vectors, mean=self.centred.mean)
        return self._query(vectors, k, itself)

    def query_rows(self, rows: Int[np.ndarray, " m"], k: int) -> Neighbours:
        """Return the k nearest other rows of some rows of the index, the nearest first.

        Parameters
        ----------
        rows : (m,) array of integers
            Rows of the index.
        k : int
            Number of neighbours, at most n − 1.
        """
        return self._query(self.vectors[rows], k, rows)

    def project(self, weights: Float[np.ndarray, " d"]) -> Float32[np.ndarray, " n"]:
        """Return ``(vector − mean) · weights`` of every vector of an index of the cosine; NaN if it is not finite.

        The vectors are read once, block by block. Divide by the lengths for the cosine with a unit vector.

        Parameters
        ----------
        weights : (d,) array of floats
            A direction, or the coefficients of a linear model.

        Examples
        --------
        >>> import numpy as np
        >>> index = NeighbourIndex(np.array([[0.0, 3.0], [4.0, 5.0]], dtype=np.float32), metric="cosine", exact=True)
        >>> index.project(np.array([1.0, 0.0])).tolist()
        [-2.0, 2.0]
        """
        products = np.empty(len(self), dtype=np.float32)
        direction, block = np.asarray(weights, dtype=np.float32), max(_PRODUCTS // len(weights), 1)
        for start in range(0, len(self), block):
            np.dot(self.vectors[start : start + block], direction, out=products[start : start + block])
        return np.multiply(products, self.centred.lengths, out=products)

    def nearest_distances(
        self, vectors: Float[np.ndarray, "m d"], *, itself: Int[np.ndarray, " m"] | None = None
    ) -> Float32[np.ndarray, " m"]:
        """Return the Euclidean distance of vectors from the nearest vector of an index of the cosine.

        Unlike the angle, it tells a vector that is far out from those near the mean.

        Parameters
        ----------
        vectors : (m, d) array of floats
            Vectors to ask for, of the kind that the index was made of.
        itself : (m,) array of integers, optional
            Row of each vector in the index; a vector is then not compared with itself.

        Examples
        --------
        >>> import numpy as np
        >>> index = NeighbourIndex(np.array([[0.0, 3.0], [4.0, 5.0]], dtype=np.float32), metric="cosine", exact=True)
        >>> index.nearest_distances(np.array([[3.0, 5.0]])).round(3).tolist()
        [1.0]
        """
        seen = (vectors - self.centred.mean).astype(np.float32)
        nearest = np.full(len(seen), np.inf, dtype=np.float32)
        block = max(_PRODUCTS // max(len(seen), 1), 1)
        for start in range(0, len(self), block):
            lengths = self.centred.lengths[start : start + block]
            squares = np.square(seen).sum(axis=1, keepdims=True) + np.square(lengths)
            squares -= 2 * (seen @ self.vectors[start : start + block].T) * lengths
            squares[:, np.isnan(lengths)] = np.inf
            if itself is not None:
                here = np.flatnonzero((itself >= start) & (itself < start + block))
                squares[here, itself[here] - start] = np.inf
            np.minimum(nearest, squares.min(axis=1), out=nearest)
        return np.sqrt(np.maximum(nearest, 0))

    def _query(self, vectors: np.ndarray, k: int, itself: np.ndarray | None) -> Neighbours:
        """Return the nearest rows of vectors that are as those of the index: of the cosine, directions."""
        if self.exact:
            return self._exact(vectors, k, itself)
        wanted = k if itself is None else k + 1
        cells, order = self._cut(wanted)
        rows, distances = cells.neighbours(np.ascontiguousarray(vectors, dtype=np.float32), k=wanted)
        nearest = Neighbours(order[rows], distances)
        return nearest if itself is None else without_itself(nearest, itself)

    def _cut(self, k: int) -> Any:
        """Cells in which k neighbours can be found, and the row of each vector in them; of the last k alone."""
        from seeded_umap.neighbours import build_cells

        if k not in self._cells:
            self._cells = {k: build_cells(self.vectors, k=k, seed=self.seed)}
        return self._cells[k]

    def _exact(self, vectors: np.ndarray, k: int, itself: np.ndarray | None) -> Neighbours:
        wanted = k if itself is None else k + 1
        if self.metric == "cosine":
            parts = [
                self._compared(vectors[start : start + _ASKED], wanted) for start in range(0, len(vectors), _ASKED)
            ]
            nearest = Neighbours(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        else:
            distances, rows = self._tree.kneighbors(vectors, wanted)
            nearest = Neighbours(rows, distances)
        return nearest if itself is None else without_itself(nearest, itself)

    def _compared(self, directions: np.ndarray, k: int) -> Neighbours:
        """Compare directions with every vector, block by block, and the best of them again in double precision."""
        candidates = min(k + _CANDIDATES, len(self))
        best = np.full((len(directions), candidates), -np.inf, dtype=np.float32)
        rows = np.full((len(directions), candidates), -1, dtype=np.int64)
        block = max(_PRODUCTS // max(len(directions), self.vectors.shape[1]), 1)
        for start in range(0, len(self), block):
            products = directions @ self.vectors[start : start + block].T
            products[:, ~self.finite[start : start + block]] = -np.inf
            # After the first blocks few products are among the best, and most vectors are looked at once only.
            better = products > best.min(axis=1, keepdims=True)
            for asked in np.flatnonzero(better.any(axis=1)):
                places = np.flatnonzero(better[asked])
                both = np.concatenate([best[asked], products[asked, places]])
                kept = np.argpartition(-both, candidates - 1)[:candidates]
                best[asked], rows[asked] = both[kept], np.concatenate([rows[asked], start + places])[kept]
        distances = np.linalg.norm(self.vectors[rows].astype(np.float64) - directions[:, None], axis=2)
        # Whoever has no direction is at right angles to everyone.
        nowhere = ~(self.vectors[rows].any(axis=2) & directions.any(axis=1, keepdims=True))
        distances = np.where(np.isneginf(best), np.inf, np.where(nowhere, np.sqrt(2), distances))
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        return Neighbours(*(np.take_along_axis(column, order, axis=1) for column in (rows, distances)))

    @cached_property
    def _tree(self) -> Any:
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors().fit(self.vectors)


def centred(
    blocks: Callable[[], Iterable[Float[np.ndarray, "_ d"]]],
    *,
    shape: tuple[int, int],
    cache: Cache | None = None,
    key: Mapping[str, Any] | None = None,
) -> Centred:
    """Return vectors as seen from their mean. They are read twice, block by block, and never all at once.

    Parameters
    ----------
    blocks : callable
        Returns the vectors in order, in blocks of any number of rows; it is called twice.
    shape : (n, d)
        Number of vectors, and their width.
    cache : Cache, optional
        Keeps the result, from which directions are then read through a memory map; None keeps them in memory.
    key : mapping, optional
        What identifies the vectors in the cache.

    Raises
    ------
    OutputError
        The cache cannot be written or is full.

    Examples
    --------
    >>> import numpy as np
    >>> vectors = np.array([[0.0, 3.0], [8.0, 9.0]], dtype=np.float32)
    >>> seen = centred(lambda: [vectors[:1], vectors[1:]], shape=(2, 2))
    >>> seen.lengths.tolist(), seen.mean.tolist()
    ([5.0, 5.0], [4.0, 6.0])
    """
    named = {"vectors": dict(key or {}), "shape": shape}
    lengths: list[np.ndarray] = []

    def moments() -> np.ndarray:
        return _moments(blocks(), width=shape[1])

    def directions() -> Iterator[np.ndarray]:
        lengths.clear()
        for block in blocks():
            seen = seen_from(block, mean=mean, spread=spread)
            lengths.append(seen.lengths)
            yield seen.directions

    def all_lengths() -> np.ndarray:
        if not lengths:
            deque(directions(), maxlen=0)
        return np.concatenate(lengths)

    mean, spread = cache.array({**named, "part": "moments"}, moments, code=[__name__]) if cache else moments()
    if cache is None:
        return Centred(np.concatenate([*directions()]), all_lengths(), mean, spread)
    mapped = cache.mapped({**named, "part": "directions"}, shape=shape, blocks=directions, code=[__name__])
    return Centred(mapped, cache.array({**named, "part": "lengths"}, all_lengths, code=[__name__]), mean, spread)


def seen_from(
    vectors: Float[np.ndarray, "n d"], *, mean: Float32[np.ndarray, " d"], spread: Float32[np.ndarray, " d"]
) -> Centred:
    """Return some of the vectors as seen from the mean of all, whose spread is ``spread``."""
    known = np.isfinite(vectors).all(axis=1)
    filled = np.where(known[:, None], vectors, mean)
    lengths = np.linalg.norm(filled.astype(np.float64) - mean, axis=1)
    lengths = np.where(known, lengths, np.nan).astype(np.float32)
    return Centred(unit_vectors(filled, mean=mean), lengths, mean, spread)


def _moments(blocks: Iterable[np.ndarray], *, width: int) -> Float32[np.ndarray, "2 d"]:
    """Return mean and standard deviation of the finite vectors; 1 for a standard deviation of 0."""
    origin, count, total, squares = np.zeros(width), 0, np.zeros(width), np.zeros(width)
    for block in blocks:
        known = block[np.isfinite(block).all(axis=1)].astype(np.float64)
        if not count and len(known):
            # Squares about a value near the mean keep their digits.
            origin = known.mean(axis=0)
        count += len(known)
        total += (known - origin).sum(axis=0)
        squares += np.square(known - origin).sum(axis=0)
    shift = total / max(count, 1)
    spread = np.sqrt(np.maximum(squares / max(count, 1) - shift**2, 0))
    return np.stack([origin + shift, np.where(spread > 0, spread, 1)]).astype(np.float32)


def without_itself(nearest: Neighbours, itself: Int[np.ndarray, " m"]) -> Neighbours:
    """Take each vector's own row out of its k + 1 nearest, or else the last of them.

    Exact copies of a vector are as near as the vector itself, which can then stand anywhere or be missing.
    """
    own = nearest.rows == itself[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(own), own.shape[1] - 1)
    return Neighbours(*(column[~own].reshape(shape) for column in nearest))


def mean_of(vectors: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " d"]:
    """Return the mean vector, added in double precision."""
    return vectors.mean(axis=0, dtype=np.float64).astype(np.float32)


def unit_vectors(
    vectors: Float[np.ndarray, "n d"], *, mean: Float32[np.ndarray, " d"] | None = None
) -> Float32[np.ndarray, "n d"]:
    """Return the directions of vectors from a mean, by default their own; zero for a vector that is the mean."""
    centred = vectors - (mean_of(vectors) if mean is None else mean)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return (centred / np.where(norms > 0, norms, 1)).astype(np.float32)
