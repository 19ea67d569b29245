"""The Gaussian process of Walmsley et al. (2022), whose kernel is optimised after every batch of ratings."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from rarezoo.explore.ranker import Model, Prediction, Ranker, in_blocks
from rarezoo.explore.rankers.gaussian_process import GaussianProcess
from rarezoo.settings import option, setting

log = logging.getLogger(__name__)
# A kernel whose length scale is this small or large against the features describes noise or a constant.
_SENSIBLE = (0.05, 1e4)


@option("ranker", "optimised_gaussian_process")
@dataclass
class OptimisedGaussianProcess(Ranker):
    """scikit-learn's Gaussian process with a rational quadratic kernel and noise, fitted by maximum likelihood.

    This is the model of Walmsley et al. (2022, MNRAS 513, 1581). The optimum sometimes says that everything is noise;
    with ``fallback`` the Gaussian process of fixed length scale is then used instead, and the log says so.
    """

    kernel: str = setting("rational_quadratic", "kernel", choices=("rational_quadratic", "matern"))
    fallback: bool = setting(True, "use a fixed kernel where the optimum is a constant")

    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> Model:
        """Learn from rated galaxies; see :class:`~rarezoo.explore.ranker.Ranker`."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, RationalQuadratic, WhiteKernel

        kernel = {"rational_quadratic": RationalQuadratic, "matern": Matern}[self.kernel]() + WhiteKernel()
        process = GaussianProcessRegressor(kernel, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Every collapse warns of a parameter at its bound; we look ourselves.
            process.fit(features.astype(np.float64), interest)
        length = float(process.kernel_.k1.length_scale)
        if self.fallback and not _SENSIBLE[0] < length < _SENSIBLE[1]:
            log.info("the optimised kernel has length scale %.2g and is replaced by a fixed one", length)
            return GaussianProcess().fit(features, interest, distance=distance, seed=seed)
        return _Fitted(process)


class _Fitted:
    """scikit-learn's fitted process, asked block by block."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        mean, deviation = (np.empty(len(features), dtype=np.float32) for _ in range(2))
        for block in in_blocks(features):
            mean[block], deviation[block] = self._process.predict(features[block].astype(np.float64), return_std=True)
        return Prediction(mean, deviation)
