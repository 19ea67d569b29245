"""Nearest neighbours: points are divided into k-means cells, and a query is compared with the points of some cells.

Distances are added axis by axis in one order, without BLAS, so that a query has the same neighbours whatever the number
of threads and whatever the other queries are.
Shape letters: n points, m queries, D their width, W = D rounded up to a multiple of 4, k neighbours, c cells.
"""

import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64
from tqdm import tqdm

# Up to this number of points all pairs are compared, which takes seconds.
EXACT_BELOW = 20_000
# Points per cell: 512 of them in 128-D are 256 kB, about the size of the cache of one core.
CELL_SIZE = 512
# k-means: number of points that it sees per cell, and of rounds.
_SEEN, _ROUNDS = 50, 8
# Share of the true neighbours that a search must find, and number of points on which it is measured.
RECALL, _MEASURED = 0.99, 500
# Number of queries that a thread takes at once, and between two steps of the progress bar.
_BLOCK, _STEP = 256, 256 * 64


class Neighbours(NamedTuple):
    """Nearest neighbours, the nearest first; equally distant ones in the order of their rows."""

    rows: Int32[np.ndarray, "m k"]
    distances: Float32[np.ndarray, "m k"]


@dataclass(frozen=True)
class Cells:
    """Points ordered by cell. Neighbours are given as rows in this order.

    Attributes
    ----------
    packed : (n · W,) float32
        Points of each cell, axis after axis.
    starts : (c + 1,) int64
        Row of the first point of each cell, and n.
    centres : (W, c) float32
    probed : int
        Number of cells, the nearest, in which a query is searched; c for an exact search.
    """

    packed: Float32[np.ndarray, " values"]
    starts: Int64[np.ndarray, " c+1"]
    centres: Float32[np.ndarray, "W c"]
    probed: int

    def neighbours(self, queries: Float32[np.ndarray, "m D"], *, k: int, progress: bool = False) -> Neighbours:
        """Return the k nearest points by Euclidean distance, of which about 99 % are the true ones.

        Parameters
        ----------
        queries : (m, D) float32
            A query that is among the points finds itself, or an exact copy of itself.
        k : int
            Number of neighbours, 1 to the ``k`` of :func:`build_cells`.
        progress : bool
            Show a progress bar.
        """
        wide = _padded(queries)
        order = np.argsort(_nearest(wide, self.centres), kind="stable")
        nearest = Neighbours(np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32))
        steps = range(0, len(order), _STEP)
        for first in tqdm(steps, desc="neighbours", file=sys.stderr) if progress else steps:
            _search(wide, order[first : first + _STEP], self.packed, self.starts, self.centres, self.probed, *nearest)
        return nearest


def build_cells(
    points: Float32[np.ndarray, "n D"], *, k: int, seed: int, exact_below: int = EXACT_BELOW, cell_size: int = CELL_SIZE
) -> tuple[Cells, Int64[np.ndarray, " n"]]:
    """Divide points into cells.

    Parameters
    ----------
    points : (n, D) float32
    k : int
        Largest number of neighbours that will be searched.
    seed : int
        Seed of k-means.
    exact_below : int
        Largest number of points for which a search compares all pairs.
    cell_size : int
        Number of points per cell beyond that.

    Returns
    -------
    cells : Cells
    order : (n,) int64
        Row of each point of the cells in ``points``.
    """
    wide = _padded(points)
    if len(wide) <= max(exact_below, 10 * k):
        order, starts = np.arange(len(wide)), np.append(np.arange(0, len(wide), cell_size), len(wide))
        return Cells(_packed(wide, order, starts), starts, wide[starts[:-1]].T.copy(), len(starts) - 1), order
    random = np.random.default_rng(seed)
    centres = _centres(wide, random, count=len(wide) // max(cell_size, 4 * k))
    # A query that is searched in one cell must find enough points there.
    centres = centres[:, np.bincount(_nearest(wide, centres), minlength=centres.shape[1]) >= k].copy()
    home = _nearest(wide, centres)
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(centres.shape[1] + 1))
    exact = Cells(_packed(wide, order, starts), starts, centres, centres.shape[1])
    queries = points[np.sort(random.choice(len(points), _MEASURED, replace=False))]
    return replace(exact, probed=_cells_needed(exact, queries, k=k)), order


def _padded(points: np.ndarray) -> Float32[np.ndarray, "m W"]:
    """Return points with zeros up to a multiple of four axes, because four axes are added at a time."""
    missing = -points.shape[1] % 4
    wide = np.pad(points, ((0, 0), (0, missing))) if missing else points
    return np.ascontiguousarray(wide, dtype=np.float32)


def _packed(wide: np.ndarray, order: np.ndarray, starts: np.ndarray) -> Float32[np.ndarray, " values"]:
    """Return the points of each cell, axis after axis."""
    packed = np.empty(wide.size, np.float32)
    for first, end in pairwise(starts):
        packed[first * wide.shape[1] : end * wide.shape[1]] = wide[order[first:end]].T.ravel()
    return packed


def _centres(wide: np.ndarray, random: np.random.Generator, *, count: int) -> Float32[np.ndarray, "W c"]:
    """Return the centres of k-means (Lloyd) on a sample; a centre that loses all its points stays where it was."""
    sample = wide[np.sort(random.choice(len(wide), min(_SEEN * count, len(wide)), replace=False))]
    centres = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(_ROUNDS):
        home = _nearest(sample, centres.T.copy())
        order = np.argsort(home, kind="stable")
        taken, first = np.unique(home[order], return_index=True)
        sums = np.add.reduceat(sample[order].astype(np.float64), first, axis=0)
        centres[taken] = sums / np.diff(np.append(first, len(sample)))[:, None]
    return centres.T.copy()


def _cells_needed(exact: Cells, queries: np.ndarray, *, k: int) -> int:
    """Return the smallest number of cells in which queries find the wanted share of their true neighbours."""
    home = np.searchsorted(exact.starts, exact.neighbours(queries, k=k).rows, side="right") - 1
    ranks = _ranks(_padded(queries), exact.centres)
    needed = np.sort(np.take_along_axis(ranks, home, axis=1), axis=None)
    return int(needed[int(np.ceil(RECALL * needed.size)) - 1]) + 1


def _ranks(wide: np.ndarray, centres: np.ndarray) -> Int64[np.ndarray, "m c"]:
    """Return the number of centres that are nearer, for each query and centre."""
    squares = np.empty((len(wide), centres.shape[1]), np.float32)
    for row in range(len(wide)):
        _squares(wide[row], centres, squares[row])
    return np.argsort(np.argsort(squares, axis=1, kind="stable"), axis=1)


@numba.njit(cache=True)
def _squares(mine: np.ndarray, others: np.ndarray, squares: np.ndarray) -> None:
    """Write the squared distances (others,) from one point (W,) to others (W, others)."""
    squares[:] = 0
    for axis in range(0, len(mine), 4):
        a, b, c, d = mine[axis], mine[axis + 1], mine[axis + 2], mine[axis + 3]
        p, q, r, s = others[axis], others[axis + 1], others[axis + 2], others[axis + 3]
        for other in range(len(squares)):
            squares[other] = (
                squares[other]
                + (a - p[other]) * (a - p[other])
                + (b - q[other]) * (b - q[other])
                + (c - r[other]) * (c - r[other])
                + (d - s[other]) * (d - s[other])
            )


@numba.njit(cache=True)
def _keep_smallest(offered: np.ndarray, first: int, names: np.ndarray, heap: np.ndarray) -> None:
    """Keep the smallest values in a max-heap; of equal values the one with the smaller number is kept.

    ``heap`` holds the values that are kept and ``names`` their numbers, which count from ``first``.
    """
    for place in range(len(offered)):
        value, name = offered[place], np.int32(first + place)
        if value > heap[0] or (value == heap[0] and name > names[0]):
            continue
        node = 0
        while 2 * node + 1 < len(heap):
            below = 2 * node + 1
            right = below + 1
            if right < len(heap) and (
                heap[right] > heap[below] or (heap[right] == heap[below] and names[right] > names[below])
            ):
                below = right
            if heap[below] < value or (heap[below] == value and names[below] < name):
                break
            heap[node], names[node] = heap[below], names[below]
            node = below
        heap[node], names[node] = value, name


@numba.njit(parallel=True, cache=True)
def _nearest(wide: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the cell (m,) with the nearest centre."""
    home = np.zeros(len(wide), np.int64)
    for block in numba.prange((len(wide) + _BLOCK - 1) // _BLOCK):
        line = np.empty(centres.shape[1], np.float32)
        for row in range(block * _BLOCK, min((block + 1) * _BLOCK, len(wide))):
            _squares(wide[row], centres, line)
            home[row] = np.argmin(line)
    return home


@numba.njit(parallel=True, cache=True)
def _search(
    wide: np.ndarray, order: np.ndarray, packed: np.ndarray, starts: np.ndarray, centres: np.ndarray, probed: int,
    rows: np.ndarray, distances: np.ndarray,
) -> None:  # fmt: skip
    """Write the neighbours of the queries in ``order``; queries near each other find their cells in the cache."""
    width, unknown = wide.shape[1], np.iinfo(np.int32).max
    longest = max(np.max(np.diff(starts)), centres.shape[1])
    for block in numba.prange((len(order) + _BLOCK - 1) // _BLOCK):
        who = order[block * _BLOCK : (block + 1) * _BLOCK]
        line = np.empty(longest, np.float32)
        cells = np.full((len(who), probed), unknown, np.int32)
        for place in range(len(who)):
            to_centres = np.full(probed, np.inf, np.float32)
            _squares(wide[who[place]], centres, line[: centres.shape[1]])
            _keep_smallest(line[: centres.shape[1]], 0, cells[place], to_centres)
            rows[who[place]], distances[who[place]] = unknown, np.inf
        visits = cells.ravel()
        for visit in np.argsort(visits, kind="mergesort"):
            row, first, end = who[visit // probed], starts[visits[visit]], starts[visits[visit] + 1]
            members = packed[first * width : end * width].reshape((width, end - first))
            _squares(wide[row], members, line[: end - first])
            _keep_smallest(line[: end - first], first, rows[row], distances[row])
        for row in who:
            by_row = np.argsort(rows[row])
            nearest = by_row[np.argsort(distances[row][by_row], kind="mergesort")]
            rows[row], distances[row] = rows[row][nearest], np.sqrt(distances[row][nearest])
