"""A Gaussian process whose kernel is fixed: it cannot collapse onto a bad optimum, and costs little."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from rarezoo.explore.ranker import Prediction, Ranker, in_blocks
from rarezoo.settings import option, setting

# Cells of the kernel that are computed at a time: few enough for the processor's cache.
_CELLS = 2**18


@option("ranker", "gaussian_process")
@dataclass
class GaussianProcess(Ranker):
    """A Gaussian process with a Gaussian kernel of a fixed, long length scale (Rasmussen & Williams 2006, chapter 2).

    The prior mean is the mean interest of the rated galaxies. The length scale is a multiple of the typical distance
    between two galaxies.
    """

    length: float = setting(
        1.6, "length scale of the kernel, in typical distances between two galaxies", ge=1e-3, le=1e3
    )
    noise: float = setting(
        0.2, "variance of the noise of a rating, in units of the variance of the kernel", ge=1e-6, le=1e6
    )

    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> "FittedGaussianProcess":
        """Learn from rated galaxies; see :class:`~rarezoo.explore.ranker.Ranker`."""
        # Galaxies that are all the same have no distance; then every length gives the same result.
        scale = self.length * (distance or 1)
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
        self._projection = np.ascontiguousarray((rated / np.float32(scale)).T)
        self._halves, self._scale = _half_squares(rated), np.float32(scale)
        self._mean = float(np.mean(interest))
        covariance = self._kernel(rated * np.float32(scale)).astype(np.float64) + noise * np.eye(len(rated))
        factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(factor, np.asarray(interest, dtype=np.float64) - self._mean).astype(np.float32)
        inverse = solve_triangular(factor[0], np.eye(len(rated)), lower=True)
        self._inverse = np.ascontiguousarray(inverse.T, dtype=np.float32)

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        """Return the posterior mean and standard deviation of galaxies."""
        mean, deviation = (np.empty(len(features), dtype=np.float32) for _ in range(2))
        for block in in_blocks(features, most=max(1, _CELLS // len(self._weights))):
            kernel = self._kernel(features[block])
            mean[block] = self._mean + kernel @ self._weights
            explained = 2 * _half_squares(kernel @ self._inverse)
            deviation[block] = np.sqrt(np.maximum(1 - explained, 1e-9))
        return Prediction(mean, deviation)

    def _kernel(self, features: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n m"]:
        """Return the kernel between galaxies and the rated ones: one matrix product, changed in place."""
        kernel = features @ self._projection
        kernel -= self._halves
        kernel -= (_half_squares(features) / self._scale**2)[:, None]
        return np.exp(np.minimum(kernel, 0, out=kernel), out=kernel)


def _half_squares(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    return np.einsum("ij,ij->i", rows, rows) / 2
