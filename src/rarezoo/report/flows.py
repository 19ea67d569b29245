"""The classes of two searches drawn side by side, and the galaxies that flow between them (a Sankey diagram)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from rarezoo.searches.matching import ClassOverlap

# Units of the drawing, px: its width, a class's bar, the room for names, and between two bars.
WIDTH, BAR, NAMES, GAP = 900, 14, 90, 7
# Height that the galaxies of the side with more of them take, per class of the side with more classes.
_PER_CLASS, _LEAST = 20, 320
# Flows that are smaller shares of both their classes are left out: a drawing of all of them shows none.
FAINT = 0.05


@dataclass(frozen=True)
class Bar:
    """A class: its id, and where its bar begins and how high it is, px."""

    id: int
    top: float
    height: float

    @property
    def middle(self) -> float:
        """Where its name stands."""
        return self.top + self.height / 2


@dataclass(frozen=True)
class Flow:
    """Galaxies of class ``old`` that are in class ``new``, and their ribbon as an SVG path."""

    old: int
    new: int
    galaxies: int
    path: str


@dataclass(frozen=True)
class Flows:
    """The whole drawing; classes that nothing flows to stand last.

    Attributes:
        old, new: bars from the top down.
        flows: the largest first.
        height: px.
        faint: flows left out.
    """

    old: tuple[Bar, ...]
    new: tuple[Bar, ...]
    flows: tuple[Flow, ...]
    height: float
    faint: int


def flows(comparison: ClassOverlap) -> Flows:
    """Lay out two searches: bars as high as their galaxies, in an order in which few ribbons cross."""
    rows, columns = orders(comparison)
    unit, height = _scale(comparison)
    old = _bars(comparison.old, comparison.old_sizes, rows, unit)
    new = _bars(comparison.new, comparison.new_sizes, columns, unit)
    shown = _worth_showing(comparison)
    ribbons = _ribbons(comparison, shown, rows, columns, {"old": old, "new": new}, unit)
    return Flows(
        tuple(old[one] for one in comparison.old[rows].tolist()),
        tuple(new[one] for one in comparison.new[columns].tolist()),
        tuple(sorted(ribbons, key=lambda flow: -flow.galaxies)),
        max([height, *(bar.top + bar.height + GAP for bar in (*old.values(), *new.values()))]),
        int(((comparison.counts > 0) & ~shown).sum()),
    )


def orders(comparison: ClassOverlap) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Rows and columns of the counts so that what belongs together lies near the diagonal: old classes by size, the new
    ones by the mean place of those that flow into them; what shares nothing comes last."""
    counts = np.where(_worth_showing(comparison), comparison.counts, 0)
    rows = np.lexsort([comparison.old, -comparison.old_sizes, counts.sum(axis=1) == 0])
    columns = np.lexsort([comparison.new, -comparison.new_sizes, _mean_places(counts[rows].T)])
    rows = rows[np.lexsort([np.arange(len(rows)), _mean_places(counts[np.ix_(rows, columns)])])]
    return rows, columns


def _mean_places(counts: np.ndarray) -> Float64[np.ndarray, " classes"]:
    """Mean column of each row's counts; beyond the last for a row of none."""
    totals = counts.sum(axis=1)
    places = counts @ np.arange(counts.shape[1], dtype=np.float64) / np.maximum(totals, 1)
    return np.where(totals > 0, places, np.inf)


def _worth_showing(comparison: ClassOverlap) -> np.ndarray:
    counts = comparison.counts
    of_old = counts >= FAINT * np.maximum(comparison.old_sizes, 1)[:, None]
    of_new = counts >= FAINT * np.maximum(comparison.new_sizes, 1)[None, :]
    return (counts > 0) & (of_old | of_new)


def _scale(comparison: ClassOverlap) -> tuple[float, float]:
    """Px per galaxy, and the height of the higher side."""
    classes = max(len(comparison.old), len(comparison.new), 1)
    bars = max(_LEAST, _PER_CLASS * classes) - GAP * classes
    galaxies = max(comparison.old_sizes.sum(), comparison.new_sizes.sum(), 1)
    return bars / galaxies, bars + GAP * (classes + 1)


def _bars(ids: np.ndarray, sizes: np.ndarray, order: np.ndarray, unit: float) -> dict[int, Bar]:
    bars, top = dict[int, Bar](), float(GAP)
    for place in order.tolist():
        height = max(float(sizes[place]) * unit, 1.0)
        bars[int(ids[place])] = Bar(int(ids[place]), round(top, 2), round(height, 2))
        # Small classes need room for their names.
        top += max(height, 6.0) + GAP
    return bars


def _ribbons(
    comparison: ClassOverlap,
    shown: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    columns: Sequence[int] | np.ndarray,
    bars: Mapping[str, Mapping[int, Bar]],
    unit: float,
) -> list[Flow]:
    """Ribbons, stacked on each bar in the order in which they reach the other side."""
    left = {one: bar.top for one, bar in bars["old"].items()}
    right = {one: bar.top for one, bar in bars["new"].items()}
    ribbons = []
    for i in map(int, rows):
        for j in (int(one) for one in columns if shown[i, int(one)]):
            old, new, galaxies = int(comparison.old[i]), int(comparison.new[j]), int(comparison.counts[i, j])
            thick = galaxies * unit
            ribbons.append(Flow(old, new, galaxies, _ribbon(left[old], right[new], thick)))
            left[old] += thick
            right[new] += thick
    return ribbons


def _ribbon(left: float, right: float, thick: float) -> str:
    start, end, middle = NAMES + BAR, WIDTH - NAMES - BAR, WIDTH / 2
    thick = max(thick, 0.7)
    there = f"M{start} {left:.1f}C{middle:g} {left:.1f} {middle:g} {right:.1f} {end} {right:.1f}"
    back = (
        f"V{right + thick:.1f}C{middle:g} {right + thick:.1f} {middle:g} {left + thick:.1f} {start} {left + thick:.1f}Z"
    )
    return there + back
