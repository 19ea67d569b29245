"""Measures of an embedding that use known answers: what one example, a handful of labels and many labels can find.

* :func:`like_this`: all galaxies are ranked by their similarity to one galaxy of the kind.
* :func:`few_labels`: a classifier learns from a handful of galaxies and ranks the rest.
* :func:`probe`: a classifier learns from four fifths of the galaxies and ranks the last fifth.
* :func:`retrieval`: the vote fractions of the ten galaxies that are most similar to one or to several examples.

Each returns a :class:`Sample` of values for the same queries, draws or resamples whatever the embedding, so that two
embeddings of the same galaxies are compared in pairs. The classifier is always logistic regression on features of unit
variance, with the same strength of regularisation.

Shape letters: n galaxies, d features, q queries, r draws or resamples, s seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from rarezoo.embeddings.quality import METRICS, average_precisions, ranking_vectors
from rarezoo.errors import ConfigError, DataError
from rarezoo.statistics import Interval, bootstrap_interval, students_interval

# A kind of galaxy with fewer members is not measured: five folds need a member each.
FEWEST = 5
FOLDS = 5
# Inverse strength of the regularisation (the C of scikit-learn). Of 1, 0.3, 0.1, 0.05, 0.02 and 0.01, values between
# 0.1 and 0.02 give the best few-label and the best probe results on frozen and on trained embeddings of 128 dimensions.
STRENGTH = 0.05
# What the values of a sample differ in.
QUERIES, DRAWS, GALAXIES = "queries", "draws", "galaxies"
FEW_LABEL_SCORES = ("AUC", "average precision", "balanced accuracy")
_RESAMPLES = 1000
# Numbers that a block of resamples may hold.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Sample:
    """A measured value, and the values from which its interval and its difference from another one are made.

    Attributes
    ----------
    value : float
        The value.
    values : (r,) float64
        Its values for single queries or single draws of labels, whose mean it is; or its values for resamples of the
        galaxies.
    over : str
        What the interval describes: ``queries``, ``draws`` or ``galaxies``.
    chance : float
        Value expected of a ranking at random.

    Examples
    --------
    >>> first = Sample(2.0, np.array([1.0, 2.0, 3.0]), over="draws", chance=0.5)
    >>> second = Sample(1.5, np.array([0.5, 1.5, 2.5]), over="draws", chance=0.5)
    >>> first.minus(second).value
    0.5
    """

    value: float
    values: Float64[np.ndarray, " r"]
    over: str
    chance: float

    @property
    def interval(self) -> Interval:
        """The value with its 95 % interval."""
        return _interval(self.value, self.values, over=self.over)

    def minus(self, other: "Sample") -> Interval:
        """Return the difference from a sample for the same queries, draws or resamples, with its paired interval.

        Raises
        ------
        ConfigError
            The other sample is one of something else.
        """
        if self.over != other.over or len(self.values) != len(other.values):
            raise ConfigError(
                "measures of different galaxies cannot be compared", value=(len(self.values), len(other.values)),
                fix="Measure both with the same answer and settings.",
            )  # fmt: skip
        return _interval(self.value - other.value, self.values - other.values, over=self.over)


def _interval(value: float, values: np.ndarray, *, over: str) -> Interval:
    if over == QUERIES:
        return bootstrap_interval(values)
    if over == DRAWS:
        return students_interval(values)
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def standardised(features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Return features of mean 0 and variance 1; those that are constant become 0.

    Raises
    ------
    DataError
        A feature is not finite.
    """
    values = np.asarray(features, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise DataError("features that are not finite", value=f"{bad} of {len(values)} galaxies", fix="Leave them out.")
    spread = values.std(axis=0)
    # Rounding gives a constant column a spread that is not exactly 0.
    constant = spread <= 1e-12 * np.abs(values).max(axis=0, initial=0)
    return (values - values.mean(axis=0)) / np.where(constant, np.inf, spread)


def refuse_too_few(positive: Bool[np.ndarray, " n"], *, name: str = "the answer", fewest: int = FEWEST) -> None:
    """Raise DataError if a kind has fewer than five members, or leaves fewer than five other galaxies."""
    members, galaxies = int(np.sum(positive)), len(positive)
    if min(members, galaxies - members) < fewest:
        raise DataError(
            f"{name} cannot be measured", value=f"{members} of {galaxies} galaxies are positive",
            fix=f"At least {fewest} must be, and {fewest} must not: change the threshold, or use more galaxies.",
        )  # fmt: skip


def like_this(
    features: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"], *, metrics: Sequence[str] = METRICS[:1]
) -> Sample:
    """Rank all galaxies by their similarity to one galaxy of the kind; return the mean average precision.

    Each galaxy of the kind is the query once, and is left out of its own ranking.

    Parameters
    ----------
    features : (n, d) array
    positive : (n,) booleans
        Whether each galaxy is of the kind.
    metrics : sequence of str
        ``cosine`` (about the mean of all galaxies) or ``euclidean``. Of several, the one with the best result counts.

    Raises
    ------
    DataError
        Features are not finite, or there are too few galaxies of the kind or of others.

    Examples
    --------
    >>> features = np.repeat(np.eye(2), 6, axis=0)
    >>> like_this(features, features[:, 0] > 0).value
    1.0
    """
    refuse_too_few(positive)
    rankings = [average_precisions(features, positive, metric=metric) for metric in metrics]
    best = max(rankings, key=lambda ranking: float(ranking.precisions.mean()))
    return Sample(float(best.precisions.mean()), best.precisions, QUERIES, best.chance)


def few_labels(
    features: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"],
    *,
    labels: int,
    others: int,
    draws: int = 15,
    strength: float = STRENGTH,
) -> dict[str, Sample]:
    """Train a classifier on a handful of galaxies of the kind and some others; measure how it ranks all the rest.

    Parameters
    ----------
    features : (n, d) array
        They are brought to unit variance, over all galaxies.
    positive : (n,) booleans
        Whether each galaxy is of the kind.
    labels, others : int
        Number of galaxies of the kind, and of others, that the classifier learns from.
    draws : int
        Number of times that these are drawn. The draws depend only on ``positive`` and on the numbers.
    strength : float
        Inverse strength of the regularisation.

    Returns
    -------
    dict
        By name: ``AUC`` (area under the receiver operating characteristic), ``average precision``, and
        ``balanced accuracy`` (of a classifier that gives both kinds the same weight).

    Raises
    ------
    DataError
        After a draw, fewer than five galaxies of the kind, or of others, are left to measure by.

    Examples
    --------
    >>> features = np.repeat(np.eye(2), 20, axis=0)
    >>> few_labels(features, features[:, 0] > 0, labels=2, others=10, draws=3)["AUC"].value
    1.0
    """
    members, rest = np.flatnonzero(positive), np.flatnonzero(~np.asarray(positive, dtype=bool))
    if len(members) < labels + FEWEST or len(rest) < others + FEWEST:
        raise DataError(
            f"too few galaxies to learn from {labels} of the kind and {others} others",
            value=f"{len(members)} of {len(positive)} galaxies are positive",
            fix=f"{labels + FEWEST} of the kind and {others + FEWEST} others are needed: use fewer labels.",
        )  # fmt: skip
    values, scores = standardised(features), np.empty((draws, len(FEW_LABEL_SCORES)))
    plain = LogisticRegression(C=strength, max_iter=2000)
    even = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
    for draw in range(draws):
        random = np.random.default_rng([draw, labels, others])
        drawn = [random.choice(kind, size, replace=False) for kind, size in ((members, labels), (rest, others))]
        learnt = np.concatenate(drawn)
        asked = np.delete(np.arange(len(positive)), learnt)
        known, truth = positive[learnt], positive[asked]
        ranked = plain.fit(values[learnt], known).decision_function(values[asked])
        said = even.fit(values[learnt], known).predict(values[asked])
        scores[draw] = (
            roc_auc_score(truth, ranked), average_precision_score(truth, ranked), balanced_accuracy_score(truth, said)
        )  # fmt: skip
    prevalence = (len(members) - labels) / (len(positive) - labels - others)
    chances = (0.5, prevalence, 0.5)
    return {
        name: Sample(float(column.mean()), column, DRAWS, chance)
        for name, column, chance in zip(FEW_LABEL_SCORES, scores.T, chances, strict=True)
    }


def probe(
    features: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"],
    *,
    seeds: int = 3,
    strength: float = STRENGTH,
    resamples: int = _RESAMPLES,
) -> Sample:
    """Classify each galaxy by a classifier that has learnt from the other folds; return the average precision.

    The galaxies are divided into five folds with the same share of the kind, at random, once for each seed. All
    galaxies are ranked together. The interval is a bootstrap of the galaxies that are ranked, of the kind and of others
    separately; it does not contain that the classifier would differ if it had learnt from other galaxies.

    Parameters
    ----------
    features : (n, d) array
        They are brought to unit variance, over all galaxies.
    positive : (n,) booleans
        Whether each galaxy is of the kind.
    seeds : int
        Number of divisions into folds. The value is the mean over them.
    strength : float
        Inverse strength of the regularisation.
    resamples : int
        Number of resamples of the bootstrap.

    Raises
    ------
    DataError
        Features are not finite, or there are fewer than five galaxies of the kind or of others.

    Examples
    --------
    >>> features = np.repeat(np.eye(2), 6, axis=0)
    >>> probe(features, features[:, 0] > 0).value
    1.0
    """
    refuse_too_few(positive)
    values, positive = standardised(features), np.asarray(positive, dtype=bool)
    model = LogisticRegression(C=strength, max_iter=2000)
    scores = np.empty((seeds, len(positive)))
    for seed in range(seeds):
        for learnt, asked in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(values, positive):
            scores[seed, asked] = model.fit(values[learnt], positive[learnt]).decision_function(values[asked])
    value = float(np.mean([average_precision_score(positive, line) for line in scores]))
    resampled = np.mean([resampled_precisions(line, positive, resamples=resamples) for line in scores], axis=0)
    # A galaxy that is drawn twice ranks just above itself, which raises every resample a little: this is taken back.
    return Sample(value, resampled - resampled.mean() + value, GALAXIES, float(positive.mean()))


def resampled_precisions(
    scores: Float64[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], *, resamples: int = _RESAMPLES, seed: int = 0
) -> Float64[np.ndarray, " r"]:
    """Return the average precision of a ranking in resamples of the positive and of the other galaxies.

    The resamples depend on ``positive`` and ``seed`` alone. It is scikit-learn's average precision with weights, for
    all resamples at once.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, truth = -scores[order], positive[order]
    # Galaxies with equal scores are ranked together: precision is taken at the last of them.
    last = np.searchsorted(ranked, ranked, side="right") - 1
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    random, precisions = np.random.default_rng(seed), []
    kinds = [place[np.flatnonzero(positive)], place[np.flatnonzero(~positive)]]
    step = max(1, _BLOCK // len(scores))
    for start in range(0, resamples, step):
        counts = np.zeros((min(step, resamples - start), len(scores)))
        for line in counts:
            for rows in kinds:
                line += np.bincount(random.choice(rows, len(rows)), minlength=len(scores))
        found, all_ranked = np.cumsum(counts * truth, axis=1)[:, last], np.cumsum(counts, axis=1)[:, last]
        precision = np.divide(found, all_ranked, out=np.zeros_like(found), where=all_ranked > 0)
        precisions.append((counts * truth * precision).sum(axis=1) / truth.sum())
    return np.concatenate(precisions)


def retrieval(
    features: Float[np.ndarray, "n d"],
    fraction: Float[np.ndarray, " n"],
    *,
    examples: int = 1,
    queries: int = 50,
    k: int = 10,
    metrics: Sequence[str] = METRICS[:1],
) -> Sample:
    """Return the nDCG@10 of a search with one or several examples, with vote fractions as relevance.

    The protocol is that of AION-Search (Koblischke et al. 2025): the galaxies with the highest vote fraction are the
    queries, the query is left out of its own ranking, and the gain of a galaxy is its vote fraction. With several
    examples, each query gets further ones, drawn from the other queries, and the mean of their directions is searched
    for; all of them are left out.

    Parameters
    ----------
    features : (n, d) array
    fraction : (n,) array
        Vote fraction of each galaxy, 0 to 1.
    examples : int
        Number of examples of a search.
    queries : int
        Number of searches. If many galaxies share a fraction, the first of a random order of them are taken.
    k : int
        Number of galaxies that a search returns.
    metrics : sequence of str
        See :func:`like_this`.

    Raises
    ------
    DataError
        Features are not finite, or fewer galaxies than ``examples`` have a fraction above 0.

    Examples
    --------
    >>> features = np.repeat(np.eye(2), 20, axis=0)
    >>> retrieval(features, features[:, 0], queries=5).value
    1.0
    """
    standardised(features)
    sets = example_sets(fraction, examples=examples, queries=queries, k=k)
    gains = {metric: _gains(features, fraction, sets, k=k, metric=metric) for metric in metrics}
    values = max(gains.values(), key=lambda found: float(found.mean()))
    return Sample(float(values.mean()), values, QUERIES, float(_chances(fraction, sets, k=k).mean()))


def example_sets(
    fraction: Float[np.ndarray, " n"], *, examples: int, queries: int = 50, k: int = 10
) -> Int64[np.ndarray, "q e"]:
    """Return the rows of the examples of each search of :func:`retrieval`, which has the arguments and errors."""
    random, galaxies = np.random.default_rng([examples, queries]), len(fraction)
    shuffled = np.random.default_rng(queries).permutation(galaxies)
    best = shuffled[np.argsort(-fraction[shuffled], kind="stable")][:queries]
    best = best[fraction[best] > 0]
    if len(best) < max(examples, FEWEST) or galaxies <= examples + k:
        raise DataError(
            f"too few galaxies for searches with {examples} examples", value=f"{len(best)} of {galaxies} have votes",
            fix=f"At least {max(examples, FEWEST)} are needed.",
        )  # fmt: skip
    return np.array([
        [query, *random.choice(np.delete(best, place), examples - 1, replace=False)] for place, query in enumerate(best)
    ])  # fmt: skip


def gains_of(
    scores: Float[np.ndarray, "q n"], fraction: Float[np.ndarray, " n"], sets: Int64[np.ndarray, "q e"], *, k: int = 10
) -> Float64[np.ndarray, " q"]:
    """Return the nDCG@k of searches whose scores are known; their examples are left out.

    >>> gains_of(np.array([[1.0, 0.9, 0.1]]), np.array([1.0, 0.8, 0.0]), np.array([[0]]), k=2)
    array([1.])
    """
    similar = np.array(scores, dtype=np.float64)
    similar[np.arange(len(sets))[:, None], sets] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return np.asarray((fraction[nearest] @ _discounts(k)) / _ideal(fraction, sets, k=k))


def _gains(
    features: Float[np.ndarray, "n d"], fraction: np.ndarray, sets: Int64[np.ndarray, "q e"], *, k: int, metric: str
) -> Float64[np.ndarray, " q"]:
    """Return the nDCG@k of each set of examples."""
    asking, answering = ranking_vectors(np.asarray(features), metric=metric)
    return gains_of(asking[sets].mean(axis=1) @ answering.T, fraction, sets, k=k)


def _chances(fraction: np.ndarray, sets: Int64[np.ndarray, "q e"], *, k: int) -> Float64[np.ndarray, " q"]:
    """Return the nDCG@k that is expected of a random ranking, for each set of examples."""
    left = (fraction.sum() - fraction[sets].sum(axis=1)) / (len(fraction) - sets.shape[1])
    return left * _discounts(k).sum() / _ideal(fraction, sets, k=k)


def _ideal(fraction: np.ndarray, sets: Int64[np.ndarray, "q e"], *, k: int) -> Float64[np.ndarray, " q"]:
    """Return the discounted gain of the best ranking, for each set of examples."""
    gains = np.repeat(np.asarray(fraction, dtype=np.float64)[None], len(sets), axis=0)
    gains[np.arange(len(sets))[:, None], sets] = -np.inf
    return -np.sort(-gains, axis=1)[:, :k] @ _discounts(k)


def _discounts(k: int) -> Float64[np.ndarray, " k"]:
    return np.asarray(1 / np.log2(np.arange(2, k + 2)))
