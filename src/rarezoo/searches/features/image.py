"""The embeddings of the images alone: the ordinary search."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from rarezoo.searches.compress import Compressor
from rarezoo.searches.features import Features, Searched
from rarezoo.settings import option


@option("features", "image")
@dataclass
class Image(Features):
    """The embeddings of the images alone.

    Examples
    --------
    >>> Image().of_images
    True
    """

    def searched(
        self, embeddings: Float[np.ndarray, "n D"], *, ids: np.ndarray, catalogue: pa.Table | None,
        compressor: Compressor, seed: int,
    ) -> Searched:  # fmt: skip
        """Return the embeddings as they are."""
        return Searched(embeddings, np.ones(len(embeddings), dtype=bool))
