"""Match the classes of two searches of the same galaxies, and measure how far the two searches agree.

Every class of the old search gets one or more events, and so does every class of the new search::

    linked(a, b) = a and b share galaxies, and one of them holds at least half of the other
                   (and, where a level is set, share more than expected by chance)
    for every linked pair (a, b):
        kept      if a and b are the same class: one to one, Jaccard index at least ½
        split     else if a is linked to several classes, and b consists mostly of a, or of nothing else
        merged    else if b is linked to several classes
        changed   else
    for every old class a without a linked class:
        lost      if the new search contains galaxies of a, unseen if it contains none
    for every new class b without a linked class:
        new

Shape letters: a old classes, b new classes, n galaxies.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import hypergeom

from rarezoo import tables
from rarezoo.errors import StoreError

# Two classes are the same if their Jaccard index is at least one half. The classes of a search share no galaxy, so that
# above one half no class has two counterparts; Hennig (2007, CSDA 52, 258) calls a cluster dissolved whose best Jaccard
# index is below one half.
SAME = 0.5
# A class is a part of another class if at least half of its galaxies are in it: no third class can hold as many.
MOSTLY = 0.5
EVENTS = ("kept", "split", "merged", "changed", "new", "lost", "unseen")
_KEPT, _SPLIT, _MERGED, _CHANGED, _NEW, _LOST, _UNSEEN = EVENTS
# Relation of a class to the other search: the same class is there; a part of it, or a class that it is a part of; no
# such class; none of its galaxies were searched.
RELATIONS = ("both", "related", "own", "unseen")

Labels = Int[np.ndarray, " galaxies"]


@dataclass(frozen=True)
class ClassOverlap:
    """Galaxies that the classes of two searches share.

    Attributes
    ----------
    old
        (a,) class ids of the old search, ascending.
    new
        (b,) class ids of the new search, ascending.
    counts
        (a, b) number of galaxies in both classes.
    old_sizes
        (a,) number of galaxies of each old class that were searched by both.
    new_sizes
        (b,) number of galaxies of each new class that were searched by both.
    galaxies
        Number of galaxies that were searched by both.
    order
        (a + b,) ranks of the classes by their first galaxies, which decide between equal matches.
    level
        Pairs of classes with a corrected p-value above this are not related; with 1 p-values are not used.

    Examples
    --------
    >>> overlap = ClassOverlap.of_labels(np.array([0, 0, 0, 1, 1, -1]), np.array([4, 4, 4, 9, -1, -1]))
    >>> overlap.counterparts
    {4: 0, 9: 1}
    >>> overlap.jaccards.tolist()
    [[1.0, 0.0], [0.0, 0.5]]
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
        old_classes: Int[np.ndarray, " old"] | None = None,
        new_classes: Int[np.ndarray, " new"] | None = None,
        level: float = 1.0,
    ) -> "ClassOverlap":
        """Compare two label arrays of the same galaxies.

        Parameters
        ----------
        old, new
            (n,) class of each galaxy, −1 for none.
        old_classes, new_classes
            Every class of the search, also those without one of these galaxies. None takes the classes in the labels.
        level
            See the class.
        """
        rows, columns = (
            _class_ids(old if old_classes is None else old_classes),
            _class_ids(new if new_classes is None else new_classes),
        )
        counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
        both = (old != tables.NO_CLASS) & (new != tables.NO_CLASS)
        np.add.at(counts, (np.searchsorted(rows, old[both]), np.searchsorted(columns, new[both])), 1)
        order = np.concatenate([_first_rows(old, rows), _first_rows(new, columns)])
        return cls(rows, columns, counts, _sizes(old, rows), _sizes(new, columns), len(old), order, level)

    @classmethod
    def of_members(cls, old: pa.Table, new: pa.Table) -> "ClassOverlap":
        """Compare two MEMBERS tables.

        Raises
        ------
        StoreError
            The searches have no galaxy in common.
        """
        ids = np.intersect1d(tables.strings(old, tables.ID).astype(str), tables.strings(new, tables.ID).astype(str))
        if not len(ids):
            raise StoreError(
                "the two searches have no galaxy in common",
                value=f"{old.num_rows} and {new.num_rows} galaxies",
                fix="Compare searches of the same survey.",
            )
        return cls.of_labels(
            labels_of(old, ids),
            labels_of(new, ids),
            old_classes=old.column(tables.CLASS_ID).to_numpy(),
            new_classes=new.column(tables.CLASS_ID).to_numpy(),
        )

    @cached_property
    def jaccards(self) -> Float64[np.ndarray, "a b"]:
        """Jaccard index of each pair: galaxies in both classes over galaxies in either, 0–1."""
        either = self.old_sizes[:, None] + self.new_sizes[None, :] - self.counts
        return self.counts / np.maximum(either, 1)

    @cached_property
    def p_values(self) -> Float64[np.ndarray, "a b"]:
        """Probability of at least as many shared galaxies if the new labels were random (hypergeometric)."""
        p, (rows, columns) = np.ones(self.counts.shape), np.nonzero(self.counts)
        shared = self.counts[rows, columns] - 1
        p[rows, columns] = hypergeom.sf(shared, self.galaxies, self.old_sizes[rows], self.new_sizes[columns])
        return p

    @property
    def corrected(self) -> Float64[np.ndarray, "a b"]:
        """The p-values after Bonferroni's correction for all pairs of classes."""
        return np.minimum(self.p_values * self.counts.size, 1.0)

    @cached_property
    def _related(self) -> Bool[np.ndarray, "a b"]:
        return self.corrected <= self.level if self.level < 1 else np.ones(self.counts.shape, bool)

    @cached_property
    def best(self) -> Float64[np.ndarray, " a"]:
        """Best Jaccard index of each old class; NaN for a class without a galaxy that both searched."""
        best = self.jaccards.max(axis=1, initial=0.0)
        return np.where(self.old_sizes > 0, best, np.nan)

    @cached_property
    def counterparts(self) -> dict[int, int]:
        """The old class that each new class is, by an optimal one-to-one matching; Jaccard index at least SAME."""
        rows, columns = np.argsort(self.order[: len(self.old)]), np.argsort(self.order[len(self.old) :])
        same = (self.jaccards >= SAME) & self._related
        worth = np.where(same, self.jaccards, 0)[np.ix_(rows, columns)]
        pairs = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
        return {int(self.new[columns[j]]): int(self.old[rows[i]]) for i, j in pairs if worth[i, j] > 0}

    @cached_property
    def _linked(self) -> Bool[np.ndarray, "a b"]:
        """Pairs of which one class holds at least half of the other."""
        mostly_there = self.counts >= MOSTLY * self.old_sizes[:, None]
        mostly_from = self.counts >= MOSTLY * self.new_sizes[None, :]
        return (self.counts > 0) & (mostly_there | mostly_from) & self._related

    @cached_property
    def relations(self) -> tuple[dict[int, str], dict[int, str]]:
        """Relation of each old class to the new search and of each new class to the old one; see RELATIONS."""
        same = self.counterparts
        old = _relations(self.old, self.old_sizes, np.asarray(self._linked.any(axis=1)), set(same.values()))
        return old, _relations(self.new, self.new_sizes, np.asarray(self._linked.any(axis=0)), set(same))

    def matches(self) -> pa.Table:
        """Return the events of all classes as a MATCHES table with an additional column of corrected p-values.

        There is one row per linked pair of classes, and one per class without a linked class; see the module for the
        rule. A class that is kept may also be split or merged, as its other rows say.
        """
        linked = [self._pair(int(i), int(j)) for i, j in np.argwhere(self._linked)]
        without_new = [
            {
                **_ALONE,
                tables.CLASS_A: int(self.old[i]),
                tables.SIZE_A: int(self.old_sizes[i]),
                tables.EVENT: _LOST if self.old_sizes[i] else _UNSEEN,
            }
            for i in np.flatnonzero(~self._linked.any(axis=1))
        ]
        without_old = [
            {
                **_ALONE,
                tables.CLASS_B: int(self.new[j]),
                tables.SIZE_B: int(self.new_sizes[j]),
                tables.EVENT: _NEW,
            }
            for j in np.flatnonzero(~self._linked.any(axis=0))
        ]
        rows = sorted(
            [*linked, *without_new, *without_old],
            key=lambda row: (EVENTS.index(str(row[tables.EVENT])), row[tables.CLASS_A], row[tables.CLASS_B]),
        )
        schema = pa.schema([*tables.MATCHES.columns.items(), (tables.P_CORRECTED, pa.float64())])
        return pa.Table.from_pylist(rows, schema)

    def _pair(self, i: int, j: int) -> dict[str, object]:
        """Return the row of MATCHES of a linked pair."""
        parts, sources = int(self._linked[i].sum()), int(self._linked[:, j].sum())
        mostly_from = self.counts[i, j] >= MOSTLY * self.new_sizes[j]
        if self.counterparts.get(int(self.new[j])) == int(self.old[i]):
            event = _KEPT
        elif parts > 1 and (mostly_from or sources == 1):
            event = _SPLIT
        else:
            event = _MERGED if sources > 1 else _CHANGED
        return {
            tables.CLASS_A: int(self.old[i]),
            tables.CLASS_B: int(self.new[j]),
            tables.SIZE_A: int(self.old_sizes[i]),
            tables.SIZE_B: int(self.new_sizes[j]),
            tables.OVERLAP: int(self.counts[i, j]),
            tables.JACCARD: float(self.jaccards[i, j]),
            tables.P_VALUE: float(self.p_values[i, j]),
            tables.P_CORRECTED: float(self.corrected[i, j]),
            tables.EVENT: event,
        }


_ALONE: dict[str, object] = {
    tables.CLASS_A: tables.NO_CLASS,
    tables.CLASS_B: tables.NO_CLASS,
    tables.SIZE_A: 0,
    tables.SIZE_B: 0,
    tables.OVERLAP: 0,
    tables.JACCARD: 0.0,
    tables.P_VALUE: 1.0,
    tables.P_CORRECTED: 1.0,
}


def _relations(classes: np.ndarray, sizes: np.ndarray, linked: np.ndarray, same: set[int]) -> dict[int, str]:
    both, related, own, unseen = RELATIONS
    return {
        class_id: both if class_id in same else unseen if not size else related if link else own
        for class_id, size, link in zip(classes.tolist(), sizes.tolist(), linked.tolist(), strict=True)
    }


def fates(matches: pa.Table) -> Counter[str]:
    """Count the events of a MATCHES table: each old class once, by its first event, and the new classes."""
    first: dict[int, str] = {}
    for row in matches.to_pylist():
        if row[tables.EVENT] != _NEW:
            first.setdefault(row[tables.CLASS_A], row[tables.EVENT])
    events = Counter(first.values())
    events[_NEW] = matches[tables.EVENT].to_pylist().count(_NEW)
    return events


def labels_of(members: pa.Table, ids: np.ndarray) -> Int64[np.ndarray, " galaxies"]:
    """Return the class of each galaxy in a MEMBERS table, in the order of the ids; −1 for none.

    Raises
    ------
    StoreError
        The table lacks one of the galaxies.
    """
    rows = tables.rows_of(ids, members, source="the search")
    return members.column(tables.CLASS_ID).to_numpy().astype(np.int64)[rows]


def _class_ids(labels: np.ndarray) -> Int64[np.ndarray, " classes"]:
    every = np.unique(labels).astype(np.int64)
    return every[every != tables.NO_CLASS]


def _sizes(labels: np.ndarray, classes: np.ndarray) -> Int64[np.ndarray, " classes"]:
    return np.bincount(np.searchsorted(classes, labels[labels != tables.NO_CLASS]), minlength=len(classes))


def _first_rows(labels: np.ndarray, classes: np.ndarray) -> Int64[np.ndarray, " classes"]:
    """Return the row of the first galaxy of each class; the number of galaxies for a class without any."""
    present, rows = np.unique(labels, return_index=True)
    first = dict(zip(present.tolist(), rows.tolist(), strict=True))
    return np.array([first.get(class_id, len(labels)) for class_id in classes.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Agreement:
    """Agreement of two searches of n galaxies; an index that is not defined, for lack of classes, is NaN.

    The adjusted Rand index and the adjusted mutual information are 1 for the same classes and 0 on average for random
    labels. Most galaxies are in no class, and it depends on the question whether that counts as agreement. Therefore
    there are three versions: over the galaxies in a class of both searches, over all galaxies, and the co-assignment.

    Attributes
    ----------
    both
        Number of galaxies in a class of both searches.
    first
        Number of galaxies in a class of the first search only.
    second
        Number of galaxies in a class of the second search only.
    neither
        Number of galaxies in no class of either search.
    co_assignment
        Adjusted Rand index in which every unassigned galaxy is a class of its own: pairs of galaxies that share a class
        in both searches, corrected for chance.
    ari_both
        Adjusted Rand index over the galaxies that are in a class of both searches.
    ami_both
        Adjusted mutual information (arithmetic mean) over the same galaxies.
    ari_all, ami_all
        The same over all galaxies, where the unassigned galaxies are one more class.
    assigned
        Jaccard index of the galaxies that are in any class.
    kept
        Number of classes of one search that are a class of the other: one to one, Jaccard index at least ½.
    matched
        Share of all classes of both searches that are kept.
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


def agreement(first: Labels, second: Labels) -> Agreement:
    """Measure the agreement of two label arrays of the same galaxies.

    Parameters
    ----------
    first, second
        (n,) class of each galaxy, −1 for none.

    Examples
    --------
    >>> agreement(np.array([0, 0, 1, 1, -1]), np.array([5, 5, 3, 3, -1])).ari_both
    1.0
    """
    overlap = ClassOverlap.of_labels(first, second)
    in_first, in_second = first != tables.NO_CLASS, second != tables.NO_CLASS
    inside = in_first & in_second
    either = int((in_first | in_second).sum())
    classes, kept = len(overlap.old) + len(overlap.new), len(overlap.counterparts)
    ari_both, ami_both = _indices(first[inside], second[inside])
    ari_all, ami_all = _indices(first, second)
    return Agreement(
        both=int(inside.sum()),
        first=int((in_first & ~in_second).sum()),
        second=int((in_second & ~in_first).sum()),
        neither=int((~in_first & ~in_second).sum()),
        co_assignment=co_assignment(overlap),
        ari_both=ari_both,
        ami_both=ami_both,
        ari_all=ari_all,
        ami_all=ami_all,
        assigned=float(inside.sum() / either) if either else float("nan"),
        kept=kept,
        matched=2 * kept / classes if classes else float("nan"),
    )


def _indices(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return adjusted Rand index and adjusted mutual information; NaN with fewer than two galaxies."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    if len(first) < 2:
        return float("nan"), float("nan")
    return float(adjusted_rand_score(first, second)), float(adjusted_mutual_info_score(first, second))


def co_assignment(overlap: ClassOverlap) -> float:
    """Return the adjusted Rand index (Hubert & Arabie 1985) with every unassigned galaxy as a class of its own.

    scikit-learn's function needs a label per galaxy, and as many classes as there are unassigned galaxies; this one
    needs only the table of shared galaxies.
    """

    def pairs(sizes: np.ndarray) -> float:
        # In floating point, because products of numbers of pairs exceed int64.
        return float(np.sum(sizes * (sizes - 1.0)) / 2)

    together, old, new = pairs(overlap.counts), pairs(overlap.old_sizes), pairs(overlap.new_sizes)
    if not old and not new:
        return float("nan")
    chance = old * new / pairs(np.array([overlap.galaxies]))
    most = (old + new) / 2
    # most equals chance if all galaxies are in one class in both searches.
    return 1.0 if most == chance else float((together - chance) / (most - chance))
