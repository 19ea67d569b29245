"""How far nodes of a tree stand apart: against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import (
    FEWEST_NEIGHBOURS,
    MOST_NEIGHBOURS,
    Nest,
    neighbour_graph,
    neighbours_asked,
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
def nests_with_graphs(draw):
    """Any tree whose nodes come after their parents and are not empty, with any graph of neighbours."""
    nodes, more, k = draw(st.integers(1, 9)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    above = [-1, *(draw(st.integers(0, node - 1)) for node in range(1, nodes))]
    home = [*range(nodes), *draw(st.lists(st.integers(0, nodes - 1), min_size=more, max_size=more))]
    home, galaxies = draw(st.permutations(home)), len(home)
    met = st.lists(st.integers(0, galaxies - 1), min_size=k, max_size=k)
    graph = draw(st.lists(met, min_size=galaxies, max_size=galaxies))
    return Nest(np.array(above), np.array(home)), np.array(graph, dtype=np.int32)


def holds(nest, node, galaxy):
    """Whether a galaxy is in a node or below: from its home upwards."""
    one = nest.home[galaxy]
    while one not in (node, -1):
        one = nest.above[one]
    return one == node


def test_nest_of_a_tree():
    nest = Nest.of(SMALL)
    assert nest.above.tolist() == [-1, 0, 0, 2, 2]
    assert nest.home.tolist() == [0, 1, 1, 1, 2, 3, 4]
    assert nest.sizes.tolist() == [7, 3, 3, 1, 1]
    assert nest.below == [[1, 2], [], [3, 4], [], []]
    assert nest.within(2) == [2, 3, 4]
    assert [nest.members(node).tolist() for node in range(5)] == [list(range(7)), [1, 2, 3], [4, 5, 6], [5], [6]]


def test_a_tree_that_never_splits_is_one_node():
    nest = Nest.of(tree(3, (3, 0, 1), (3, 1, 1), (3, 2, 1)))
    assert nest.sizes.tolist() == [3]
    assert nest.isolations(np.array([[1], [2], [0]], np.int32)).tolist() == [1.0]


@given(nests_with_graphs())
@settings(max_examples=60, deadline=None)
def test_sizes_members_and_isolations_are_those_counted_one_by_one(drawn):
    nest, graph = drawn
    isolations = nest.isolations(graph)
    for node in range(len(nest.above)):
        members = [galaxy for galaxy in range(len(nest.home)) if holds(nest, node, galaxy)]
        assert nest.members(node).tolist() == members
        assert nest.sizes[node] == len(members)
        assert isolations[node] == pytest.approx(np.isin(graph[members], members).mean())


def test_large_sets_are_asked_for_more_neighbours():
    assert neighbours_asked(np.array([10, 120, 127, 128, 400, 5000])).tolist() == [15, 15, 15, 16, 50, 100]
    # Two halves of 200, the nearest 20 neighbours of each galaxy in its own half, all others in the other.
    nest = Nest(np.array([-1, 0, 0]), np.repeat([1, 2], 200))
    other = np.roll(np.arange(400), 200)
    graph = np.repeat(other[:, None], MOST_NEIGHBOURS, axis=1).astype(np.int32)
    graph[:, :20] = np.arange(400)[:, None]
    assert nest.isolations(graph).tolist() == [1, 20 / 25, 20 / 25]
    assert nest.isolations_within(0, graph, of=[1]).tolist() == [20 / 25]
    assert nest.isolations(graph[:, :FEWEST_NEIGHBOURS]).tolist() == [1, 1, 1]


@given(nests_with_graphs())
@settings(max_examples=60, deadline=None)
def test_within_a_node_only_its_own_neighbours_count(drawn):
    nest, graph = drawn
    around = len(nest.above) // 2
    below, outer = nest.within(around), nest.members(around)
    for node, share in zip(below, nest.isolations_within(around, graph, of=below), strict=True):
        met = graph[nest.members(node)]
        assert share == pytest.approx(np.isin(met, nest.members(node)).sum() / max(np.isin(met, outer).sum(), 1))


@pytest.mark.parametrize(("galaxies", "width", "k"), [(300, 6, 15), (40, 3, 5), (12, 2, 15), (2, 1, 1)])
def test_neighbours_are_those_of_an_exact_search(galaxies, width, k):
    features = np.random.default_rng(galaxies).normal(size=(galaxies, width)).astype(np.float32)
    graph = neighbour_graph(features, k=k)
    wanted = min(k, galaxies - 1)
    exact = NearestNeighbors(n_neighbors=wanted).fit(features.astype(np.float64)).kneighbors(return_distance=False)
    np.testing.assert_array_equal(graph, exact)


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_nobody_is_their_own_neighbour_even_among_exact_likes(seed, alike, k):
    random = np.random.default_rng(seed)
    features = random.normal(size=(40, 3)).astype(np.float32)
    features[random.choice(40, alike, replace=False)] = 0.5
    graph = neighbour_graph(features, k=k)
    assert graph.shape == (40, k)
    for row, others in enumerate(graph):
        assert row not in others
        assert len(set(others)) == k
    exact, _ = NearestNeighbors(n_neighbors=k).fit(features).kneighbors()
    found = np.linalg.norm(features[:, None] - features[graph], axis=2)
    np.testing.assert_allclose(np.sort(found, axis=1), exact, atol=1e-5)
