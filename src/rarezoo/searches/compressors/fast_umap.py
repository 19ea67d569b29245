"""UMAP (McInnes et al. 2018) in our own code: every core, and the same bits twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rarezoo.errors import StoreError
from rarezoo.searches.compress import Embeddings, Positions, Transform
from rarezoo.searches.compressors.umap import UmapLike
from rarezoo.settings import option

if TYPE_CHECKING:
    from seeded_umap.neighbours import Cells

# Epochs of umap-learn, of a fit and of a transform: the first number up to this many galaxies, the second above.
_FEW = 10_000
_EPOCHS, _PLACING = (500, 200), (100, 30)
# Squares of differences, added over the axes, must stay finite in single precision.
_FARTHEST = 1e17


@option("compress", "fast_umap")
@dataclass
class FastUmap(UmapLike):
    """Euclidean UMAP on every core: the same map for the same seed, whatever the number of threads.

    A galaxy placed on a finished map lands at the same place whatever galaxies are placed with it.
    """

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        from seeded_umap.graph import mutual
        from seeded_umap.layout import Edges, Forces, settled
        from seeded_umap.neighbours import cut
        from seeded_umap.start import started

        _refuse_far(embeddings)
        cells, order = cut(embeddings, k=self.n_neighbors, seed=seed)
        ordered, epochs = embeddings[order], self.epochs(len(embeddings))
        graph = mutual(cells.neighbours(ordered, k=self.n_neighbors, tell=True))
        first = started(ordered, graph, dimensions=self.n_components, seed=seed)
        edges, forces = Edges.of(graph, epochs=epochs), Forces.of(min_dist=self.min_dist)
        del graph
        positions = np.empty_like(first)
        positions[order] = settled(first, edges, forces, epochs=epochs, seed=seed, tell=True)
        return positions, _FastTransform(self, seed, embeddings, positions)

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the same transform from its two arrays."""
        return _FastTransform(self, seed, state["embeddings"], state["positions"])

    def epochs(self, galaxies: int) -> int:
        """Return the number of epochs of a fit."""
        return self.n_epochs or _EPOCHS[galaxies > _FEW]

    def placing_epochs(self, galaxies: int) -> int:
        """Return the number of epochs in which others are placed among a number of galaxies."""
        return max(1, self.n_epochs // 3) if self.n_epochs else _PLACING[galaxies > _FEW]


@dataclass(frozen=True)
class _FastTransform(Transform):
    """Embeddings (n, D) and positions (n, k) of the galaxies that were fitted."""

    settings: FastUmap
    seed: int
    embeddings: Embeddings
    positions: Positions

    @cached_property
    def _searched(self) -> "tuple[Cells, Positions]":
        """Cells of the fitted galaxies, and their positions in that order."""
        from seeded_umap.neighbours import cut

        cells, order = cut(self.embeddings, k=self.settings.n_neighbors, seed=self.seed)
        return cells, self.positions[order]

    def transform(self, embeddings: Embeddings) -> Positions:
        from seeded_umap.graph import strengths, to_others
        from seeded_umap.layout import Edges, Forces, names_of, placed

        _refuse_far(embeddings)
        cells, anchors = self._searched
        found = cells.neighbours(embeddings, k=self.settings.n_neighbors)
        graph = to_others(found, strengths(found.distances, False), others=len(anchors))
        first = (graph @ anchors / graph.sum(axis=1)[:, None]).astype(np.float32)
        epochs = self.settings.placing_epochs(len(anchors))
        return placed(
            first, anchors, Edges.of(graph, epochs=epochs), Forces.of(min_dist=self.settings.min_dist),
            names=names_of(embeddings), epochs=epochs, seed=self.seed,
        )  # fmt: skip

    def state(self) -> dict[str, np.ndarray]:
        return {"embeddings": self.embeddings, "positions": self.positions}


def _refuse_far(embeddings: Embeddings) -> None:
    farthest = np.abs(embeddings).max()
    if farthest > _FARTHEST:
        raise StoreError(
            "embeddings too large for single precision", value=f"{farthest:.3g}",
            fix="Embed those galaxies again, or scale all embeddings down.",
        )  # fmt: skip
