"""UMAP (McInnes et al. 2018) through umap-learn."""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor, Embeddings, Placer, Positions
from rarezoo.settings import option, setting

# umap-learn's spread, which min_dist may not exceed.
_SPREAD = 1.0


@dataclass(frozen=True)
class _UmapPlacer(Placer):
    """The galaxies that were fitted: embeddings (n, D) and positions (n, k). umap-learn's own state is made from them
    when first needed, so that a saved map needs no pickle and places galaxies as the fresh one does.
    """

    settings: "Umap"
    seed: int
    embeddings: Embeddings
    positions: Positions

    @cached_property
    def reducer(self) -> Any:
        """A fitted UMAP with our positions; no epoch is run."""
        reducer = self.settings.reducer(seed=self.seed, n_epochs=0, init=self.positions)
        _quietly_fitted(reducer, self.embeddings)
        reducer.embedding_, reducer.n_epochs = self.positions, self.settings.n_epochs
        return reducer

    def positions_of(self, embeddings: Embeddings) -> Positions:
        if self.settings.densmap:
            raise ConfigError("a densMAP map cannot place galaxies", value=True, fix="Fit with compress.densmap=false.")
        return np.asarray(self.reducer.transform(embeddings), dtype=np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"embeddings": self.embeddings, "positions": self.positions}


@dataclass
class UmapLike(Compressor):
    """Keeps neighbours together; distances between far groups mean little.

    Defaults are those of Walmsley & Scaife 2023 where they state them, umap-learn's otherwise.
    """

    n_neighbors: int = setting(50, "neighbours that define locality", unit="galaxies")
    n_components: int = setting(5, "dimensions of the map; 2 only to draw", unit="dimensions")
    min_dist: float = setting(0.1, "closest that galaxies may lie, 0 to 1", unit="map units")
    n_epochs: int | None = setting(None, "optimisation epochs; null = umap-learn's, 500 or 200 by size")

    def _refuse(self, *, galaxies: int, width: int) -> None:
        if not 2 <= self.n_neighbors < galaxies:
            raise ConfigError(
                f"{galaxies} galaxies cannot have compress.n_neighbors", value=self.n_neighbors,
                fix=f"Choose 2 to {galaxies - 1}, or search more galaxies.",
            )  # fmt: skip
        # The spectral start needs two more eigenvectors than the map has dimensions.
        if not 1 <= self.n_components < galaxies - 1:
            raise ConfigError(
                f"{galaxies} galaxies cannot have compress.n_components", value=self.n_components,
                fix=f"Choose 1 to {galaxies - 2}.",
            )  # fmt: skip
        if not 0 <= self.min_dist <= _SPREAD:
            raise ConfigError("compress.min_dist", value=self.min_dist, fix=f"Choose 0 to {_SPREAD}.")
        if self.n_epochs is not None and self.n_epochs < 1:
            raise ConfigError("compress.n_epochs", value=self.n_epochs, fix="Choose 1 or more, or null.")
        self._refuse_own()

    def _refuse_own(self) -> None:
        """Raise ConfigError for what only one implementation can be told."""


@option("compress", "umap")
@dataclass
class Umap(UmapLike):
    """The reference: umap-learn."""

    metric: str = setting("euclidean", "distance between embeddings, any that umap-learn names")
    densmap: bool = setting(False, "densMAP: keep local densities; such a map cannot place new galaxies")
    seeded: bool = setting(True, "one thread, the same map twice; false uses every core and differs from run to run")

    def _refuse_own(self) -> None:
        from umap.distances import named_distances

        if self.metric not in named_distances:
            raise ConfigError(
                "unknown compress.metric", value=self.metric, fix=f"Choose: {', '.join(named_distances)}."
            )

    def _fitted(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Placer]:
        reducer = self.reducer(seed=seed, n_epochs=self.n_epochs)
        positions = np.asarray(_quietly_fitted(reducer, embeddings).embedding_, dtype=np.float32)
        return positions, _UmapPlacer(self, seed, embeddings, positions)

    def reopened(self, state: Mapping[str, np.ndarray], *, seed: int) -> Placer:
        """The same placer from its two arrays."""
        return _UmapPlacer(self, seed, state["embeddings"], state["positions"])

    def reducer(self, *, seed: int, **others: Any) -> Any:
        """An unfitted ``umap.UMAP`` with these settings."""
        from umap import UMAP

        return UMAP(
            n_neighbors=self.n_neighbors,
            n_components=self.n_components,
            min_dist=self.min_dist,
            metric=self.metric,
            densmap=self.densmap,
            random_state=seed if self.seeded else None,
            n_jobs=1 if self.seeded else -1,
            tqdm_kwds={"desc": "UMAP", "disable": others.get("n_epochs") == 0, "file": sys.stderr},
            **others,
        )


def _quietly_fitted(reducer: Any, embeddings: Embeddings) -> Any:
    """The reducer, fitted without the library's remarks on threads and on graphs that fall apart."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="umap|sklearn")
        return reducer.fit(embeddings)
