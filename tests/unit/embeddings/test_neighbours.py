"""The nearest-neighbour index finds the neighbours that a comparison of all pairs finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from rarezoo.cache import Cache
from rarezoo.embeddings.neighbours import NeighbourIndex, centred, unit_vectors

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


def test_vectors_on_the_disk_have_the_neighbours_of_vectors_in_memory(tmp_path):
    vectors = cloud(700, 9, 3) + 4
    blocks = lambda: [vectors[start : start + 100] for start in range(0, 700, 100)]  # noqa: E731
    on_disk = centred(blocks, shape=(700, 9), cache=Cache(tmp_path), key={"store": "mine"})
    in_memory = centred(blocks, shape=(700, 9))
    for kept, made in zip(on_disk, in_memory, strict=True):
        np.testing.assert_array_equal(kept, made)
    again = centred(lambda: 1 / 0, shape=(700, 9), cache=Cache(tmp_path), key={"store": "mine"})
    np.testing.assert_array_equal(again.directions, on_disk.directions)
    assert not again.directions.flags.writeable, "a view of the file"
    graph = NeighbourIndex.of(on_disk).graph(5)
    np.testing.assert_array_equal(graph, NeighbourIndex(vectors, metric="cosine", exact=True).graph(5))


def test_the_mean_and_the_spread_are_those_of_all_vectors():
    vectors = cloud(300, 4) * 1e-3 + 1000
    vectors[:, 3] = 7
    seen = centred(lambda: [vectors[:1], vectors[1:290], vectors[290:]], shape=(300, 4))
    np.testing.assert_allclose(seen.mean, vectors.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(seen.spread[:3], vectors[:, :3].std(axis=0, dtype=np.float64), rtol=0.01)
    assert seen.spread[3] == 1
    np.testing.assert_allclose(seen.lengths, np.linalg.norm(vectors - seen.mean, axis=1), rtol=1e-5)


def test_vectors_that_are_not_finite_are_nobodys_neighbours():
    vectors = cloud(50, 3)
    vectors[4, 0], vectors[9] = np.nan, np.inf
    index = NeighbourIndex(vectors, metric="cosine", exact=True)
    assert np.flatnonzero(~index.finite).tolist() == [4, 9]
    rows = np.delete(np.arange(50), [4, 9])
    nearest = index.query_rows(rows, 47)
    assert not np.isin(nearest.rows, [4, 9]).any()
    whole = NeighbourIndex(vectors[rows], metric="cosine", exact=True)
    np.testing.assert_array_equal(nearest.rows, rows[whole.query_rows(np.arange(48), 47).rows])
    short = index.query_rows(rows[:1], 49)
    assert np.isinf(short.distances[0, 47:]).all()
    assert (short.rows[0, 47:] == -1).all()


@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_the_scan_finds_what_a_comparison_of_all_pairs_finds(seed, galaxies, width):
    vectors = np.random.default_rng(seed).normal(size=(galaxies, width)).astype(np.float32)
    index = NeighbourIndex(vectors, metric="cosine", exact=True)
    nearest = index.query_rows(np.arange(galaxies), galaxies - 1)
    apart = np.linalg.norm(index.vectors[:, None].astype(np.float64) - index.vectors, axis=2)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(nearest.distances, np.sort(apart, axis=1)[:, :-1], atol=1e-6)


def test_products_with_weights_are_those_of_the_centred_vectors():
    vectors = cloud(500, 6) + 2
    index = NeighbourIndex(vectors, metric="cosine", exact=True)
    weights = np.arange(6.0)
    np.testing.assert_allclose(index.project(weights), (vectors - vectors.mean(axis=0)) @ weights, atol=1e-4)


def test_the_distance_from_the_nearest_vector_is_euclidean():
    vectors = cloud(300, 5) * 3 + 1
    index = NeighbourIndex(vectors, metric="cosine", exact=True)
    asked = cloud(7, 5, 8) * 10
    expected = np.linalg.norm(asked[:, None] - vectors, axis=2).min(axis=1)
    np.testing.assert_allclose(index.nearest_distances(asked), expected, rtol=1e-3)
    others = NearestNeighbors(n_neighbors=1).fit(vectors).kneighbors()[0][:, 0]
    rows = np.arange(300)
    np.testing.assert_allclose(index.nearest_distances(vectors, itself=rows), others, atol=1e-2)
