"""No compression: the map is the embedding."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rarezoo.searches.compress import Compressor, Embeddings, Placer, Positions
from rarezoo.settings import option


class _AsItIs(Placer):
    def positions_of(self, embeddings: Embeddings) -> Positions:
        return embeddings

    def state(self) -> dict[str, np.ndarray]:
        return {}


@option("compress", "none")
@dataclass
class NoCompression(Compressor):
    """Positions are the embeddings themselves, k = D. For maps that something else has compressed."""

    def _refuse(self, *, galaxies: int, width: int) -> None:
        pass

    def _fitted(self, embeddings: Embeddings, *, seed: int) -> tuple[Positions, Placer]:
        return embeddings, _AsItIs()

    def reopened(self, state: Mapping[str, np.ndarray], *, seed: int) -> Placer:
        return _AsItIs()
