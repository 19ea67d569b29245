"""Nearest neighbours by cells: the embeddings are cut into k-means cells, and a galaxy looks into those nearest to it.

n: galaxies searched. m: galaxies that ask. D: embedding width. k: neighbours. c: cells.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64
from threadpoolctl import threadpool_limits
from tqdm import tqdm

# Up to so many galaxies all pairs are compared, which takes a second; above, about so many go into a cell.
_ALL_PAIRS, _PER_CELL = 20_000, 500
# k-means: galaxies that it sees per cell, and rounds.
_SEEN, _ROUNDS = 50, 8
# The share of the true neighbours that a search must find, measured on so many galaxies.
RECALL, _MEASURED = 0.99, 500
# Galaxies that ask together; their float32 distances from 20,000 others are 40 MB.
_ASKING = 512
# Products of float32 misjudge the last digits of a distance: so many more than k are kept, and measured directly.
_SPARE = 8


class Neighbours(NamedTuple):
    """The nearest first, equal distances by row."""

    rows: Int32[np.ndarray, "m k"]
    distances: Float32[np.ndarray, "m k"]


@dataclass(frozen=True)
class Cells:
    """Embeddings cell after cell; neighbours are named by their rows in this order.

    Attributes:
        embeddings: (n, D).
        starts: (c + 1,) the first galaxy of each cell, and n.
        centres: (c, D).
        probed: how many cells a galaxy looks into, the nearest.
    """

    embeddings: Float32[np.ndarray, "n D"]
    starts: Int64[np.ndarray, " c+1"]
    centres: Float32[np.ndarray, "c D"]
    probed: int

    def neighbours(self, asking: Float32[np.ndarray, "m D"], *, k: int, tell: bool = False) -> Neighbours:
        """The k nearest galaxies by Euclidean distance, of which about ``RECALL`` are the true ones; all if c = 1.

        Args:
            asking: (m, D) embeddings; a galaxy that is among those searched finds itself.
            k: 1 to what :func:`cut` was told.
            tell: show progress.
        """
        kept = min(k + _SPARE, len(self.embeddings))
        order = np.argsort(_nearest(asking, self.centres), kind="stable")
        found = Neighbours(np.empty((len(asking), k), np.int32), np.empty((len(asking), k), np.float32))

        def search(first: int) -> None:
            block = order[first : first + _ASKING]
            candidates = self._candidates(asking[block], kept)
            found.rows[block], found.distances[block] = _measured(asking[block], self.embeddings, candidates, k)

        _in_threads(search, range(0, len(order), _ASKING), about="neighbours" if tell else "")
        return found

    def _candidates(self, asking: Float32[np.ndarray, "m D"], kept: int) -> Int32[np.ndarray, "m kept"]:
        """Those with the smallest distances by products, in no order."""
        rows, squares = np.full((len(asking), kept), -1, np.int32), np.full((len(asking), kept), np.inf, np.float32)
        # Distances within a crowd far from the origin would drown in the rounding of the products; a mean follows outliers.
        middle = np.median(asking, axis=0)
        near, centred = _first(_squares(asking, self.centres), self.probed), asking - middle
        for cell in np.unique(near):
            who = np.flatnonzero((near == cell).any(axis=1))
            members = self.embeddings[self.starts[cell] : self.starts[cell + 1]] - middle
            _keep_smallest(rows, squares, who, _squares(centred[who], members), self.starts[cell])
        return rows


def cut(embeddings: Float32[np.ndarray, "n D"], *, k: int, seed: int) -> tuple[Cells, Int64[np.ndarray, " n"]]:
    """Cells in which up to k neighbours can be searched, and the row from which each galaxy in them came."""
    if len(embeddings) <= max(_ALL_PAIRS, 10 * k):
        return Cells(embeddings, np.array([0, len(embeddings)]), embeddings[:1], 1), np.arange(len(embeddings))
    random = np.random.default_rng(seed)
    centres = _centres(embeddings, random, count=len(embeddings) // max(_PER_CELL, 4 * k))
    # Whoever looks into one cell must find enough there.
    centres = centres[np.bincount(_nearest(embeddings, centres), minlength=len(centres)) >= k + _SPARE]
    home = _nearest(embeddings, centres)
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(len(centres) + 1))
    cells = Cells(np.ascontiguousarray(embeddings[order]), starts, centres, len(centres))
    return replace(cells, probed=_enough(cells, random, k=k)), order


def _centres(embeddings: np.ndarray, random: np.random.Generator, *, count: int) -> Float32[np.ndarray, "c D"]:
    """k-means (Lloyd) of a sample."""
    sample = embeddings[np.sort(random.choice(len(embeddings), min(_SEEN * count, len(embeddings)), replace=False))]
    centres = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(_ROUNDS):
        home = _nearest(sample, centres)
        order = np.argsort(home, kind="stable")
        taken, first = np.unique(home[order], return_index=True)
        sums = np.add.reduceat(sample[order].astype(np.float64), first, axis=0)
        centres[taken] = sums / np.diff(np.append(first, len(sample)))[:, None]
    return centres


def _enough(cells: Cells, random: np.random.Generator, *, k: int) -> int:
    """The fewest cells in which the recall is reached, by comparing a sample with all galaxies."""
    asking = cells.embeddings[np.sort(random.choice(len(cells.embeddings), _MEASURED, replace=False))]
    true = replace(cells, centres=cells.centres[:1] * 0, starts=np.array([0, len(cells.embeddings)]), probed=1)
    home = np.searchsorted(cells.starts, true.neighbours(asking, k=k).rows, side="right") - 1
    ranks = np.argsort(np.argsort(_squares(asking, cells.centres), axis=1), axis=1)
    needed = np.sort(np.take_along_axis(ranks, home, axis=1), axis=None)
    return int(needed[int(np.ceil(RECALL * needed.size)) - 1]) + 1


def _nearest(asking: np.ndarray, centres: np.ndarray) -> Int64[np.ndarray, " m"]:
    """The cell with the nearest centre."""
    home = np.zeros(len(asking), np.int64)

    def look(first: int) -> None:
        home[first : first + _ASKING] = _squares(asking[first : first + _ASKING], centres).argmin(axis=1)

    if len(centres) > 1:
        _in_threads(look, range(0, len(asking), _ASKING))
    return home


def _squares(asking: np.ndarray, members: np.ndarray) -> Float32[np.ndarray, "m n"]:
    """Squared distances, less the same for all members."""
    return np.einsum("ij,ij->i", members, members) - 2 * (asking @ members.T)


def _first(values: np.ndarray, count: int) -> Int64[np.ndarray, "m count"]:
    """Columns of the smallest values, in no order."""
    return np.argpartition(values, min(count, values.shape[1]) - 1, axis=1)[:, :count]


def _in_threads(step: Callable[[int], None], firsts: Sequence[int], *, about: str = "") -> None:
    """A step for each block, in as many threads as numba may use; each product itself in one, so that it adds in one
    order whatever their number.
    """
    bar = tqdm(total=len(firsts), desc=about, disable=not about, file=sys.stderr)
    with bar, threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(numba.get_num_threads()) as pool:
        for _ in pool.map(step, firsts):
            bar.update()


@numba.njit(nogil=True, cache=True)
def _keep_smallest(rows: np.ndarray, squares: np.ndarray, who: np.ndarray, offered: np.ndarray, first: int) -> None:
    """Replace the largest kept by what is offered wherever that is smaller; each row of ``squares`` is a max-heap."""
    kept = squares.shape[1]
    for place in range(len(who)):
        heap, names = squares[who[place]], rows[who[place]]
        for column in range(offered.shape[1]):
            value = offered[place, column]
            if value >= heap[0]:
                continue
            node = 0
            while True:
                below = 2 * node + 1
                if below >= kept:
                    break
                if below + 1 < kept and heap[below + 1] > heap[below]:
                    below += 1
                if heap[below] <= value:
                    break
                heap[node], names[node] = heap[below], names[below]
                node = below
            heap[node], names[node] = value, first + column


@numba.njit(nogil=True, cache=True)
def _measured(asking: np.ndarray, embeddings: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """The k nearest candidates by their distances, taken directly in double precision."""
    rows, distances = np.empty((len(asking), k), np.int32), np.empty((len(asking), k), np.float32)
    for place in range(len(asking)):
        names = np.sort(candidates[place])
        lengths = np.empty(len(names))
        for column, row in enumerate(names):
            total = 0.0
            for axis in range(asking.shape[1]):
                total += (np.float64(asking[place, axis]) - np.float64(embeddings[row, axis])) ** 2
            lengths[column] = np.sqrt(total)
        order = np.argsort(lengths, kind="mergesort")[:k]
        rows[place], distances[place] = names[order], lengths[order]
    return rows, distances
