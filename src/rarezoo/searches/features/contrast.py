"""What the images do not predict: columns of a catalogue minus their prediction from the embeddings.

A class in this space is a group of galaxies that share an anomaly: they are bluer, or more massive, than galaxies that
look like them. Looks alone do not show it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float64

from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.searches.compress import Compressor
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.features import DROP, Searched, WithColumns, robustly_scaled
from rarezoo.settings import option, setting

# Principal components of the embedding from which columns are predicted, folds, and penalties of the ridge regression.
_COMPONENTS, _FOLDS = 128, 5
_PENALTIES = np.logspace(-2, 5, 8)


@option("features", "contrast")
@dataclass(kw_only=True)
class Contrast(WithColumns):
    """Columns of a catalogue minus their prediction from the images, by a cross-fitted ridge regression.

    Each fifth of the galaxies is predicted from the other four fifths, so that no galaxy helps to predict itself. The
    residuals are scaled to one scatter and, because properties are correlated, turned to their principal axes of unit
    variance: a galaxy that is off a relation is then as conspicuous as one that is far along it. Where there are no
    more columns than the map has dimensions, groups are sought among the residuals themselves.

    Examples
    --------
    >>> Contrast(columns=["colour", "log_mass"]).of_images
    False
    """

    other_way: ClassVar[str] = ""

    missing: str = setting(DROP, "galaxies without a value are left out: a drawn one is no contrast", choices=(DROP,))

    def searched(
        self, embeddings: Float[np.ndarray, "n D"], *, ids: np.ndarray, catalogue: pa.Table | None,
        compressor: Compressor, seed: int,
    ) -> Searched:  # fmt: skip
        """Return the residuals."""
        columns, kept, cuts = self.complete(self.values(ids, catalogue), embeddings, ids=ids, seed=seed)
        left = columns - predicted(columns, embeddings[kept], ids=ids[kept], seed=seed)
        left = robustly_scaled(left).astype(np.float32)
        mean, axes = principal_axes(left, components=left.shape[1])
        return Searched(projected(left, mean, axes), kept, cuts)

    def compressor(self, compressor: Compressor) -> Compressor:
        """Return no compression if the residuals have no more dimensions than the map would have."""
        few = len(self.columns) <= getattr(compressor, "n_components", 0)
        return NoCompression() if few else super().compressor(compressor)


def predicted(
    columns: Float64[np.ndarray, "n c"], embeddings: Float[np.ndarray, "n D"], *, ids: np.ndarray, seed: int
) -> Float64[np.ndarray, "n c"]:
    """Predict columns from embeddings: each galaxy by a ridge regression on galaxies of other folds.

    Parameters
    ----------
    columns : (n, c) array of floats
        NaN where a value is unknown; it is predicted all the same.
    embeddings : (n, D) array of floats
        Embeddings of the galaxies.
    ids : (n,) array of str
        Ids: the folds do not depend on the order of the rows.
    seed : int
        Seed of the folds.
    """
    from sklearn.linear_model import RidgeCV

    values = np.ascontiguousarray(embeddings, dtype=np.float32)
    mean, axes = principal_axes(values, components=_COMPONENTS)
    components = projected(values, mean, axes).astype(np.float64)
    folds = np.empty(len(values), dtype=np.int64)
    by_id = np.argsort(ids.astype(str), kind="stable")
    folds[by_id] = np.random.default_rng(seed).permutation(len(values)) % _FOLDS
    guess = np.empty(columns.shape)
    for column in range(columns.shape[1]):
        known = np.isfinite(columns[:, column])
        for fold in range(_FOLDS):
            learn, apply = known & (folds != fold), folds == fold
            fitted = RidgeCV(alphas=_PENALTIES).fit(components[learn], columns[learn, column])
            guess[apply, column] = fitted.predict(components[apply])
    return guess
