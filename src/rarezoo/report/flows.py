"""The classes of two searches side by side, with the galaxies that they share as ribbons (a Sankey diagram).

The layout is our own, because it is computed once when the page is written: the page then needs no drawing library, and
its tests compare numbers instead of pictures.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rarezoo.searches.matching import ClassOverlap

# Width of the drawing, of the bar of a class, of the room for names, and gap between two bars, px.
WIDTH, BAR, NAMES, GAP = 900, 14, 90, 7
# Height of the side with more galaxies: per class of the side with more classes, and the smallest, px.
_PER_CLASS, _LEAST = 20, 320
# Ribbons with smaller shares of both their classes are left out, because a drawing of all of them cannot be read.
FAINT = 0.05


@dataclass(frozen=True)
class FlowBar:
    """The bar of a class: its id, and the top and height of the bar, px."""

    id: int
    top: float
    height: float

    @property
    def middle(self) -> float:
        """Height at which the name of the class is written, px."""
        return self.top + self.height / 2


@dataclass(frozen=True)
class Ribbon:
    """Galaxies of class ``old`` that are in class ``new``, and their ribbon as an SVG path."""

    old: int
    new: int
    galaxies: int
    path: str


@dataclass(frozen=True)
class Flows:
    """The whole drawing. Classes without ribbons come last.

    Attributes
    ----------
    old, new
        Bars of the two searches, from the top down.
    flows
        Ribbons, the largest first.
    height
        Height of the drawing, px.
    faint
        Number of ribbons that are left out.
    """

    old: tuple[FlowBar, ...]
    new: tuple[FlowBar, ...]
    flows: tuple[Ribbon, ...]
    height: float
    faint: int


def flows(overlap: ClassOverlap) -> Flows:
    """Lay out two searches: bars as high as their galaxies, in an order in which few ribbons cross.

    Examples
    --------
    >>> drawing = flows(ClassOverlap.of_labels(np.array([0, 0, 1, -1]), np.array([5, 5, -1, 6])))
    >>> [(ribbon.old, ribbon.new, ribbon.galaxies) for ribbon in drawing.flows]
    [(0, 5, 2)]
    """
    rows, columns = orders(overlap)
    classes = max(len(overlap.old), len(overlap.new), 1)
    bars = max(_LEAST, _PER_CLASS * classes) - GAP * classes
    px_per_galaxy = float(bars / max(overlap.old_sizes.sum(), overlap.new_sizes.sum(), 1))
    old = _bars(overlap.old, overlap.old_sizes, rows, px_per_galaxy)
    new = _bars(overlap.new, overlap.new_sizes, columns, px_per_galaxy)
    shown = _worth_showing(overlap)
    # Ribbons are stacked on each bar in the order in which they reach the other side.
    left, right = {bar.id: bar.top for bar in old}, {bar.id: bar.top for bar in new}
    ribbons = []
    for i in rows.tolist():
        for j in columns[shown[i, columns]].tolist():
            class_id, other, galaxies = int(overlap.old[i]), int(overlap.new[j]), int(overlap.counts[i, j])
            thick = galaxies * px_per_galaxy
            ribbons.append(Ribbon(class_id, other, galaxies, _ribbon_path(left[class_id], right[other], thick)))
            left[class_id] += thick
            right[other] += thick
    return Flows(
        old, new, tuple(sorted(ribbons, key=lambda ribbon: -ribbon.galaxies)),
        max([float(bars + GAP * (classes + 1)), *(bar.top + bar.height + GAP for bar in (*old, *new))]),
        int(((overlap.counts > 0) & ~shown).sum()),
    )  # fmt: skip


def orders(overlap: ClassOverlap) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Order rows and columns of the counts so that large counts are near the diagonal.

    Classes of the old search are sorted by size, those of the new one by the mean place of the classes that share
    galaxies with them. Classes that share nothing come last.
    """
    counts = np.where(_worth_showing(overlap), overlap.counts, 0)
    rows = np.lexsort([overlap.old, -overlap.old_sizes, counts.sum(axis=1) == 0])
    columns = np.lexsort([overlap.new, -overlap.new_sizes, _mean_places(counts[rows].T)])
    rows = rows[np.lexsort([np.arange(len(rows)), _mean_places(counts[np.ix_(rows, columns)])])]
    return rows, columns


def _mean_places(counts: np.ndarray) -> Float64[np.ndarray, " classes"]:
    """Return the mean column of the counts in each row; infinity for a row without counts."""
    totals = counts.sum(axis=1)
    places = counts @ np.arange(counts.shape[1], dtype=np.float64) / np.maximum(totals, 1)
    return np.where(totals > 0, places, np.inf)


def _worth_showing(overlap: ClassOverlap) -> Bool[np.ndarray, "a b"]:
    of_old = overlap.counts >= FAINT * np.maximum(overlap.old_sizes, 1)[:, None]
    of_new = overlap.counts >= FAINT * np.maximum(overlap.new_sizes, 1)[None, :]
    return (overlap.counts > 0) & (of_old | of_new)


def _bars(ids: np.ndarray, sizes: np.ndarray, order: np.ndarray, px_per_galaxy: float) -> tuple[FlowBar, ...]:
    bars, top = [], float(GAP)
    for place in order.tolist():
        height = max(float(sizes[place]) * px_per_galaxy, 1.0)
        bars.append(FlowBar(int(ids[place]), round(top, 2), round(height, 2)))
        # Small classes need room for their names.
        top += max(height, 6.0) + GAP
    return tuple(bars)


def _ribbon_path(left: float, right: float, thick: float) -> str:
    start, end, middle = NAMES + BAR, WIDTH - NAMES - BAR, WIDTH / 2
    thick = max(thick, 0.7)
    there = f"M{start} {left:.1f}C{middle:g} {left:.1f} {middle:g} {right:.1f} {end} {right:.1f}"
    back = (
        f"V{right + thick:.1f}C{middle:g} {right + thick:.1f} {middle:g} {left + thick:.1f} {start} {left + thick:.1f}Z"
    )
    return there + back
