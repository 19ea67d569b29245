"""From scores to probabilities, sets and intervals that keep what they promise.

* *Calibration* (Platt 1999; Guo et al. 2017, ICML): of the galaxies with probability 0.3, three in ten should have the
  label. A slope and an intercept are fitted for yes/no and each tag; a temperature and an intercept per class for
  classes and counts.
* *Conformal* sets and intervals (Vovk et al. 2005; Sadinle et al. 2019): at least 90 % of the galaxies of every class
  have their class in their set, whatever the model, if the calibration galaxies of that class are like those of the
  survey. The quantile is taken within each class, so that this holds for rare classes and for any share of the
  classes in the survey.
* *Shares of the classes in the survey*: people label galaxies that they have looked for, so the share of a class among
  the labels says little about the survey. For yes/no, the share that makes the mean of the corrected probabilities
  agree with itself is found by expectation maximisation (Saerens et al. 2002, Neural Computation 14, 21). For several
  classes that is biased, and mean probabilities are unmixed instead (Lipton et al. 2018, ICML).

Shape letters: m calibration galaxies, n galaxies, c columns, k classes (2 for yes/no).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize, nnls
from scipy.special import expit

from rarezoo.data.own_labels import BINARY, COUNTS, NUMBER, TAGS
from rarezoo.prediction.models import softmax

# Standard deviation of the prior of the intercepts, in logits, so that classes with few members do not go astray.
_PRIOR = 3.0
_ITERATIONS, _NEWTON, _CONVERGED = 300, 50, 1e-5
_SMALLEST, _RIDGE = 1e-9, 1e-6
# Places of the half galaxy that is added to each class, quantiles that stand for a survey, and limits of shares and of
# the difference of the classes' probabilities below which an estimate would divide by almost nothing.
_PSEUDO, _QUANTILES, _LEAST, _FLAT = 8, 500, 0.005, 1e-3
# Weight of the condition that shares add up to 1.
_HEAVY = 100.0


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities.

    Attributes
    ----------
    kind : str
        Kind of the labels.
    slopes, intercepts : (c,) arrays
        The slope is the same for all classes: the inverse of a temperature.

    Examples
    --------
    >>> scores, labels = np.linspace(-3, 3, 200)[:, None], np.tile([0.0, 1.0], 100)[:, None]
    >>> Calibration.fit(scores, labels, kind="binary").probabilities(scores)[[0, -1]].round(1).tolist()
    [[0.5], [0.5]]
    """

    kind: str
    slopes: Float64[np.ndarray, " c"]
    intercepts: Float64[np.ndarray, " c"]

    @classmethod
    def fit(cls, scores: Float64[np.ndarray, "m c"], values: Float64[np.ndarray, "m c"], *, kind: str) -> "Calibration":
        """Fit to galaxies that the model has not learnt from.

        Parameters
        ----------
        scores : (m, c) array
        values : (m, c) array
            Their labels, NaN where a tag is unknown.
        kind : str
        """
        columns = scores.shape[1]
        if kind == NUMBER:
            return cls(kind, np.ones(columns), np.zeros(columns))
        if kind in (BINARY, TAGS):
            fitted = []
            for column, truth in zip(scores.T, values.T, strict=True):
                known = np.isfinite(truth)
                fitted.append(platt(column[known], truth[known] > 0, np.ones((1, int(known.sum())))))
            slopes, intercepts = np.array(fitted)[:, :, 0].T
            return cls(kind, slopes, intercepts)
        filled = np.where(np.isfinite(values), values, 0).astype(np.float64)
        shares = filled / np.maximum(filled.sum(axis=1, keepdims=True), 1e-12)

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            """Return the cross entropy with its gradient for the logarithm of the slope and the intercepts."""
            slope, intercepts = np.exp(parameters[0]), parameters[1:]
            logits = slope * scores + intercepts
            found = softmax(logits)
            value = -(shares * np.log(np.maximum(found, 1e-300))).sum() + (intercepts**2).sum() / (2 * _PRIOR**2)
            residuals = found - shares
            gradient = np.concatenate(
                [[slope * (residuals * scores).sum()], residuals.sum(axis=0) + intercepts / _PRIOR**2]
            )
            return float(value), gradient

        bounds = [(-4.0, 3.0), *[(-10.0, 10.0)] * columns]
        found = minimize(loss, np.zeros(columns + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
        return cls(kind, np.full(columns, np.exp(found[0])), found[1:] - found[1:].mean())

    def probabilities(self, scores: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
        """Return probabilities; shares of votes for counts, and the scores themselves for a number."""
        logits = scores * self.slopes + self.intercepts
        if self.kind == NUMBER:
            return np.asarray(logits)
        return np.asarray(expit(logits)) if self.kind in (BINARY, TAGS) else softmax(logits)


def platt(
    scores: Float64[np.ndarray, " m"], positive: Bool[np.ndarray, " m"], weights: Float64[np.ndarray, "r m"]
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Return the slope and the intercept of a logit for each of r sets of weights.

    Labels are moved towards each other as Platt (1999) does, so that scores without any overlap have a finite slope.
    Scores that are no better than chance get the slope 0.

    >>> slopes, _ = platt(np.array([1.0, 2, 3, 4]), np.array([False, True, False, True]), np.ones((1, 4)))
    >>> bool(slopes[0] > 0)
    True
    """
    yes, no = weights @ positive, weights @ ~positive
    target = np.where(positive, ((yes + 1) / (yes + 2))[:, None], (1 / (no + 2))[:, None])
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = (scores - centre) / spread
    slopes, intercepts = np.zeros(len(weights)), np.log((yes + 1) / (no + 1))
    for _ in range(_NEWTON):
        probability = expit(slopes[:, None] * standard + intercepts[:, None])
        curve, residual = weights * probability * (1 - probability), weights * (target - probability)
        # Newton's step of two parameters. The small ridge keeps it finite where all probabilities are 0 or 1.
        first, mixed, last = curve @ standard**2 + _RIDGE, curve @ standard, curve.sum(axis=1) + _RIDGE
        down, up = residual @ standard, residual.sum(axis=1)
        steps = np.array([last * down - mixed * up, first * up - mixed * down]) / (first * last - mixed**2)
        slopes, intercepts = slopes + np.clip(steps[0], -2, 2), intercepts + np.clip(steps[1], -2, 2)
        if np.abs(steps).max() < _CONVERGED:
            break
    chance = slopes <= 0
    slopes = np.where(chance, 0, slopes) / spread
    return slopes, np.where(chance, np.log((yes + 1) / (no + 1)), intercepts - slopes * centre)


# --- sets and intervals


def conformal_quantile(scores: Float64[np.ndarray, " m"], coverage: float) -> float:
    """Return the quantile of nonconformity scores up to which galaxies are kept; infinite with too few of them.

    >>> conformal_quantile(np.arange(19.0), 0.9), conformal_quantile(np.arange(8.0), 0.9)
    (17.0, inf)
    """
    place = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[place - 1]) if 0 < place <= len(scores) else np.inf


def class_quantiles(
    probabilities: Float64[np.ndarray, "m k"], members: Bool[np.ndarray, "m k"], *, coverage: float
) -> Float64[np.ndarray, " k"]:
    """Return for each class the smallest probability with which it stays in a set; 0 where members are too few.

    Parameters
    ----------
    probabilities : (m, k) array
        Of calibration galaxies.
    members : (m, k) array
        Whether each has the class.
    coverage : float
        Share of the galaxies of each class whose set shall hold it.
    """
    return np.array(
        [
            max(0.0, 1 - conformal_quantile(1 - column[inside], coverage))
            for column, inside in zip(probabilities.T, members.T, strict=True)
        ]
    )


# --- how many there are


def shifted(
    probabilities: Float64[np.ndarray, "n k"], *, before: Float64[np.ndarray, " k"], now: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, "n k"]:
    """Return the probabilities of classes when their shares change and each class looks the same as before.

    >>> shifted(np.array([[0.5, 0.5]]), before=np.array([0.5, 0.5]), now=np.array([0.9, 0.1])).round(2).tolist()
    [[0.9, 0.1]]
    """
    weighted = probabilities * (np.maximum(now, _SMALLEST) / np.maximum(before, _SMALLEST))
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))


def class_shares(
    probabilities: Float64[np.ndarray, "n k"], *, before: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Return the shares of classes by the expectation maximisation of Saerens et al. (2002).

    Parameters
    ----------
    probabilities : (n, k) array
        Of galaxies without a label, calibrated for the shares ``before``.
    before : (k,) array
        Shares of the classes among the calibration galaxies.

    Examples
    --------
    >>> class_shares(np.array([[0.99, 0.01]] * 9 + [[0.01, 0.99]]), before=np.array([0.5, 0.5])).round(1).tolist()
    [0.9, 0.1]
    """
    before = np.asarray(before, dtype=np.float64)
    if not len(probabilities):
        return before
    known = np.maximum(probabilities, 1e-12)
    if len(before) == 2:
        ratios = known / np.maximum(before, _SMALLEST)
        share = positive_share((ratios[:, 1] / ratios[:, 0])[None], before=before[1:])[0]
        return np.array([1 - share, share])
    shares = before
    for _ in range(_ITERATIONS):
        now = shifted(known, before=before, now=shares).mean(axis=0)
        if np.abs(now - shares).max() < _CONVERGED:
            break
        shares = now
    return shares


def positive_share(
    ratios: Float64[np.ndarray, "r n"], *, before: Float64[np.ndarray, " r"]
) -> Float64[np.ndarray, " r"]:
    """Return the same for two classes, r times at once; ``before`` where the scores say nothing.

    Parameters
    ----------
    ratios : (r, n) array
        How much likelier the score of a galaxy is if it has the label than if it has not.
    before : (r,) array
        Share among the calibration galaxies.
    """
    # The fixed point of the maximisation is where the likelihood, which is concave, has its maximum.
    excess, low, high = ratios - 1, np.zeros(len(ratios)), np.ones(len(ratios))
    for _ in range(40):
        middle = (low + high) / 2
        rises = (excess / (1 + middle[:, None] * excess)).sum(axis=1) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return np.where(np.abs(excess).max(axis=1) < _SMALLEST, before, low)


def share_draws(
    scores: Float64[np.ndarray, " m"],
    positive: Bool[np.ndarray, " m"],
    survey: Float64[np.ndarray, " n"],
    *,
    rng: np.random.Generator,
    draws: int = 300,
) -> Float64[np.ndarray, " _"]:
    """Return the estimated share of a label in a survey, and behind it draws that say how uncertain it is.

    The estimate is that of :func:`class_shares`. Resampling of the labelled galaxies alone gives intervals that are too
    narrow, for two reasons, and there is a remedy for each:

    * A few labelled galaxies hold no example of what is rare: galaxies without the label that look as if they had it.
      A Bayesian bootstrap (Rubin 1981, Annals of Statistics 9, 130) gives galaxies random weights, and half a galaxy of
      each class with the scores of the other class is added, as Jeffreys' prior adds half a count.
    * A logit that is linear in the score fits the tails badly. A third of the draws are therefore made by each of two
      other estimates, which are right for any form of the probabilities: their mean over the survey, corrected for
      their means over labelled galaxies of both classes (Bella et al. 2010, ICDM); and the galaxies above the score
      that half of the labelled galaxies with the label pass, corrected for the rates of missed and wrong ones
      (Forman 2008, Data Mining and Knowledge Discovery 17, 164).

    Parameters
    ----------
    scores : (m,) array
        Of labelled galaxies, by models that have not seen their labels.
    positive : (m,) array
        Whether they have the label.
    survey : (n,) array
        Scores of galaxies of the survey that have no label.
    rng : numpy.random.Generator
    draws : int
        Number of draws.

    Returns
    -------
    numpy.ndarray
        (1 + draws,) shares.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labelled, survey = rng.normal(size=200), rng.normal(size=2000)
    >>> positive, survey[:200] = np.arange(200) < 100, survey[:200] + 4
    >>> labelled[positive] += 4
    >>> shares = share_draws(labelled, positive, survey, rng=rng)
    >>> len(shares), round(float(shares[0]), 1)
    (301, 0.1)
    """
    third, part = draws // 3, (np.arange(_PSEUDO) + 0.5) / _PSEUDO
    added = [np.quantile(scores[positive], part), np.quantile(scores[~positive], part)]
    whole, sides = np.concatenate([scores, *added]), np.concatenate([positive, np.repeat([False, True], _PSEUDO)])
    weights = np.hstack(
        [rng.exponential(size=(draws, len(scores))), rng.gamma(0.5 / _PSEUDO, size=(draws, 2 * _PSEUDO))]
    )
    weights = np.vstack([np.repeat([1.0, 0.0], [len(scores), 2 * _PSEUDO]), weights])
    slopes, intercepts = platt(whole, sides, weights)
    before = weights @ sides / weights.sum(axis=1)
    # Quantiles of the score stand for all galaxies.
    survey = np.quantile(survey, (np.arange(_QUANTILES) + 0.5) / _QUANTILES) if len(survey) > _QUANTILES else survey
    odds = np.log(before) - np.log1p(-before)
    found = positive_share(np.exp(slopes[:, None] * survey + (intercepts - odds)[:, None]), before=before)
    rows = slice(1 + third, None)
    now = np.clip(found[rows], _LEAST, 1 - _LEAST)
    constant = (intercepts[rows] - odds[rows] + np.log(now) - np.log1p(-now))[:, None]
    labelled, whole_survey = (expit(slopes[rows, None] * values + constant) for values in (whole, survey))
    with_it, without = ((weights[rows] * labelled) @ side / (weights[rows] @ side) for side in (sides, ~sides))
    gap, above = with_it - without, whole_survey.mean(axis=1) - without
    found[rows] = np.where(gap > _FLAT, np.clip(above / np.maximum(gap, _FLAT), 0, 1), found[rows])
    limit, rows = np.median(scores[positive]), slice(1 + 2 * third, None)
    true, false = (
        rng.beta((side >= limit).sum() + 0.5, (side < limit).sum() + 0.5, draws - 2 * third)
        for side in (scores[positive], scores[~positive])
    )
    found[rows] = np.clip(((survey >= limit).mean() - false) / np.maximum(true - false, _FLAT), 0, 1)
    return found


def class_share_draws(
    probabilities: Float64[np.ndarray, "m k"],
    members: Bool[np.ndarray, "m k"],
    survey: Float64[np.ndarray, "n k"],
    *,
    rng: np.random.Generator,
    draws: int = 200,
) -> Float64[np.ndarray, "_ k"]:
    """Return the estimated shares of several classes in a survey, and behind them draws of their uncertainty.

    The mean probabilities over the survey are a mixture of those over the labelled galaxies of each class, with the
    shares as weights (black box shift estimation, Lipton et al. 2018, ICML). This is right for any form of the
    probabilities, also where the labelled classes are not mixed as in the survey. The draws are those of
    :func:`share_draws`: random weights, and half a galaxy of each class that looks like one of the others.

    Parameters
    ----------
    probabilities : (m, k) array
        Of labelled galaxies, by models that have not seen their labels.
    members : (m, k) array
        The class of each.
    survey : (n, k) array
        Probabilities of galaxies of the survey that have no label.
    rng : numpy.random.Generator
    draws : int
        Number of draws.

    Returns
    -------
    numpy.ndarray
        (1 + draws, k) shares.

    Examples
    --------
    >>> members = np.repeat(np.eye(3, dtype=bool), 50, axis=0)
    >>> labelled, survey = 0.7 * members + 0.1, 0.7 * np.eye(3)[[0] * 80 + [1] * 15 + [2] * 5] + 0.1
    >>> class_share_draws(labelled, members, survey, rng=np.random.default_rng(0))[0].round(2).tolist()
    [0.8, 0.15, 0.05]
    """
    before = members.mean(axis=0)
    # Probabilities for about the right shares tell classes apart best; the estimate is right for any others, too.
    now = np.maximum(class_shares(survey, before=before), _LEAST)
    labelled, seen = (shifted(values, before=before, now=now / now.sum()) for values in (probabilities, survey))
    means = np.array([labelled[inside].mean(axis=0) for inside in members.T])
    others = np.array([np.delete(means, number, axis=0).mean(axis=0) for number in range(len(means))])
    found = [_mixture(means, seen.mean(axis=0))]
    for _ in range(draws):
        weights = rng.exponential(size=len(members))[:, None] * members
        added = rng.gamma(0.5, size=(len(means), 1))
        drawn = (weights.T @ labelled + added * others) / (weights.sum(axis=0)[:, None] + added)
        found.append(_mixture(drawn, seen.mean(axis=0)))
    return np.array(found)


def _mixture(means: Float64[np.ndarray, "k k"], seen: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Return the shares, none below 0 and together 1, with which the rows of ``means`` come nearest to ``seen``."""
    shares = nnls(np.vstack([means.T, np.full(len(seen), _HEAVY)]), np.append(seen, _HEAVY))[0]
    return np.asarray(shares / shares.sum())


def as_classes(probabilities: Float64[np.ndarray, "n c"], *, kind: str, column: int = 0) -> Float64[np.ndarray, "n k"]:
    """Return probabilities of classes: for yes/no and a tag those of *not* and of *yes*."""
    if kind in (BINARY, TAGS):
        return np.column_stack([1 - probabilities[:, column], probabilities[:, column]])
    return probabilities


def is_share(kind: str) -> bool:
    """Return whether a prediction is a quantity with an interval, and not the probability of a class."""
    return kind in (NUMBER, COUNTS)
