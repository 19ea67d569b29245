"""A Gaussian process whose kernel is fixed: it cannot collapse onto a bad optimum, and costs little."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from rarezoo.explore.ranker import Prediction, Ranker, in_blocks
from rarezoo.settings import option, setting


@option("ranker", "gaussian_process")
@dataclass
class GaussianProcess(Ranker):
    """A Gaussian process with a Gaussian kernel of a fixed, long length scale (Rasmussen & Williams 2006, chapter 2).

    The prior mean is the mean interest of the rated galaxies. The length scale is a multiple of the typical distance
    between two galaxies.
    """

    length: float = setting(1.3, "length scale of the kernel, in typical distances between two galaxies", gt=0)
    noise: float = setting(0.1, "variance of the noise of a rating, in units of the variance of the kernel", gt=0)

    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> "FittedGaussianProcess":
        """Learn from rated galaxies; see :class:`~rarezoo.explore.ranker.Ranker`."""
        scale = self.length * distance
        return FittedGaussianProcess(features / np.float32(scale), interest, noise=self.noise, scale=scale)


class FittedGaussianProcess:
    """The posterior of a Gaussian process after m ratings.

    Parameters
    ----------
    rated
        (m, d) features of the rated galaxies, divided by the length scale.
    interest
        (m,) interest of each.
    noise
        Variance of the noise of a rating.
    scale
        Length scale of the kernel.
    """

    def __init__(
        self, rated: Float32[np.ndarray, "m d"], interest: Float[np.ndarray, " m"], *, noise: float, scale: float
    ) -> None:
        self._rated, self._scale = rated, np.float32(scale)
        self._mean = float(np.mean(interest))
        covariance = _kernel(rated, rated).astype(np.float64) + noise * np.eye(len(rated))
        factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(factor, np.asarray(interest, dtype=np.float64) - self._mean).astype(np.float32)
        inverse = solve_triangular(factor[0], np.eye(len(rated)), lower=True)
        self._inverse = inverse.astype(np.float32)

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        """Return the posterior mean and standard deviation of galaxies."""
        mean, deviation = (np.empty(len(features), dtype=np.float32) for _ in range(2))
        for block in in_blocks(features):
            kernel = _kernel(features[block] / self._scale, self._rated)
            mean[block] = self._mean + kernel @ self._weights
            explained = np.square(kernel @ self._inverse.T).sum(axis=1)
            deviation[block] = np.sqrt(np.maximum(1 - explained, 1e-9))
        return Prediction(mean, deviation)


def _kernel(first: Float32[np.ndarray, "n d"], second: Float32[np.ndarray, "m d"]) -> Float32[np.ndarray, "n m"]:
    squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1) - 2 * first @ second.T
    return np.exp(-0.5 * np.maximum(squares, 0, dtype=np.float32), dtype=np.float32)
