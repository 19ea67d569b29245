"""What a ranker is: a model that learns from a few rated galaxies how interesting every other galaxy is.

Shape letters: m rated galaxies, n galaxies of the survey, d features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float32

from rarezoo.settings import Settings

# Galaxies that are predicted at a time, so that memory stays bounded.
BLOCK = 2**16


class Prediction(NamedTuple):
    """What a model expects of n galaxies.

    Attributes
    ----------
    mean : (n,) array of floats
        Expected interest; higher is more interesting. Only its order has a meaning that all models share.
    deviation : (n,) array of floats
        Standard deviation of the expected interest, in the same units.
    """

    mean: Float32[np.ndarray, " n"]
    deviation: Float32[np.ndarray, " n"]


class Model(Protocol):
    """A ranker that has learnt from ratings."""

    def predict(self, features: Float32[np.ndarray, "n d"]) -> Prediction:
        """Return the expected interest of galaxies and its uncertainty."""


@dataclass
class Ranker(Settings, ABC):
    """Base of every ranker: one dataclass in one file of :mod:`rarezoo.explore.rankers` is one choice of ``ranker=``.

    Examples
    --------
    >>> import numpy as np
    >>> from rarezoo.explore.rankers.ridge import Ridge
    >>> features = np.array([[-1.0], [0.0], [1.0], [2.0]], dtype=np.float32)
    >>> model = Ridge().fit(features[[0, 2]], np.array([0.0, 1.0]), distance=1.6, seed=0)
    >>> bool(model.predict(features).mean[3] > model.predict(features).mean[1])
    True
    """

    prefix: ClassVar[str] = "ranker"

    @abstractmethod
    def fit(
        self,
        features: Float32[np.ndarray, "m d"],
        interest: Float[np.ndarray, " m"],
        *,
        distance: float,
        seed: int,
    ) -> Model:
        """Learn from rated galaxies.

        Parameters
        ----------
        features : (m, d) array of floats
            Features of the rated galaxies, of about unit variance each.
        interest : (m,) array of floats
            Interest of each, 0 to 1.
        distance : float
            Typical distance between two galaxies of the survey: the root of twice the summed variance of the features.
        seed : int
            Seed of whatever is random in the fit.
        """


def in_blocks(features: Float32[np.ndarray, "n d"], *, most: int = BLOCK) -> list[slice]:
    """Return slices that cut the galaxies into blocks of at most ``most`` galaxies.

    >>> in_blocks(np.zeros((5, 2), dtype=np.float32), most=3)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    return [slice(start, start + most) for start in range(0, len(features), most)]
