"""Acquisitions that need no ratings: chance, and how unusual a galaxy is."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32

from rarezoo.explore.acquisition import Acquisition, State
from rarezoo.settings import option, setting

# Galaxies on which a forest and an outlier factor are fitted at most: more change the order little and cost much.
_FITTED = 20_000
# Of scikit-learn's default; the number that Breunig et al. (2000) and Walmsley et al. (2022) use too.
NEIGHBOURS = 20


@option("acquisition", "random")
@dataclass
class Random(Acquisition):
    """Show galaxies in a random order."""

    needs_model: ClassVar[bool] = False

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return random numbers."""
        return state.rng.random(len(state))


@option("acquisition", "local_outlier_factor")
@dataclass
class LocalOutlierFactor(Acquisition):
    """Show the galaxies that lie in emptier places than their neighbours (Breunig et al. 2000)."""

    needs_model: ClassVar[bool] = False

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the rank in the order of the local outlier factor."""
        return state.once("local_outlier_factor", lambda: outlierness(state.features))


@option("acquisition", "isolation_forest")
@dataclass
class IsolationForest(Acquisition):
    """Show the galaxies that few random cuts isolate (Liu, Ting & Zhou 2008)."""

    needs_model: ClassVar[bool] = False
    trees: int = setting(200, "number of trees", ge=1)

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the isolation score, the same at every call."""
        from sklearn.ensemble import IsolationForest as Forest

        def scores() -> Float[np.ndarray, " n"]:
            forest = Forest(n_estimators=self.trees, random_state=0).fit(state.features)
            return -np.asarray(forest.score_samples(state.features))

        return state.once(f"isolation_forest_{self.trees}", scores)


def outlierness(features: Float32[np.ndarray, "n d"], *, seed: int = 0) -> Float32[np.ndarray, " n"]:
    """Return the rank of each galaxy in the order of the local outlier factor, from 0 (usual) to 1 (most unusual).

    Above 20,000 galaxies the densities are those of a random subset of 20,000.

    Parameters
    ----------
    features : (n, d) array of floats
    seed : int
        Seed of the subset.

    Examples
    --------
    >>> features = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    >>> features[7] = 50
    >>> int(outlierness(features).argmax())
    7
    """
    from sklearn.neighbors import LocalOutlierFactor as Factor

    if len(features) < 3:
        return np.zeros(len(features), dtype=np.float32)
    neighbours = min(NEIGHBOURS, len(features) - 1)
    if len(features) <= _FITTED:
        scores = -Factor(neighbours).fit(features).negative_outlier_factor_
    else:
        subset = np.random.default_rng(seed).choice(len(features), _FITTED, replace=False)
        factor = Factor(neighbours, novelty=True).fit(features[subset])
        scores = -factor.score_samples(features)
    ranks = np.empty(len(features), dtype=np.float32)
    ranks[np.argsort(scores, kind="stable")] = np.linspace(0, 1, len(features), dtype=np.float32)
    return ranks
