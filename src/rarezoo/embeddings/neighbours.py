"""The nearest-neighbour index of the package: every search for similar galaxies goes through it.

Shape letters: n vectors in the index, m vectors that are asked for, d their width, k neighbours.
"""

from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

METRICS = ("euclidean", "cosine")


class Neighbours(NamedTuple):
    """The nearest neighbours of m vectors, the nearest first.

    Attributes
    ----------
    rows : (m, k) integers
        Rows of the index.
    distances : (m, k) floats
        Distances to them. With ``metric="cosine"`` this is the length of the difference of two directions, 0 to 2: it
        orders pairs as the angle does.
    """

    rows: Int[np.ndarray, "m k"]
    distances: Float[np.ndarray, "m k"]


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
        Compare with every vector, whatever their number (scikit-learn: a k-d tree for few dimensions, else brute
        force).
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
        if metric == "cosine":
            self._mean = mean_of(vectors)
            vectors = unit_vectors(vectors, mean=self._mean)
        self.vectors: Float32[np.ndarray, "n d"] = np.ascontiguousarray(vectors, dtype=np.float32)
        self._cells: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        kind = "exact" if self.exact else "cells"
        return f"NeighbourIndex({len(self)} vectors of width {self.vectors.shape[1]}, {self.metric}, {kind})"

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
            vectors = unit_vectors(vectors, mean=self._mean)
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
        distances, rows = self._tree.kneighbors(vectors, k if itself is None else k + 1)
        nearest = Neighbours(rows, distances)
        return nearest if itself is None else without_itself(nearest, itself)

    @cached_property
    def _tree(self) -> Any:
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(algorithm="brute" if self.metric == "cosine" else "auto").fit(self.vectors)


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
