"""No compression: the map is the embedding."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rarezoo.searches.compress import Compressor, Embeddings, Positions, Transform
from rarezoo.settings import option


class _Identity(Transform):
    def transform(self, embeddings: Embeddings) -> Positions:
        return embeddings

    def state(self) -> dict[str, np.ndarray]:
        return {}


@option("compress", "none")
@dataclass
class NoCompression(Compressor):
    """No compression: positions are the embeddings themselves, k = D. For embeddings that are a map already."""

    def _check_shape(self, *, galaxies: int, width: int) -> None:
        pass

    def _fit(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Transform]:
        return embeddings, _Identity()

    def restored(self, state: Mapping[str, np.ndarray], *, seed: int) -> Transform:
        """Return the identity."""
        return _Identity()
