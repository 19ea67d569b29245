"""Nearest neighbours by cells: the embeddings are cut into k-means cells, and a galaxy looks into those nearest to it.

Distances are added axis by axis in one order, without BLAS: a galaxy has the same neighbours whatever the number of
threads and whoever asks beside it. n: galaxies searched. m: galaxies that ask. D: embedding width. W: D rounded up to
a multiple of 4. k: neighbours. c: cells.
"""

import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64
from tqdm import tqdm

# Up to so many galaxies all pairs are compared, which takes seconds.
_ALL_PAIRS = 20_000
# Galaxies per cell: 512 of them in 128-D are 256 kB, about what a core's own cache holds.
_PER_CELL = 512
# k-means: galaxies that it sees per cell, and rounds.
_SEEN, _ROUNDS = 50, 8
# The share of the true neighbours that a search must find, measured on so many galaxies.
RECALL, _MEASURED = 0.99, 500
# Galaxies that ask together, by which threads share the work; and between two steps of the progress bar.
_ASKING, _TOLD = 256, 256 * 64


class Neighbours(NamedTuple):
    """The nearest first, equal distances by row."""

    rows: Int32[np.ndarray, "m k"]
    distances: Float32[np.ndarray, "m k"]


@dataclass(frozen=True)
class Cells:
    """Embeddings cell after cell; neighbours are named by their rows in this order.

    Attributes:
        packed: (n · W,) each cell's embeddings, axis after axis.
        starts: (c + 1,) the first galaxy of each cell, and n.
        centres: (W, c).
        probed: how many cells a galaxy looks into, the nearest; c for an exact search.
    """

    packed: Float32[np.ndarray, " values"]
    starts: Int64[np.ndarray, " c+1"]
    centres: Float32[np.ndarray, "W c"]
    probed: int

    def neighbours(self, asking: Float32[np.ndarray, "m D"], *, k: int, tell: bool = False) -> Neighbours:
        """The k nearest galaxies by Euclidean distance, of which about ``RECALL`` are the true ones.

        Args:
            asking: (m, D) embeddings; a galaxy that is among those searched finds itself, or its exact like.
            k: 1 to what :func:`cut` was told.
            tell: show progress.
        """
        wide = _padded(asking)
        order = np.argsort(_nearest(wide, self.centres), kind="stable")
        found = Neighbours(np.empty((len(asking), k), np.int32), np.empty((len(asking), k), np.float32))
        for first in tqdm(range(0, len(order), _TOLD), desc="neighbours", disable=not tell, file=sys.stderr):
            _search(wide, order[first : first + _TOLD], self.packed, self.starts, self.centres, self.probed, *found)
        return found


def cut(embeddings: Float32[np.ndarray, "n D"], *, k: int, seed: int) -> tuple[Cells, Int64[np.ndarray, " n"]]:
    """Cells in which up to k neighbours can be searched, and the row from which each galaxy in them came."""
    wide = _padded(embeddings)
    if len(wide) <= max(_ALL_PAIRS, 10 * k):
        order, starts = np.arange(len(wide)), np.append(np.arange(0, len(wide), _PER_CELL), len(wide))
        return Cells(_packed(wide, order, starts), starts, wide[starts[:-1]].T.copy(), len(starts) - 1), order
    random = np.random.default_rng(seed)
    centres = _centres(wide, random, count=len(wide) // max(_PER_CELL, 4 * k))
    # Whoever looks into one cell must find enough there.
    centres = centres[:, np.bincount(_nearest(wide, centres), minlength=centres.shape[1]) >= k].copy()
    home = _nearest(wide, centres)
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(centres.shape[1] + 1))
    exact = Cells(_packed(wide, order, starts), starts, centres, centres.shape[1])
    asking = embeddings[np.sort(random.choice(len(embeddings), _MEASURED, replace=False))]
    return replace(exact, probed=_enough(exact, asking, k=k)), order


def _padded(embeddings: np.ndarray) -> Float32[np.ndarray, "m W"]:
    """With zeros to a multiple of four axes, which is how many are added at a time; itself where none is missing."""
    missing = -embeddings.shape[1] % 4
    wide = np.pad(embeddings, ((0, 0), (0, missing))) if missing else embeddings
    return np.ascontiguousarray(wide, dtype=np.float32)


def _packed(wide: np.ndarray, order: np.ndarray, starts: np.ndarray) -> Float32[np.ndarray, " values"]:
    packed = np.empty(wide.size, np.float32)
    for first, end in pairwise(starts):
        packed[first * wide.shape[1] : end * wide.shape[1]] = wide[order[first:end]].T.ravel()
    return packed


def _centres(wide: np.ndarray, random: np.random.Generator, *, count: int) -> Float32[np.ndarray, "W c"]:
    """k-means (Lloyd) of a sample; a cell that loses all its galaxies stays where it was."""
    sample = wide[np.sort(random.choice(len(wide), min(_SEEN * count, len(wide)), replace=False))]
    centres = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(_ROUNDS):
        home = _nearest(sample, centres.T.copy())
        order = np.argsort(home, kind="stable")
        taken, first = np.unique(home[order], return_index=True)
        sums = np.add.reduceat(sample[order].astype(np.float64), first, axis=0)
        centres[taken] = sums / np.diff(np.append(first, len(sample)))[:, None]
    return centres.T.copy()


def _enough(exact: Cells, asking: np.ndarray, *, k: int) -> int:
    """The fewest cells in which a sample of galaxies finds the wanted share of its true neighbours."""
    home = np.searchsorted(exact.starts, exact.neighbours(asking, k=k).rows, side="right") - 1
    ranks = _ranks(_padded(asking), exact.centres)
    needed = np.sort(np.take_along_axis(ranks, home, axis=1), axis=None)
    return int(needed[int(np.ceil(RECALL * needed.size)) - 1]) + 1


def _ranks(wide: np.ndarray, centres: np.ndarray) -> Int64[np.ndarray, "m c"]:
    """How many centres are nearer, for each galaxy and centre."""
    squares = np.empty((len(wide), centres.shape[1]), np.float32)
    for row in range(len(wide)):
        _squares(wide[row], centres, squares[row])
    return np.argsort(np.argsort(squares, axis=1, kind="stable"), axis=1)


@numba.njit(cache=True)
def _squares(mine: np.ndarray, others: np.ndarray, squares: np.ndarray) -> None:
    """Squared distances (others,) from (W,) to (W, others)."""
    squares[:] = 0
    for axis in range(0, len(mine), 4):
        a, b, c, d = mine[axis], mine[axis + 1], mine[axis + 2], mine[axis + 3]
        one, two, three, four = others[axis], others[axis + 1], others[axis + 2], others[axis + 3]
        for other in range(len(squares)):
            squares[other] = (
                squares[other]
                + (a - one[other]) * (a - one[other])
                + (b - two[other]) * (b - two[other])
                + (c - three[other]) * (c - three[other])
                + (d - four[other]) * (d - four[other])
            )


@numba.njit(cache=True)
def _keep_smallest(offered: np.ndarray, first: int, names: np.ndarray, heap: np.ndarray) -> None:
    """Replace the largest kept by what is offered wherever that is smaller, of equals the later one.

    ``heap`` is a max-heap of values, ``names`` their numbers counted from ``first``.
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
    """The cell (m,) with the nearest centre."""
    home = np.zeros(len(wide), np.int64)
    for block in numba.prange((len(wide) + _ASKING - 1) // _ASKING):
        line = np.empty(centres.shape[1], np.float32)
        for row in range(block * _ASKING, min((block + 1) * _ASKING, len(wide))):
            _squares(wide[row], centres, line)
            home[row] = np.argmin(line)
    return home


@numba.njit(parallel=True, cache=True)
def _search(
    wide: np.ndarray, order: np.ndarray, packed: np.ndarray, starts: np.ndarray, centres: np.ndarray, probed: int,
    rows: np.ndarray, distances: np.ndarray,
) -> None:  # fmt: skip
    """Write the neighbours of those named by ``order``, who should be near each other: their cells stay cached."""
    width, unknown = wide.shape[1], np.iinfo(np.int32).max
    longest = max(np.max(np.diff(starts)), centres.shape[1])
    for block in numba.prange((len(order) + _ASKING - 1) // _ASKING):
        who = order[block * _ASKING : (block + 1) * _ASKING]
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
