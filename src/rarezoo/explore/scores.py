"""How alike galaxies are to some examples: by a probe that knows how the survey scatters, or by the plain cosine.

Both compare directions from the mean embedding of the survey. The probe whitens the embedding first: along each
direction it is divided by the scatter of the survey, so that what many galaxies differ in, such as size or brightness,
counts no more than what few differ in. The mean direction of the examples is then that of Fisher's linear discriminant
(1936).
The scatter is the covariance of galaxies drawn at random, shrunk towards a sphere: by a tenth, and more where there are
few galaxies for so many dimensions.

Shape letters: n galaxies of the index, d width of the embedding, e examples, a counter-examples, b drawn galaxies.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError

AUTO, COSINE, PROBE = WAYS = ("auto", "cosine", "probe")
# Galaxies drawn at random that stand for the survey, and how far their covariance is shrunk at least.
BACKGROUND, SHRINKAGE = 10_000, 0.1
# Weight of the mean direction of counter-examples. They are often near misses, and with a larger weight they turn the
# probe away from the examples too.
AGAINST = 0.2
# Numbers in a block of vectors that are whitened at a time.
_BLOCK = 2**24


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


class Whitening(NamedTuple):
    """A linear map after which the survey scatters alike in all directions.

    Attributes
    ----------
    transform : (d, d) array of floats
        Vectors (m, d) about the mean of the survey are whitened by ``vectors @ transform``.
    drawn : int
        Number of galaxies that it is made of.
    """

    transform: Float32[np.ndarray, "d d"]
    drawn: int

    def lengths(self, index: NeighbourIndex) -> Float32[np.ndarray, " n"]:
        """Return the length of the whitened unit vector of every galaxy of an index of the cosine."""
        lengths = np.empty(len(index), dtype=np.float32)
        block = max(_BLOCK // len(self.transform), 1)
        for start in range(0, len(index), block):
            whitened = index.centred.directions[start : start + block] @ self.transform
            lengths[start : start + block] = np.sqrt(np.einsum("ij,ij->i", whitened, whitened))
        return lengths


class Direction(NamedTuple):
    """What galaxies are compared with: a direction from the mean of the survey.

    Attributes
    ----------
    weights : (d,) array of floats
        A unit vector; of a probe, the direction by which vectors that are not whitened are multiplied.
    whitening : Whitening or None
        Of a probe; None: the score is the cosine with the unit vector.
    way : str
        How scores are computed, in words.
    """

    weights: Float[np.ndarray, " d"]
    whitening: Whitening | None
    way: str

    def scores(self, index: NeighbourIndex, *, whitened: Float32[np.ndarray, " n"] | None = None) -> Scores:
        """Return the score of every galaxy of an index of the cosine.

        Parameters
        ----------
        index : NeighbourIndex
            The galaxies.
        whitened : (n,) array of floats, optional
            What :meth:`Whitening.lengths` returned for them, if it is known already.
        """
        values, lengths = index.project(self.weights), index.centred.lengths
        if self.whitening is not None:
            lengths = lengths * (self.whitening.lengths(index) if whitened is None else whitened)
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
    whitening: Whitening | None = None,
    whitened: Float32[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> Scores:
    """Return how alike every galaxy of an index is to some examples, from −1 to 1.

    Parameters
    ----------
    index : NeighbourIndex
        Index of the cosine.
    examples : (e, d) array of floats
        Embeddings of the examples, about the mean of the index.
    against : (a, d) array of floats, optional
        Embeddings of counter-examples, about the same mean.
    by : {"auto", "cosine", "probe"}
        ``auto``: a probe.
    whitening, whitened
        What :func:`whitening_of` and :meth:`Whitening.lengths` returned for this index, if they are known already.
    seed : int
        Seed with which the galaxies are drawn that stand for the survey.

    Raises
    ------
    ConfigError
        The cosine is asked for and there are counter-examples, or the examples have no direction.

    Examples
    --------
    >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]], dtype=np.float32)
    >>> index = NeighbourIndex(vectors, metric="cosine", exact=True)
    >>> example = vectors[:1] - index.centred.mean
    >>> [round(float(value), 2) for value in scores_of(index, example, by="cosine").values]
    [1.0, 0.99, -0.89, -0.54]
    """
    against = np.empty((0, examples.shape[1])) if against is None else against
    if not is_probe(by, against=len(against)):
        return cosine(index, examples)
    if whitening is None:
        whitening = whitening_of(background_of(index, seed=seed))
    return probe_direction(examples, against, whitening).scores(index, whitened=whitened)


def is_probe(by: str, *, against: int) -> bool:
    """Return whether a probe compares, and not the cosine, with so many counter-examples.

    Raises
    ------
    ConfigError
        The cosine is asked for and there are counter-examples.
    """
    if by == COSINE and against:
        raise ConfigError(
            "counter-examples need a probe", value=f"by={by}", fix="Choose by=probe or by=auto, or leave against= out."
        )
    return by != COSINE


def cosine(index: NeighbourIndex, examples: Float[np.ndarray, "e d"]) -> Scores:
    """Return the cosine of every galaxy with the mean direction of the examples; see :func:`scores_of`."""
    return cosine_direction(examples).scores(index)


def cosine_direction(examples: Float[np.ndarray, "e d"]) -> Direction:
    """Return the mean direction of the examples; see :func:`scores_of`."""
    direction = _mean_direction(examples)
    way = f"cosine with {_counted_examples(len(examples))}, about the mean of the survey"
    return Direction(_of_unit_length(direction, len(examples)), None, way)


def probe_direction(
    examples: Float[np.ndarray, "e d"], against: Float[np.ndarray, "a d"], whitening: Whitening
) -> Direction:
    """Return the mean whitened direction of examples, less that of counter-examples; see :func:`scores_of`.

    Raises
    ------
    ConfigError
        The examples lie at the mean of the survey.

    Examples
    --------
    Galaxies scatter ten times as much along the first axis as along the second, so an example that is as far out along
    both is odd in the second:

    >>> whitening = whitening_of(np.random.default_rng(0).normal(size=(5000, 2)) * [10, 1])
    >>> weights = probe_direction(np.array([[10.0, 10.0]]), np.empty((0, 2)), whitening).weights
    >>> bool(weights[1] > 5 * weights[0])
    True
    """
    direction = _mean_direction(examples @ whitening.transform)
    if len(against):
        direction = direction - AGAINST * _mean_direction(against @ whitening.transform)
    counter = f", less {AGAINST:g} × {_counted_examples(len(against), 'counter-example')}" if len(against) else ""
    return Direction(
        whitening.transform @ _of_unit_length(direction, len(examples)), whitening,
        f"probe: cosine with {_counted_examples(len(examples))}{counter}, whitened by {whitening.drawn:,} galaxies",
    )  # fmt: skip


def background_of(index: NeighbourIndex, *, seed: int) -> Float[np.ndarray, "b d"]:
    """Return the galaxies that stand for the survey, about its mean."""
    drawn = background_rows(index.finite, seed=seed)
    return np.asarray(index.centred.directions[drawn] * index.centred.lengths[drawn, None])


def background_rows(finite: Bool[np.ndarray, " n"], *, seed: int) -> Int[np.ndarray, " b"]:
    """Draw the galaxies that stand for the survey: up to 10,000 of it, all of a smaller one."""
    known = np.flatnonzero(finite)
    return np.sort(np.random.default_rng(seed).choice(known, min(BACKGROUND, len(known)), replace=False))


def whitening_of(background: Float[np.ndarray, "b d"]) -> Whitening:
    """Return the whitening by galaxies about the mean of their survey; galaxies that are all alike change nothing.

    Examples
    --------
    >>> background = np.random.default_rng(0).normal(size=(5000, 2)) * [10, 1]
    >>> (background @ whitening_of(background).transform).std(axis=0).round(1).tolist()
    [1.0, 0.4]

    The covariance is shrunk by a tenth, so the narrow axis stays narrower.
    """
    from sklearn.covariance import shrunk_covariance

    about_mean = background.astype(np.float64)
    covariance = about_mean.T @ about_mean / max(len(about_mean), 1)
    if not covariance.any():
        return Whitening(np.eye(background.shape[1], dtype=np.float32), len(background))
    shrinkage = max(SHRINKAGE, background.shape[1] / sum(background.shape))
    values, axes = np.linalg.eigh(shrunk_covariance(covariance, shrinkage=shrinkage))
    return Whitening(((axes / np.sqrt(values)) @ axes.T).astype(np.float32), len(background))


def _mean_direction(vectors: Float[np.ndarray, "e d"]) -> Float[np.ndarray, " d"]:
    """Return the mean of unit vectors; a vector without a length has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray((vectors / np.where(lengths > 0, lengths, 1)).mean(axis=0))


def _of_unit_length(direction: Float[np.ndarray, " d"], examples: int) -> Float[np.ndarray, " d"]:
    length = np.linalg.norm(direction)
    if not length:
        raise ConfigError(
            "the examples have no common direction", value=f"{examples} example{'' if examples == 1 else 's'}",
            fix="Choose other examples: the embedding of these is the mean of the survey.",
        )  # fmt: skip
    return np.asarray(direction / length)


def _counted_examples(number: int, what: str = "example") -> str:
    return f"the {what}" if number == 1 else f"the mean direction of {number:,} {what}s"
