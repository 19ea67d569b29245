"""Small models that learn a label from features in seconds: a linear one, and a Gaussian process.

Every model returns *scores*: logits for yes/no and tags (one column each), logits that a softmax turns into shares for
classes and counts, and the value itself for a number. Scores become probabilities by calibration
(:mod:`rarezoo.prediction.calibration`).

Shape letters: m labelled galaxies, n galaxies, d features, c columns.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

from rarezoo.data.own_labels import BINARY, CLASSES, COUNTS, NUMBER, TAGS, OwnLabels
from rarezoo.errors import DataError
from rarezoo.explore.rankers.gaussian_process import GaussianProcess

LINEAR, KERNEL = "linear", "kernel"
# Strengths of the regularisation (C of scikit-learn) that cross-validation chooses from.
STRENGTHS = (0.003, 0.02, 0.1)
# The strength that is best for rare kinds with few labels (rarezoo.embeddings.measures.STRENGTH), between the others.
_USUAL = 0.02
_FOLDS, _REPEATS = 5, 3
# From so many labels on, one division into folds is enough.
_MANY = 1000
# Members of the rarest class below which cross-validation cannot tell models apart, and the usual one is taken; and by
# how much another model must be better.
_TELLING, _BETTER = 30, 0.01
# The kernel of more labels than this would take minutes and gigabytes.
_MOST_KERNEL = 4000


class Fitted(Protocol):
    """A model that has learnt."""

    def scores(self, features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        """Return the scores of galaxies."""


@dataclass(frozen=True)
class Model:
    """A model that can learn.

    Attributes
    ----------
    method : str
        ``linear`` (logistic or ridge regression) or ``kernel`` (the Gaussian process of the rating page).
    strength : float
        C of scikit-learn for the linear model: a small one is a strong regularisation.
    balance : bool
        Whether all classes have the same total weight.
    """

    method: str = LINEAR
    strength: float = _USUAL
    balance: bool = True

    def __str__(self) -> str:
        return f"linear, C = {self.strength:g}" if self.method == LINEAR else "Gaussian process"

    def fit(
        self, features: Float32[np.ndarray, "m d"], values: Float[np.ndarray, "m c"], *, kind: str, distance: float
    ) -> Fitted:
        """Learn from labelled galaxies.

        Parameters
        ----------
        features : (m, d) array
        values : (m, c) array
            Labels of the kind, NaN where a tag is unknown.
        kind : str
            See :class:`~rarezoo.data.own_labels.OwnLabels`.
        distance : float
            Typical distance between two galaxies, for the kernel.
        """
        matrix = np.asarray(features, dtype=np.float32)
        if self.method == KERNEL:
            columns = (_shares(values) if kind == COUNTS else values).T
            return _Kernel([_process(matrix, column, distance=distance, factor=_FACTORS[kind]) for column in columns])
        weight = "balanced" if self.balance else None
        if kind == NUMBER:
            return _Linear([Ridge(alpha=1 / self.strength).fit(matrix, values[:, 0])])
        if kind in (BINARY, TAGS):
            models = []
            for column in values.T:
                known = np.isfinite(column)
                if len(np.unique(column[known])) < 2:
                    # A fold may hold no galaxy of a rare tag.
                    models.append(DummyRegressor(strategy="constant", constant=-4.0).fit(matrix, np.zeros(len(matrix))))
                    continue
                model = LogisticRegression(C=self.strength, class_weight=weight, max_iter=2000)
                models.append(model.fit(matrix[known], column[known] > 0))
            return _Linear(models)
        shares = _shares(values)
        # A galaxy whose voters disagree counts for several answers, each with its share.
        rows, answers = np.nonzero(shares)
        weights = shares[rows, answers]
        if self.balance and kind == CLASSES:
            totals = np.bincount(answers, weights=weights, minlength=shares.shape[1])
            weights = weights * len(shares) / (shares.shape[1] * totals[answers])
        model = LogisticRegression(C=self.strength, max_iter=2000)
        return _Softmax(model.fit(matrix[rows], answers, sample_weight=weights), shares.shape[1])


def _shares(values: Float[np.ndarray, "m c"]) -> Float64[np.ndarray, "m c"]:
    filled = np.where(np.isfinite(values), values, 0).astype(np.float64)
    return filled / np.maximum(filled.sum(axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class _Linear:
    models: list[Any]

    def scores(self, features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        decisions = [
            model.decision_function(features) if hasattr(model, "decision_function") else model.predict(features)
            for model in self.models
        ]
        return np.column_stack(decisions).astype(np.float64)


@dataclass(frozen=True)
class _Softmax:
    model: Any
    columns: int

    def scores(self, features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        decision = self.model.decision_function(features)
        if decision.ndim == 1:
            decision = np.column_stack([-decision / 2, decision / 2])
        # An answer that no galaxy of the fold had is as unlikely as the least likely one.
        scores = np.full((len(features), self.columns), -20.0)
        scores[:, self.model.classes_] = decision
        return scores


@dataclass(frozen=True)
class _Kernel:
    """Gaussian processes, one per column, each with the centre and the factor that turn its mean into a score."""

    processes: list[tuple[Any, float, float]]

    def scores(self, features: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        columns = [
            model.predict(features).mean.astype(np.float64) * factor + centre
            for model, centre, factor in self.processes
        ]
        return np.column_stack(columns)


# The mean of labels of 0 and 1 times this is a logit of about the right size; calibration does the rest. A number is
# standardised instead.
_FACTORS = {BINARY: 6.0, TAGS: 6.0, CLASSES: 8.0, COUNTS: 8.0, NUMBER: None}


def _process(
    features: Float32[np.ndarray, "m d"], column: Float[np.ndarray, " m"], *, distance: float, factor: float | None
) -> tuple[Any, float, float]:
    """Fit the Gaussian process of the rating page to one column; return it with a centre and a factor."""
    known = np.isfinite(column)
    target = column[known].astype(np.float64)
    centre, spread = (float(target.mean()), float(target.std()) or 1.0) if factor is None else (0.0, 1.0)
    model = GaussianProcess().fit(features[known], (target - centre) / spread, distance=distance, seed=0)
    return model, centre, spread if factor is None else factor


# --- choosing by cross-validation


@dataclass(frozen=True)
class Strength:
    """How well a model predicts galaxies that it has not seen.

    Attributes
    ----------
    model : Model
    measure : str
        ``AUC`` (the mean over columns), or ``R²`` for numbers and counts.
    value : float
        Its mean over repeated divisions into folds.
    """

    model: Model
    measure: str
    value: float


def out_of_fold(
    model: Model,
    features: Float32[np.ndarray, "m d"],
    labels: OwnLabels,
    *,
    distance: float,
    seed: int = 0,
    others: Float32[np.ndarray, "u d"] | None = None,
) -> Float64[np.ndarray, "_ c"]:
    """Return the scores that each galaxy has from models that have not seen its label.

    The galaxies are divided into folds with the same share of each class, three times for fewer than 1,000 labels; the
    scores are means over the divisions.

    Parameters
    ----------
    model : Model
    features : (m, d) array
    labels : OwnLabels
        Of the same m galaxies, all of them known.
    distance : float
        Typical distance between two galaxies.
    seed : int
        Seed of the divisions.
    others : (u, d) array, optional
        Features of galaxies without a label. In each division, a fold that is drawn at random predicts each of them, so
        that their scores are made as those of the labelled galaxies are and can be compared with them.

    Returns
    -------
    numpy.ndarray
        (m, c), or (m + u, c) with the scores of the others at the end.
    """
    strata, repeats = labels.strata, _REPEATS if len(labels) < _MANY else 1
    whole = features if others is None else np.vstack([features, others])
    scores = np.zeros((repeats, len(whole), labels.values.shape[1]))
    for repeat in range(repeats):
        folds = _folds(strata, kind=labels.kind, seed=seed + 1000 * repeat)
        drawn = np.random.default_rng([seed, repeat]).integers(0, len(folds), len(whole) - len(features))
        for fold, (learnt, asked) in enumerate(folds):
            learner = model.fit(features[learnt], labels.values[learnt], kind=labels.kind, distance=distance)
            rows = np.concatenate([asked, len(features) + np.flatnonzero(drawn == fold)])
            scores[repeat, rows] = learner.scores(whole[rows])
    return scores.mean(axis=0)


def _folds(strata: Int64[np.ndarray, " m"], *, kind: str, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    counts = np.unique(strata, return_counts=True)[1]
    rarest = int(counts.min())
    if kind in (BINARY, CLASSES) and counts.max() < 2:
        raise DataError(
            "too few labelled galaxies are left to learn from", value=len(strata),
            fix="A class needs two at least: label more galaxies, or keep fewer of them for the test (test=).",
        )  # fmt: skip
    folds = max(2, min(_FOLDS, rarest if kind in (BINARY, CLASSES) else len(strata) // 2))
    if kind in (BINARY, CLASSES):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(strata, strata))
    return list(KFold(folds, shuffle=True, random_state=seed).split(strata))


def measured(scores: Float64[np.ndarray, "m c"], labels: OwnLabels) -> tuple[str, float]:
    """Return the measure of a kind of labels, ``AUC`` or ``R²``, and its value for scores.

    >>> measured(np.array([[0.1], [0.9]]), OwnLabels.read({"a": 0, "b": 1}))
    ('AUC', 1.0)
    """
    if labels.kind in (NUMBER, COUNTS):
        truth = labels.values.astype(np.float64) if labels.kind == NUMBER else _shares(labels.values)
        found = scores if labels.kind == NUMBER else softmax(scores)
        return "R²", float(r2_score(truth, found, multioutput="variance_weighted"))
    values = []
    for truth, column in zip(labels.values.T, scores.T, strict=True):
        known = np.isfinite(truth)
        if 0 < truth[known].sum() < known.sum():
            values.append(roc_auc_score(truth[known] > 0, column[known]))
    return "AUC", float(np.mean(values)) if values else np.nan


def softmax(scores: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    """Return logits as shares that add up to 1."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def candidates(method: str, *, balance: bool = True) -> list[Model]:
    """Return the models that ``linear``, ``kernel`` or ``auto`` (both) stand for, the usual one first.

    >>> [str(model) for model in candidates("auto")][:2]
    ['Gaussian process', 'linear, C = 0.02']
    """
    usual = Model(balance=balance)
    linear = [usual, *(replace(usual, strength=value) for value in STRENGTHS if value != _USUAL)]
    kernel = [replace(usual, method=KERNEL)]
    return linear if method == LINEAR else kernel if method == KERNEL else [*kernel, *linear]


def chosen_model(
    models: list[Model],
    features: Float32[np.ndarray, "m d"],
    labels: OwnLabels,
    *,
    distance: float,
    seed: int = 0,
    others: Float32[np.ndarray, "u d"] | None = None,
) -> tuple[Strength, Float64[np.ndarray, "_ c"], list[Strength]]:
    """Return the best of some models by cross-validation, its scores out of fold, and the strengths of all.

    ``others`` are galaxies without a label, whose scores follow those of the labelled ones: see :func:`out_of_fold`.

    The first model is the usual one. Another is taken only if it is better by more than 0.01, and if the rarest class
    has at least 30 galaxies: with fewer, cross-validation cannot tell models apart. With more than 4,000 labels the
    Gaussian process is left out if there is a linear model.
    """
    if len(labels) > _MOST_KERNEL:
        models = [model for model in models if model.method == LINEAR] or models
    counts = np.unique(labels.strata, return_counts=True)[1]
    if labels.kind in (BINARY, CLASSES) and counts.min() < _TELLING:
        models = models[:1]
    strengths, scores = [], []
    for model in models:
        scores.append(out_of_fold(model, features, labels, distance=distance, seed=seed, others=others))
        strengths.append(Strength(model, *measured(scores[-1][: len(labels)], labels)))
    values = np.array([strength.value for strength in strengths])
    best = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
    best = best if values[best] > values[0] + _BETTER else 0
    return strengths[best], scores[best], strengths
