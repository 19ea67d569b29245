"""What an acquisition is: a rule that says which galaxies a person should see next.

Shape letters: n galaxies of the survey, m rated galaxies, d features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int64

from rarezoo.explore.ranker import Prediction
from rarezoo.settings import Settings


@dataclass(frozen=True)
class State:
    """What is known when the next galaxies are chosen.

    Attributes
    ----------
    features : (n, d) array of floats
        Features of all galaxies.
    rated : (m,) array of integers
        Rows of the rated galaxies.
    interest : (m,) array of floats
        Interest of each, 0 to 1.
    prediction : Prediction, optional
        What the model expects of all galaxies; None if there is no model yet.
    outlierness : (n,) array of floats
        How unusual each galaxy is, from 0 to 1: its rank in the order of the local outlier factor.
    rng : numpy.random.Generator
        Source of whatever is random.
    """

    features: Float32[np.ndarray, "n d"]
    rated: Int64[np.ndarray, " m"]
    interest: Float[np.ndarray, " m"]
    prediction: Prediction | None
    outlierness: Float32[np.ndarray, " n"]
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.features)


@dataclass
class Acquisition(Settings, ABC):
    """Base of every acquisition: one dataclass in :mod:`rarezoo.explore.acquisitions` is a choice of ``acquisition=``.

    Attributes
    ----------
    needs_model
        Whether the values come from the model. If there is no model yet, the most unusual galaxies are shown instead.
    """

    prefix: ClassVar[str] = "acquisition"
    needs_model: ClassVar[bool] = True

    @abstractmethod
    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the value of showing each galaxy next; the highest is shown first.

        Parameters
        ----------
        state : State
            What is known. ``state.prediction`` is not None if ``needs_model`` is true.
        """
