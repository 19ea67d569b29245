"""How far each node of a condensed tree stands apart from the other galaxies, in the space that was compressed.

The isolation of a set of galaxies is the share of its members' nearest neighbours that are members too. The neighbours
are those in the space that was compressed, not on the map: a map of noise has groups as well, but there the neighbours
of their members lie in other groups.

A large set is compared over more neighbours than a small one. Nearly all of the nearest 15 neighbours of a thousand
galaxies lie inside, wherever one cuts. The nearest 100 reach beyond a cut through a dense region, and not beyond a gap.

Shape letters: n galaxies, k neighbours of each, m nodes of the tree (the root first; a child after its parent), q sets.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int32, Int64

from rarezoo.searches.compiled import count_shared_nodes, summed_up
from rarezoo.searches.condensed import CondensedTree

# Neighbours of each galaxy that are compared: one per 8 members of its set, but at least 15, because fewer are noisy,
# and at most 100, because more need too much memory.
FEWEST_NEIGHBOURS, MOST_NEIGHBOURS, MEMBERS_PER_NEIGHBOUR = 15, 100, 8


def neighbours_compared(sizes: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, " q"]:
    """Return how many neighbours of each galaxy are compared, for sets of the given sizes.

    >>> neighbours_compared(np.array([10, 400, 5000]))
    array([ 15,  50, 100])
    """
    return np.clip(sizes // MEMBERS_PER_NEIGHBOUR, FEWEST_NEIGHBOURS, MOST_NEIGHBOURS)


@dataclass(frozen=True)
class NodeTree:
    """The nodes of a condensed tree as arrays. Nodes n, n + 1, … of the condensed tree are nodes 0, 1, … here.

    Attributes
    ----------
    parents : (m,) array of integers
        The node above each node, −1 for the root.
    homes : (n,) array of integers
        The smallest node that each galaxy is in.

    Examples
    --------
    A root with two nodes of two galaxies each:

    >>> tree = NodeTree(parents=np.array([-1, 0, 0]), homes=np.array([1, 1, 2, 2]))
    >>> tree.sizes
    array([4, 2, 2])
    >>> nearest = np.array([[1], [0], [3], [0]], dtype=np.int32)
    >>> tree.isolations(nearest)
    array([1. , 1. , 0.5])
    """

    parents: Int64[np.ndarray, " m"]
    homes: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, tree: CondensedTree) -> "NodeTree":
        """Read the nodes of a condensed tree."""
        rows, first = tree.rows, tree.galaxies
        is_node = rows["child"] >= first
        parents = np.full(int(max(rows["parent"].max(), rows["child"].max())) - first + 1, -1, dtype=np.int64)
        parents[rows["child"][is_node] - first] = rows["parent"][is_node] - first
        homes = np.zeros(first, dtype=np.int64)
        homes[rows["child"][~is_node]] = rows["parent"][~is_node] - first
        return cls(parents, homes)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " m"]:
        """Number of galaxies in each node and in the nodes below it."""
        return summed_up(self.parents, np.bincount(self.homes, minlength=len(self.parents)))

    @cached_property
    def children(self) -> list[list[int]]:
        """The nodes directly below each node."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents[1:], start=1):
            children[parent].append(node)
        return children

    def subtree(self, node: int) -> list[int]:
        """Return a node and all nodes below it."""
        nodes = [node]
        for inner in nodes:
            nodes += self.children[inner]
        return nodes

    def members(self, node: int) -> Int64[np.ndarray, " members"]:
        """Return the rows of the galaxies in a node and in the nodes below it."""
        inside = np.zeros(len(self.parents), dtype=bool)
        inside[self.subtree(node)] = True
        return np.flatnonzero(inside[self.homes])

    def isolations(self, graph: Int32[np.ndarray, "n k"]) -> Float64[np.ndarray, " m"]:
        """Return the isolation of each node, 0 to 1.

        Parameters
        ----------
        graph : (n, k) array of integers
            Rows of each galaxy's nearest neighbours, the nearest first.
        """
        inside_by_place = summed_up(self.parents, count_shared_nodes(self.parents, self.homes, graph))
        compared = np.minimum(neighbours_compared(self.sizes), graph.shape[1])
        inside = np.cumsum(inside_by_place, axis=1)[np.arange(len(inside_by_place)), compared - 1]
        return inside / (self.sizes * compared)
