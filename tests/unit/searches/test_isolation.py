"""How far nodes of a tree stand apart: against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import (
    FEWEST_NEIGHBOURS,
    MOST_NEIGHBOURS,
    NodeTree,
    neighbours_compared,
)

pytestmark = pytest.mark.unit

ROW = np.dtype([("parent", np.int64), ("child", np.int64), ("lambda_val", np.float64), ("child_size", np.int64)])


def tree(galaxies, *rows):
    """A condensed tree; each row is (parent, child, galaxies of the child)."""
    return CondensedTree(np.array([(parent, child, 1.0, size) for parent, child, size in rows], ROW), galaxies)


# Root 7 holds galaxy 0 and nodes 8 (galaxies 1, 2, 3) and 9; node 9 holds galaxy 4 and nodes 10 (5) and 11 (6).
SMALL = tree(7, (7, 8, 3), (7, 9, 3), (7, 0, 1), (8, 1, 1), (8, 2, 1), (8, 3, 1), (9, 10, 1), (9, 11, 1), (9, 4, 1),
             (10, 5, 1), (11, 6, 1))  # fmt: skip


@st.composite
def trees_with_graphs(draw):
    """Any tree whose nodes come after their parents and are not empty, with any graph of neighbours."""
    count, more, k = draw(st.integers(1, 9)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    above = [-1, *(draw(st.integers(0, node - 1)) for node in range(1, count))]
    home = [*range(count), *draw(st.lists(st.integers(0, count - 1), min_size=more, max_size=more))]
    home, galaxies = draw(st.permutations(home)), len(home)
    met = st.lists(st.integers(0, galaxies - 1), min_size=k, max_size=k)
    graph = draw(st.lists(met, min_size=galaxies, max_size=galaxies))
    return NodeTree(np.array(above), np.array(home)), np.array(graph, dtype=np.int32)


def holds(nodes, node, galaxy):
    """Whether a galaxy is in a node or below: from its home upwards."""
    around = nodes.homes[galaxy]
    while around not in (node, -1):
        around = nodes.parents[around]
    return around == node


def test_the_nodes_of_a_condensed_tree():
    nodes = NodeTree.of(SMALL)
    assert nodes.parents.tolist() == [-1, 0, 0, 2, 2]
    assert nodes.homes.tolist() == [0, 1, 1, 1, 2, 3, 4]
    assert nodes.sizes.tolist() == [7, 3, 3, 1, 1]
    assert nodes.children == [[1, 2], [], [3, 4], [], []]
    assert nodes.subtree(2) == [2, 3, 4]
    assert [nodes.members(node).tolist() for node in range(5)] == [list(range(7)), [1, 2, 3], [4, 5, 6], [5], [6]]


def test_a_tree_that_never_splits_is_one_node():
    nodes = NodeTree.of(tree(3, (3, 0, 1), (3, 1, 1), (3, 2, 1)))
    assert nodes.sizes.tolist() == [3]
    assert nodes.isolations(np.array([[1], [2], [0]], np.int32)).tolist() == [1.0]


@given(trees_with_graphs())
@settings(max_examples=60, deadline=None)
def test_sizes_members_and_isolations_are_those_counted_one_by_one(drawn):
    nodes, graph = drawn
    isolations = nodes.isolations(graph)
    for node in range(len(nodes.parents)):
        members = [galaxy for galaxy in range(len(nodes.homes)) if holds(nodes, node, galaxy)]
        assert nodes.members(node).tolist() == members
        assert nodes.sizes[node] == len(members)
        assert isolations[node] == pytest.approx(np.isin(graph[members], members).mean())


def test_more_neighbours_are_compared_in_large_sets():
    assert neighbours_compared(np.array([10, 120, 127, 128, 400, 5000])).tolist() == [15, 15, 15, 16, 50, 100]
    # Two halves of 200, the nearest 20 neighbours of each galaxy in its own half, all others in the other.
    nodes = NodeTree(np.array([-1, 0, 0]), np.repeat([1, 2], 200))
    other = np.roll(np.arange(400), 200)
    graph = np.repeat(other[:, None], MOST_NEIGHBOURS, axis=1).astype(np.int32)
    graph[:, :20] = np.arange(400)[:, None]
    assert nodes.isolations(graph).tolist() == [1, 20 / 25, 20 / 25]
    assert nodes.isolations(graph[:, :FEWEST_NEIGHBOURS]).tolist() == [1, 1, 1]
