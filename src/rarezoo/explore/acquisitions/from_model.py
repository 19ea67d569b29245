"""Acquisitions that follow the model: its mean, its uncertainty, or both."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from rarezoo.explore.acquisition import Acquisition, State
from rarezoo.explore.ranker import Prediction
from rarezoo.settings import option, setting


def _expected(state: State) -> Prediction:
    assert state.prediction is not None  # for the type checker: see Acquisition.values
    return state.prediction


@option("acquisition", "mean")
@dataclass
class Mean(Acquisition):
    """Show the galaxies of the highest expected interest."""

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the expected interest."""
        return _expected(state).mean


@option("acquisition", "expected_improvement")
@dataclass
class ExpectedImprovement(Acquisition):
    """Show the galaxies that are expected to exceed the best rating by most (Jones, Schonlau & Welch 1998)."""

    tradeoff: float = setting(0.5, "how much better than the best rating a galaxy must be (0.5: Walmsley et al. 2022)")

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the expected improvement."""
        mean, deviation = _expected(state)
        best = float(mean[state.rated].max(initial=-np.inf)) if len(state.rated) else float(mean.max())
        gain = mean - best - self.tradeoff
        distance = gain / np.maximum(deviation, 1e-9)
        # Where the density is zero in single precision, the distance still orders the galaxies.
        return gain * norm.cdf(distance) + deviation * norm.pdf(distance) + 1e-12 * distance


@option("acquisition", "upper_confidence_bound")
@dataclass
class UpperConfidenceBound(Acquisition):
    """Show the galaxies that may be interesting: the expected interest plus some standard deviations."""

    deviations: float = setting(1.0, "number of standard deviations that are added", ge=0)

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the upper confidence bound."""
        mean, deviation = _expected(state)
        return mean + np.float32(self.deviations) * deviation


@option("acquisition", "thompson")
@dataclass
class Thompson(Acquisition):
    """Show the galaxies that are the best if chance decides within the uncertainty (each galaxy by itself)."""

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return a random value for each galaxy, drawn from its posterior."""
        mean, deviation = _expected(state)
        return mean + deviation * state.rng.standard_normal(len(mean)).astype(np.float32)


@option("acquisition", "uncertainty")
@dataclass
class Uncertainty(Acquisition):
    """Show the galaxies of which the model knows least."""

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the standard deviation."""
        return _expected(state).deviation
