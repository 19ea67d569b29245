"""The estimator."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32

from seeded_umap.graph import edge_strengths, graph_to_anchors, mutual_graph
from seeded_umap.layout import Edges, Forces, hashes_of, optimise, place
from seeded_umap.neighbours import CELL_SIZE, EXACT_BELOW, Cells, build_cells
from seeded_umap.start import initial_positions

# umap-learn's numbers of epochs, of fit and transform: more for up to 10,000 points than for more.
_FEW = 10_000
_EPOCHS, _TRANSFORM_EPOCHS = (500, 200), (100, 30)
# Squares of differences, added over the axes, must stay finite in single precision.
LARGEST = 1e17


class SeededUMAP:
    """Euclidean UMAP on every core, with the same map for the same seed.

    A point is transformed to the same place whatever other points are transformed with it.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbours that define locality, the point itself included; at least 2 and fewer than the points.
    n_components : int
        Number of dimensions of the map.
    min_dist : float
        Smallest distance between points on the map, 0 to 1.
    n_epochs : int, optional
        Number of epochs; by default 500 for up to 10,000 points, else 200. Transforming takes a third of it (by default
        100 or 30).
    random_state : int
        Seed of every random draw.
    progress : bool
        Show progress bars on standard error.
    exact_below : int
        Largest number of points whose neighbours are found by comparing all pairs.
    cell_size : int
        Number of points per cell of the neighbour search beyond that.

    Attributes
    ----------
    embedding_ : (n, n_components) float32
        Positions of the fitted points.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    >>> umap = SeededUMAP(n_neighbors=5, n_epochs=20).fit(X)
    >>> umap.embedding_.shape, umap.transform(X[:3]).shape
    ((60, 2), (3, 2))
    """

    def __init__(
        self,
        n_neighbors: int = 15,
        n_components: int = 2,
        min_dist: float = 0.1,
        *,
        n_epochs: int | None = None,
        random_state: int = 0,
        progress: bool = False,
        exact_below: int = EXACT_BELOW,
        cell_size: int = CELL_SIZE,
    ) -> None:
        self.n_neighbors, self.n_components, self.min_dist = n_neighbors, n_components, min_dist
        self.n_epochs, self.random_state, self.progress = n_epochs, random_state, progress
        self.exact_below, self.cell_size = exact_below, cell_size

    def fit(self, X: Float[np.ndarray, "n D"], y: object = None) -> "SeededUMAP":  # noqa: N803
        """Learn a map of points.

        Parameters
        ----------
        X : (n, D) array
            Points, taken as float32.
        y : object
            Ignored; scikit-learn's pipelines pass it.

        Raises
        ------
        ValueError
            A value is not finite, or too large for single precision.
        """
        points = _checked(X)
        cells, order = self._cells_of(points)
        ordered, epochs = points[order], self.n_epochs or _EPOCHS[len(points) > _FEW]
        graph = mutual_graph(cells.neighbours(ordered, k=self.n_neighbors, progress=self.progress))
        first = initial_positions(ordered, graph, dimensions=self.n_components, seed=self.random_state)
        edges, forces = Edges.from_graph(graph, epochs=epochs), Forces.from_min_dist(self.min_dist)
        del graph
        positions = np.empty_like(first)
        positions[order] = optimise(
            first, edges, forces, epochs=epochs, seed=self.random_state, progress=self.progress
        )  # fmt: skip
        return self.restore(points, positions)

    def fit_transform(self, X: Float[np.ndarray, "n D"], y: object = None) -> Float32[np.ndarray, "n k"]:  # noqa: N803
        """Learn a map of points and return their positions; see :meth:`fit`."""
        return self.fit(X).embedding_

    def restore(self, X: Float[np.ndarray, "n D"], embedding: Float32[np.ndarray, "n k"]) -> "SeededUMAP":  # noqa: N803
        """Take up a map that was fitted before: its points and their positions are all that it consists of."""
        self.points_, self.embedding_ = _checked(X), embedding
        self.__dict__.pop("_anchors", None)
        return self

    def transform(self, X: Float[np.ndarray, "m D"]) -> Float32[np.ndarray, "m k"]:  # noqa: N803
        """Return positions of further points on the map; the fitted points stay where they are.

        Raises
        ------
        ValueError
            See :meth:`fit`.
        """
        points = _checked(X)
        cells, anchors = self._anchors
        nearest = cells.neighbours(points, k=self.n_neighbors)
        graph = graph_to_anchors(nearest, edge_strengths(nearest.distances, False), anchors=len(anchors))
        first = (graph @ anchors / graph.sum(axis=1)[:, None]).astype(np.float32)
        epochs = max(1, self.n_epochs // 3) if self.n_epochs else _TRANSFORM_EPOCHS[len(anchors) > _FEW]
        return place(
            first, anchors, Edges.from_graph(graph, epochs=epochs), Forces.from_min_dist(self.min_dist),
            hashes=hashes_of(points), epochs=epochs, seed=self.random_state,
        )  # fmt: skip

    @cached_property
    def _anchors(self) -> tuple[Cells, Float32[np.ndarray, "n k"]]:
        """Cells of the fitted points, and their positions in the order of the cells."""
        cells, order = self._cells_of(self.points_)
        return cells, self.embedding_[order]

    def _cells_of(self, points: Float32[np.ndarray, "n D"]) -> tuple[Cells, np.ndarray]:
        return build_cells(
            points, k=self.n_neighbors, seed=self.random_state, exact_below=self.exact_below, cell_size=self.cell_size
        )


def _checked(points: Float[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    """Return points in single precision."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    if points.ndim != 2:
        raise ValueError(f"points must be a matrix (n, D): {points.shape}")
    farthest = np.abs(points).max(initial=0)
    if not farthest <= LARGEST:
        raise ValueError(f"points too large for single precision, or not finite: {farthest:.3g} exceeds {LARGEST:.0e}")
    return points
