"""Measures of an embedding that need no clustering: how many directions it uses, what it ranks as similar.

* :func:`spectrum` and :func:`local_dimension` say how many directions the galaxies vary in.
* :func:`average_precisions` says how well a search for similar galaxies finds a kind of galaxy.
* :func:`embedding_similarity` compares two embeddings of the same galaxies.

Shape letters: n galaxies, d and e widths of embeddings, q queries, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.whitening import principal_axes, projected
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.statistics import Interval, bootstrap_interval

METRICS = ("cosine", "euclidean")
# Similarities that are in memory at once, as a block of queries × all galaxies: 64 MB as float32.
SIMILARITIES = 2**24
# Neighbours over which the growth of distances is measured for a local dimension.
_GROWTH = 15


# --- directions


@dataclass(frozen=True)
class Spectrum:
    """How the variance of embeddings is divided among their principal components.

    Attributes
    ----------
    ratios : (d,) float64
        Share of the variance along each component, the largest first. They add up to 1.

    Examples
    --------
    >>> Spectrum(np.array([0.5, 0.5])).effective_rank
    2.0
    """

    ratios: Float64[np.ndarray, " d"]

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the ratios, 1 to d (Roy & Vetterli 2007, EUSIPCO, of the covariance matrix)."""
        positive = self.ratios[self.ratios > 0]
        return float(np.exp(-np.sum(positive * np.log(positive))))

    @property
    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ² of the variances λ, 1 to d: the number of equal variances with the same spread."""
        return float(1 / np.sum(self.ratios**2))

    def components(self, share: float) -> int:
        """Return the smallest number of components that hold a share (0 to 1) of the variance."""
        return min(int(np.searchsorted(np.cumsum(self.ratios), share - 1e-12)) + 1, len(self.ratios))


def spectrum(embeddings: Float[np.ndarray, "n d"]) -> Spectrum:
    """Return the explained variance ratios of embeddings.

    Raises
    ------
    StoreError
        There are fewer than two embeddings, they are not finite, or all are equal.
    """
    _refuse_unusable(embeddings)
    covariance = np.cov(embeddings, rowvar=False, dtype=np.float64)
    variances = np.maximum(np.linalg.eigvalsh(np.atleast_2d(covariance))[::-1], 0)
    return Spectrum(variances / variances.sum())


def whitened(embeddings: Float[np.ndarray, "n d"], *, components: int) -> Float32[np.ndarray, "n components"]:
    """Return the first principal components at unit variance, as a search with ``compress.whiten`` uses them.

    Raises
    ------
    StoreError
        There are fewer than two embeddings, they are not finite, or all are equal.
    ConfigError
        ``components`` is less than 1.
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


def _refuse_unusable(embeddings: Float[np.ndarray, "n d"]) -> None:
    """Raise StoreError for embeddings without any spread."""
    if len(embeddings) < 2:
        raise StoreError("too few embeddings", value=len(embeddings), fix="Give at least two galaxies.")
    if not np.isfinite(embeddings).all():
        raise StoreError("embeddings that are not finite", value=embeddings.shape, fix="Embed those galaxies again.")
    if (embeddings == embeddings[0]).all():
        raise StoreError(
            f"all {len(embeddings)} embeddings are equal", value=np.array2string(embeddings[0, :3], separator=", "),
            fix="Check the images and the checkpoint: it sees no difference between them.",
        )  # fmt: skip


# --- rankings


@dataclass(frozen=True)
class Ranking:
    """How well a search for similar galaxies finds a kind of galaxy: each galaxy of the kind is a query in turn.

    Attributes
    ----------
    queries : (q,) int64
        Rows of the queries, all of the kind.
    precisions : (q,) float64
        Average precision of each query's ranking of all other galaxies, 0 to 1.
    galaxies : int
        Number n of galaxies, queries and ranked.
    positives : int
        Number of galaxies of the kind.
    """

    queries: Int64[np.ndarray, " q"]
    precisions: Float64[np.ndarray, " q"]
    galaxies: int
    positives: int

    @property
    def mean(self) -> Interval:
        """Mean average precision, with its 95 % bootstrap interval over queries.

        The interval says how much the mean depends on the choice of queries, for the same galaxies.
        """
        return bootstrap_interval(self.precisions)

    @property
    def prevalence(self) -> float:
        """Share of the galaxies ranked for a query that are of its kind."""
        return (self.positives - 1) / (self.galaxies - 1)

    @property
    def chance(self) -> float:
        """Average precision expected of a random ranking: the prevalence, and a little more if positives are few.

        This is exact (Bestgen 2015, Prague Bulletin of Mathematical Linguistics 103).
        """
        ranked, others = self.galaxies - 1, self.positives - 2
        harmonic = float(np.sum(1 / np.arange(1, ranked + 1)))
        return (harmonic + (ranked - harmonic) * others / max(ranked - 1, 1)) / ranked


def average_precisions(
    features: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " _"] | Sequence[bool],
    *,
    metric: str = "cosine",
    queries: int = 0,
    seed: int = 0,
    similarities: int = SIMILARITIES,
) -> Ranking:
    """Rank all galaxies by their distance from each positive galaxy, and return the average precisions.

    The result is exact. Equally distant galaxies share a rank, as in scikit-learn's ``average_precision_score``. This
    ranks every galaxy for every query, which a nearest-neighbour index cannot do.

    Parameters
    ----------
    features : (n, d) array
    positive : (n,) booleans
        Whether each galaxy is of the kind.
    metric : {"cosine", "euclidean"}
        ``cosine`` of features about their mean, or ``euclidean`` on features of unit variance.
    queries : int
        Largest number of queries, drawn at random; 0 makes every positive galaxy a query.
    seed : int
        Seed of that draw.
    similarities : int
        Number of similarities that are in memory at once.

    Raises
    ------
    ConfigError
        The metric is unknown, or ``positive`` has another length.
    DataError
        Features are not finite; fewer than two galaxies are positive, or all are.

    Examples
    --------
    >>> features = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
    >>> average_precisions(features, [True, True, False, False]).mean.value
    1.0
    """
    positive, galaxies = np.asarray(positive, dtype=bool), len(features)
    if not np.isfinite(features).all():
        raise DataError("features that are not finite", value=features.shape, fix="Leave those galaxies out.")
    if positive.shape != (galaxies,):
        raise ConfigError("a mask of another length", value=(positive.shape, galaxies), fix="Give one per galaxy.")
    if not 2 <= positive.sum() < galaxies:
        raise DataError(
            "nothing to rank", value=f"{positive.sum()} of {galaxies} galaxies are positive",
            fix="At least two must be, and one must not: lower or raise the threshold, or use more galaxies.",
        )  # fmt: skip
    asking, answering = ranking_vectors(features, metric=metric)
    chosen = members = np.flatnonzero(positive)
    if 0 < queries < len(members):
        chosen = np.sort(np.random.default_rng(seed).choice(members, queries, replace=False))
    step, precisions = max(1, similarities // galaxies), []
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        similar = asking[rows] @ answering.T
        similar[np.arange(len(rows)), rows] = -np.inf  # A query does not find itself.
        for line in similar:
            # For each other positive: the share of positives among all that rank as high or higher.
            found = line[members]
            found = np.sort(found[np.isfinite(found)])
            better = len(found) - np.searchsorted(found, found)
            ranked = galaxies - np.searchsorted(np.sort(line), found)
            precisions.append(np.mean(better / ranked))
    return Ranking(chosen, np.array(precisions, dtype=np.float64), galaxies, len(members))


def ranking_vectors(
    features: Float[np.ndarray, "n d"], *, metric: str
) -> tuple[Float[np.ndarray, "n _"], Float[np.ndarray, "n _"]]:
    """Return vectors of queries and of ranked galaxies whose inner products rank galaxies as the metric does."""
    if metric not in METRICS:
        raise ConfigError("unknown metric", value=metric, fix=f"Choose {' or '.join(METRICS)}.")
    kind = np.result_type(features.dtype, np.float32)
    centred = features - features.mean(axis=0, dtype=np.float64).astype(kind)
    if metric == "cosine":
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        units = centred / np.where(norms > 0, norms, 1)
        return units, units
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 0, spread, 1)
    # |a − b|² = |a|² + |b|² − 2 a·b, and |a|² is the same for all galaxies that one query ranks.
    halves = np.square(scaled).sum(axis=1, keepdims=True) / 2
    return np.hstack([scaled, np.ones_like(halves)]), np.hstack([scaled, -halves])


# --- two embeddings of the same galaxies

# Numbers of neighbours, and galaxies drawn for them, by default.
KS = (10, 30, 100)
QUERIES = 2000


class Overlap(NamedTuple):
    """Overlap of the k nearest neighbours in two embeddings.

    Attributes
    ----------
    k : int
        Number of neighbours.
    share : float
        Share (0 to 1) of the k nearest in one embedding that are among the k nearest in the other.
    chance : float
        The same share for unrelated embeddings.
    """

    k: int
    share: float
    chance: float


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """How similar two embeddings of the same galaxies are.

    Attributes
    ----------
    galaxies : int
        Number n of galaxies.
    queries : int
        Number of galaxies, drawn at random, whose neighbours among all n were compared.
    overlaps : tuple of Overlap
        Mutual k nearest neighbours, mean over the queries (Huh et al. 2024, arXiv:2405.07987, who call it
        alignment).
    cka : float
        Linear centred kernel alignment over all n, 0 to 1 (Kornblith et al. 2019, arXiv:1905.00414).
    """

    galaxies: int
    queries: int
    overlaps: tuple[Overlap, ...]
    cka: float


def embedding_similarity(
    first: Float[np.ndarray, "n d"],
    second: Float[np.ndarray, "n e"],
    *,
    ks: Sequence[int] = KS,
    queries: int = QUERIES,
    seed: int = 0,
) -> EmbeddingSimilarity:
    """Measure how similar two embeddings of the same galaxies are.

    Neighbours are exact, by cosine about the mean embedding. Nothing of size n × n is ever in memory.

    Parameters
    ----------
    first, second : (n, d) and (n, e) arrays
        Row i is the same galaxy in both.
    ks : sequence of int
        Numbers of neighbours; those of n or more are left out.
    queries : int
        Number of galaxies whose neighbours are compared; 0 compares those of all.
    seed : int
        Seed of the draw of these galaxies.

    Raises
    ------
    StoreError
        There are fewer than three galaxies.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(embedding_similarity(vectors, -2 * vectors, ks=[5]).cka, 6)
    1.0
    """
    galaxies = len(first)
    if galaxies < 3:
        raise StoreError("too few galaxies in common", value=galaxies, fix="Compare searches of the same survey.")
    ks = [k for k in sorted(ks) if k < galaxies]
    size = min(queries or galaxies, galaxies)
    rows = np.sort(np.random.default_rng(seed).choice(galaxies, size, replace=False))
    near = []
    for embeddings in (first, second):
        index = NeighbourIndex(embeddings, metric="cosine", exact=True)
        near.append(index.query(embeddings[rows], max(ks, default=1), itself=rows).rows)
    overlaps = tuple(Overlap(k, _shared(near[0][:, :k], near[1][:, :k]), k / (galaxies - 1)) for k in ks)
    return EmbeddingSimilarity(galaxies, size, overlaps, linear_cka(first, second))


def _shared(first: Int[np.ndarray, "q k"], second: Int[np.ndarray, "q k"]) -> float:
    """Return the mean share of the entries of a row that the same row of the other array has too."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / first.size)


def linear_cka(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "n e"], *, block: int = 2**16) -> float:
    """Return ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred embeddings, 0 to 1; NaN if all galaxies have one embedding.

    Parameters
    ----------
    first, second : (n, d) and (n, e) arrays
    block : int
        Number of galaxies that are added to the sums at once: 2¹⁶ take 32 MB in 128-D float32.
    """
    means = [embeddings.mean(axis=0, dtype=np.float64) for embeddings in (first, second)]
    d, e = first.shape[1], second.shape[1]
    cross, of_first, of_second = np.zeros((d, e)), np.zeros((d, d)), np.zeros((e, e))
    for start in range(0, len(first), block):
        x, y = first[start : start + block] - means[0], second[start : start + block] - means[1]
        cross += x.T @ y
        of_first += x.T @ x
        of_second += y.T @ y
    scale = float(np.linalg.norm(of_first) * np.linalg.norm(of_second))
    return float(np.sum(cross**2) / scale) if scale > 0 else float("nan")
