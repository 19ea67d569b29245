"""Principal components."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor, Embeddings, Placer, Positions
from rarezoo.settings import option, setting


@dataclass(frozen=True)
class _Projection(Placer):
    """Mean (D,) and components (k, D)."""

    mean: np.ndarray
    components: np.ndarray

    def positions_of(self, embeddings: Embeddings) -> Positions:
        return ((embeddings - self.mean) @ self.components.T).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "components": self.components}


@option("compress", "pca")
@dataclass
class Pca(Compressor):
    """Linear: keeps the directions in which the embeddings vary most, unwhitened."""

    n_components: int = setting(5, "principal components kept", unit="dimensions")

    def _refuse(self, *, galaxies: int, width: int) -> None:
        if not 1 <= self.n_components <= min(galaxies, width):
            raise ConfigError(
                f"{galaxies} galaxies of width {width} cannot have compress.n_components", value=self.n_components,
                fix=f"Choose 1 to {min(galaxies, width)}.",
            )  # fmt: skip

    def _fitted(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Placer]:
        from sklearn.decomposition import PCA

        # The full solver draws nothing at random.
        pca = PCA(n_components=self.n_components, svd_solver="full").fit(embeddings)
        projection = _Projection(pca.mean_.astype(np.float32), pca.components_.astype(np.float32))
        return projection.positions_of(embeddings), projection

    def reopened(self, state: Mapping[str, np.ndarray], *, seed: int) -> Placer:
        return _Projection(state["mean"], state["components"])
