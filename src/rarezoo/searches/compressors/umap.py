"""UMAP (McInnes et al. 2018) through umap-learn."""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor, Embeddings, Positions, Transform
from rarezoo.settings import option, setting

# Spread of umap-learn, which min_dist may not exceed.
_SPREAD = 1.0


@dataclass(frozen=True)
class _UmapTransform(Transform):
    """Embeddings (n, D) and positions (n, k) of the galaxies that were fitted.

    The state of umap-learn is made from them when it is first needed, so that a saved map needs no pickle and places
    galaxies as a new one does.
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

    def transform(self, embeddings: Embeddings) -> Positions:
        if self.settings.densmap:
            raise ConfigError("a densMAP map cannot place galaxies", value=True, fix="Fit with compress.densmap=false.")
        return np.asarray(self.reducer.transform(embeddings), dtype=np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"embeddings": self.embeddings, "positions": self.positions}


@dataclass
class UmapLike(Compressor):
    """UMAP keeps neighbours together; distances between groups that are far apart mean little.

    Defaults are those of Walmsley & Scaife 2023 where they state them, and those of umap-learn otherwise.
    """

    n_neighbors: int = setting(50, "number of nearest neighbours that are kept together", unit="galaxies", ge=2)
    n_components: int = setting(5, "dimensions of the map; 2 only to draw", unit="dimensions", ge=1)
    min_dist: float = setting(0.1, "smallest distance of two galaxies", unit="map units", ge=0, le=_SPREAD)
    n_epochs: int | None = setting(None, "optimisation epochs; null = umap-learn's, 500 or 200 by size", ge=1)

    def _check_shape(self, *, galaxies: int, width: int) -> None:
        if self.n_neighbors >= galaxies:
            raise ConfigError(
                f"{galaxies} galaxies cannot have compress.n_neighbors", value=self.n_neighbors,
                fix=f"Choose 2 to {galaxies - 1}, or search more galaxies.",
            )  # fmt: skip
        # The spectral start needs two more eigenvectors than the map has dimensions.
        if self.n_components >= galaxies - 1:
            raise ConfigError(
                f"{galaxies} galaxies cannot have compress.n_components", value=self.n_components,
                fix=f"Choose 1 to {galaxies - 2}.",
            )  # fmt: skip


@option("compress", "umap")
@dataclass
class Umap(UmapLike):
    """UMAP by the reference implementation, umap-learn."""

    computed_by = ("umap",)

    metric: str = setting("euclidean", "distance between embeddings, any that umap-learn names")
    densmap: bool = setting(False, "densMAP: keep local densities; such a map cannot place new galaxies")
    seeded: bool = setting(
        True, "one thread and the same map in every run; false uses every core, and the map differs from run to run"
    )

    def _check_shape(self, *, galaxies: int, width: int) -> None:
        super()._check_shape(galaxies=galaxies, width=width)
        from umap.distances import named_distances

        if self.metric not in named_distances:
            raise ConfigError(
                "unknown compress.metric", value=self.metric, fix=f"Choose: {', '.join(named_distances)}."
            )

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        reducer = self.reducer(seed=seed, n_epochs=self.n_epochs)
        positions = np.asarray(_quietly_fitted(reducer, embeddings).embedding_, dtype=np.float32)
        return positions, _UmapTransform(self, seed, embeddings, positions)

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the same transform from its two arrays."""
        return _UmapTransform(self, seed, state["embeddings"], state["positions"])

    def reducer(self, *, seed: int, **others: Any) -> Any:
        """Return a ``umap.UMAP`` with these settings, not fitted yet."""
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
    """Fit the reducer without the library's warnings about threads and about graphs in several parts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="umap|sklearn")
        return reducer.fit(embeddings)
