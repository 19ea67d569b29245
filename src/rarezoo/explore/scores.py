"""How alike galaxies are to some examples: by the cosine about the mean embedding, or by a probe that learns from them.

The cosine needs one example. A probe is a logistic regression on the standardised embedding. It tells the examples from
counter-examples and from galaxies drawn at random, weighs the directions of the embedding by what it learns, and finds
more of a rare kind than the cosine where there are several examples.

Shape letters: n galaxies of the index, d width of the embedding, e examples, a counter-examples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError

AUTO, COSINE, PROBE = WAYS = ("auto", "cosine", "probe")
# Examples from which on a probe finds more than their mean direction.
ENOUGH = 3
# Galaxies drawn at random that stand for all others, and the regularisation (C of scikit-learn).
BACKGROUND, STRENGTH = 1000, 0.3
# Share of counter-examples in the weight of everything that is no example. Counter-examples are often near misses, and
# with a larger weight they turn the probe away from the examples too.
AGAINST = 0.05


class Scores(NamedTuple):
    """How alike each of n galaxies is to the examples.

    Attributes
    ----------
    values : (n,) array of floats
        Higher is more alike; NaN where an embedding is not finite.
    way : str
        How they were computed, in words.
    """

    values: Float[np.ndarray, " n"]
    way: str


class Direction(NamedTuple):
    """What galaxies are compared with: a direction from the mean of the survey.

    Attributes
    ----------
    weights : (d,) array of floats
        A unit vector, or the coefficients of a probe.
    intercept : float or None
        Of the probe; None: the score is the cosine with the unit vector.
    way : str
        How scores are computed, in words.
    """

    weights: Float[np.ndarray, " d"]
    intercept: float | None
    way: str

    def scores(self, index: NeighbourIndex) -> Scores:
        """Return the score of every galaxy of an index of the cosine."""
        from scipy.special import expit

        values, lengths = index.project(self.weights), index.centred.lengths
        if self.intercept is not None:
            # In single precision the best galaxies would all have the probability 1.
            return Scores(expit((values + np.float32(self.intercept)).astype(np.float64)), self.way)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = values / lengths
        values[lengths == 0] = 0
        return Scores(values, self.way)


def scores_of(
    index: NeighbourIndex,
    examples: Float[np.ndarray, "e d"],
    against: Float[np.ndarray, "a d"] | None = None,
    *,
    by: str = AUTO,
    rows: Int[np.ndarray, " r"] | None = None,
    seed: int = 0,
) -> Scores:
    """Return how alike every galaxy of an index is to some examples.

    Parameters
    ----------
    index : NeighbourIndex
        Index of the cosine.
    examples : (e, d) array of floats
        Embeddings of the examples, about the mean of the index.
    against : (a, d) array of floats, optional
        Embeddings of counter-examples, about the same mean.
    by : {"auto", "cosine", "probe"}
        ``auto``: a probe for three or more examples, or if there are counter-examples; else the cosine.
    rows : (r,) array of integers, optional
        Rows of the index that are examples or counter-examples, and are not drawn as other galaxies.
    seed : int
        Seed with which the galaxies are drawn that stand for all others.

    Raises
    ------
    ConfigError
        The cosine is asked for and there are counter-examples, or an example has no direction.

    Examples
    --------
    >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]], dtype=np.float32)
    >>> index = NeighbourIndex(vectors, metric="cosine", exact=True)
    >>> [round(float(value), 2) for value in scores_of(index, vectors[:1] - index.centred.mean).values]
    [1.0, 0.99, -0.89, -0.54]
    """
    against = np.empty((0, examples.shape[1])) if against is None else against
    if not is_probe(by, len(examples), len(against)):
        return cosine(index, examples)
    drawn = background_rows(index.finite, rows, seed=seed)
    background = index.centred.directions[drawn] * index.centred.lengths[drawn, None]
    return probe_direction(examples, against, background, spread=index.centred.spread).scores(index)


def is_probe(by: str, examples: int, against: int) -> bool:
    """Return whether a probe compares, and not the cosine, with so many examples and counter-examples.

    Raises
    ------
    ConfigError
        The cosine is asked for and there are counter-examples.
    """
    if by == COSINE and against:
        raise ConfigError(
            "counter-examples need a probe", value=f"by={by}", fix="Choose by=probe or by=auto, or leave against= out."
        )
    return by == PROBE or (by == AUTO and (against > 0 or examples >= ENOUGH))


def cosine(index: NeighbourIndex, examples: Float[np.ndarray, "e d"]) -> Scores:
    """Return the cosine of every galaxy with the mean direction of the examples; see :func:`scores_of`."""
    return cosine_direction(examples).scores(index)


def cosine_direction(examples: Float[np.ndarray, "e d"]) -> Direction:
    """Return the mean direction of the examples; see :func:`scores_of`."""
    lengths = np.linalg.norm(examples, axis=1, keepdims=True)
    direction = (examples / np.where(lengths > 0, lengths, 1)).mean(axis=0)
    length = np.linalg.norm(direction)
    if not length:
        raise ConfigError(
            "the examples have no common direction", value=f"{len(examples)} examples",
            fix="Choose other examples: the embedding of these is the mean of the survey.",
        )  # fmt: skip
    several = "" if len(examples) == 1 else f"the mean direction of {len(examples)} examples"
    way = f"cosine with {several or 'the example'}, about the mean of the survey"
    return Direction(direction / length, None, way)


def background_rows(
    finite: Bool[np.ndarray, " n"], asked: Int[np.ndarray, " r"] | None, *, seed: int
) -> Int[np.ndarray, " b"]:
    """Draw the galaxies that stand for all others, none of which is asked for."""
    others = finite.copy()
    others[np.empty(0, dtype=int) if asked is None else asked] = False
    drawn = np.random.default_rng(seed).choice(np.flatnonzero(others), min(BACKGROUND, others.sum()), replace=False)
    return np.asarray(drawn)


def probe_direction(
    examples: Float[np.ndarray, "e d"],
    against: Float[np.ndarray, "a d"],
    background: Float[np.ndarray, "b d"],
    *,
    spread: Float[np.ndarray, " d"],
) -> Direction:
    """Return the coefficients of a probe, which gives every galaxy a probability; see :func:`scores_of`.

    Examples have half of the weight. Of the other half, counter-examples have the share :data:`AGAINST`, and
    :data:`BACKGROUND` galaxies drawn at random have the rest.
    """
    from sklearn.linear_model import LogisticRegression

    groups = [examples, against, background]
    others_share = 1 - AGAINST if len(against) and len(background) else float(not len(against))
    shares = [1.0, 1 - others_share, others_share]
    weights = [
        np.full(len(group), len(examples) * share / max(len(group), 1))
        for group, share in zip(groups, shares, strict=True)
    ]
    is_example = np.repeat([1, 0, 0], [len(group) for group in groups])
    regression = LogisticRegression(C=STRENGTH, max_iter=1000)
    regression.fit(
        np.concatenate(groups).astype(np.float64) / spread, is_example, sample_weight=np.concatenate(weights)
    )
    counter = f", {_counted(len(against), 'counter-example')}" if len(against) else ""
    return Direction(
        regression.coef_[0] / spread, float(regression.intercept_[0]),
        f"probe: balanced logistic regression on the standardised embedding, {_counted(len(examples), 'example')}"
        f"{counter}, {len(background):,} galaxies drawn at random",
    )  # fmt: skip


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
