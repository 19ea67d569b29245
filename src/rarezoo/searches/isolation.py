"""How far each node of a condensed tree stands apart from the rest, measured where the map was made from.

The isolation of a set of galaxies is the share of its members' nearest neighbours, in the space that was compressed,
that are members too. A map of noise has clumps as well, but the neighbours of their members lie in the next clump.
A large set is asked for more neighbours than a small one: nearly all of the nearest few of a thousand galaxies lie
inside wherever one cuts, while the nearest hundred reach beyond a cut through a crowd, and not beyond a gap.

Shape letters: n galaxies, k neighbours of each, m nodes of the tree (the root first; a child after its parent), q sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from rarezoo.searches.condensed import CondensedTree

# Neighbours that are asked of each galaxy: one for so many members of its set. Fewer than the fewest are noisy, more do
# not fit into the smallest classes; more than the most need memory.
FEWEST_NEIGHBOURS, MOST_NEIGHBOURS, MEMBERS_EACH = 15, 100, 8


def neighbours_asked(sizes: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, " q"]:
    """How many neighbours of each galaxy are asked about, in sets of so many galaxies."""
    return np.clip(sizes // MEMBERS_EACH, FEWEST_NEIGHBOURS, MOST_NEIGHBOURS)


@dataclass(frozen=True)
class Nest:
    """A condensed tree as arrays; its nodes ``galaxies``, ``galaxies`` + 1, … become 0, 1, …

    Attributes:
        above: (m,) the node above each node, −1 for the root.
        home: (n,) the smallest node that each galaxy is in.
    """

    above: Int64[np.ndarray, " m"]
    home: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, tree: CondensedTree) -> "Nest":
        """From a condensed tree."""
        rows, first = tree.rows, tree.galaxies
        split = rows["child"] >= first
        above = np.full(int(max(rows["parent"].max(), rows["child"].max())) - first + 1, -1, dtype=np.int64)
        above[rows["child"][split] - first] = rows["parent"][split] - first
        home = np.zeros(first, dtype=np.int64)
        home[rows["child"][~split]] = rows["parent"][~split] - first
        return cls(above, home)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " m"]:
        """Galaxies in each node and below."""
        return _summed_up(self.above, np.bincount(self.home, minlength=len(self.above)))

    @cached_property
    def below(self) -> list[list[int]]:
        """The nodes right below each node."""
        below: list[list[int]] = [[] for _ in self.above]
        for node, parent in enumerate(self.above[1:], start=1):
            below[parent].append(node)
        return below

    def within(self, node: int) -> list[int]:
        """A node and all below it."""
        found = [node]
        for one in found:
            found += self.below[one]
        return found

    def members(self, node: int) -> Int64[np.ndarray, " members"]:
        """Rows of the galaxies in a node and below."""
        inside = np.zeros(len(self.above), dtype=bool)
        inside[self.within(node)] = True
        return np.flatnonzero(inside[self.home])

    def isolations(self, graph: Int32[np.ndarray, "n k"]) -> Float64[np.ndarray, " m"]:
        """Of each node, 0 to 1."""
        met = _summed_up(self.above, _meetings(self.above, self.home, graph))
        asked = np.minimum(neighbours_asked(self.sizes), graph.shape[1])
        inside = np.cumsum(met, axis=1)[np.arange(len(met)), asked - 1]
        return inside / (self.sizes * asked)

    def isolations_within(
        self, node: int, graph: Int32[np.ndarray, "n k"], *, of: Sequence[int]
    ) -> Float64[np.ndarray, " of"]:
        """Of smaller nodes, with nothing but the members of ``node`` around them."""
        around = np.zeros(len(self.home), dtype=bool)
        around[self.members(node)] = True
        shares = []
        for one, asked in zip(of, neighbours_asked(self.sizes[list(of)]), strict=True):
            rows, inside = self.members(one), np.zeros(len(self.home), dtype=bool)
            inside[rows] = True
            near = graph[rows, :asked]
            shares.append(inside[near].sum() / max(around[near].sum(), 1))
        return np.array(shares)


@numba.njit(cache=True)
def _summed_up(above: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Each node's own counts and those of all below it."""
    total = own.copy()
    for node in range(len(above) - 1, 0, -1):
        total[above[node]] += total[node]
    return total


@numba.njit(cache=True)
def _meetings(above: np.ndarray, home: np.ndarray, graph: np.ndarray) -> np.ndarray:
    """For each node and place among the neighbours, the pairs (galaxy, neighbour) that it is the smallest to hold."""
    met = np.zeros((len(above), graph.shape[1]), dtype=np.int64)
    for row in range(graph.shape[0]):
        for place in range(graph.shape[1]):
            one, other = home[row], home[graph[row, place]]
            while one != other:
                # A child's number is larger than its parent's.
                if one > other:
                    one = above[one]
                else:
                    other = above[other]
            met[one, place] += 1
    return met
