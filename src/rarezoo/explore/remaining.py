"""How many interesting galaxies are left: an estimate from the galaxies that were drawn at random, with an interval.

At blind draw t, a galaxy is drawn from the u galaxies that nobody has rated yet. Of K interesting galaxies in the
survey, f are known by then, so that the drawn one is interesting with probability (K − f) / u. This holds whatever the
model has chosen before, so the likelihood of K is the product over all draws. With k of those left, the
prior is 1 / √(k + 1), as Jeffreys's prior of a small share is. The interval holds the central part of the posterior; if
no blindly drawn galaxy is interesting, it begins at 0, and if all are, it ends at the number of unrated galaxies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rarezoo.errors import ConfigError

# Largest number of values of K at which the posterior is computed; above it they are spaced evenly in the logarithm.
_VALUES = 20_000


class BlindDraw(NamedTuple):
    """A galaxy that was drawn at random and rated.

    Attributes
    ----------
    unrated : int
        Number of galaxies that nobody had rated when it was drawn, itself among them.
    known : int
        Number of interesting galaxies that were known by then.
    interesting : bool
        Whether it is interesting.
    """

    unrated: int
    known: int
    interesting: bool


class Remaining(NamedTuple):
    """How many interesting galaxies nobody has rated yet.

    Attributes
    ----------
    estimate : float
        Median of the posterior.
    low, high : float
        Ends of the interval.
    draws : int
        Number of blind draws that it rests on.
    """

    estimate: float
    low: float
    high: float
    draws: int


def remaining(draws: Sequence[BlindDraw], *, unrated: int, known: int, coverage: float = 0.9) -> Remaining | None:
    """Estimate how many interesting galaxies are left; None without any blind draw.

    Parameters
    ----------
    draws : sequence of BlindDraw
    unrated : int
        Number of galaxies that nobody has rated now.
    known : int
        Number of interesting galaxies that are known now.
    coverage : float
        Probability that the interval holds, 0 to 1.

    Raises
    ------
    ConfigError
        More interesting galaxies are known than there were when one of the draws was made.

    Examples
    --------
    Of 1,000 galaxies, 100 were drawn at random, and ten of them are interesting:

    >>> draws = [BlindDraw(1000 - number, number // 10, number % 10 == 9) for number in range(100)]
    >>> left = remaining(draws, unrated=900, known=10)
    >>> int(left.low) < 90 < int(left.high)
    True
    """
    if not draws:
        return None
    left = np.arange(unrated + 1, dtype=np.float64)
    if unrated >= _VALUES:
        left = np.unique(np.round(np.expm1(np.linspace(0, np.log1p(unrated), _VALUES))))
    total = known + left
    # Between two values of a grid in the logarithm lie several numbers, which the prior counts together.
    logs = -0.5 * np.log1p(left) + np.log(np.gradient(left) if len(left) > 1 else np.ones(1))
    for draw in draws:
        chance = np.clip((total - draw.known) / draw.unrated, 1e-12, 1 - 1e-12)
        # More galaxies than there are cannot be interesting.
        impossible = total - draw.known > draw.unrated
        logs += np.where(impossible, -np.inf, np.log(chance if draw.interesting else 1 - chance))
    if not np.isfinite(logs.max()):
        raise ConfigError(
            "blind draws contradict the number of interesting galaxies", value=known,
            fix="Count the galaxies that were known and unrated at each draw again.",
        )  # fmt: skip
    weights = np.exp(logs - logs.max())
    cumulative = np.cumsum(weights) / weights.sum()
    at = [(1 - coverage) / 2, 0.5, (1 + coverage) / 2]
    low, middle, high = (float(left[min(int(np.searchsorted(cumulative, place)), len(left) - 1)]) for place in at)
    # Where nothing was drawn that is interesting, nothing may be left.
    low = low if any(draw.interesting for draw in draws) else 0.0
    # Where everything was, everything may be.
    high = high if not all(draw.interesting for draw in draws) else float(left[-1])
    return Remaining(middle, low, high, len(draws))
