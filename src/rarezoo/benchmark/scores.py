"""How good a set of classes is where the truth is known.

A planted population is *found* when one class is more than half made of it and holds more than half of it. Every other
class is false, in one of two ways: a *piece* is more than half made of one population but holds less of it, an *impure*
class is not. Seeds are the unit of every interval, not galaxies.

Shape letters: n galaxies, p populations, c classes, r gallery rows, w galaxies in a row, s seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from rarezoo import tables
from rarezoo.embeddings.quality import Interval
from rarezoo.searches.matching import ClassOverlap
from rarezoo.searches.recovery import COMPLETE, PURE

# A person looks at so many rows of a gallery, of so many galaxies each.
ROWS, ROW_WIDTH = 100, 10
NOBODY = -1
_LEVEL, _DRAWS = 0.95, 2000
# When a class is rich in something: corrected p-value, times its share of all, galaxies of it.
_SIGNIFICANT, _RICH, _FEWEST = 0.05, 2.0, 3
# Galaxies of a population that tell an average precision.
_TELLING = 10


@dataclass(frozen=True)
class Truth:
    """What is known of n galaxies.

    Attributes:
        names: of the p populations.
        members: (n, p) who is in which; populations may overlap.
        known: (n, p) of whom that is known.
        about: further columns of p values each, such as contrast and place.
    """

    names: tuple[str, ...]
    members: Bool[np.ndarray, "n p"]
    known: Bool[np.ndarray, "n p"]
    about: Mapping[str, Sequence[float] | Sequence[str]]

    @classmethod
    def of_groups(
        cls, groups: Int[np.ndarray, " n"], *, names: Sequence[str], **about: Sequence[float] | Sequence[str]
    ) -> "Truth":
        """From the group of each galaxy, −1 for none."""
        members = groups[:, None] == np.arange(len(names))
        return cls(tuple(names), members, np.ones_like(members), about)

    @property
    def sizes(self) -> Int64[np.ndarray, " p"]:
        """Galaxies in each population."""
        return self.members.sum(axis=0)


def _counts(labels: Int[np.ndarray, " n"], members: Bool[np.ndarray, "n p"]) -> Int64[np.ndarray, "p c"]:
    """Members of each population in each class 0 … c − 1."""
    inside = labels != tables.NO_CLASS
    counts = np.zeros((int(labels.max(initial=-1)) + 1, members.shape[1]), dtype=np.int64)
    np.add.at(counts, labels[inside], members[inside])
    return counts.T


@dataclass(frozen=True)
class Tally:
    """What a labelling makes of the truth.

    Attributes:
        counts: (p, c) galaxies of each population in each class.
        populations: (p,) galaxies of each population.
        classes: (c,) galaxies of each class.
    """

    counts: Int64[np.ndarray, "p c"]
    populations: Int64[np.ndarray, " p"]
    classes: Int64[np.ndarray, " c"]

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], truth: Truth) -> "Tally":
        """From labels 0 … c − 1, −1 for none."""
        counts = _counts(labels, truth.members)
        sizes = np.bincount(labels[labels != tables.NO_CLASS], minlength=counts.shape[1])
        return cls(counts, truth.sizes, sizes)

    @cached_property
    def _pure(self) -> Bool[np.ndarray, "p c"]:
        return np.asarray(self.counts > PURE * self.classes)

    @cached_property
    def _hits(self) -> Bool[np.ndarray, "p c"]:
        return np.asarray(self._pure & np.asarray(self.counts > COMPLETE * self.populations[:, None]))

    @property
    def found(self) -> Bool[np.ndarray, " p"]:
        """Which populations are found."""
        return np.asarray(self._hits.any(axis=1))

    @property
    def pieces(self) -> int:
        """Classes more than half made of a population of which they hold half at most."""
        return int((self._pure.any(axis=0) & ~self._hits.any(axis=0)).sum())

    @property
    def impure(self) -> int:
        """Classes that no population makes up more than half of."""
        return int((~self._pure.any(axis=0)).sum())

    @property
    def purity(self) -> float:
        """Mean over classes of the share of the population that makes up most; NaN without classes."""
        if not self.counts.size:
            return float("nan")
        return float(np.mean(self.counts.max(axis=0) / self.classes))

    def measures(self) -> dict[str, float]:
        """By name, for one seed."""
        return {
            "found": float(self.found.sum()), "impure": self.impure, "pieces": self.pieces,
            "classes": len(self.classes), "purity": self.purity,
        }  # fmt: skip


def discovery(
    rows: Int[np.ndarray, "r w"], members: Bool[np.ndarray, "n p"], *, share: float = 0.5
) -> Float64[np.ndarray, " ROWS"]:
    """Share of the populations that a person has seen after 1, 2, … :data:`ROWS` rows of a gallery.

    A population is recognised in a row half of which it makes up; with ``share=0`` any one of its galaxies counts as
    seen. Places of a row may be empty (−1).
    """
    if not members.shape[1]:
        return np.full(ROWS, np.nan)
    first = np.full(members.shape[1], np.inf)
    for number, row in enumerate(rows[:ROWS]):
        shown = row[row != NOBODY]
        seen = members[shown].sum(axis=0) >= max(share * len(shown), 1)
        first[seen & (number < first)] = number
    return (first[None, :] <= np.arange(ROWS)[:, None]).mean(axis=1)


def ideal_order(populations: int) -> Float64[np.ndarray, " ROWS"]:
    """The discovery curve of a gallery each of whose rows shows another population."""
    return np.minimum(np.arange(1, ROWS + 1) / max(populations, 1), 1.0)


def stability(labels: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float:
    """Mean over the classes of the best Jaccard with a class of another labelling, 0–1; NaN without classes."""
    if not (labels != tables.NO_CLASS).any():
        return float("nan")
    comparison = ClassOverlap.of_labels(labels, other)
    return float(comparison.jaccards.max(axis=1, initial=0.0).mean())


@dataclass(frozen=True)
class Enrichment:
    """How rich each class is in each population, among the galaxies of whom it is known.

    Attributes:
        corrected: (p, c) Fisher's one-sided p-value after Benjamini & Hochberg over all p × c tests.
        lifts: (p, c) share of the population in the class over its share of all.
        counts: (p, c) its galaxies in the class.
    """

    corrected: Float64[np.ndarray, "p c"]
    lifts: Float64[np.ndarray, "p c"]
    counts: Int64[np.ndarray, "p c"]

    @classmethod
    def of(cls, labels: Int[np.ndarray, " n"], truth: Truth) -> "Enrichment":
        """From labels 0 … c − 1, −1 for none."""
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
        """Classes rich in a population: not by chance, at least twice its share, and three of its galaxies."""
        several = (self.lifts >= _RICH) & (self.counts >= _FEWEST)
        return np.asarray(several & (self.corrected <= _SIGNIFICANT))


def class_precisions(likenesses: Float[np.ndarray, "c n"], truth: Truth, *, seed: int) -> Float64[np.ndarray, "2 c p"]:
    """Average precision of "most like this class", on either half of the galaxies of whom a population is known.

    Args:
        likenesses: of each galaxy to each class, or one row for a ranking; the most alike are ranked first.
        truth: of the n galaxies.
        seed: of the halves.

    Returns:
        NaN where a half holds fewer than ten galaxies of a population.
    """
    from sklearn.metrics import average_precision_score

    halves = np.random.default_rng(seed).permutation(likenesses.shape[1]) % 2
    precisions = np.full((2, len(likenesses), len(truth.names)), np.nan)
    for half in (0, 1):
        for at, known in enumerate(truth.known.T):
            asked = known & (halves == half)
            positive = truth.members[asked, at]
            if _TELLING <= positive.sum() < len(positive):
                precisions[half, :, at] = [average_precision_score(positive, one[asked]) for one in likenesses]
    return precisions


def best_precisions(precisions: Float[np.ndarray, "2 c p"], truth: Truth) -> Float64[np.ndarray, " p"]:
    """Of the class that ranks each population best: the class is chosen on one half, its precision is the other's.

    Without classes it is what chance gives, the share of the population. NaN where it cannot be told.
    """
    if not precisions.shape[1]:
        positives = (truth.members & truth.known).sum(axis=0)
        return np.where(positives < 2 * _TELLING, np.nan, positives / np.maximum(truth.known.sum(axis=0), 1))
    chosen = np.nan_to_num(precisions, nan=-1.0).argmax(axis=1)
    columns = np.arange(precisions.shape[2])
    return np.mean([precisions[half, chosen[1 - half], columns] for half in (0, 1)], axis=0)


def interval(values: Sequence[float] | Float[np.ndarray, " s"]) -> Interval:
    """Mean over seeds with the bootstrap's 95 % percentile interval; NaN seeds are left out, one seed has no width."""
    given = np.asarray(values, dtype=np.float64)
    given = given[np.isfinite(given)]
    if not len(given):
        return Interval(np.nan, np.nan, np.nan)
    if len(given) == 1:
        return Interval(float(given[0]), np.nan, np.nan)
    drawn = np.random.default_rng(0).choice(given, size=(_DRAWS, len(given))).mean(axis=1)
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(given.mean()), float(low), float(high))


def students_interval(values: Sequence[float] | Float[np.ndarray, " s"]) -> Interval:
    """Mean over seeds with Student's 95 % interval: wider than the bootstrap's, and rightly, where seeds are few.

    One seed has no width (NaN), and with a NaN among them there is no value.
    """
    from scipy.stats import t

    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean())
    if len(given) < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(t.ppf((1 + _LEVEL) / 2, len(given) - 1) * given.std(ddof=1) / np.sqrt(len(given)))
    return Interval(mean, mean - half, mean + half)
