"""How well labels are predicted on the test split: rows of a checkpoint's card. Intervals are 95 %, from the bootstrap.

Shape letters: n galaxies, a answers of the tree.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32
from scipy.stats import rankdata

from rarezoo.data.label_answers import predicted_values
from rarezoo.data.own_labels import CLASSES, COUNTS, NUMBER, OwnLabels
from rarezoo.data.trees import QuestionTree
from rarezoo.statistics import Interval, bootstrap_interval

_RESAMPLES = 400
_HALF = 0.5
# With fewer galaxies on either side, resampling them says nothing about how they differ.
_FEWEST = 5


def label_rows(
    labels: OwnLabels, tree: QuestionTree, concentrations: Float32[np.ndarray, "n a"]
) -> list[dict[str, Any]]:
    """Return the measures of the predictions of a network, one row per label.

    A probability is measured by the area under the ROC curve, by average precision, and by balanced accuracy at one
    half (classes: at the likeliest class); a number and a share of votes by the root mean square error, the mean
    absolute error and, for a number, by the share of its variance that is explained. A value is None where the
    galaxies do not allow it, and an interval with fewer than five galaxies on either side.

    Parameters
    ----------
    labels
        Labels of n galaxies of the test split.
    tree
        Tree of the answers that the network predicts.
    concentrations
        (n, a) the network's output.
    """
    parts = [concentrations[:, part] for part in tree.slices]
    fractions = np.concatenate([alpha / alpha.sum(axis=1, keepdims=True) for alpha in parts], axis=1)
    predicted = predicted_values(labels, tree.answers, fractions, source="the network")
    truth = labels.values.astype(np.float64)
    if labels.kind == COUNTS:
        with np.errstate(invalid="ignore", divide="ignore"):
            truth = truth / np.nansum(truth, axis=1, keepdims=True)
    if labels.kind in (NUMBER, COUNTS):
        return [_of_a_number(name, truth[:, k], predicted[:, k]) for k, name in enumerate(labels.names)]
    chosen = predicted > _HALF
    if labels.kind == CLASSES:
        chosen = predicted == predicted.max(axis=1, keepdims=True)
    return [_of_a_class(name, truth[:, k], predicted[:, k], chosen[:, k]) for k, name in enumerate(labels.names)]


def _of_a_class(name: str, truth: np.ndarray, predicted: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(truth)
    has, probability, said = truth[known] == 1, predicted[known], chosen[known]
    row: dict[str, Any] = {"label": name, "galaxies": int(known.sum()), "positive": int(has.sum())}
    measures: dict[str, tuple[np.ndarray, Any]] = {
        "auc": (probability, _area),
        "average_precision": (probability, _average_precision),
        "balanced_accuracy": (said, lambda y, s: _HALF * (s[y].mean() + (~s[~y]).mean())),
    }
    for measure, (values, statistic) in measures.items():
        both = has.any() and not has.all()
        enough = min(has.sum(), (~has).sum()) >= _FEWEST
        value = float(statistic(has, values)) if both else None
        bounds = _stratified_interval(has, values, statistic) if enough else None
        row |= {measure: value, f"{measure}_interval": bounds}
    return row


def _of_a_number(name: str, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(truth)
    error = predicted[known] - truth[known]
    row: dict[str, Any] = {"label": name, "galaxies": int(known.sum())}
    if not len(error):
        return {**row, "rmse": None, "rmse_interval": None, "mae": None, "explained": None}
    variance = float(np.var(truth[known]))
    rmse = bootstrap_interval(error, statistic=lambda e: np.sqrt((e**2).mean(axis=-1)), draws=_RESAMPLES)
    return {
        **row, "rmse": rmse.value, "rmse_interval": _bounds(rmse), "mae": float(np.abs(error).mean()),
        "explained": 1 - float((error**2).mean()) / variance if variance > 0 else None,
    }  # fmt: skip


def _area(has: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve; sklearn's function takes a hundred times as long, too long to resample."""
    yes = int(has.sum())
    return float((rankdata(score)[has].sum() - yes * (yes + 1) / 2) / (yes * (len(has) - yes)))


def _average_precision(has: np.ndarray, score: np.ndarray) -> float:
    """Return the precision at each different score, weighted with the recall that it adds."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    found = np.cumsum(has[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])


def _stratified_interval(has: np.ndarray, values: np.ndarray, statistic: Any) -> tuple[float, float]:
    """Return the interval of a measure; resamples keep the numbers of galaxies with and without the label."""
    yes, no, random = values[has], values[~has], np.random.default_rng(0)
    truth = np.r_[np.ones(len(yes), bool), np.zeros(len(no), bool)]
    draws = [
        statistic(truth, np.r_[random.choice(yes, len(yes)), random.choice(no, len(no))]) for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def _bounds(interval: Interval) -> tuple[float, float] | None:
    return (interval.low, interval.high) if np.isfinite(interval.low) else None
