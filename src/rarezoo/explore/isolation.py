"""How far each node of a condensed tree stands apart from the rest, measured where the map was made from.

The isolation of a set of galaxies is the share of its members' nearest neighbours, in the space of the embeddings,
that are members too. A map made of noise has clumps, but their members' neighbours lie in the next clump.

Shape letters: n galaxies, k neighbours of each, m nodes of the tree (the root first; a child after its parent).
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from rarezoo.explore.condensed import CondensedTree

# Neighbours that vote on isolation; fewer are noisy, more do not fit into the smallest classes.
NEIGHBOURS = 15
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nest:
    """A condensed tree as arrays.

    Attributes:
        above: (m,) the node above each node, −1 for the root.
        home: (n,) the smallest node that each galaxy is in.
        sizes: (m,) galaxies in each node and below.
    """

    above: Int64[np.ndarray, " m"]
    home: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " m"]

    @classmethod
    def of(cls, tree: CondensedTree) -> "Nest":
        """From a condensed tree, whose nodes ``galaxies``, ``galaxies`` + 1, … become 0, 1, …"""
        rows, first = tree.rows, tree.galaxies
        nodes = int(max(rows["parent"].max(), rows["child"].max())) - first + 1
        split = rows["child"] >= first
        above = np.full(nodes, -1, dtype=np.int64)
        above[rows["child"][split] - first] = rows["parent"][split] - first
        home = np.zeros(first, dtype=np.int64)
        home[rows["child"][~split]] = rows["parent"][~split] - first
        return cls(above, home, _summed_up(above, np.bincount(home, minlength=nodes)))

    @property
    def below(self) -> list[list[int]]:
        """The nodes right below each node."""
        below: list[list[int]] = [[] for _ in self.above]
        for node, parent in enumerate(self.above[1:], start=1):
            below[parent].append(node)
        return below

    def members(self, node: int) -> Int64[np.ndarray, " members"]:
        """Rows of the galaxies in a node and below."""
        inside = np.zeros(len(self.above), dtype=bool)
        inside[node] = True
        for other in range(node + 1, len(self.above)):
            inside[other] = inside[self.above[other]]
        return np.flatnonzero(inside[self.home])

    def isolations(self, neighbours: Int32[np.ndarray, "n k"]) -> Float64[np.ndarray, " m"]:
        """For each node the share of its members' neighbours that are members too, 0 to 1."""
        met = _meetings(self.above, self.home, neighbours)
        return _summed_up(self.above, met) / (self.sizes * neighbours.shape[1])


def neighbour_graph(features: Float32[np.ndarray, "n d"], *, k: int = NEIGHBOURS) -> Int32[np.ndarray, "n k"]:
    """The k nearest other galaxies of each, by Euclidean distance, nearest first; exact, ties by row.

    Fewer galaxies than k + 1 give fewer neighbours.
    """
    values = np.ascontiguousarray(features, dtype=np.float32)
    k = min(k, len(values) - 1)
    squares = np.einsum("nd,nd->n", values, values)
    found = np.empty((len(values), k), dtype=np.int32)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(values)))
        distances = squares - 2 * values[rows] @ values.T
        distances[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(distances, k - 1, axis=1)[:, :k] if k < len(values) - 1 else _others(rows, len(values))
        order = np.lexsort((near, np.take_along_axis(distances, near, axis=1)), axis=1)
        found[rows] = np.take_along_axis(near, order, axis=1)
    return found


def _others(rows: np.ndarray, galaxies: int) -> np.ndarray:
    every = np.arange(galaxies)
    return np.stack([np.delete(every, row) for row in rows])


@numba.njit(cache=True)
def _summed_up(above: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Each node's own count and that of all below it."""
    total = own.copy()
    for node in range(len(above) - 1, 0, -1):
        total[above[node]] += total[node]
    return total


@numba.njit(cache=True)
def _meetings(above: np.ndarray, home: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """For each node the pairs (galaxy, neighbour) that it is the smallest to hold both of."""
    met = np.zeros(len(above), dtype=np.int64)
    for row in range(neighbours.shape[0]):
        for place in range(neighbours.shape[1]):
            one, other = home[row], home[neighbours[row, place]]
            while one != other:
                # A child's number is larger than its parent's.
                if one > other:
                    one = above[one]
                else:
                    other = above[other]
            met[one] += 1
    return met
