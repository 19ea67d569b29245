"""What an acquisition is: a rule that says which galaxies a person should see next.

Shape letters: n galaxies of the survey, m rated galaxies, d features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
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
    start : (n,) array of floats
        Value of showing each galaxy while the ratings tell nothing; see :func:`rarezoo.explore.start.start_values`.
        It may be 0 for all galaxies where it is not needed; see :func:`rarezoo.explore.choose.all_equal`.
    rng : numpy.random.Generator
        Source of whatever is random.
    memory : dict
        Values that stay the same as long as the features do; see :meth:`once`.
    """

    features: Float32[np.ndarray, "n d"]
    rated: Int64[np.ndarray, " m"]
    interest: Float[np.ndarray, " m"]
    prediction: Prediction | None
    start: Float[np.ndarray, " n"]
    rng: np.random.Generator
    memory: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def once(self, name: str, compute: Callable[[], Float[np.ndarray, " n"]]) -> Float[np.ndarray, " n"]:
        """Return values that depend on the features alone; they are computed at the first call only."""
        if name not in self.memory:
            self.memory[name] = compute()
        return self.memory[name]


@dataclass
class Acquisition(Settings, ABC):
    """Base of every acquisition: one dataclass in :mod:`rarezoo.explore.acquisitions` is a choice of ``acquisition=``.

    Attributes
    ----------
    needs_model
        Whether the values come from the model. While the ratings tell nothing, those of ``State.start`` replace them.
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
