"""Statistics that several packages need: bootstrap intervals, and when a known population counts as found.

Shape letters: n values in a sample, r resamples in a block, p populations, c classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Numbers that one block of resamples may hold; it bounds the memory and changes no result.
_BLOCK = 4_000_000
# A class is said to find a population if more than half of the class belongs to it and more than half of it is there.
PURITY, COMPLETENESS = 0.5, 0.5


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval; the ends are NaN where there is no interval.

    Examples
    --------
    >>> Interval(0.25, 0.2, 0.31).text(".2f")
    '0.25 (0.20–0.31)'
    """

    value: float
    low: float
    high: float

    def text(self, digits: str) -> str:
        """Return ``value (low–high)``; the value alone if it has no interval; a dash if there is no value."""
        if not np.isfinite(self.value):
            return "–"
        value, low, high = (format(number, digits) for number in self)
        return f"{value} ({low}–{high})" if np.isfinite(self.low) else value


def mean(sample: Float[np.ndarray, "r n"]) -> Float[np.ndarray, " r"]:
    """Return the mean of each resample."""
    return np.asarray(sample.mean(axis=-1))


def bootstrap_draws(
    *samples: Float[np.ndarray, " n"],
    statistic: Callable[..., np.ndarray] = mean,
    draws: int = 2000,
    random: np.random.Generator | int = 0,
) -> Float[np.ndarray, " draws"]:
    """Return a statistic of resamples that are drawn with replacement.

    Parameters
    ----------
    samples
        One or several samples of n values. Several samples are paired: they are resampled together.
    statistic
        Function of the resamples, arrays (r, n), that returns one value for each, an array (r,).
    draws
        Number of resamples.
    random
        Generator or its seed.

    Examples
    --------
    >>> bootstrap_draws(np.array([1.0, 2.0, 4.0]), draws=3).round(2)
    array([2.67, 1.  , 1.  ])
    """
    generator, size = np.random.default_rng(random), len(samples[0])
    block = max(1, _BLOCK // max(size, 1))
    values = []
    for start in range(0, draws, block):
        rows = generator.integers(0, size, (min(block, draws - start), size))
        values.append(statistic(*(sample[rows] for sample in samples)))
    return np.concatenate(values)


def bootstrap_interval(
    *samples: Float[np.ndarray, " n"],
    statistic: Callable[..., np.ndarray] = mean,
    draws: int = 2000,
    random: np.random.Generator | int = 0,
) -> Interval:
    """Return a statistic of samples with its 95 % percentile interval from the bootstrap.

    The arguments are those of :func:`bootstrap_draws`. A single value has no interval, and an empty sample no value:
    they are NaN.

    Examples
    --------
    >>> value, low, high = bootstrap_interval(np.arange(100.0))
    >>> value, low < value < high
    (49.5, True)
    """
    if not len(samples[0]):
        return Interval(np.nan, np.nan, np.nan)
    value = float(statistic(*(sample[None, :] for sample in samples))[0])
    if len(samples[0]) < 2:
        return Interval(value, np.nan, np.nan)
    values = bootstrap_draws(*samples, statistic=statistic, draws=draws, random=random)
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def students_interval(values: Float[np.ndarray, " n"]) -> Interval:
    """Return a mean with Student's 95 % interval, which is rightly wider than the bootstrap's where values are few.

    A single value has no interval, and with NaN among the values the mean is NaN.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    centre = float(values.mean())
    if len(values) < 2:
        return Interval(centre, np.nan, np.nan)
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(centre, centre - half, centre + half)


class Recovery(NamedTuple):
    """Which classes find which of the known populations.

    A class finds a population if its purity (the share of the class that belongs to the population) and its
    completeness (the share of the population that is in the class) are both above one half. At most one class can find
    a population.

    Attributes
    ----------
    pure
        (p, c) whether more than half of the class belongs to the population.
    complete
        (p, c) whether more than half of the population is in the class.

    Examples
    --------
    >>> counts = np.array([[8, 1], [0, 3]])
    >>> Recovery.of(counts, populations=np.array([10, 9]), classes=np.array([9, 4])).found
    array([ True, False])
    """

    pure: Bool[np.ndarray, "p c"]
    complete: Bool[np.ndarray, "p c"]

    @classmethod
    def of(
        cls,
        counts: Int[np.ndarray, "p c"],
        *,
        populations: Int[np.ndarray, " p"],
        classes: Int[np.ndarray, " c"],
        purity: float = PURITY,
        completeness: float = COMPLETENESS,
    ) -> "Recovery":
        """Compare classes with populations.

        Parameters
        ----------
        counts
            (p, c) galaxies of each population in each class.
        populations
            (p,) galaxies in each population.
        classes
            (c,) galaxies in each class.
        purity, completeness
            Shares that must be exceeded.
        """
        pure = counts > purity * np.asarray(classes)[None, :]
        return cls(np.asarray(pure), np.asarray(counts > completeness * np.asarray(populations)[:, None]))

    @property
    def hits(self) -> Bool[np.ndarray, "p c"]:
        """(p, c) whether the class finds the population."""
        return self.pure & self.complete

    @property
    def found(self) -> Bool[np.ndarray, " p"]:
        """(p,) whether any class finds the population."""
        return np.asarray(self.hits.any(axis=1))
