"""Which classes of one search are those of another: kept, split, merged, changed, appeared or died.

Shape letters: a old classes, b new classes.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import hypergeom

from rarezoo import tables
from rarezoo.errors import StoreError

# Two classes are the same when what they share is at least half of what they hold together. Above one half no class has
# two counterparts, for the classes of a search share no galaxy; Hennig (2007, CSDA 52, 258) calls a cluster whose best
# Jaccard is below one half dissolved.
SAME = 0.5
# One class is a part of another when at least half of its galaxies lie there: from nowhere else come so many.
MOSTLY = 0.5
EVENTS = ("kept", "split", "merged", "changed", "appeared", "died", "unseen")
_KEPT, _SPLIT, _MERGED, _CHANGED, _APPEARED, _DIED, _UNSEEN = EVENTS
# What a class is to another search: found there too, in parts or as a part; not found; none of its galaxies known.
RELATIONS = ("both", "related", "own", "unseen")

Labels = Int[np.ndarray, " galaxies"]


@dataclass(frozen=True)
class ClassOverlap:
    """The classes of two searches over the galaxies that both know.

    Attributes:
        old: (a,) class ids of the one, ascending.
        new: (b,) class ids of the other, ascending.
        counts: (a, b) galaxies in both classes.
        old_sizes: (a,) galaxies of each class that the other search knows too.
        new_sizes: (b,) likewise.
        galaxies: known to both.
        order: (a + b,) ranks of the classes by their first galaxies, which decide between equals.
        level: pairs of classes whose corrected p-value is above have nothing to do with each other; 1 asks no p-value.
    """

    old: Int64[np.ndarray, " a"]
    new: Int64[np.ndarray, " b"]
    counts: Int64[np.ndarray, "a b"]
    old_sizes: Int64[np.ndarray, " a"]
    new_sizes: Int64[np.ndarray, " b"]
    galaxies: int
    order: Int64[np.ndarray, " classes"]
    level: float = 1.0

    @classmethod
    def of_labels(
        cls,
        old: Labels,
        new: Labels,
        *,
        old_classes: Labels | None = None,
        new_classes: Labels | None = None,
        level: float = 1.0,
    ) -> "ClassOverlap":
        """From two label arrays of the same galaxies, −1 for none.

        Args:
            old: (n,) labels.
            new: (n,) labels of the same galaxies.
            old_classes: every class of the search, those without a galaxy here included; None takes those in ``old``.
            new_classes: likewise.
            level: see :class:`ClassOverlap`.
        """
        rows, columns = (_classes(*pair) for pair in ((old, old_classes), (new, new_classes)))
        counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
        both = (old != tables.NO_CLASS) & (new != tables.NO_CLASS)
        np.add.at(counts, (np.searchsorted(rows, old[both]), np.searchsorted(columns, new[both])), 1)
        order = np.concatenate([_first_rows(old, rows), _first_rows(new, columns)])
        return cls(rows, columns, counts, _sizes(old, rows), _sizes(new, columns), len(old), order, level)

    @classmethod
    def of_members(cls, old: pa.Table, new: pa.Table) -> "ClassOverlap":
        """From two MEMBERS tables.

        Raises:
            StoreError: they have no galaxy in common.
        """
        ids = np.intersect1d(tables.strings(old, tables.ID).astype(str), tables.strings(new, tables.ID).astype(str))
        if not len(ids):
            raise StoreError(
                "the two searches have no galaxy in common", value=f"{old.num_rows} and {new.num_rows} galaxies",
                fix="Compare searches of the same survey.",
            )  # fmt: skip
        labels = (labels_of(one, ids) for one in (old, new))
        old_classes, new_classes = (_labels(one) for one in (old, new))
        return cls.of_labels(*labels, old_classes=old_classes, new_classes=new_classes)

    @cached_property
    def jaccards(self) -> Float64[np.ndarray, "a b"]:
        """Galaxies in both classes over galaxies in either, 0–1; 0 for two classes without a galaxy here."""
        either = self.old_sizes[:, None] + self.new_sizes[None, :] - self.counts
        return self.counts / np.maximum(either, 1)

    @cached_property
    def p_values(self) -> Float64[np.ndarray, "a b"]:
        """The chance of as many shared galaxies had the new labels been dealt out blindly (hypergeometric)."""
        p, (rows, columns) = np.ones(self.counts.shape), np.nonzero(self.counts)
        shared = self.counts[rows, columns] - 1
        p[rows, columns] = hypergeom.sf(shared, self.galaxies, self.old_sizes[rows], self.new_sizes[columns])
        return p

    @property
    def corrected(self) -> Float64[np.ndarray, "a b"]:
        """The p-values after Bonferroni's correction for every pair of classes that could have been picked out."""
        return np.minimum(self.p_values * self.counts.size, 1.0)

    @cached_property
    def _related(self) -> Bool[np.ndarray, "a b"]:
        return self.corrected <= self.level if self.level < 1 else np.ones(self.counts.shape, bool)

    @cached_property
    def best(self) -> Float64[np.ndarray, " a"]:
        """The best Jaccard of each old class; NaN for one without a galaxy here."""
        best = self.jaccards.max(axis=1, initial=0.0)
        return np.where(self.old_sizes > 0, best, np.nan)

    @cached_property
    def counterparts(self) -> dict[int, int]:
        """New class → the old class that it is: optimal one to one, Jaccard at least :data:`SAME`."""
        rows, columns = np.argsort(self.order[: len(self.old)]), np.argsort(self.order[len(self.old) :])
        same = (self.jaccards >= SAME) & self._related
        worth = np.where(same, self.jaccards, 0)[np.ix_(rows, columns)]
        pairs = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
        return {int(self.new[columns[j]]): int(self.old[rows[i]]) for i, j in pairs if worth[i, j] > 0}

    @cached_property
    def _linked(self) -> Bool[np.ndarray, "a b"]:
        """Pairs of which one holds most of the other."""
        mostly_there = self.counts >= MOSTLY * self.old_sizes[:, None]
        mostly_from = self.counts >= MOSTLY * self.new_sizes[None, :]
        return (self.counts > 0) & (mostly_there | mostly_from) & self._related

    @cached_property
    def relations(self) -> tuple[dict[int, str], dict[int, str]]:
        """What each old class is to the new search, and each new class to the old one: one of :data:`RELATIONS`."""
        same = self.counterparts
        old = _relations(self.old, self.old_sizes, self._linked.any(axis=1), set(same.values()))
        return old, _relations(self.new, self.new_sizes, self._linked.any(axis=0), set(same))

    def matches(self) -> pa.Table:
        """MATCHES: what became of every old class, and where every new one comes from.

        One row per pair of classes of which one holds at least half of the other (:data:`MOSTLY`): ``kept``;
        ``split``, a part of an old class that has several; ``merged``, an old class in a new one that holds several;
        ``changed``, neither. One row per class without such a pair: ``died``, or ``unseen`` if the new search knows
        none of its galaxies; ``appeared``. A class that is kept may be split or merged too, as its other rows
        say.

        With :attr:`p_values`, and in a column more :attr:`corrected`.
        """
        linked = [self._pair(i, j) for i, j in np.argwhere(self._linked)]
        gone = [self._gone(int(i)) for i in np.flatnonzero(~self._linked.any(axis=1))]
        appeared = [self._appeared(int(j)) for j in np.flatnonzero(~self._linked.any(axis=0))]
        rows = sorted(
            [*linked, *gone, *appeared],
            key=lambda row: (EVENTS.index(row[tables.EVENT]), row[tables.CLASS_A], row[tables.CLASS_B]),
        )
        return pa.Table.from_pylist(
            rows, pa.schema([*tables.MATCHES.columns.items(), (tables.P_CORRECTED, pa.float64())])
        )

    def _pair(self, i: int, j: int) -> dict[str, object]:
        shared, size_a, size_b = int(self.counts[i, j]), int(self.old_sizes[i]), int(self.new_sizes[j])
        return {
            tables.CLASS_A: int(self.old[i]),
            tables.CLASS_B: int(self.new[j]),
            tables.SIZE_A: size_a,
            tables.SIZE_B: size_b,
            tables.OVERLAP: shared,
            tables.JACCARD: float(self.jaccards[i, j]),
            tables.P_VALUE: float(self.p_values[i, j]),
            tables.P_CORRECTED: float(self.corrected[i, j]),
            tables.EVENT: self._event(i, j),
        }

    def _event(self, i: int, j: int) -> str:
        if self.counterparts.get(int(self.new[j])) == int(self.old[i]):
            return _KEPT
        parts, sources = int(self._linked[i].sum()), int(self._linked[:, j].sum())
        mostly_from = self.counts[i, j] >= MOSTLY * self.new_sizes[j]
        if parts > 1 and (mostly_from or sources == 1):
            return _SPLIT
        return _MERGED if sources > 1 else _CHANGED

    def _gone(self, i: int) -> dict[str, object]:
        size = int(self.old_sizes[i])
        event = _DIED if size else _UNSEEN
        return {**_ALONE, tables.CLASS_A: int(self.old[i]), tables.SIZE_A: size, tables.EVENT: event}

    def _appeared(self, j: int) -> dict[str, object]:
        size = int(self.new_sizes[j])
        return {**_ALONE, tables.CLASS_B: int(self.new[j]), tables.SIZE_B: size, tables.EVENT: _APPEARED}


_ALONE: dict[str, object] = {
    tables.CLASS_A: tables.NO_CLASS, tables.CLASS_B: tables.NO_CLASS, tables.SIZE_A: 0, tables.SIZE_B: 0,
    tables.OVERLAP: 0, tables.JACCARD: 0.0, tables.P_VALUE: 1.0, tables.P_CORRECTED: 1.0,
}  # fmt: skip


def _relations(classes: np.ndarray, sizes: np.ndarray, linked: Any, same: set[int]) -> dict[int, str]:
    both, related, own, unseen = RELATIONS
    return {
        one: both if one in same else unseen if not size else related if link else own
        for one, size, link in zip(classes.tolist(), sizes.tolist(), linked.tolist(), strict=True)
    }


def fates(matches: pa.Table) -> Counter[str]:
    """How many old classes met each event, ``kept`` before any other, and how many new ones appeared."""
    first: dict[int, str] = {}
    for row in matches.to_pylist():
        if row[tables.EVENT] != _APPEARED:
            first.setdefault(row[tables.CLASS_A], row[tables.EVENT])
    events = Counter(first.values())
    events[_APPEARED] = matches[tables.EVENT].to_pylist().count(_APPEARED)
    return events


def labels_of(members: pa.Table, ids: np.ndarray) -> Int64[np.ndarray, " galaxies"]:
    """Labels (n,) of galaxies that a MEMBERS table holds, in the order of their ids."""
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=members.column(tables.ID).combine_chunks())
    return _labels(members)[rows.to_numpy()]


def _labels(members: pa.Table) -> Int64[np.ndarray, " galaxies"]:
    return members.column(tables.CLASS_ID).to_numpy().astype(np.int64)


def _classes(labels: Labels, known: Labels | None) -> Int64[np.ndarray, " classes"]:
    every = np.unique(labels if known is None else known).astype(np.int64)
    return every[every != tables.NO_CLASS]


def _sizes(labels: Labels, classes: np.ndarray) -> Int64[np.ndarray, " classes"]:
    return np.bincount(np.searchsorted(classes, labels[labels != tables.NO_CLASS]), minlength=len(classes))


def _first_rows(labels: Labels, classes: np.ndarray) -> Int64[np.ndarray, " classes"]:
    """The row of each class's first galaxy; beyond the last for a class without any."""
    found, rows = np.unique(labels, return_index=True)
    first = dict(zip(found.tolist(), rows.tolist(), strict=True))
    return np.array([first.get(one, len(labels)) for one in classes.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Agreement:
    """Of two labellings of n galaxies. An index that says nothing, for want of classes, is NaN.

    The adjusted Rand index and the adjusted mutual information are 1 for the same classes and 0 on average for labels
    dealt out blindly.

    Attributes:
        both: galaxies in a class of both searches.
        first: in a class of the first search only.
        second: in a class of the second only.
        neither: in no class of either.
        co_assignment: adjusted Rand index in which every unassigned galaxy is alone: pairs that share a class in both,
            corrected for chance. 1 for the same classes, 0 for no more pairs than by chance.
        ari_both: adjusted Rand index over the galaxies that are in a class in both.
        ami_both: adjusted mutual information (of the arithmetic mean) over the same galaxies.
        ari_all, ami_all: over all galaxies, those in no class being one class more.
        assigned: Jaccard index of the galaxies in any class.
        kept: classes of the one that are a class of the other: one to one, Jaccard ≥ ½.
        matched: share of all classes of both that are kept.
    """

    both: int
    first: int
    second: int
    neither: int
    co_assignment: float
    ari_both: float
    ami_both: float
    ari_all: float
    ami_all: float
    assigned: float
    kept: int
    matched: float


def agreement(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> Agreement:
    """Of two label arrays of the same galaxies, −1 for none."""
    comparison = ClassOverlap.of_labels(one, other)
    ours, theirs = one != tables.NO_CLASS, other != tables.NO_CLASS
    inside = ours & theirs
    either = int((ours | theirs).sum())
    classes, kept = len(comparison.old) + len(comparison.new), len(comparison.counterparts)
    ari_both, ami_both = _indices(one[inside], other[inside])
    ari_all, ami_all = _indices(one, other)
    return Agreement(
        both=int(inside.sum()), first=int((ours & ~theirs).sum()), second=int((theirs & ~ours).sum()),
        neither=int((~ours & ~theirs).sum()),
        co_assignment=co_assignment(comparison),
        ari_both=ari_both, ami_both=ami_both, ari_all=ari_all, ami_all=ami_all,
        assigned=float(inside.sum() / either) if either else np.nan,
        kept=kept, matched=2 * kept / classes if classes else np.nan,
    )  # fmt: skip


def _indices(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    if len(one) < 2:
        return float("nan"), float("nan")
    return float(adjusted_rand_score(one, other)), float(adjusted_mutual_info_score(one, other))


def co_assignment(comparison: ClassOverlap) -> float:
    """Adjusted Rand index (Hubert & Arabie 1985) of two searches, every unassigned galaxy a class of its own."""
    together = _count_pairs(comparison.counts)
    old, new = _count_pairs(comparison.old_sizes), _count_pairs(comparison.new_sizes)
    if not old and not new:
        return np.nan
    chance = old * new / _count_pairs(np.array([comparison.galaxies]))
    most = (old + new) / 2
    # All galaxies in one class, in both.
    return 1.0 if most == chance else float((together - chance) / (most - chance))


def _count_pairs(sizes: np.ndarray) -> float:
    """Pairs within groups of such sizes; in floating point, as products of them pass int64."""
    return float(np.sum(sizes * (sizes - 1.0)) / 2)
