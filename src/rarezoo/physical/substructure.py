"""Whether a class of galaxies that look alike splits in two by its physical properties.

For each class, over the members in which the compared numbers are known::

    residuals       properties minus their regression on the covariates among the galaxies of no class, turned into
                    normal scores by their ranks among those galaxies, which have a standard normal distribution then,
                    whatever the distribution of the property
    likelihood      two normal distributions of equal covariance against one: twice the gain in log likelihood
    candidate       BIC prefers two, the smaller group holds at least a tenth of the members, and the groups are
                    separate (Ashman's D > 2)
    p               chance of so large a likelihood ratio, the larger one of two nulls: samples of the one normal
                    distribution, and groups of as many galaxies of no class; 1 for a class that is no candidate
    splits          p, corrected over all classes (Benjamini & Hochberg 1995), is below 0.05

Sources: McLachlan (1987, Applied Statistics 36, 318) for the parametric bootstrap of mixtures; Ashman, Bird & Zepf
(1994, AJ 108, 2348) for D.

Shape letters: n galaxies, c covariates, m members, d properties.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from rarezoo import tables
from rarezoo.physical.differences import SIGNIFICANT, adjustment, standardised
from rarezoo.physical.properties import Property

# Members for each property, and at least; properties must be known for this share of the members.
_PER_PROPERTY, _FEWEST, _KNOWN = 12, 30, 0.7
# Of larger classes, so many members are drawn at random: they tell two groups apart as well.
_MOST_MEMBERS = 500
_MOST_PROPERTIES, _SMALLEST_SHARE, _SEPARATE = 5, 0.1, 2.0
_DRAWS, _PER_CLASS, _FIRST, _PROMISING = 199, 25, 99, 0.03
# The groups are not narrower than this share of the variance along the line between them.
_STEPS, _CONVERGED, _NARROWEST = 60, 3e-4, 1e-3
# Numbers in the samples that are fitted at once.
_BLOCK = 500_000


@dataclass(frozen=True)
class Split:
    """Whether one class splits in two by its properties.

    Attributes
    ----------
    class_id
        The class.
    members
        Members that were compared.
    properties
        Names of the properties.
    delta_bic
        BIC of one distribution minus that of two: above zero two are preferred.
    share
        Share of the members in the smaller group.
    separation
        Ashman's D along the line between the groups.
    p, q
        Chance of so large a likelihood ratio in one group, and the same corrected over all classes.
    between
        Distance between the groups in each property, in normal scores.
    why
        Why it was not tested; empty if it was.
    """

    class_id: int
    members: int
    properties: tuple[str, ...] = ()
    delta_bic: float = np.nan
    share: float = np.nan
    separation: float = np.nan
    p: float = np.nan
    q: float = np.nan
    between: tuple[float, ...] = ()
    why: str = ""

    @property
    def splits(self) -> bool:
        """Whether it splits."""
        return not self.why and self.q < SIGNIFICANT

    def __str__(self) -> str:
        if self.why:
            return f"Whether the class splits by its properties was not tested: {self.why}."
        names = ", ".join(self.properties)
        if not self.splits:
            return f"The class does not split by its properties ({names}; {self.members} members, q = {self.q:.2g})."
        most = int(np.argmax(np.abs(self.between)))
        return (
            f"The class splits in two by its properties ({names}; {self.members} members, q = {self.q:.2g}): "
            f"{self.share:.0%} of them are apart, most in {self.properties[most]}."
        )


class _Fit(NamedTuple):
    """Two normal distributions of equal covariance in each of b samples.

    Attributes
    ----------
    gain : (b,) array
        Twice the difference of the log likelihoods of two distributions and of one.
    share : (b,) array
        Share of the smaller group.
    between : (b, d) array
        Difference of the means of the groups.
    separation : (b,) array
        Ashman's D along the line between the groups.
    """

    gain: Float64[np.ndarray, " b"]
    share: Float64[np.ndarray, " b"]
    between: Float64[np.ndarray, "b d"]
    separation: Float64[np.ndarray, " b"]


def splits(
    properties: Sequence[Property],
    covariates: Mapping[str, Float64[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> list[Split]:
    """Test each class for two groups.

    Parameters
    ----------
    properties
        Properties of the n galaxies; only continuous numbers are used.
    covariates
        Columns that the residuals are made with.
    labels
        (n,) class of each galaxy, −1 for none.
    seed
        Seed of the nulls.

    Returns
    -------
    list of Split
        One per class, by class id.
    """
    from scipy.stats import false_discovery_control

    numbers = [one for one in properties if one.is_continuous]
    others = labels == tables.NO_CLASS
    scaled = standardised(covariates, others)
    residuals = {one.name: _normal_scores(one.values, scaled, others) for one in numbers}
    ids = [int(class_id) for class_id in np.unique(labels) if class_id != tables.NO_CLASS]
    draws = max(_DRAWS, _PER_CLASS * len(ids))
    found = [_split(class_id, residuals, labels, draws=draws, seed=seed) for class_id in ids]
    tested = [place for place, one in enumerate(found) if not one.why]
    if tested:
        for place, q in zip(tested, false_discovery_control([found[place].p for place in tested]), strict=True):
            found[place] = replace(found[place], q=float(q))
    return found


def _split(
    class_id: int, residuals: Mapping[str, Float64[np.ndarray, " n"]], labels: np.ndarray, *, draws: int, seed: int
) -> Split:
    members, others = labels == class_id, labels == tables.NO_CLASS
    size = int(members.sum())
    known = {name: float(np.isfinite(values[members]).mean()) for name, values in residuals.items()}
    names = sorted((name for name in known if known[name] >= _KNOWN), key=lambda name: -known[name])
    names = names[: min(_MOST_PROPERTIES, size // _PER_PROPERTY)]
    if not names:
        return Split(class_id, size, why="no number is known for enough members")
    table = np.column_stack([residuals[name] for name in names])
    complete = np.isfinite(table).all(axis=1)
    own, pool = table[members & complete], table[others & complete]
    if len(own) > _MOST_MEMBERS:
        own = np.random.default_rng((seed, class_id)).choice(own, _MOST_MEMBERS, replace=False)
    if len(own) < _FEWEST:
        return Split(class_id, len(own), tuple(names), why=f"{len(own)} members are too few")
    gain, share, between, separation = (part[0] for part in two_groups(own[None]))
    delta_bic = gain - (own.shape[1] + 1) * np.log(len(own))
    split = Split(
        class_id, len(own), tuple(names), float(delta_bic), float(share), float(separation), 1.0,
        between=tuple(between.tolist()),
    )  # fmt: skip
    if delta_bic <= 0 or share < _SMALLEST_SHARE or separation <= _SEPARATE:
        return split
    random = np.random.default_rng((seed, class_id))
    mean, spread = own.mean(axis=0), np.atleast_2d(np.cov(own, rowvar=False, bias=True))
    nulls = [lambda number: random.multivariate_normal(mean, spread, (number, len(own)))]
    if len(pool) > len(own):
        nulls.append(
            lambda number: pool[np.stack([random.choice(len(pool), len(own), replace=False) for _ in range(number)])]
        )
    ps = []
    for null in nulls:
        made = _gains(null, min(draws, _FIRST), own.size)
        # A few draws tell most classes that do not split; only the others need a precise p-value.
        if np.mean(made >= gain) <= _PROMISING:
            made = np.concatenate([made, _gains(null, draws - len(made), own.size)])
        ps.append((1 + np.sum(made >= gain)) / (len(made) + 1))
        if ps[-1] > SIGNIFICANT:
            break
    return replace(split, p=float(max(ps)))


def two_groups(points: Float64[np.ndarray, "b m d"]) -> _Fit:
    """Fit two normal distributions of equal covariance to each of several samples, by expectation and maximisation.

    scikit-learn's mixture gives the same (``covariance_type="tied"``), but the nulls need hundreds of fits, which are
    made at once here. In coordinates in which the whole sample has unit covariance, the covariance of the groups
    differs from it only along the line between them, so that a step needs only projections on this line.

    Parameters
    ----------
    points
        (b, m, d) samples of m points.

    Returns
    -------
    _Fit
        The best of the fits that begin with a division at the median of each principal axis.

    Examples
    --------
    >>> points = np.array([-1.0, -1.1, -0.9, 1.0, 1.1, 0.9]).reshape(1, 6, 1)
    >>> two_groups(points).between.round(2).tolist()
    [[2.0]]
    """
    samples, count, width = points.shape
    centred = points - points.mean(axis=1, keepdims=True)
    whole = np.einsum("bmd,bme->bde", centred, centred, optimize=True) / count + 1e-9 * np.eye(width)
    half = np.linalg.cholesky(whole)
    unit = centred @ np.linalg.inv(half).transpose(0, 2, 1)
    axes = np.linalg.eigh(whole)[1]
    best = _Fit(np.zeros(samples), np.zeros(samples), np.zeros((samples, width)), np.zeros(samples))
    for axis in range(width):
        along = (centred @ axes[:, :, [axis]])[:, :, 0]
        second = (along > np.median(along, axis=1, keepdims=True)).astype(float)
        before = np.full(samples, -np.inf)
        for _ in range(_STEPS):
            share = np.clip(second.mean(axis=1), 1e-9, 1 - 1e-9)
            both = share * (1 - share)
            # The mean of all is zero: the means of the groups follow from that of the second.
            between = (second[:, None, :] @ unit)[:, 0] / (count * both[:, None])
            square = np.sum(between**2, axis=1)
            between *= np.sqrt(np.minimum(1, (1 - _NARROWEST) / (both * square + 1e-12)))[:, None]
            square = np.sum(between**2, axis=1)
            left = 1 - both * square
            place = (unit @ between[:, :, None])[:, :, 0]
            # Log densities of the groups relative to that of one distribution of all.
            common = -0.5 * np.log(left)[:, None] - 0.5 * (both / left)[:, None] * place**2
            place = place / left[:, None]
            far = (square / left)[:, None]
            shares = share[:, None], 1 - share[:, None]
            logs = [
                np.log(shares[1]) + common - shares[0] * place - 0.5 * shares[0] ** 2 * far,
                np.log(shares[0]) + common + shares[1] * place - 0.5 * shares[1] ** 2 * far,
            ]
            total = np.logaddexp(*logs)
            second = np.exp(logs[1] - total)
            gain = 2 * total.sum(axis=1)
            better = (gain > best.gain) & (np.minimum(share, 1 - share) * count >= 2)
            now = gain, np.minimum(share, 1 - share), (half @ between[:, :, None])[:, :, 0], np.sqrt(far[:, 0])
            for kept, new in zip(best, now, strict=True):
                kept[better] = new[better]
            if np.all(gain - before < _CONVERGED * count):
                break
            before = gain
    return best


def _gains(samples: Callable[[int], Float64[np.ndarray, "b m d"]], draws: int, numbers: int) -> np.ndarray:
    """Return the gain of two groups over one in random samples, made a few at a time by how many numbers one holds."""
    block = max(1, _BLOCK // numbers)
    parts = [two_groups(samples(min(block, draws - start))).gain for start in range(0, draws, block)]
    return np.concatenate([np.empty(0), *parts])


def _normal_scores(
    values: Float64[np.ndarray, " n"], scaled: Float64[np.ndarray, "n c"], others: np.ndarray
) -> Float64[np.ndarray, " n"]:
    """Return residuals as normal scores of their ranks among the galaxies of no class, NaN where unknown."""
    from scipy.special import ndtri

    residuals = values - adjustment(values, scaled, np.flatnonzero(others))
    known = np.isfinite(residuals) & np.isfinite(scaled).all(axis=1)
    reference = np.sort(residuals[others & known])
    scores = np.full(len(values), np.nan)
    if not len(reference):
        return scores
    low, high = (np.searchsorted(reference, residuals[known], side=side) for side in ("left", "right"))
    scores[known] = ndtri((low + high + 1) / 2 / (len(reference) + 1))
    return scores
