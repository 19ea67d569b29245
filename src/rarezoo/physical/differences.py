"""Differences between the members of a class and their matched controls that survive correction for many tests.

For one class and one property, over the sets of a member and its controls in which the property is known::

    adjusted values     property minus its regression on the covariates (and their squares) among the controls of the
                        class, which removes what is left of the covariates within the sets; not for shares, and
                        not for numbers that one galaxy in five has exactly equal
    difference          median over the sets of (member − median of its controls); for a share: the mean of
                        (member − mean of its controls)
    interval            95 % bootstrap interval over the sets
    effect              share of pairs within sets in which the member is higher minus lower, −1 to 1
    p                   the member is equally likely to have every rank within its set: sum of the ranks, relative to
                        the size of the set, exact for up to 100 sets (a stratified Wilcoxon test, van Elteren 1960)
    q                   p, corrected over all classes and properties (Benjamini & Hochberg 1995)

    verdict = not tested        if the class cannot be matched, or fewer than eight sets know the property
              differs           if q < 0.05
              explained         if the raw difference, of all members from all galaxies of no class, is significant
                                (Mann-Whitney, q < 0.05) and outside of the interval
              none shown        otherwise

Shape letters: n galaxies, m sets, k controls of a member.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from rarezoo import tables
from rarezoo.physical.controls import FEWEST, Matched
from rarezoo.physical.properties import NUMBER, SHARE, Property
from rarezoo.statistics import Interval, bootstrap_interval

SIGNIFICANT = 0.05
DIFFERS, EXPLAINED, NONE_SHOWN, NOT_TESTED = VERDICTS = "differs", "explained", "none shown", "not tested"
_DRAWS, _EXACT = 1000, 100
# Controls for each term of the regression: fewer make it linear, or leave it out.
_PER_TERM = 10
# The regression ignores by how much a value is further away than this, in robust standard deviations.
_CLIP = 5.0
_NORMAL_MAD = 1.4826
# A smaller difference is an error of rounding.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Bin:
    """A range of one column; members belong to it, and their controls come with them.

    Attributes
    ----------
    column
        Name of the column; empty for all members.
    low, high
        Ends of the range; the higher one is outside, but for the last bin.
    """

    column: str = ""
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        return f"{self.column} {self.low:.4g} to {self.high:.4g}" if self.column else "all"


@dataclass(frozen=True)
class Difference:
    """One property of one class against its controls.

    Attributes
    ----------
    class_id
        The class.
    of
        The property.
    within
        Range of a column that the members are in, or all of them.
    sets
        Members whose property and that of a control are known.
    members, controls
        Median of the members in the sets, and median over the sets of that of their controls; for a share, the shares
        with their intervals.
    difference
        The difference with its interval, adjusted for the covariates.
    effect
        Share of pairs in which the member is higher minus the share in which it is lower.
    raw
        Difference of the medians, or shares, of all members and all galaxies of no class.
    p, raw_p
        p-values of both differences.
    q, raw_q
        The same, corrected for all classes and properties.
    why
        Why it was not tested; empty if it was.
    """

    class_id: int
    of: Property
    within: Bin
    sets: int
    members: Interval
    controls: Interval
    difference: Interval
    effect: float
    raw: float
    p: float
    raw_p: float
    q: float = np.nan
    raw_q: float = np.nan
    why: str = ""

    @property
    def verdict(self) -> str:
        """``differs``, ``explained``, ``none shown`` or ``not tested``."""
        if self.why:
            return NOT_TESTED
        if self.q < SIGNIFICANT:
            return DIFFERS
        outside = not self.difference.low <= self.raw <= self.difference.high
        return EXPLAINED if self.raw_q < SIGNIFICANT and outside else NONE_SHOWN

    @property
    def note(self) -> str:
        """What must be said if ranks differ and the difference does not show it; empty otherwise."""
        if self.verdict != DIFFERS or not self.difference.low <= 0 <= self.difference.high:
            return ""
        if abs(self.difference.value) < _EQUAL:
            return "the ranks differ, the medians are equal"
        return "the ranks differ, the interval contains 0"


def differences(
    properties: Sequence[Property],
    covariates: Mapping[str, Float64[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    matched: Mapping[int, Matched],
    *,
    binned: Mapping[int, Sequence[tuple[Bin, Bool[np.ndarray, " n"]]]] | None = None,
    seed: int = 0,
) -> list[Difference]:
    """Compare every class in every property with its controls.

    Parameters
    ----------
    properties
        Properties of the n galaxies.
    covariates
        Columns in which the controls were matched.
    labels
        (n,) class of each galaxy, −1 for none.
    matched
        Controls by class id.
    binned
        By class id: ranges of a column with the galaxies in them, which are compared in addition.
    seed
        Seed of the bootstrap.
    """
    from scipy.stats import false_discovery_control

    scaled = standardised(covariates, labels == tables.NO_CLASS)
    found: list[Difference] = []
    for class_id, sets in sorted(matched.items()):
        everything = (Bin(), np.ones(len(labels), dtype=bool))
        for number, one in enumerate(properties):
            for within, inside in (everything, *(binned or {}).get(class_id, ())):
                random = np.random.default_rng((seed, class_id, number))
                found.append(_difference(class_id, one, within, inside, scaled, labels, sets, random))
    for tested, corrected in (("p", "q"), ("raw_p", "raw_q")):
        places = [place for place, one in enumerate(found) if np.isfinite(getattr(one, tested))]
        if places:
            ps = [min(1.0, getattr(found[place], tested)) for place in places]
            for place, q in zip(places, false_discovery_control(ps), strict=True):
                changes: dict[str, Any] = {corrected: float(q)}
                found[place] = replace(found[place], **changes)
    return found


def _difference(
    class_id: int,
    one: Property,
    within: Bin,
    inside: np.ndarray,
    scaled: Float64[np.ndarray, "n c"],
    labels: np.ndarray,
    matched: Matched,
    random: np.random.Generator,
) -> Difference:
    values = one.values
    members, others = (labels == class_id) & inside, (labels == tables.NO_CLASS) & inside
    raw, raw_p = _raw(values[members], values[others], one.kind)
    nothing = Interval(np.nan, np.nan, np.nan)
    blank = Difference(class_id, one, within, 0, nothing, nothing, nothing, np.nan, raw, np.nan, raw_p)
    if not matched.is_balanced:
        return replace(blank, why=f"the class cannot be matched: {matched.reason}")
    rows = inside[matched.members] & np.isfinite(values[matched.members])
    theirs = np.where(matched.controls >= 0, values[matched.controls], np.nan)
    rows &= np.isfinite(theirs).any(axis=1)
    sets = int(rows.sum())
    if sets < FEWEST:
        return replace(blank, sets=sets, why=f"known for only {sets} members with controls")
    own, theirs = values[matched.members][rows], theirs[rows]
    pool = matched.controls[rows]
    fit = adjustment(values, scaled, matched.pool) if one.is_continuous else np.zeros(len(values))
    adjusted = own - fit[matched.members][rows]
    adjusted_theirs = theirs - np.where(pool >= 0, fit[pool], 0)
    ranked, ranked_theirs = (adjusted, adjusted_theirs) if one.kind == NUMBER else (own, theirs)
    effect, p = stratified_test(ranked, ranked_theirs)
    if one.kind == NUMBER:
        apart = adjusted - np.nanmedian(adjusted_theirs, axis=1)
        interval = bootstrap_interval(apart, statistic=_medians, draws=_DRAWS, random=random)
        shown = (
            Interval(float(np.median(own)), np.nan, np.nan),
            Interval(float(np.median(np.nanmedian(theirs, axis=1))), np.nan, np.nan),
        )
    else:
        means = np.nanmean(theirs, axis=1)
        interval = bootstrap_interval(own - means, draws=_DRAWS, random=random)
        known = theirs[np.isfinite(theirs)]
        shown = wilson(int(own.sum()), len(own)), wilson(int(known.sum()), len(known), share=float(means.mean()))
    return replace(blank, sets=sets, members=shown[0], controls=shown[1], difference=interval, effect=effect, p=p)


def adjustment(
    values: Float64[np.ndarray, " n"], scaled: Float64[np.ndarray, "n c"], pool: Int[np.ndarray, " o"]
) -> Float64[np.ndarray, " n"]:
    """Return the regression of a property on the covariates among some galaxies, without its constant.

    Parameters
    ----------
    values
        (n,) property, NaN where unknown.
    scaled
        (n, c) covariates, of the order of one; NaN where unknown.
    pool
        Rows of the galaxies that the regression is fitted to.

    Returns
    -------
    numpy.ndarray
        (n,) fitted values; zero if too few galaxies of the pool know the property.
    """
    rows = pool[np.isfinite(values[pool]) & np.isfinite(scaled[pool]).all(axis=1)]
    terms = [scaled, scaled**2] if len(rows) >= _PER_TERM * 2 * scaled.shape[1] else [scaled]
    if len(rows) < _PER_TERM * scaled.shape[1]:
        return np.zeros(len(values))
    design = np.column_stack(terms)
    centre = np.median(values[rows])
    spread = _NORMAL_MAD * np.median(np.abs(values[rows] - centre)) or values[rows].std() or 1.0
    clipped = np.clip(values[rows], centre - _CLIP * spread, centre + _CLIP * spread)
    mean = design[rows].mean(axis=0)
    slopes, *_ = np.linalg.lstsq(design[rows] - mean, clipped - clipped.mean(), rcond=None)
    return np.asarray(np.nan_to_num(design - mean) @ slopes)


def stratified_test(own: Float64[np.ndarray, " m"], theirs: Float64[np.ndarray, "m k"]) -> tuple[float, float]:
    """Test whether members are higher or lower within their sets.

    Parameters
    ----------
    own
        (m,) values of the members.
    theirs
        (m, k) values of their controls, NaN where a member has fewer; at least one of each member is known.

    Returns
    -------
    effect, p : float
        Share of pairs in which the member is higher minus that in which it is lower, mean of the sets; and the
        two-sided p-value of the rank of each member being random within its set.

    Examples
    --------
    >>> stratified_test(np.array([5.0, 6.0, 7.0, 8.0, 9.0]), np.tile([1.0, 2.0], (5, 1)))
    (1.0, 0.008230452674897118)
    """
    known = np.isfinite(theirs)
    counts = known.sum(axis=1)
    higher = np.sum(known & (own[:, None] > theirs), axis=1) - np.sum(known & (own[:, None] < theirs), axis=1)
    effect = float(np.mean(higher / counts))
    # In every set, the member may be any of its galaxies. The score of a galaxy is how many of the others are below it
    # minus how many are above it, over the number of controls: sums of whole numbers if it is multiplied by 60.
    total = round(float(np.sum(higher * 60 / counts)))
    scores = []
    for value, others, present in zip(own, theirs, known, strict=True):
        galaxies = np.append(others[present], value)
        score = np.sign(galaxies[:, None] - galaxies[None, :]).sum(axis=1)
        scores.append(np.rint(score * 60 / (len(galaxies) - 1)).astype(np.int64))
    if len(own) > _EXACT:
        from scipy.stats import norm

        deviation = np.sqrt(sum(float(np.mean(score.astype(float) ** 2)) for score in scores))
        return effect, float(min(1.0, 2 * norm.sf(abs(total) / deviation))) if deviation else 1.0
    return effect, _exact_p(total, scores)


def _exact_p(total: int, scores: Sequence[np.ndarray]) -> float:
    """Return the chance that the sum of one random score of each set is as far from zero as a total."""
    # Scores of sets with k controls are multiples of 60 / k; a common divisor keeps the distribution short.
    step = int(np.gcd.reduce(np.concatenate([np.abs(score) for score in scores]))) or 1
    chances = np.ones(1)
    for score in scores:
        most = 60 // step
        one = np.bincount(score // step + most, minlength=2 * most + 1) / len(score)
        chances = np.convolve(chances, one)
    middle = len(chances) // 2
    distance = abs(total) // step
    outside = chances[: middle - distance + 1].sum() + chances[middle + distance :].sum()
    return float(min(1.0, outside))


def _raw(members: np.ndarray, others: np.ndarray, kind: str) -> tuple[float, float]:
    """Return the difference of all members from all others, and its p-value."""
    from scipy.stats import mannwhitneyu

    members, others = members[np.isfinite(members)], others[np.isfinite(others)]
    if not len(members) or not len(others):
        return np.nan, np.nan
    middle = np.mean if kind == SHARE else np.median
    apart = float(middle(members) - middle(others))
    if np.ptp(np.concatenate([members, others])) == 0:
        return apart, 1.0
    return apart, float(mannwhitneyu(members, others, method="asymptotic").pvalue)


def wilson(count: int, trials: int, *, share: float | None = None) -> Interval:
    """Return a share with its 95 % interval (Wilson 1927).

    Parameters
    ----------
    count, trials
        Galaxies that have it, and all of them.
    share
        Value that is shown, if it is weighted; None: count / trials.

    Examples
    --------
    >>> wilson(2, 10).text(".2f")
    '0.20 (0.06–0.51)'
    """
    if not trials:
        return Interval(np.nan, np.nan, np.nan)
    z, value = 1.959964, count / trials if share is None else share
    centre = (value + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(value * (1 - value) / trials + z**2 / (4 * trials**2))
    return Interval(value, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def _medians(sample: Float64[np.ndarray, "r m"]) -> Float64[np.ndarray, " r"]:
    return np.asarray(np.median(sample, axis=-1))


def standardised(
    covariates: Mapping[str, Float64[np.ndarray, " n"]], others: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, "n c"]:
    """Return the covariates in standard deviations from their mean among the galaxies of no class."""
    values = np.column_stack(list(covariates.values()))
    centre, spread = np.nanmean(values[others], axis=0), np.nanstd(values[others], axis=0)
    return np.asarray((values - centre) / np.where(spread > 0, spread, 1))


def bins_of(
    column: str, values: Float64[np.ndarray, " n"], members: Bool[np.ndarray, " n"], edges: Sequence[float]
) -> Iterator[tuple[Bin, Bool[np.ndarray, " n"]]]:
    """Return ranges of a column and the galaxies in them; without edges, three with equal numbers of members.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0, 4.0])
    >>> [str(one) for one, _ in bins_of("mass", values, np.ones(4, dtype=bool), [1, 3, 5])]
    ['mass 1 to 3', 'mass 3 to 5']
    """
    known = values[members & np.isfinite(values)]
    ends = list(edges) or (np.unique(np.quantile(known, np.linspace(0, 1, 4))).tolist() if len(known) else [])
    for low, high in pairwise(ends):
        with np.errstate(invalid="ignore"):
            inside = (values >= low) & ((values <= high) if high == ends[-1] else (values < high))
        yield Bin(column, float(low), float(high)), inside
