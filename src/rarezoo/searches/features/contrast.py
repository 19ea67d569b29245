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
# Columns that say the same have an axis without variance.
_LEAST_VARIANCE = 1e-6


@option("features", "contrast")
@dataclass(kw_only=True)
class Contrast(WithColumns):
    """Columns of a catalogue minus their prediction from the images, by a cross-fitted ridge regression.

    Each fifth of the galaxies is predicted from the other four fifths, so that no galaxy helps to predict itself. The
    residuals are scaled to one scatter and, because properties are correlated, made uncorrelated: a galaxy that is off
    a relation is then as conspicuous as one that is far along it. Where there are no more columns than the map has
    dimensions, groups are sought among the residuals themselves.

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
        return Searched(uncorrelated(robustly_scaled(left)).astype(np.float32), kept, cuts)

    def compressor(self, compressor: Compressor) -> Compressor:
        """Return no compression if the residuals have no more dimensions than the map would have."""
        few = len(self.columns) <= getattr(compressor, "n_components", 0)
        return NoCompression() if few else super().compressor(compressor)


def uncorrelated(values: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    """Turn columns of one scatter to the axes of their correlation, and scale these to one scatter too.

    The correlation is that of a normal distribution with the same correlation of ranks (Pearson 1907, On further
    methods of determining correlation). With the variance of the values themselves, a group that is off the relation
    would shrink its own distance from it.

    Parameters
    ----------
    values : (n, c) array of floats
        Columns of one scatter.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> first, other = random.normal(size=(2, 2000))
    >>> turned = uncorrelated(np.column_stack([first, 0.8 * first + 0.6 * other]))
    >>> (np.cov(turned, rowvar=False).round(1) + 0).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    from scipy.stats import rankdata

    ranks = np.atleast_2d(np.corrcoef(rankdata(values, axis=0), rowvar=False))
    variances, axes = np.linalg.eigh(2 * np.sin(np.pi / 6 * ranks))
    return np.asarray(values @ axes / np.sqrt(np.maximum(variances, _LEAST_VARIANCE)))


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
