"""How far two searches of the same galaxies agree, with the many that are in no class dealt with openly.

Shape letters: n galaxies.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from rarezoo import tables
from rarezoo.searches.matching import Comparison


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
    comparison = Comparison.of_labels(one, other)
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


def co_assignment(comparison: Comparison) -> float:
    """Adjusted Rand index (Hubert & Arabie 1985) of two searches, every unassigned galaxy a class of its own."""
    together = _pairs(comparison.counts)
    old, new = _pairs(comparison.old_sizes), _pairs(comparison.new_sizes)
    if not old and not new:
        return np.nan
    chance = old * new / _pairs(np.array([comparison.galaxies]))
    most = (old + new) / 2
    # All galaxies in one class, in both.
    return 1.0 if most == chance else float((together - chance) / (most - chance))


def _pairs(sizes: np.ndarray) -> float:
    """Pairs within groups of such sizes; in floating point, as products of them pass int64."""
    return float(np.sum(sizes * (sizes - 1.0)) / 2)
