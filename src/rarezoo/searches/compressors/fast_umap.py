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
    from seeded_umap.umap import SeededUMAP


@option("compress", "fast_umap")
@dataclass
class FastUmap(UmapLike):
    """Euclidean UMAP on every core: the same map for the same seed, whatever the number of threads.

    A galaxy placed on a finished map lands at the same place whatever galaxies are placed with it.
    """

    computed_by = ("seeded_umap",)

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        _refuse_far(embeddings)
        fitted = self.estimator(seed=seed).fit(embeddings)
        return fitted.embedding_, _FastTransform(self, seed, embeddings, fitted.embedding_)

    def estimator(self, *, seed: int, progress: bool = True) -> "SeededUMAP":
        """Return the unfitted estimator with these settings."""
        from seeded_umap.umap import SeededUMAP

        return SeededUMAP(
            self.n_neighbors, self.n_components, self.min_dist, n_epochs=self.n_epochs, random_state=seed,
            progress=progress,
        )  # fmt: skip

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the same transform from its two arrays."""
        return _FastTransform(self, seed, state["embeddings"], state["positions"])


@dataclass(frozen=True)
class _FastTransform(Transform):
    """Galaxies that were fitted: embeddings (n, D) and positions (n, k)."""

    settings: FastUmap
    seed: int
    embeddings: Embeddings
    positions: Positions

    @cached_property
    def _estimator(self) -> "SeededUMAP":
        return self.settings.estimator(seed=self.seed).restore(self.embeddings, self.positions)

    def transform(self, embeddings: Embeddings) -> Positions:
        _refuse_far(embeddings)
        return self._estimator.transform(embeddings)

    def state(self) -> dict[str, np.ndarray]:
        return {"embeddings": self.embeddings, "positions": self.positions}


def _refuse_far(embeddings: Embeddings) -> None:
    from seeded_umap.umap import LARGEST

    farthest = np.abs(embeddings).max()
    if farthest > LARGEST:
        raise StoreError(
            "embeddings too large for single precision", value=f"{farthest:.3g}",
            fix="Embed those galaxies again, or scale all embeddings down.",
        )  # fmt: skip
