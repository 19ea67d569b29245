"""From scores to probabilities, sets and intervals that keep what they promise.

* *Calibration* (Platt 1999; Guo et al. 2017, ICML): of the galaxies with probability 0.3, three in ten should have the
  label. A slope and an intercept are fitted for yes/no and each tag; a temperature and an intercept per class for
  classes and counts.
* *Conformal* sets and intervals (Vovk et al. 2005; Sadinle et al. 2019): at least 90 % of the galaxies of every class
  have their class in their set, whatever the model, if the calibration galaxies of that class are like those of the
  survey. The quantile is taken within each class, so that this holds for rare classes and for any share of the
  classes in the survey.
* *Shares of the classes in the survey* (Saerens et al. 2002, Neural Computation 14, 21): people label galaxies that
  they have looked for, so the share of a class among the labels says little about the survey. The shares that make the
  mean of the corrected probabilities agree with themselves are found by expectation maximisation.

Shape letters: m calibration galaxies, n galaxies, c columns, k classes (2 for yes/no).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit

from rarezoo.data.own_labels import BINARY, COUNTS, NUMBER, TAGS
from rarezoo.prediction.models import softmax

# Standard deviation of the prior of the intercepts, in logits, so that classes with few members do not go astray.
_PRIOR = 3.0
_ITERATIONS, _NEWTON, _CONVERGED = 300, 50, 1e-5
_SMALLEST = 1e-9


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
            fitted = [_platt(column, truth) for column, truth in zip(scores.T, values.T, strict=True)]
            slopes, intercepts = np.array(fitted).T
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
            gradient = np.concatenate([
                [slope * (residuals * scores).sum()], residuals.sum(axis=0) + intercepts / _PRIOR**2
            ])  # fmt: skip
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


def _platt(scores: Float64[np.ndarray, " m"], truth: Float64[np.ndarray, " m"]) -> tuple[float, float]:
    """Return slope and intercept; a score that is no better than chance gets the slope 0.

    Labels are moved towards each other as Platt (1999) does, so that scores without any overlap have a finite slope.
    """
    known = np.isfinite(truth)
    scores, positive = scores[known], truth[known] > 0
    yes, no = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (yes + 1) / (yes + 2), 1 / (no + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = np.column_stack([(scores - centre) / spread, np.ones(len(scores))])
    found = np.array([0.0, np.log((yes + 1) / (no + 1))])
    for _ in range(_NEWTON):
        probability = expit(standard @ found)
        slope = (probability * (1 - probability))[:, None] * standard
        # The small ridge keeps a step finite where all probabilities are 0 or 1.
        step = np.linalg.solve(standard.T @ slope + 1e-6 * np.eye(2), standard.T @ (target - probability))
        found += np.clip(step, -2, 2)
        if np.abs(step).max() < _CONVERGED:
            break
    if found[0] <= 0:
        found = np.array([0.0, np.log((yes + 1) / (no + 1))])
    return float(found[0] / spread), float(found[1] - found[0] * centre / spread)


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
    return np.array([
        max(0.0, 1 - conformal_quantile(1 - column[inside], coverage))
        for column, inside in zip(probabilities.T, members.T, strict=True)
    ])  # fmt: skip


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
    ratios = np.maximum(probabilities, 1e-12) / np.maximum(before, _SMALLEST)
    if len(before) == 2:
        # The fixed point of the maximisation is where the likelihood, which is concave, has its maximum.
        excess = ratios[:, 1] - ratios[:, 0]
        if np.abs(excess).max() < 1e-9:
            return before
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            rises = float((excess / (ratios[:, 0] + middle * excess)).sum()) > 0
            low, high = (middle, high) if rises else (low, middle)
        return np.array([1 - low, low])
    shares = before
    for _ in range(_ITERATIONS):
        weighted = ratios * shares
        now = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(now - shares).max() < _CONVERGED:
            break
        shares = now
    return shares


def as_classes(probabilities: Float64[np.ndarray, "n c"], *, kind: str, column: int = 0) -> Float64[np.ndarray, "n k"]:
    """Return probabilities of classes: for yes/no and a tag those of *not* and of *yes*."""
    if kind in (BINARY, TAGS):
        return np.column_stack([1 - probabilities[:, column], probabilities[:, column]])
    return probabilities


def is_share(kind: str) -> bool:
    """Return whether a prediction is a quantity with an interval, and not the probability of a class."""
    return kind in (NUMBER, COUNTS)
