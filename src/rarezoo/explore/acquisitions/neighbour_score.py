"""Astronomaly's score: how unusual a galaxy is, corrected by the ratings of the galaxies near it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors

from rarezoo.explore.acquisition import Acquisition, State
from rarezoo.explore.acquisitions.unsupervised import IsolationForest, LocalOutlierFactor
from rarezoo.settings import option, setting


@option("acquisition", "neighbour_score")
@dataclass
class NeighbourScore(Acquisition):
    """Astronomaly's neighbour score (Lochner & Bassett 2021, equation 1).

    A random forest predicts the ratings u, from 0 to 5, of all galaxies. A galaxy of outlier score a, 0 to 5, at the
    distance d of its nearest rated galaxy has the score a · tanh(δ − 1 + artanh(ũ)), with δ = exp(α d / d̄), d̄ the
    mean of d, and ũ = 0.1 + 0.85 u / 5: far from every rating the outlier score stays as it is.
    """

    needs_model: ClassVar[bool] = False
    alpha: float = setting(1.0, "how far a rating reaches; a larger number is less far", gt=0)
    outliers: str = setting(
        "isolation_forest", "score of outliers", choices=("isolation_forest", "local_outlier_factor")
    )

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the corrected score."""
        kind = IsolationForest if self.outliers == "isolation_forest" else LocalOutlierFactor
        scores = kind().values(state)
        scores = 5 * (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
        if not len(state.rated):
            return scores
        from sklearn.ensemble import RandomForestRegressor

        rated = state.features[state.rated]
        forest = RandomForestRegressor(n_estimators=100, random_state=0).fit(rated, 5 * state.interest)
        expected = 0.1 + 0.85 * forest.predict(state.features) / 5
        distances = NearestNeighbors(n_neighbors=1).fit(rated).kneighbors(state.features)[0][:, 0]
        reach = np.exp(self.alpha * distances / max(float(distances.mean()), 1e-12))
        return scores * np.tanh(reach - 1 + np.arctanh(expected))
