"""How far two searches of the same galaxies agree, with the many that are in no class dealt with openly.

Shape letters: n galaxies.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from rarezoo import tables
from rarezoo.explore.matching import Comparison


@dataclass(frozen=True)
class Agreement:
    """Of two labellings. An index that says nothing, for want of classes, is NaN.

    Attributes:
        co_assignment: adjusted Rand index in which every unassigned galaxy is alone: pairs that share a class in both,
            corrected for chance. 1 for the same classes, 0 for no more pairs than by chance.
        ari_both: adjusted Rand index over the galaxies that are in a class in both.
        ami_both: adjusted mutual information (of the arithmetic mean) over the same galaxies.
        assigned: Jaccard index of the galaxies in any class.
        kept: classes of the one that are a class of the other: one to one, Jaccard ≥ ½.
        matched: share of all classes of both that are kept.
    """

    co_assignment: float
    ari_both: float
    ami_both: float
    assigned: float
    kept: int
    matched: float


def agreement(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> Agreement:
    """Of two label arrays of the same galaxies, −1 for none."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    comparison = Comparison.of_labels(one, other)
    inside = [labels != tables.NO_CLASS for labels in (one, other)]
    both, either = inside[0] & inside[1], int((inside[0] | inside[1]).sum())
    classes, kept = len(comparison.old) + len(comparison.new), len(comparison.counterparts)
    shared = one[both], other[both]
    return Agreement(
        co_assignment=co_assignment(comparison),
        ari_both=float(adjusted_rand_score(*shared)) if both.any() else np.nan,
        ami_both=float(adjusted_mutual_info_score(*shared)) if both.any() else np.nan,
        assigned=float(both.sum() / either) if either else np.nan,
        kept=kept,
        matched=2 * kept / classes if classes else np.nan,
    )


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
