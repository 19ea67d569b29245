"""How good a representation is before anything is clustered: how many directions it uses, what is like what in it.

Shape letters: n galaxies, d features, q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.errors import ConfigError, DataError, StoreError

METRICS = ("cosine", "euclidean")
_LEVEL, _DRAWS = 0.95, 2000
# Similarities held at once, in a block of queries × all galaxies: 64 MB as float32.
_BLOCK = 2**24
# Neighbours over which the growth of distances is measured for a local dimension.
_GROWTH = 15


class Interval(NamedTuple):
    """A value and the ends of its interval, NaN where it has none."""

    value: float
    low: float
    high: float

    def text(self, digits: str) -> str:
        """``value (low–high)``; the value alone without ends, a dash without a value."""
        if not np.isfinite(self.value):
            return "–"
        value, low, high = (format(number, digits) for number in self)
        return f"{value} ({low}–{high})" if np.isfinite(self.low) else value


@dataclass(frozen=True)
class Spectrum:
    """How the variance of embeddings is spread over their principal components.

    Attributes:
        ratios: (d,) share of the variance along each component, the largest first; they add up to 1.
    """

    ratios: Float64[np.ndarray, " d"]

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the ratios, 1–d (Roy & Vetterli 2007, EUSIPCO, of the covariance matrix)."""
        some = self.ratios[self.ratios > 0]
        return float(np.exp(-np.sum(some * np.log(some))))

    @property
    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ² of the variances λ, 1–d: as many equal ones would be spread alike."""
        return float(1 / np.sum(self.ratios**2))

    def components(self, share: float) -> int:
        """How many components it takes to hold a share (0–1) of the variance."""
        return min(int(np.searchsorted(np.cumsum(self.ratios), share - 1e-12)) + 1, len(self.ratios))


def spectrum(embeddings: Float[np.ndarray, "n d"]) -> Spectrum:
    """Explained variance ratios of embeddings.

    Raises:
        StoreError: fewer than two embeddings, embeddings that are not finite, or all equal.
    """
    _refuse_unusable(embeddings)
    covariance = np.cov(embeddings, rowvar=False, dtype=np.float64)
    variances = np.maximum(np.linalg.eigvalsh(np.atleast_2d(covariance))[::-1], 0)
    return Spectrum(variances / variances.sum())


def _refuse_unusable(embeddings: Float[np.ndarray, "n d"]) -> None:
    """Raise StoreError for embeddings without any spread."""
    if len(embeddings) < 2:
        raise StoreError("too few embeddings", value=len(embeddings), fix="Give two galaxies at least.")
    if not np.isfinite(embeddings).all():
        raise StoreError("embeddings that are not finite", value=embeddings.shape, fix="Embed those galaxies again.")
    if (embeddings == embeddings[0]).all():
        raise StoreError(
            f"all {len(embeddings)} embeddings are equal", value=np.array2string(embeddings[0, :3], separator=", "),
            fix="Check the images and the checkpoint: it sees no difference between them.",
        )  # fmt: skip


def whitened(embeddings: Float[np.ndarray, "n d"], *, components: int) -> Float32[np.ndarray, "n components"]:
    """The first principal components at unit variance, as ``compress.whiten`` gives them to a search.

    Raises:
        StoreError: embeddings that are not finite, or all equal.
        ConfigError: fewer than one component, or than two embeddings.
    """
    if components < 1:
        raise ConfigError("too few components to whiten", value=components, fix="Choose 1 or more.")
    _refuse_unusable(embeddings)
    values = np.ascontiguousarray(embeddings, dtype=np.float32)
    return projected(values, *principal_axes(values, components=components))


def local_dimension(embeddings: Float32[np.ndarray, "n d"]) -> float:
    """Return in how many directions galaxies differ from their nearest neighbours: the median over the galaxies.

    It is measured by how fast the distances to the 15 nearest neighbours grow (Levina & Bickel 2005). Galaxies whose
    nearest neighbour is an exact copy are left out; the result is 0 if none is left.
    """
    nearest = embeddings[NeighbourIndex(embeddings).graph(_GROWTH)]
    distances = np.linalg.norm(nearest - embeddings[:, None], axis=2).astype(np.float64)
    apart = distances[distances[:, 0] > 0]
    if apart.shape[1] < 2 or not len(apart):
        return 0.0
    growth = np.median(np.log(apart[:, -1:] / apart[:, :-1]).mean(axis=1))
    return float(1 / growth) if growth > 0 else np.inf


@dataclass(frozen=True)
class Ranking:
    """How well "most like this one" finds a kind of galaxy: each of them is asked for in turn.

    Attributes:
        queries: (q,) rows of the galaxies asked for, all of the kind.
        precisions: (q,) average precision of each query's ranking of all other galaxies, 0–1.
        galaxies: n, ranked or asked for.
        positives: how many are of the kind.
    """

    queries: Int64[np.ndarray, " q"]
    precisions: Float64[np.ndarray, " q"]
    galaxies: int
    positives: int

    @property
    def mean(self) -> Interval:
        """Mean average precision, with the bootstrap's 95 % interval over queries.

        The interval says how much the mean depends on which galaxies were asked for, among galaxies that stay.
        """
        return _bootstrapped(self.precisions)

    @property
    def prevalence(self) -> float:
        """Share of the galaxies ranked for a query that are of its kind."""
        return (self.positives - 1) / (self.galaxies - 1)

    @property
    def chance(self) -> float:
        """Average precision expected of a random ranking: the prevalence, and a little more where positives are few.

        Exact (Bestgen 2015, Prague Bulletin of Mathematical Linguistics 103).
        """
        ranked, others = self.galaxies - 1, self.positives - 2
        harmonic = float(np.sum(1 / np.arange(1, ranked + 1)))
        return (harmonic + (ranked - harmonic) * others / max(ranked - 1, 1)) / ranked

    def ratio(self, baseline: "Ranking") -> Interval:
        """Mean average precision over a baseline's, with the bootstrap's 95 % interval over queries, drawn in pairs.

        Raises:
            ConfigError: the baseline was asked for other galaxies.
        """
        if not np.array_equal(self.queries, baseline.queries):
            raise ConfigError(
                "rankings of different queries", value=(len(self.queries), len(baseline.queries)),
                fix="Ask both for the same galaxies.",
            )  # fmt: skip
        return _bootstrapped(self.precisions, baseline.precisions)


def _bootstrapped(*samples: Float64[np.ndarray, " q"]) -> Interval:
    """Mean of one sample, or ratio of the means of two that are paired."""
    from scipy.stats import bootstrap

    def statistic(*drawn: np.ndarray, axis: int) -> np.ndarray:
        means = [one.mean(axis=axis) for one in drawn]
        return np.asarray(means[0] / means[1] if len(means) > 1 else means[0])

    value = float(statistic(*samples, axis=-1))
    if len(samples[0]) < 2:
        return Interval(value, float("nan"), float("nan"))
    drawn = bootstrap(
        samples, statistic, paired=True, vectorized=True, n_resamples=_DRAWS, confidence_level=_LEVEL,
        method="percentile", batch=max(1, _BLOCK // len(samples[0])), rng=np.random.default_rng(0),
    )  # fmt: skip
    return Interval(value, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))


def average_precisions(
    features: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"] | Sequence[bool],
    *,
    metric: str = "cosine",
    queries: int = 0,
    seed: int = 0,
) -> Ranking:
    """Each positive galaxy asks for its like: all others are ranked by their distance from it.

    Exact; equally distant galaxies share a rank, as in scikit-learn's ``average_precision_score``. Memory is bounded
    by a block of queries × galaxies.

    Args:
        features: one row per galaxy.
        positive: which galaxies are of the kind.
        metric: ``cosine`` of features about their mean, or ``euclidean`` on features of unit variance.
        queries: at most so many, drawn at random; 0 = every positive galaxy.
        seed: of that draw.

    Raises:
        ConfigError: unknown metric, or a mask of another length.
        DataError: features that are not finite; fewer than two galaxies are positive, or all are.
    """
    positive = np.asarray(positive, dtype=bool)
    _refuse_unjudgeable(features, positive)
    space = _space(features, metric=metric)
    asked = members = np.flatnonzero(positive)
    if 0 < queries < len(members):
        asked = np.sort(np.random.default_rng(seed).choice(members, queries, replace=False))
    step = max(1, _BLOCK // len(features))
    blocks = [_block_precisions(space, asked[start : start + step], members) for start in range(0, len(asked), step)]
    return Ranking(asked, np.concatenate(blocks), len(features), len(members))


def _refuse_unjudgeable(features: np.ndarray, positive: np.ndarray) -> None:
    galaxies = len(features)
    if not np.isfinite(features).all():
        raise DataError("features that are not finite", value=features.shape, fix="Leave those galaxies out.")
    if positive.shape != (galaxies,):
        raise ConfigError("a mask of another length", value=(positive.shape, galaxies), fix="One entry per galaxy.")
    if not 2 <= positive.sum() < galaxies:
        raise DataError(
            "nothing to rank", value=f"{positive.sum()} of {galaxies} galaxies are positive",
            fix="At least two must be, and one must not: lower or raise the threshold, or judge more galaxies.",
        )  # fmt: skip


class _Space(NamedTuple):
    """Vectors whose inner products, asking · answering, rank galaxies as a metric does."""

    asking: Float[np.ndarray, "n d"]
    answering: Float[np.ndarray, "n d"]


def _space(features: np.ndarray, *, metric: str) -> _Space:
    if metric not in METRICS:
        raise ConfigError("unknown metric", value=metric, fix=f"Choose {' or '.join(METRICS)}.")
    kind = np.result_type(features.dtype, np.float32)
    centred = features - features.mean(axis=0, dtype=np.float64).astype(kind)
    if metric == "cosine":
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        units = centred / np.where(norms > 0, norms, 1)
        return _Space(units, units)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 0, spread, 1)
    # |a − b|² = |a|² + |b|² − 2 a·b, and |a|² is the same for all that one query ranks.
    halves = np.square(scaled).sum(axis=1, keepdims=True) / 2
    return _Space(np.hstack([scaled, np.ones_like(halves)]), np.hstack([scaled, -halves]))


def _block_precisions(
    space: _Space, asked: Int64[np.ndarray, " q"], members: Int64[np.ndarray, " p"]
) -> Float64[np.ndarray, " q"]:
    similar = space.asking[asked] @ space.answering.T
    similar[np.arange(len(asked)), asked] = -np.inf  # nobody finds itself
    return np.array([_precision(one, one[members]) for one in similar])


def _precision(similar: Float[np.ndarray, " n"], found: Float[np.ndarray, " p"]) -> float:
    """Mean, over the positives but the query itself, of the share of positives among all that rank no lower."""
    found = np.sort(found[np.isfinite(found)])
    better = len(found) - np.searchsorted(found, found)
    ranked = len(similar) - np.searchsorted(np.sort(similar), found)
    return float(np.mean(better / ranked))
