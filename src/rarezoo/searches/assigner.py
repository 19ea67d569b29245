"""New galaxies into fitted classes, or into none of them, with what that is worth.

A galaxy's nearest class is the one that most of its :data:`NEIGHBOURS` nearest searched galaxies belong to. It gets
that class if three things hold, with ``level`` = α:

1. *Unlike the unassigned*: so large a share of its neighbours is in the class as in at most α of the galaxies that the
   search put in no class. Guaranteed: of new galaxies exchangeable with those, at most α get a class.
2. *Like the members*: it is no farther from the class's members than all but α of them are from each other.
   Guaranteed: of new galaxies exchangeable with a class of m members, at most max(α, 1 / (m + 1)) fail this.
3. *More likely than not*: of searched galaxies with as many neighbours in one class, at least half belong to it.

1 and 2 are conformal p-values whose scores leave each searched galaxy out in turn. A galaxy more among the searched
could only lower the others' scores, so that p-values err to the large side of full conformal prediction's (Vovk et al.
2005), which are exact. What is not guaranteed, how many members get their class back, is measured (:class:`SelfCheck`).

Shape letters: n searched galaxies, m new ones, k dimensions, v votes of neighbours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError

# As many as the smallest class has members under the paper's settings.
NEIGHBOURS = 10
# A class is as far as its so many-th nearest member: one member astray does not make it near.
_NEAR_MEMBERS = 5
# Searched galaxies drawn for calibration, and members of a class: p-values to 1/40,000 and 1/5,000.
_CALIBRATED, _MOST_MEMBERS = 40_000, 5_000
_LIKELY = 0.5
# p-values are fractions of small integers, compared with decimals.
_ROUNDING = 1e-12


class Assignment(NamedTuple):
    """What is said of m galaxies.

    Attributes:
        class_ids: −1 for none of these.
        probabilities: that the search would have said so of the galaxy, 0–1.
        nearest: class of most neighbours, −1 if none is in a class.
        p_none: of as many neighbours in one class for a galaxy of no class.
        p_class: of as large a distance from the nearest class for one of its members.
        p_known: of as large a distance from everything searched for a searched galaxy.
    """

    class_ids: Int64[np.ndarray, " m"]
    probabilities: Float32[np.ndarray, " m"]
    nearest: Int64[np.ndarray, " m"]
    p_none: Float64[np.ndarray, " m"]
    p_class: Float64[np.ndarray, " m"]
    p_known: Float64[np.ndarray, " m"]


class Neighbourhood(NamedTuple):
    """What m galaxies are near to.

    Attributes:
        nearest: class of most neighbours, −1 if none is in a class.
        votes: how many neighbours are in it.
        distances: to the farthest of the neighbours, in the units of the space.
        p_class: see :class:`Assignment`; 1 without a nearest class.
        least: the smallest that ``p_class`` can be.
    """

    nearest: Int64[np.ndarray, " m"]
    votes: Int64[np.ndarray, " m"]
    distances: Float64[np.ndarray, " m"]
    p_class: Float64[np.ndarray, " m"]
    least: Float64[np.ndarray, " m"]

    def some(self, rows: np.ndarray) -> "Neighbourhood":
        """Of some of the galaxies."""
        return Neighbourhood(*(column[rows] for column in self))


@dataclass(frozen=True)
class SelfCheck:
    """What became of searched galaxies, each left out in turn, by a rule learnt from the other half of them.

    Attributes:
        labels: (n,) classes under the search.
        found: (n,) classes that they were given.
    """

    labels: Int64[np.ndarray, " n"]
    found: Int64[np.ndarray, " n"]

    def recovered(self, class_id: int | None = None) -> tuple[int, int]:
        """How many members (of one class, or of all) got their class back, and of how many."""
        inside = self.labels != tables.NO_CLASS if class_id is None else self.labels == class_id
        return int(np.sum(self.found[inside] == self.labels[inside])), int(inside.sum())

    @property
    def misplaced(self) -> int:
        """Members that got another class."""
        return int(np.sum((self.labels != tables.NO_CLASS) & (self.found != tables.NO_CLASS) & ~self._right))

    @property
    def false(self) -> tuple[int, int]:
        """How many of the unassigned were given a class, and of how many."""
        outside = self.labels == tables.NO_CLASS
        return int(np.sum(self.found[outside] != tables.NO_CLASS)), int(outside.sum())

    @property
    def _right(self) -> Bool[np.ndarray, " n"]:
        return self.found == self.labels


@dataclass(frozen=True)
class _Rule:
    """When a galaxy gets its nearest class, learnt from searched galaxies.

    Attributes:
        level: α.
        none_votes: sorted votes of the unassigned.
        likely: (v + 1,) by votes: share of those with so many whose nearest class is theirs, rising with them.
    """

    level: float
    none_votes: Int64[np.ndarray, " unassigned"]
    likely: Float64[np.ndarray, " v+1"]

    @classmethod
    def learnt(cls, look: Neighbourhood, labels: np.ndarray, *, level: float) -> "_Rule":
        from sklearn.isotonic import IsotonicRegression

        typical = _typical(look, level)
        right = (look.nearest == labels) & (labels != tables.NO_CLASS)
        steps = np.arange(NEIGHBOURS + 1)
        rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        # One vote of none keeps the fit defined, and 0 for those without a vote.
        rising.fit(np.append(look.votes[typical], 0), np.append(right[typical].astype(np.float64), 0.0))
        none = np.sort(look.votes[labels == tables.NO_CLASS])
        return cls(level, none, np.asarray(rising.predict(steps), dtype=np.float64))

    def applied(self, look: Neighbourhood) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class ids, probabilities of them, and p-values of being in none."""
        p_none = p_values(self.none_votes, look.votes)
        likely = np.where(_typical(look, self.level), self.likely[look.votes], 0.0)
        given = (look.nearest != tables.NO_CLASS) & (p_none <= self.level + _ROUNDING) & (likely >= _LIKELY)
        return np.where(given, look.nearest, tables.NO_CLASS), np.where(given, likely, 1 - likely), p_none


@dataclass(frozen=True)
class Assigner:
    """Classes of n searched galaxies, ready for others.

    Attributes:
        positions: (n, k) in the space in which galaxies are compared (Euclidean).
        labels: (n,) class of each, −1 for none.
        level: α, see above.
        seed: of the galaxies drawn for calibration.
    """

    positions: Float32[np.ndarray, "n k"]
    labels: Int64[np.ndarray, " n"]
    level: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        unassigned = int(np.sum(self.labels == tables.NO_CLASS))
        if not 0 < self.level <= 1:
            raise ConfigError("a level is a share", value=self.level, fix="Choose more than 0 and at most 1.")
        if len(self.positions) < 2:
            raise ConfigError("too few searched galaxies", value=len(self.positions), fix="Search two at least.")
        if self.level * (unassigned + 1) < 1 - _ROUNDING:
            raise ConfigError(
                f"only {unassigned} galaxies of the search are in no class: too few to promise a level of",
                value=self.level, fix=f"Choose {1 / (unassigned + 1):.2g} or more.",
            )  # fmt: skip

    def assign(
        self, positions: Float32[np.ndarray, "m k"], *, rows: Int64[np.ndarray, " m"] | None = None
    ) -> Assignment:
        """Classes for galaxies.

        Args:
            positions: one row per galaxy.
            rows: of those that were searched themselves, −1 for the others; nobody is its own neighbour. None: all −1.
        """
        rows = np.full(len(positions), -1) if rows is None else rows
        if not len(positions):
            return Assignment(*(np.empty(0, kind) for kind in (np.int64, np.float32, np.int64, float, float, float)))
        look = self.neighbourhood(positions, rows=rows)
        class_ids, probabilities, p_none = self._rule.applied(look)
        p_known = p_values(self.known_distances, look.distances, own=rows >= 0)
        return Assignment(
            class_ids, probabilities.astype(np.float32), look.nearest, p_none, look.p_class, p_known
        )  # fmt: skip

    @cached_property
    def known_distances(self) -> Float64[np.ndarray, " drawn"]:
        """Sorted distances of searched galaxies from their neighbours: how far anything known is from the rest."""
        return np.sort(self._own_neighbourhood.distances)

    @cached_property
    def check(self) -> SelfCheck:
        """The classes that searched galaxies get, the rule being learnt from the other half of them."""
        labels = self.labels[self._drawn]
        found = np.empty_like(labels)
        halves = np.random.default_rng(self.seed).permutation(len(labels)) % 2
        for half in (0, 1):
            theirs, others = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
            rule = _Rule.learnt(self._own_neighbourhood.some(others), labels[others], level=self.level)
            found[theirs] = rule.applied(self._own_neighbourhood.some(theirs))[0]
        return SelfCheck(labels, found)

    @property
    def neighbours(self) -> int:
        """How many nearest searched galaxies vote."""
        return min(NEIGHBOURS, len(self.positions) - 1)

    def neighbourhood(self, positions: np.ndarray, *, rows: np.ndarray) -> Neighbourhood:
        """What galaxies are near to; ``rows`` as for :meth:`assign`."""
        near, distances = self._index.query(positions, self.neighbours, itself=rows)
        nearest, votes = _elected(self.labels[near])
        p_class, least = np.ones(len(positions)), np.zeros(len(positions))
        for one in np.unique(nearest[nearest != tables.NO_CLASS]).tolist():
            asking = np.flatnonzero(nearest == one)
            own = (rows[asking] >= 0) & (self.labels[rows[asking]] == one)
            p_class[asking], least[asking] = self._classes[one].p_values(positions[asking], own=own)
        return Neighbourhood(nearest, votes, distances[:, -1].astype(np.float64), p_class, least)

    def reaches(self, positions: np.ndarray, *, rows: np.ndarray, neighbours: int) -> Float64[np.ndarray, " m"]:
        """Distance of each galaxy to its so many-th nearest searched one; ``rows`` as for :meth:`assign`."""
        if not len(positions):
            return np.empty(0)
        wanted = min(neighbours, len(self.positions) - 1)
        return self._index.query(positions, wanted, itself=rows).distances[:, -1].astype(np.float64)

    @cached_property
    def _drawn(self) -> Int64[np.ndarray, " drawn"]:
        random = np.random.default_rng([self.seed, 1])
        return np.sort(random.permutation(len(self.labels))[:_CALIBRATED])

    @cached_property
    def _own_neighbourhood(self) -> Neighbourhood:
        return self.neighbourhood(self.positions[self._drawn], rows=self._drawn)

    @cached_property
    def _rule(self) -> _Rule:
        return _Rule.learnt(self._own_neighbourhood, self.labels[self._drawn], level=self.level)

    @cached_property
    def _index(self) -> NeighbourIndex:
        return NeighbourIndex(self.positions, exact=True)

    @cached_property
    def _classes(self) -> dict[int, "_Members"]:
        known = np.unique(self.labels[self.labels != tables.NO_CLASS]).tolist()
        return {one: _Members(self.positions[self.labels == one], self.seed) for one in known}


@dataclass(frozen=True)
class _Members:
    """How far members of one class are from it."""

    positions: Float32[np.ndarray, "members k"]
    seed: int

    @property
    def _near(self) -> int:
        return max(1, min(_NEAR_MEMBERS, len(self.positions) - 1))

    @cached_property
    def _index(self) -> NeighbourIndex:
        return NeighbourIndex(self.positions, exact=True)

    @cached_property
    def _own(self) -> Float64[np.ndarray, " members"]:
        """Sorted distances of members (drawn, if there are many) from the others."""
        if len(self.positions) < 2:
            return np.empty(0)
        drawn = np.random.default_rng(self.seed).permutation(len(self.positions))[:_MOST_MEMBERS]
        return np.sort(self._distances(self.positions[drawn], own=np.ones(len(drawn), dtype=bool)))

    def _distances(self, positions: np.ndarray, *, own: np.ndarray) -> np.ndarray:
        """To the near members; a member is nearest to itself, which does not count."""
        wanted = min(self._near + 1, len(self.positions))
        distances = self._index.query(positions, wanted).distances
        return np.where(own, distances[:, -1], distances[:, self._near - 1]).astype(np.float64)

    def p_values(self, positions: np.ndarray, *, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of as large a distance for a member, and the smallest that they can be."""
        least = 1 / (len(self._own) + 1 - own)
        return p_values(self._own, self._distances(positions, own=own), own=own), least


def p_values(calibration: np.ndarray, scores: np.ndarray, *, own: np.ndarray | bool = False) -> np.ndarray:
    """Conformal p-values (m,): share of scores at least as large, the galaxy's own counted among them.

    Args:
        calibration: sorted scores.
        scores: (m,).
        own: whether a score is in the calibration already.
    """
    larger = len(calibration) - np.searchsorted(calibration, scores, side="left")
    among = len(calibration) + 1 - np.asarray(own, dtype=int)
    return np.minimum((larger + 1 - np.asarray(own, dtype=int)).clip(min=1) / among, 1.0)


def _typical(look: Neighbourhood, level: float) -> Bool[np.ndarray, " m"]:
    return look.p_class > np.maximum(level, look.least) + _ROUNDING


def _elected(labels: Int64[np.ndarray, "m v"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The class of most neighbours, of the nearest one among equals, and its votes; −1 and 0 if none is in a class."""
    votes = (labels[:, :, None] == labels[:, None, :]).sum(axis=2) * (labels != tables.NO_CLASS)
    winner = np.argmax(votes, axis=1)
    rows = np.arange(len(labels))
    return np.where(votes[rows, winner] > 0, labels[rows, winner], tables.NO_CLASS), votes[rows, winner]
