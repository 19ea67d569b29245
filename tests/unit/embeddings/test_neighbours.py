"""The nearest-neighbour index finds the neighbours that a comparison of all pairs finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from rarezoo.embeddings.neighbours import NeighbourIndex, unit_vectors

pytestmark = pytest.mark.unit


def cloud(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("galaxies", "width", "k"), [(300, 6, 15), (40, 3, 5), (12, 2, 15), (2, 1, 1)])
def test_the_graph_is_that_of_an_exact_search(galaxies, width, k, exact):
    vectors = cloud(galaxies, width, galaxies)
    wanted = min(k, galaxies - 1)
    expected = NearestNeighbors(n_neighbors=wanted).fit(vectors.astype(np.float64)).kneighbors(return_distance=False)
    np.testing.assert_array_equal(NeighbourIndex(vectors, exact=exact).graph(k), expected)


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_row_is_its_own_neighbour_even_among_exact_copies(seed, copies, k, exact):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(40, 3)).astype(np.float32)
    vectors[random.choice(40, copies, replace=False)] = 0.5
    graph = NeighbourIndex(vectors, exact=exact).graph(k)
    assert graph.shape == (40, k)
    for row, others in enumerate(graph):
        assert row not in others
        assert len(set(others)) == k
    expected, _ = NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors()
    distances = np.linalg.norm(vectors[:, None] - vectors[graph], axis=2)
    np.testing.assert_allclose(np.sort(distances, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_a_query_leaves_out_the_row_itself_only_where_it_is_named(exact):
    vectors = cloud(60, 4)
    index = NeighbourIndex(vectors, exact=exact)
    with_itself = index.query(vectors[:5], 3)
    np.testing.assert_array_equal(with_itself.rows[:, 0], np.arange(5))
    np.testing.assert_allclose(with_itself.distances[:, 0], 0, atol=1e-6)
    without = index.query(vectors[:5], 3, itself=np.array([0, 1, 2, 3, -1]))
    np.testing.assert_array_equal(without.rows[:4, :2], with_itself.rows[:4, 1:])
    np.testing.assert_array_equal(without.rows[4], with_itself.rows[4])


@pytest.mark.parametrize("exact", [True, False])
def test_cosine_compares_directions_from_the_mean(exact):
    vectors = cloud(80, 5) * np.linspace(1, 9, 80, dtype=np.float32)[:, None] + 3
    index = NeighbourIndex(vectors, metric="cosine", exact=exact)
    centred = vectors - vectors.mean(axis=0)
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.argsort(-cosines, axis=1)[:, :4]
    np.testing.assert_array_equal(index.graph(4), expected)
    np.testing.assert_array_equal(index.query(vectors[:7], 4, itself=np.arange(7)).rows, expected[:7])


def test_a_vector_that_is_the_mean_has_no_direction():
    np.testing.assert_array_equal(unit_vectors(np.array([[-1.0], [0.0], [1.0]], np.float32)), [[-1], [0], [1]])


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="chebyshev"):
        NeighbourIndex(cloud(5, 2), metric="chebyshev")
