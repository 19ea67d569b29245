"""The embeddings of the images together with columns of a catalogue, as one space."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor
from rarezoo.searches.features import Searched, WithColumns, image_block
from rarezoo.settings import option, setting


@option("features", "image+catalogue")
@dataclass(kw_only=True)
class ImageAndCatalogue(WithColumns):
    """Embeddings together with columns of a catalogue, searched as one space.

    The embeddings are whitened as the search whitens them, and scaled so that their summed variance is 1. The columns,
    each multiplied by its weight, are scaled so that their summed variance is the square of ``weight``. So with
    ``weight=1`` a random pair of galaxies is as far apart in the columns as in the images.

    Examples
    --------
    >>> ImageAndCatalogue(columns=["colour", "log_mass"], weights={"colour": 2}).weight
    1.0
    """

    weight: float = setting(1.0, "distance in all columns together, in units of that in the images", gt=0)
    weights: dict[str, float] = setting(
        {}, "{COLUMN:WEIGHT, …} of columns among each other; 1 for those that are not named"
    )

    def check(self) -> None:
        """Raise ConfigError for weights of other columns, or that are no positive numbers."""
        super().check()
        if not np.isfinite(self.weight):
            raise ConfigError("features.weight must be a number", value=self.weight, fix="Choose one, such as 1.")
        strange = [name for name in self.weights if name not in self.columns]
        if strange or any(not 0 < weight < np.inf for weight in self.weights.values()):
            raise ConfigError(
                "features.weights must be positive and of columns in features.columns", value=dict(self.weights),
                fix=f"Name some of {', '.join(self.columns)}; leave out a column that shall not count.",
            )  # fmt: skip

    def searched(
        self, embeddings: Float[np.ndarray, "n D"], *, ids: np.ndarray, catalogue: pa.Table | None,
        compressor: Compressor, seed: int,
    ) -> Searched:  # fmt: skip
        """Return embeddings and columns side by side."""
        columns, kept, cuts = self.complete(self.values(ids, catalogue), embeddings, ids=ids, seed=seed)
        columns = columns * [self.weights.get(name, 1.0) for name in self.columns]
        columns = columns - columns.mean(axis=0)
        columns *= self.weight / np.sqrt(np.square(columns).sum(axis=1).mean())
        images = image_block(embeddings[kept], compressor)
        return Searched(np.hstack([images, columns.astype(np.float32)]), kept, cuts)
