"""UMAP on a GPU through cuML (RAPIDS). It was never run on a GPU; tests play cuML by a stand-in."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Embeddings, Positions, Transform
from rarezoo.searches.compressors.umap import UmapLike
from rarezoo.settings import option, setting


@option("compress", "umap_cuml")
@dataclass
class UmapCuml(UmapLike):
    """cuML's UMAP on an NVIDIA GPU: runs of one seed repeat on one kind of GPU, not on another."""

    metric: str = setting("euclidean", "distance between embeddings, any that cuML names")

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        positions = self.reducer(seed=seed).fit_transform(embeddings)
        positions = np.ascontiguousarray(positions, dtype=np.float32)
        return positions, _CumlTransform(self, seed, embeddings, positions)

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the same transform from its two arrays."""
        return _CumlTransform(self, seed, state["embeddings"], state["positions"])

    def reducer(self, *, seed: int) -> Any:
        """Return a ``cuml.manifold.UMAP`` that takes and gives NumPy arrays, not fitted yet.

        Raises
        ------
        ConfigError
            cuML is not installed.
        """
        try:
            from cuml.manifold import UMAP
        except ImportError as problem:
            raise ConfigError(
                "compress=umap_cuml needs an NVIDIA GPU and cuML, which cannot be imported", value=problem,
                fix="Install it (https://docs.rapids.ai/install), or choose compress=fast_umap.",
            ) from problem  # fmt: skip
        return UMAP(
            n_neighbors=self.n_neighbors, n_components=self.n_components, min_dist=self.min_dist, metric=self.metric,
            n_epochs=self.n_epochs, random_state=seed, output_type="numpy",
        )  # fmt: skip


@dataclass(frozen=True)
class _CumlTransform(Transform):
    """Embeddings (n, D) and positions (n, k) of the galaxies that were fitted."""

    settings: UmapCuml
    seed: int
    embeddings: Embeddings
    positions: Positions

    @cached_property
    def _reducer(self) -> Any:
        """The reducer of cuML, fitted again, with our positions: a saved map holds no state of a GPU."""
        reducer = self.settings.reducer(seed=self.seed).fit(self.embeddings)
        reducer.embedding_ = self.positions
        return reducer

    def transform(self, embeddings: Embeddings) -> Positions:
        return np.ascontiguousarray(self._reducer.transform(embeddings), dtype=np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"embeddings": self.embeddings, "positions": self.positions}
