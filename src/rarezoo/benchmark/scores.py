"""Scores of a set of classes where the truth is known.

A planted population is *found* when more than half of one class consists of it and the class holds more than half of
it. Every other class is false in one of two ways: more than half of a *piece* is one population, of which it holds
less than half; an *impure* class has no such population. Seeds are the unit of every interval, not galaxies.

A reader who looks through a gallery *recognises* a population in a row half of which it makes up. Where populations are
known of some galaxies only, he *meets* it in a row that shows at least two of its galaxies, if these are at least half
of the galaxies of the row of which it is known.

Shape letters: n galaxies, p populations, c classes, r gallery rows, w galaxies in a row, s seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from rarezoo import tables
from rarezoo.searches.matching import ClassOverlap
from rarezoo.statistics import Interval, Recovery, bootstrap_interval

# Number of gallery rows that a reader looks at, and number of galaxies in a row.
ROWS, ROW_WIDTH = 100, 10
EMPTY_PLACE = -1
# Number of rows of the scores at 50 rows.
FIRST_ROWS = 50
# Fewest galaxies of a kind in a row in which a reader meets it.
_FEWEST_MET = 2
# A class is enriched in a population: largest corrected p-value, smallest lift, fewest galaxies of it.
_SIGNIFICANT, _RICH, _FEWEST = 0.05, 2.0, 3
# Fewest galaxies of a population for which an average precision is computed.
_FEWEST_RANKED = 10
_HALF = 0.5


@dataclass(frozen=True)
class Truth:
    """The known populations of n galaxies.

    Attributes
    ----------
    names
        Names of the p populations.
    members
        (n, p) whether a galaxy belongs to a population; populations may overlap.
    known
        (n, p) whether it is known if a galaxy belongs to a population.
    about
        Further columns of p values each, such as contrast and place.
    """

    names: tuple[str, ...]
    members: Bool[np.ndarray, "n p"]
    known: Bool[np.ndarray, "n p"]
    about: Mapping[str, Sequence[float] | Sequence[str]]

    @classmethod
    def of_groups(
        cls, groups: Int[np.ndarray, " n"], *, names: Sequence[str], **about: Sequence[float] | Sequence[str]
    ) -> "Truth":
        """Make the truth from the group of each galaxy, −1 for none."""
        members = groups[:, None] == np.arange(len(names))
        return cls(tuple(names), members, np.ones_like(members), about)

    @property
    def sizes(self) -> Int64[np.ndarray, " p"]:
        """Return the number of galaxies in each population."""
        return self.members.sum(axis=0)


def _counts(labels: Int[np.ndarray, " n"], members: Bool[np.ndarray, "n p"]) -> Int64[np.ndarray, "p c"]:
    """Count the members of each population in each class 0 … c − 1."""
    inside = labels != tables.NO_CLASS
    counts = np.zeros((int(labels.max(initial=-1)) + 1, members.shape[1]), dtype=np.int64)
    np.add.at(counts, labels[inside], members[inside])
    return counts.T


@dataclass(frozen=True)
class Tally:
    """Counts of populations in classes.

    Attributes
    ----------
    counts
        (p, c) number of galaxies of each population in each class.
    populations
        (p,) number of galaxies of each population.
    classes
        (c,) number of galaxies of each class.
    """

    counts: Int64[np.ndarray, "p c"]
    populations: Int64[np.ndarray, " p"]
    classes: Int64[np.ndarray, " c"]

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], truth: Truth) -> "Tally":
        """Count from labels 0 … c − 1, −1 for none."""
        counts = _counts(labels, truth.members)
        sizes = np.bincount(labels[labels != tables.NO_CLASS], minlength=counts.shape[1])
        return cls(counts, truth.sizes, sizes)

    @cached_property
    def recovery(self) -> Recovery:
        """Return which classes find which populations."""
        return Recovery.of(self.counts, populations=self.populations, classes=self.classes)

    @property
    def found(self) -> Bool[np.ndarray, " p"]:
        """Return which populations are found."""
        return self.recovery.found

    @property
    def pieces(self) -> int:
        """Return the number of pieces: more than half is one population, of which the class holds at most half."""
        return int((self.recovery.pure.any(axis=0) & ~self.recovery.hits.any(axis=0)).sum())

    @property
    def impure(self) -> int:
        """Return the number of classes of which no population makes up more than half."""
        return int((~self.recovery.pure.any(axis=0)).sum())

    @property
    def purity(self) -> float:
        """Return the mean over classes of the share of the largest population; NaN without classes."""
        if not self.counts.size:
            return float("nan")
        return float(np.mean(self.counts.max(axis=0) / self.classes))

    def measures(self) -> dict[str, float]:
        """Return the measures of one seed by name."""
        return {
            "found": float(self.found.sum()), "impure": self.impure, "pieces": self.pieces,
            "classes": len(self.classes), "purity": self.purity,
        }  # fmt: skip


def discovery(
    rows: Int[np.ndarray, "r w"], members: Bool[np.ndarray, "n p"], *, share: float = 0.5
) -> Float64[np.ndarray, " ROWS"]:
    """Return the share of the populations that a reader has seen after 1, 2, … :data:`ROWS` rows of a gallery.

    A population is recognised in a row half of which it makes up. With ``share=0`` one of its galaxies is enough.
    Places of a row may be empty (−1).

    Examples
    --------
    >>> members = np.array([[True, False], [True, False], [False, True], [False, False]])
    >>> discovery(np.array([[0, 1], [2, 3]]), members)[:3].tolist()
    [0.5, 1.0, 1.0]
    """
    seen = np.zeros((ROWS, members.shape[1]), dtype=bool)
    for number, row in enumerate(rows[:ROWS]):
        shown = row[row != EMPTY_PLACE]
        seen[number] = members[shown].sum(axis=0) >= max(share * len(shown), 1)
    return _share_so_far(seen)


def meetings(rows: Int[np.ndarray, "r w"], truth: Truth) -> Float64[np.ndarray, " ROWS"]:
    """Return the discovery curve where populations are known of some galaxies only.

    A reader meets a population in a row that shows at least two of its galaxies, if these are at least half of the
    galaxies of the row of which it is known whether they belong to it. Places of a row may be empty (−1).

    Parameters
    ----------
    rows
        (r, w) gallery from the top.
    truth
        Populations of the n galaxies.

    Returns
    -------
    numpy.ndarray
        Share of the populations that were met after 1, 2, … :data:`ROWS` rows; NaN if there is no population.

    Examples
    --------
    Of the four galaxies in the row, two are rings, one is none, and of one it is not known.

    >>> members = np.array([[True], [True], [False], [False]])
    >>> known = np.array([[True], [True], [True], [False]])
    >>> meetings(np.array([[0, 1, 2, 3]]), Truth(("ring",), members, known, {}))[0]
    np.float64(1.0)
    """
    members = truth.members & truth.known
    met = np.zeros((ROWS, members.shape[1]), dtype=bool)
    for number, row in enumerate(rows[:ROWS]):
        shown = row[row != EMPTY_PLACE]
        counts, known = members[shown].sum(axis=0), truth.known[shown].sum(axis=0)
        met[number] = (counts >= _FEWEST_MET) & (2 * counts >= known)
    return _share_so_far(met)


def _share_so_far(seen: Bool[np.ndarray, "ROWS p"]) -> Float64[np.ndarray, " ROWS"]:
    """Return the share of populations that were seen in a row or in one before it; NaN without populations."""
    if not seen.shape[1]:
        return np.full(ROWS, np.nan)
    return np.asarray(np.logical_or.accumulate(seen, axis=0).mean(axis=1))


def rows_to_half(curve: Float64[np.ndarray, " ROWS"]) -> int:
    """Return after how many rows a discovery curve reaches one half; :data:`ROWS` + 1 if it never does.

    Examples
    --------
    >>> rows_to_half(ideal_order(10)), rows_to_half(np.zeros(ROWS))
    (5, 101)
    """
    reached = np.flatnonzero(curve >= _HALF)
    return int(reached[0]) + 1 if len(reached) else ROWS + 1


def galaxies_shown(rows: Int[np.ndarray, "r w"], members: Bool[np.ndarray, " n"]) -> int:
    """Return how many galaxies of a population the first :data:`FIRST_ROWS` rows show; each galaxy counts once.

    Examples
    --------
    >>> galaxies_shown(np.array([[0, 1, 2], [2, 3, -1]]), np.array([True, False, True, False]))
    2
    """
    first = rows[:FIRST_ROWS]
    return int(members[np.unique(first[first != EMPTY_PLACE])].sum())


def expected_shown(members: Bool[np.ndarray, " n"]) -> float:
    """Return how many galaxies of a population as many random galaxies hold as the first 50 rows have places.

    Examples
    --------
    >>> expected_shown(np.repeat([True, False], [10, 90]))
    50.0
    """
    return FIRST_ROWS * ROW_WIDTH * float(members.mean())


def ideal_order(populations: int) -> Float64[np.ndarray, " ROWS"]:
    """Return the discovery curve of a gallery in which each row shows another population."""
    return np.minimum(np.arange(1, ROWS + 1) / max(populations, 1), 1.0)


def stability(labels: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float:
    """Return the mean over classes of the best Jaccard index with a class of another labelling; NaN without classes."""
    if not (labels != tables.NO_CLASS).any():
        return float("nan")
    comparison = ClassOverlap.of_labels(labels, other)
    return float(comparison.jaccards.max(axis=1, initial=0.0).mean())


@dataclass(frozen=True)
class Enrichment:
    """Enrichment of each class in each population, among the galaxies for which the population is known.

    Attributes
    ----------
    corrected
        (p, c) Fisher's one-sided p-value after Benjamini & Hochberg's correction over all p × c tests.
    lifts
        (p, c) share of the population in the class divided by its share of all galaxies.
    counts
        (p, c) number of galaxies of the population in the class.
    """

    corrected: Float64[np.ndarray, "p c"]
    lifts: Float64[np.ndarray, "p c"]
    counts: Int64[np.ndarray, "p c"]

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], truth: Truth) -> "Enrichment":
        """Test labels 0 … c − 1, −1 for none."""
        from scipy.stats import false_discovery_control, hypergeom

        members = truth.members & truth.known
        counts, known = _counts(labels, members), _counts(labels, truth.known)
        whole, positive = truth.known.sum(axis=0)[:, None], members.sum(axis=0)[:, None]
        # Fisher's exact test, greater, is the upper tail of the hypergeometric distribution.
        chances = np.asarray(hypergeom.sf(counts - 1, whole, positive, known))
        corrected = np.asarray(false_discovery_control(chances.ravel())) if chances.size else chances
        expected = np.maximum(known, 1) * np.maximum(positive, 1) / np.maximum(whole, 1)
        return cls(corrected.reshape(counts.shape), counts / expected, counts)

    @property
    def rich(self) -> Bool[np.ndarray, "p c"]:
        """Return which classes are enriched: significant, at least twice the share, at least three galaxies."""
        several = (self.lifts >= _RICH) & (self.counts >= _FEWEST)
        return np.asarray(several & (self.corrected <= _SIGNIFICANT))


def class_precisions(
    class_similarities: Float[np.ndarray, "c n"], truth: Truth, *, seed: int
) -> Float64[np.ndarray, "2 c p"]:
    """Return the average precision of "most like this class" on each half of the galaxies with a known population.

    Parameters
    ----------
    class_similarities
        (c, n) similarity of each galaxy to each class, or one row for a ranking; the most similar are ranked first.
    truth
        Populations of the n galaxies.
    seed
        Seed of the split into halves.

    Returns
    -------
    numpy.ndarray
        (2, c, p) average precisions; NaN where a half holds fewer than ten galaxies of a population.
    """
    from sklearn.metrics import average_precision_score

    halves = np.random.default_rng(seed).permutation(class_similarities.shape[1]) % 2
    precisions = np.full((2, len(class_similarities), len(truth.names)), np.nan)
    for half in (0, 1):
        for at, known in enumerate(truth.known.T):
            asked = known & (halves == half)
            positive = truth.members[asked, at]
            if _FEWEST_RANKED <= positive.sum() < len(positive):
                precisions[half, :, at] = [
                    average_precision_score(positive, similarity[asked]) for similarity in class_similarities
                ]
    return precisions


def best_precisions(precisions: Float[np.ndarray, "2 c p"], truth: Truth) -> Float64[np.ndarray, " p"]:
    """Return the precision of the class that ranks each population best.

    The class is chosen on one half of the known galaxies and judged on the other, both ways. Without
    classes it is the share of the population, which chance gives. NaN where too few galaxies are known.
    """
    if not precisions.shape[1]:
        positives = (truth.members & truth.known).sum(axis=0)
        return np.where(positives < 2 * _FEWEST_RANKED, np.nan, positives / np.maximum(truth.known.sum(axis=0), 1))
    chosen = np.nan_to_num(precisions, nan=-1.0).argmax(axis=1)
    columns = np.arange(precisions.shape[2])
    return np.mean([precisions[half, chosen[1 - half], columns] for half in (0, 1)], axis=0)


def interval(values: Sequence[float] | Float[np.ndarray, " s"]) -> Interval:
    """Return the mean over seeds with its bootstrap interval; seeds with NaN are left out."""
    known = np.asarray(values, dtype=np.float64)
    return bootstrap_interval(known[np.isfinite(known)])
