"""How good predictions are, measured on galaxies that nothing has learnt from.

Completeness is the share of all galaxies with the label that have a probability above the threshold. Purity is the
share of the galaxies above it that have the label. Purity depends on how common the label is in the survey, so it is
computed from the estimated share and not from that among the labels. Intervals are made of draws: rates "k of n" from
Jeffreys' beta distribution, which is right for small numbers too (Brown, Cai & DasGupta 2001, Statistical Science 16,
101), and the share of the survey from its own draws.

Shape letters: m galaxies with a label, n galaxies of the survey, t thresholds, r draws, b bins.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.metrics import roc_auc_score

from rarezoo.statistics import Interval

THRESHOLDS = np.round(np.linspace(0.01, 0.99, 99), 2)
_EDGES = np.array([0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
_DRAWS, _ENDS = 1000, (0.025, 0.975)
# Galaxies of each kind whose pairs are compared for the interval of an area under a curve.
_PAIRED, _RESAMPLES = 1000, 500
# Below this many galaxies with the label, or without it, an evaluation tells little.
FEWEST = 10


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities beside the shares that are observed.

    Attributes
    ----------
    predicted, observed, low, high : (b,) arrays
        Mean probability of each bin, the share of its galaxies with the label, and its 95 % interval.
    galaxies : (b,) array of integers
    error : float
        Mean difference of predicted and observed, weighted by the galaxies of a bin (expected calibration error).
    brier : float
        Mean squared difference between probabilities and labels of 0 and 1.
    """

    predicted: Float64[np.ndarray, " b"]
    observed: Float64[np.ndarray, " b"]
    low: Float64[np.ndarray, " b"]
    high: Float64[np.ndarray, " b"]
    galaxies: Int64[np.ndarray, " b"]
    error: float
    brier: float


@dataclass(frozen=True)
class Evaluation:
    """How well one label, class or tag is predicted.

    Attributes
    ----------
    name : str
    positives, others : int
        Evaluated galaxies with the label, and without it.
    auc : Interval
        Area under the receiver operating characteristic.
    completeness, purity : (t, 3) arrays
        Value, low and high end of the 95 % interval at each of :data:`THRESHOLDS`.
    selected : (t,) array of integers
        Galaxies of the survey above each threshold.
    share : Interval
        Estimated share of the survey; galaxies with a label count as they are labelled.
    count : Interval
        Estimated number of galaxies of the survey.
    adjusted : Interval
        The same estimated in another way: the number above the threshold that half of the evaluated galaxies with the
        label pass, corrected for the rates of missed and wrong ones (Forman 2008). NaN, as ``purity``, for one of
        several classes that were looked for: the other labelled classes are not mixed as in the survey.
    labelled_share : float
        Share of the labelled galaxies.
    reliability : Reliability
    coverage : Interval
        Share of the evaluated galaxies with the label whose conformal set holds it.
    """

    name: str
    positives: int
    others: int
    auc: Interval
    completeness: Float64[np.ndarray, "t 3"]
    purity: Float64[np.ndarray, "t 3"]
    selected: Int64[np.ndarray, " t"]
    share: Interval
    count: Interval
    adjusted: Interval
    labelled_share: float
    reliability: Reliability
    coverage: Interval

    def at(self, threshold: float) -> int:
        """Return the place of the nearest threshold."""
        return int(np.abs(THRESHOLDS - threshold).argmin())


def proportion(hits: float, total: float) -> Interval:
    """Return a share with Jeffreys' 95 % interval; NaN without galaxies.

    >>> proportion(0, 10).text(".2f")
    '0.00 (0.00–0.22)'
    """
    from scipy.stats import beta

    if total <= 0:
        return Interval(np.nan, np.nan, np.nan)
    low = 0.0 if hits <= 0 else float(beta.ppf(_ENDS[0], hits + 0.5, total - hits + 0.5))
    high = 1.0 if hits >= total else float(beta.ppf(_ENDS[1], hits + 0.5, total - hits + 0.5))
    return Interval(hits / total, low, high)


def evaluated(
    name: str,
    probability: Float64[np.ndarray, " m"],
    positive: Bool[np.ndarray, " m"],
    survey: Float64[np.ndarray, " n"],
    *,
    shares: Float64[np.ndarray, " r"],
    known: Bool[np.ndarray, " n"],
    labelled: Bool[np.ndarray, " n"],
    labelled_share: float,
    in_set: Bool[np.ndarray, " m"],
    seed: int = 0,
) -> Evaluation:
    """Evaluate one label, class or tag.

    Parameters
    ----------
    name : str
    probability : (m,) array
        Probabilities of the evaluated galaxies, corrected for the share in the survey.
    positive : (m,) array
        Whether they have the label.
    survey : (n,) array
        Probabilities of all galaxies of the survey.
    shares : (r,) array
        The estimated share with the label among the galaxies without a label, and draws of it behind it.
    known, labelled : (n,) arrays
        Whether it is known that a galaxy of the survey has the label, and whether it is known at all.
    labelled_share : float
        Share of the labelled galaxies with the label.
    in_set : (m,) array
        Whether the conformal set of each galaxy holds the label.
    seed : int
    """
    rng = np.random.default_rng(seed)
    yes, no = probability[positive], probability[~positive]
    above = [(values[:, None] >= THRESHOLDS).sum(axis=0) for values in (yes, no)]
    rates = [_rate_draws(hits, len(values), rng) for hits, values in zip(above, (yes, no), strict=True)]
    share, drawn = float(shares[0]), rng.choice(shares[1:] if len(shares) > 1 else shares, _DRAWS)
    found, wrong = (hits / max(len(values), 1) for hits, values in zip(above, (yes, no), strict=True))
    purity_draws = _ratio(drawn[:, None] * rates[0], (1 - drawn[:, None]) * rates[1])
    selected = np.array([(survey >= threshold).sum() for threshold in THRESHOLDS])
    n, median = len(survey), float(np.median(yes)) if len(yes) else 0.5
    # Rates at the threshold that half of the label's galaxies pass: it exists however small the probabilities are.
    passed, total = np.array([(yes >= median).sum(), (no >= median).sum()]), np.array([len(yes), len(no)])
    true, false = rng.beta(passed[:, None] + 0.5, (total - passed)[:, None] + 0.5, (2, _DRAWS))
    rate, rest = (
        float((survey[~labelled] >= median).mean()) if n and not labelled.all() else 0.0,
        int((~labelled).sum()),
    )
    adjusted = np.clip((rate - false) / np.maximum(true - false, 1e-3), 0, 1)
    shares_passed = passed / np.maximum(total, 1)
    centre = np.clip((rate - shares_passed[1]) / max(shares_passed[0] - shares_passed[1], 1e-3), 0, 1)
    ends = np.quantile(drawn, _ENDS)
    return Evaluation(
        name,
        len(yes),
        len(no),
        _auc(probability, positive, rng),
        completeness=np.column_stack([found, *np.quantile(rates[0], _ENDS, axis=0)]),
        purity=np.column_stack(
            [_ratio(share * found, (1 - share) * wrong), *np.nanquantile(purity_draws, _ENDS, axis=0)]
        ),
        selected=selected,
        share=Interval(*(float((known.sum() + rest * value) / max(n, 1)) for value in (share, *ends))),
        count=Interval(*(float(known.sum() + rest * value) for value in (share, *ends))),
        adjusted=Interval(*(float(known.sum() + rest * value) for value in (centre, *np.quantile(adjusted, _ENDS)))),
        labelled_share=labelled_share,
        reliability=reliability(probability, positive, share=share),
        coverage=proportion(int(in_set[positive].sum()), len(yes)),
    )


def _rate_draws(hits: Int64[np.ndarray, " t"], total: int, rng: np.random.Generator) -> Float64[np.ndarray, "r t"]:
    """Draw shares "k of n" for all thresholds; those of one draw belong together, so that curves stay monotonic."""
    from scipy.stats import beta

    level = rng.random((_DRAWS, 1))
    different, places = np.unique(hits, return_inverse=True)
    return np.asarray(beta.ppf(level, different + 0.5, total - different + 0.5))[:, places]


def _ratio(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    total = right + wrong
    return np.divide(right, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def _auc(probability: np.ndarray, positive: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return the area under the ROC curve with its bootstrap interval over galaxies of both kinds."""
    yes, no = probability[positive], probability[~positive]
    if not len(yes) or not len(no):
        return Interval(np.nan, np.nan, np.nan)
    value = float(roc_auc_score(positive, probability))
    # Of many galaxies a part says how uncertain the value is; the interval is then scaled to all of them.
    parts = [rng.permutation(values)[:_PAIRED] for values in (yes, no)]
    wins = (parts[0][:, None] > parts[1]) + 0.5 * (parts[0][:, None] == parts[1])
    counts = [rng.multinomial(len(part), np.full(len(part), 1 / len(part)), _RESAMPLES) for part in parts]
    values = ((counts[0] @ wins) * counts[1]).sum(axis=1) / wins.size
    scale = np.sqrt(min(len(part) for part in parts) / min(len(yes), len(no)))
    low, high = np.quantile(values - values.mean(), _ENDS) * scale
    return Interval(value, max(value + float(low), 0.0), min(value + float(high), 1.0))


def reliability(
    probability: Float64[np.ndarray, " m"], positive: Bool[np.ndarray, " m"], *, share: float
) -> Reliability:
    """Compare probabilities with labels, weighted so that the label has its share of the survey.

    Parameters
    ----------
    probability, positive : (m,) arrays
    share : float
        Share of the survey with the label.

    Examples
    --------
    >>> found = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, True]), share=0.5)
    >>> found.observed.tolist(), round(found.error, 2)
    ([0.0, 1.0], 0.1)
    """
    labelled = positive.mean() if len(positive) else 0.5
    ratios = (1 - share) / max(1 - labelled, 1e-9), share / max(labelled, 1e-9)
    weights = np.where(positive, ratios[1], ratios[0])
    bins = np.clip(np.searchsorted(_EDGES, probability, side="right") - 1, 0, len(_EDGES) - 2)
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        weight = weights[inside]
        if not weight.sum():
            # The share is 0, and only galaxies with the label are here: the survey has none of them.
            continue
        effective = weight.sum() ** 2 / max(np.square(weight).sum(), 1e-12)
        seen = float(weight @ positive[inside] / weight.sum())
        interval = proportion(seen * effective, effective)
        mean = float(weight @ probability[inside] / weight.sum())
        rows.append((mean, *interval, int(inside.sum()), float(weight.sum())))
    predicted, observed, low, high, galaxies, total = map(np.array, zip(*rows, strict=True))
    error = float(total @ np.abs(predicted - observed) / total.sum())
    brier = float(weights @ np.square(probability - positive) / weights.sum())
    return Reliability(predicted, observed, low, high, galaxies.astype(np.int64), error, brier)


def likely_errors(
    probabilities: Float64[np.ndarray, "m k"], members: Bool[np.ndarray, "m k"]
) -> tuple[Int64[np.ndarray, " e"], Int64[np.ndarray, " e"]]:
    """Return the galaxies whose label is likely wrong, the likeliest first, and the class that they seem to have.

    This is confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70, 1373): a galaxy counts as one of another class
    if its probability of that class is at least the mean probability that members of that class have. It is a few
    lines, so that the package cleanlab, which has many more ways, is not needed.

    Parameters
    ----------
    probabilities : (m, k) array
        Of galaxies that the model has not learnt from.
    members : (m, k) array
        The class that each is labelled with.

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05]])
    >>> members = np.array([[True, False], [True, False], [False, True], [False, True]])
    >>> likely_errors(probabilities, members)
    (array([3]), array([0]))
    """
    usual = np.array(
        [
            column[inside].mean() if inside.any() else np.inf
            for column, inside in zip(probabilities.T, members.T, strict=True)
        ]
    )
    confident = np.where(probabilities >= usual, probabilities, -1)
    seems, given = confident.argmax(axis=1), members.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) > 0) & (seems != given))
    margin = probabilities[rows, given[rows]] - probabilities[rows, seems[rows]]
    order = rows[np.argsort(margin, kind="stable")]
    return order.astype(np.int64), seems[order].astype(np.int64)
