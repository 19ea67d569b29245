"""Ridge regression: the plainest linear model, as a Bayesian one so that it knows how sure it is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from rarezoo.explore.ranker import Prediction, Ranker, in_blocks
from rarezoo.settings import option, setting


@option("ranker", "ridge")
@dataclass
class Ridge(Ranker):
    """Linear regression with a penalty on large coefficients (Bishop 2006, section 3.3)."""

    penalty: float = setting(100.0, "penalty on the squared coefficients (alpha of scikit-learn)", gt=0)

    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> "FittedRidge":
        """Learn from rated galaxies; see :class:`~rarezoo.explore.ranker.Ranker`."""
        rated = features.astype(np.float64)
        centre, mean = rated.mean(axis=0), float(np.mean(interest))
        covariance = np.linalg.inv(self.penalty * np.eye(rated.shape[1]) + (rated - centre).T @ (rated - centre))
        coefficients = covariance @ ((rated - centre).T @ (np.asarray(interest, dtype=np.float64) - mean))
        return FittedRidge(coefficients, centre, mean, covariance)


class FittedRidge:
    """A ridge regression with the covariance of its coefficients.

    Parameters
    ----------
    coefficients
        (d,) coefficients.
    centre
        (d,) mean of the rated galaxies, whose predicted interest is ``mean``.
    mean
        Mean interest of the rated galaxies.
    covariance
        (d, d) covariance of the coefficients, for noise of unit variance.
    """

    def __init__(
        self,
        coefficients: Float[np.ndarray, " d"],
        centre: Float[np.ndarray, " d"],
        mean: float,
        covariance: Float[np.ndarray, "d d"],
    ) -> None:
        self._coefficients, self._centre = coefficients.astype(np.float32), centre.astype(np.float32)
        self._mean, self._root = np.float32(mean), np.linalg.cholesky(covariance).astype(np.float32)

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        """Return the predicted interest of galaxies and its standard deviation."""
        mean, deviation = (np.empty(len(features), dtype=np.float32) for _ in range(2))
        for block in in_blocks(features):
            centred = features[block] - self._centre
            mean[block] = centred @ self._coefficients + self._mean
            deviation[block] = np.linalg.norm(centred @ self._root, axis=1)
        return Prediction(mean, deviation)
