"""Assign new galaxies to the classes of a search, or to none of them, and say how reliable each assignment is.

The nearest class of a galaxy is the class that most of its :data:`NEIGHBOURS` nearest searched galaxies belong to. The
galaxy is assigned to it if three conditions hold. ``level`` is written α::

    if share of neighbours in the nearest class is as large in at most α of the unassigned searched galaxies   (1)
       and distance from the members of the class is exceeded by more than α of the members' own distances    (2)
       and at least half of the searched galaxies with as many neighbours in one class belong to that class   (3):
        assign the nearest class
    else:
        assign no class

(1) and (2) are conformal p-values, which give guarantees without any model of the distribution. From (1): of new
galaxies that are exchangeable with the unassigned ones, at most α get a class. From (2): of new galaxies that are
exchangeable with the m members of a class, at most max(α, 1 / (m + 1)) fail this condition.

For the scores of (1) and (2) each searched galaxy is left out in turn. One more galaxy in the reference set could only
lower the scores of the others, so the p-values err to the large side of those of full conformal prediction, which are
exact (Vovk, Gammerman & Shafer 2005). The share of members that get their own class back is not guaranteed; it is
measured, see :class:`SelfCheck`.

Shape letters: n searched galaxies, m new galaxies, k dimensions, v neighbours that vote.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError

# The smallest class has as many members under the settings of Walmsley & Scaife (2023).
NEIGHBOURS = 10
# The distance from a class is the distance from its fifth nearest member, so that one stray member does not count.
_NEAR_MEMBERS = 5
# Most searched galaxies, and most members of one class, that p-values are calibrated with: steps of 1/40,000 and
# 1/5,000.
_CALIBRATION_GALAXIES, _CALIBRATION_MEMBERS = 40_000, 5_000
_LIKELY = 0.5
# p-values are fractions of small integers that are compared with decimals.
_ROUNDING = 1e-12


class Assignment(NamedTuple):
    """Classes of m galaxies, with probabilities and p-values.

    Attributes
    ----------
    class_ids
        (m,) assigned class, −1 for none.
    probabilities
        (m,) probability that the search would have put the galaxy into the same class, or into none; 0–1.
    nearest
        (m,) class of most neighbours, −1 if no neighbour is in a class.
    p_none
        (m,) p-value of the hypothesis that the galaxy belongs to no class, from the neighbours in the nearest class.
    p_class
        (m,) p-value of the hypothesis that the galaxy belongs to the nearest class, from its distance.
    p_known
        (m,) p-value of the hypothesis that the galaxy is like the searched ones, from the distance of its neighbours.
    """

    class_ids: Int64[np.ndarray, " m"]
    probabilities: Float32[np.ndarray, " m"]
    nearest: Int64[np.ndarray, " m"]
    p_none: Float64[np.ndarray, " m"]
    p_class: Float64[np.ndarray, " m"]
    p_known: Float64[np.ndarray, " m"]


class Neighbourhood(NamedTuple):
    """Searched galaxies and classes near each of m galaxies.

    Attributes
    ----------
    nearest
        (m,) class of most neighbours, −1 if no neighbour is in a class.
    votes
        (m,) number of neighbours in that class.
    distances
        (m,) distance of the farthest neighbour, in the units of the space.
    p_class
        (m,) as in :class:`Assignment`; 1 without a nearest class.
    least
        (m,) smallest value that ``p_class`` can take.
    """

    nearest: Int64[np.ndarray, " m"]
    votes: Int64[np.ndarray, " m"]
    distances: Float64[np.ndarray, " m"]
    p_class: Float64[np.ndarray, " m"]
    least: Float64[np.ndarray, " m"]

    def rows(self, rows: np.ndarray) -> "Neighbourhood":
        """Return the neighbourhoods of some of the galaxies."""
        return Neighbourhood(*(column[rows] for column in self))


@dataclass(frozen=True)
class SelfCheck:
    """Classes that searched galaxies are assigned to, each left out in turn, by a rule from the other half of them.

    Attributes
    ----------
    labels
        (n,) class in the search, −1 for none.
    assigned
        (n,) class that the galaxy is assigned to, −1 for none.
    """

    labels: Int64[np.ndarray, " n"]
    assigned: Int64[np.ndarray, " n"]

    def recovered(self, class_id: int | None = None) -> tuple[int, int]:
        """Return how many members of a class (None: of all classes) get their class back, and how many there are."""
        inside = self.labels != tables.NO_CLASS if class_id is None else self.labels == class_id
        return int(np.sum(self.assigned[inside] == self.labels[inside])), int(inside.sum())

    @property
    def misplaced(self) -> int:
        """Number of members that are assigned to another class."""
        in_both = (self.labels != tables.NO_CLASS) & (self.assigned != tables.NO_CLASS)
        return int(np.sum(in_both & (self.assigned != self.labels)))

    @property
    def falsely_assigned(self) -> tuple[int, int]:
        """Number of unassigned galaxies that are assigned to a class, and number of unassigned galaxies."""
        outside = self.labels == tables.NO_CLASS
        return int(np.sum(self.assigned[outside] != tables.NO_CLASS)), int(outside.sum())


@dataclass(frozen=True)
class Assigner:
    """Reference galaxies in classes, ready to assign other galaxies.

    Attributes
    ----------
    positions
        (n, k) searched galaxies in the space in which galaxies are compared, by Euclidean distance.
    labels
        (n,) class of each, −1 for none.
    level
        α of the module's rule: the share of galaxies of no class that may get one. More than 0, at most 1.
    seed
        Seed of the draw of galaxies for calibration.
    exact
        Compare with every searched galaxy. Otherwise 99 % of the true neighbours are found, for calibration and new
        galaxies alike, many times faster among hundreds of thousands.

    Raises
    ------
    ConfigError
        The level is no share, or there are too few galaxies without a class to guarantee it.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> bulk, group = random.normal(0, 1, (200, 2)), random.normal(6, 0.3, (40, 2))
    >>> positions = np.concatenate([bulk, group]).astype(np.float32)
    >>> assigner = Assigner(positions, np.repeat([-1, 0], [200, 40]))
    >>> assigner.assign(np.array([[6, 6], [0, 0]], np.float32)).class_ids
    array([ 0, -1])
    """

    positions: Float32[np.ndarray, "n k"]
    labels: Int64[np.ndarray, " n"]
    level: float = 0.05
    seed: int = 0
    exact: bool = True

    def __post_init__(self) -> None:
        unassigned = int(np.sum(self.labels == tables.NO_CLASS))
        if not 0 < self.level <= 1:
            raise ConfigError("level must be a share", value=self.level, fix="Choose more than 0 and at most 1.")
        if len(self.positions) < 2:
            raise ConfigError(
                "too few searched galaxies to assign others", value=len(self.positions), fix="Search two or more."
            )
        if self.level * (unassigned + 1) < 1 - _ROUNDING:
            raise ConfigError(
                f"only {unassigned} galaxies of the search are in no class, which are too few to guarantee level",
                value=self.level,
                fix=f"Choose {1 / (unassigned + 1):.2g} or more.",
            )

    def assign(
        self, positions: Float32[np.ndarray, "m k"], *, rows: Int64[np.ndarray, " m"] | None = None
    ) -> Assignment:
        """Assign galaxies to classes.

        Parameters
        ----------
        positions
            (m, k) galaxies to assign.
        rows
            (m,) row of a galaxy among the searched ones if it was searched itself, −1 otherwise: a galaxy is never its
            own neighbour. None stands for −1 everywhere.

        Returns
        -------
        Assignment
            Classes, probabilities and p-values, one per galaxy.
        """
        rows = np.full(len(positions), -1) if rows is None else rows
        if not len(positions):
            return Assignment(*(np.empty(0, kind) for kind in (np.int64, np.float32, np.int64, float, float, float)))
        near = self.neighbourhood(positions, rows=rows)
        class_ids, probabilities, p_none = self._rule.apply(near)
        p_known = p_values(self.known_distances, near.distances, own=rows >= 0)
        return Assignment(class_ids, probabilities.astype(np.float32), near.nearest, p_none, near.p_class, p_known)

    @cached_property
    def known_distances(self) -> Float64[np.ndarray, " drawn"]:
        """Sorted distances of searched galaxies from their farthest neighbours."""
        return np.sort(self._own_neighbourhood.distances)

    @cached_property
    def check(self) -> SelfCheck:
        """Classes of searched galaxies under rules that are fitted to the other half of them."""
        labels = self.labels[self._drawn]
        assigned = np.empty_like(labels)
        halves = np.random.default_rng(self.seed).permutation(len(labels)) % 2
        for half in (0, 1):
            tested, fitted = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
            rule = _Rule.fit(self._own_neighbourhood.rows(fitted), labels[fitted], level=self.level)
            assigned[tested] = rule.apply(self._own_neighbourhood.rows(tested))[0]
        return SelfCheck(labels, assigned)

    @property
    def neighbours(self) -> int:
        """Number of nearest searched galaxies that vote."""
        return min(NEIGHBOURS, len(self.positions) - 1)

    def neighbourhood(self, positions: Float32[np.ndarray, "m k"], *, rows: Int64[np.ndarray, " m"]) -> Neighbourhood:
        """Return the neighbourhoods of galaxies; ``rows`` as in :meth:`assign`."""
        near, distances = self._index.query(positions, self.neighbours, itself=rows)
        nearest, votes = _vote(self.labels[near])
        p_class, least = np.ones(len(positions)), np.zeros(len(positions))
        for class_id in np.unique(nearest[nearest != tables.NO_CLASS]).tolist():
            asked = np.flatnonzero(nearest == class_id)
            own = (rows[asked] >= 0) & (self.labels[rows[asked]] == class_id)
            p_class[asked], least[asked] = self._classes[class_id].p_values(positions[asked], own=own)
        return Neighbourhood(nearest, votes, distances[:, -1].astype(np.float64), p_class, least)

    def reaches(
        self, positions: Float32[np.ndarray, "m k"], *, rows: Int64[np.ndarray, " m"], neighbours: int
    ) -> Float64[np.ndarray, " m"]:
        """Return the distance of each galaxy from its k-th nearest searched one, k being ``neighbours``."""
        if not len(positions):
            return np.empty(0)
        wanted = min(neighbours, len(self.positions) - 1)
        return self._index.query(positions, wanted, itself=rows).distances[:, -1].astype(np.float64)

    @cached_property
    def _drawn(self) -> Int64[np.ndarray, " drawn"]:
        random = np.random.default_rng([self.seed, 1])
        return np.sort(random.permutation(len(self.labels))[:_CALIBRATION_GALAXIES])

    @cached_property
    def _own_neighbourhood(self) -> Neighbourhood:
        return self.neighbourhood(self.positions[self._drawn], rows=self._drawn)

    @cached_property
    def _rule(self) -> "_Rule":
        return _Rule.fit(self._own_neighbourhood, self.labels[self._drawn], level=self.level)

    @cached_property
    def _index(self) -> NeighbourIndex:
        return NeighbourIndex(self.positions, exact=self.exact, seed=self.seed)

    @cached_property
    def _classes(self) -> dict[int, "_Members"]:
        known = np.unique(self.labels[self.labels != tables.NO_CLASS]).tolist()
        return {class_id: _Members(self.positions[self.labels == class_id], self.seed) for class_id in known}


@dataclass(frozen=True)
class _Rule:
    """The module's rule, fitted to searched galaxies.

    Attributes
    ----------
    level
        α.
    none_votes
        Sorted votes of the unassigned galaxies.
    likely
        (v + 1,) for each number of votes the share of galaxies whose nearest class is their own; it never decreases.
    """

    level: float
    none_votes: Int64[np.ndarray, " unassigned"]
    likely: Float64[np.ndarray, " counts"]

    @classmethod
    def fit(cls, near: Neighbourhood, labels: Int64[np.ndarray, " m"], *, level: float) -> "_Rule":
        """Fit the rule to galaxies whose classes are known."""
        from sklearn.isotonic import IsotonicRegression

        typical = _typical(near, level)
        right = (near.nearest == labels) & (labels != tables.NO_CLASS)
        rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        # One galaxy of no class with no vote keeps the fit defined, and 0 for galaxies without a vote.
        rising.fit(np.append(near.votes[typical], 0), np.append(right[typical].astype(np.float64), 0.0))
        none_votes = np.sort(near.votes[labels == tables.NO_CLASS])
        return cls(level, none_votes, np.asarray(rising.predict(np.arange(NEIGHBOURS + 1)), dtype=np.float64))

    def apply(self, near: Neighbourhood) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return class ids, their probabilities, and p-values of belonging to no class."""
        p_none = p_values(self.none_votes, near.votes)
        likely = np.where(_typical(near, self.level), self.likely[near.votes], 0.0)
        assigned = (near.nearest != tables.NO_CLASS) & (p_none <= self.level + _ROUNDING) & (likely >= _LIKELY)
        return np.where(assigned, near.nearest, tables.NO_CLASS), np.where(assigned, likely, 1 - likely), p_none


@dataclass(frozen=True)
class _Members:
    """The members of one class, and the distances of galaxies from it."""

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
        """Sorted distances of the members (of a draw of them, if there are many) from the other members."""
        if len(self.positions) < 2:
            return np.empty(0)
        drawn = np.random.default_rng(self.seed).permutation(len(self.positions))[:_CALIBRATION_MEMBERS]
        return np.sort(self._distances(self.positions[drawn], own=np.ones(len(drawn), dtype=bool)))

    def _distances(self, positions: np.ndarray, *, own: np.ndarray) -> np.ndarray:
        """Return distances from the class; a member is its own nearest member, which does not count."""
        distances = self._index.query(positions, min(self._near + 1, len(self.positions))).distances
        return np.where(own, distances[:, -1], distances[:, self._near - 1]).astype(np.float64)

    def p_values(self, positions: np.ndarray, *, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the p-values of being a member, and the smallest values that they can take."""
        least = 1 / (len(self._own) + 1 - own)
        return p_values(self._own, self._distances(positions, own=own), own=own), least


def p_values(calibration: np.ndarray, scores: np.ndarray, *, own: np.ndarray | bool = False) -> np.ndarray:
    """Return conformal p-values: the share of scores that are at least as large, the galaxy's own score included.

    Parameters
    ----------
    calibration
        Sorted scores.
    scores
        (m,) scores of the galaxies.
    own
        Whether the score of a galaxy is already one of the calibration scores.

    Returns
    -------
    numpy.ndarray
        (m,) p-values.

    Examples
    --------
    >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([2.0, 9.0]))
    array([0.75, 0.25])
    """
    larger = len(calibration) - np.searchsorted(calibration, scores, side="left")
    counted = len(calibration) + 1 - np.asarray(own, dtype=int)
    return np.minimum((larger + 1 - np.asarray(own, dtype=int)).clip(min=1) / counted, 1.0)


def _typical(near: Neighbourhood, level: float) -> Bool[np.ndarray, " m"]:
    """Return which galaxies meet condition (2) of the module's rule."""
    return near.p_class > np.maximum(level, near.least) + _ROUNDING


def _vote(labels: Int64[np.ndarray, "m v"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return the class of most neighbours and its votes; −1 and 0 if no neighbour is in a class.

    Between classes with equal votes the one of the nearest neighbour wins.
    """
    votes = (labels[:, :, None] == labels[:, None, :]).sum(axis=2) * (labels != tables.NO_CLASS)
    winner = np.argmax(votes, axis=1)
    rows = np.arange(len(labels))
    return np.where(votes[rows, winner] > 0, labels[rows, winner], tables.NO_CLASS), votes[rows, winner]
