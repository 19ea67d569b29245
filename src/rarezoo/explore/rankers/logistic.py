"""Balanced logistic regression: a straight line through the embedding, learnt from a few ratings in milliseconds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from rarezoo.explore.ranker import Prediction, Ranker, in_blocks
from rarezoo.settings import option, setting


@option("ranker", "logistic")
@dataclass
class Logistic(Ranker):
    """Logistic regression in which interesting and uninteresting galaxies have the same total weight.

    A galaxy of interest 0.6 counts as 0.6 of an interesting and 0.4 of an uninteresting galaxy. The deviation is that
    of Laplace's approximation (Bishop 2006, section 4.5). Without any interesting, or without any uninteresting galaxy
    every galaxy has the same mean.
    """

    strength: float = setting(0.05, "inverse of the regularisation (C of scikit-learn)", gt=0)

    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> "FittedLogistic":
        """Learn from rated galaxies; see :class:`~rarezoo.explore.ranker.Ranker`."""
        from sklearn.linear_model import LogisticRegression

        width = features.shape[1]
        totals = np.array([np.sum(interest), np.sum(1 - interest)], dtype=np.float64)
        if not totals.all():
            return FittedLogistic(np.zeros(width), 0.0, np.eye(width) * self.strength)
        twice = np.concatenate([features, features]).astype(np.float64)
        weights = np.concatenate([interest / totals[0], (1 - interest) / totals[1]]) * len(interest) / 2
        kept = weights > 0
        classes = np.repeat([1, 0], len(interest))
        regression = LogisticRegression(C=self.strength, max_iter=1000)
        regression.fit(twice[kept], classes[kept], sample_weight=weights[kept])
        coefficients, intercept = regression.coef_[0], float(regression.intercept_[0])
        logits = twice[: len(interest)] @ coefficients + intercept
        slopes = (weights[: len(interest)] + weights[len(interest) :]) / (4 * np.square(np.cosh(logits / 2)))
        rated = twice[: len(interest)]
        precision = np.eye(width) / self.strength + (rated * slopes[:, None]).T @ rated
        return FittedLogistic(coefficients, intercept, np.linalg.inv(precision))


class FittedLogistic:
    """A logistic regression with the covariance of its coefficients.

    Parameters
    ----------
    coefficients
        (d,) coefficients.
    intercept
        Logit of a galaxy whose features are all zero.
    covariance
        (d, d) covariance of the coefficients.
    """

    def __init__(
        self, coefficients: Float[np.ndarray, " d"], intercept: float, covariance: Float[np.ndarray, "d d"]
    ) -> None:
        self._coefficients, self._intercept = coefficients.astype(np.float32), np.float32(intercept)
        self._root = np.linalg.cholesky(covariance).astype(np.float32)

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        """Return the logit of each galaxy and its standard deviation."""
        mean, deviation = (np.empty(len(features), dtype=np.float32) for _ in range(2))
        for block in in_blocks(features):
            mean[block] = features[block] @ self._coefficients + self._intercept
            deviation[block] = np.linalg.norm(features[block] @ self._root, axis=1)
        return Prediction(mean, deviation)
