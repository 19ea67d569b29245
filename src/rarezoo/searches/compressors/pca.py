"""Principal components."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor, Embeddings, Positions, Transform
from rarezoo.settings import option, setting


@dataclass(frozen=True)
class _Projection(Transform):
    """Projection on the principal components."""

    mean: Float32[np.ndarray, " D"]
    components: Float32[np.ndarray, "k D"]

    def transform(self, embeddings: Embeddings) -> Positions:
        return ((embeddings - self.mean) @ self.components.T).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "components": self.components}


@option("compress", "pca")
@dataclass
class Pca(Compressor):
    """Principal components: the directions in which the embeddings vary most, without whitening."""

    n_components: int = setting(5, "principal components kept", unit="dimensions", ge=1)

    def _check_shape(self, *, galaxies: int, width: int) -> None:
        if self.n_components > min(galaxies, width):
            raise ConfigError(
                f"{galaxies} galaxies of width {width} cannot have compress.n_components", value=self.n_components,
                fix=f"Choose 1 to {min(galaxies, width)}.",
            )  # fmt: skip

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        from sklearn.decomposition import PCA

        # The full solver draws nothing at random.
        pca = PCA(n_components=self.n_components, svd_solver="full").fit(embeddings)
        projection = _Projection(pca.mean_.astype(np.float32), pca.components_.astype(np.float32))
        return projection.transform(embeddings), projection

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the same projection."""
        return _Projection(state["mean"], state["components"])
