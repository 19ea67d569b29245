"""Rank, ranking precision and similarity of embeddings: exact against references, at chance where nothing is there."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from rarezoo.embeddings.quality import (
    METRICS,
    Ranking,
    Spectrum,
    average_precisions,
    embedding_similarity,
    linear_cka,
    spectrum,
    whitened,
)
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.statistics import bootstrap_interval

pytestmark = pytest.mark.unit


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("used", [1, 5, 20])
def test_equal_scatter_in_some_directions_is_a_rank_of_so_many(used):
    rotation = np.linalg.qr(normal(20, 20))[0]
    measured_spectrum = spectrum((normal(20_000, used) @ rotation[:used] * 3 + 7).astype(np.float32))
    assert measured_spectrum.effective_rank == pytest.approx(used, rel=0.01)
    assert measured_spectrum.participation_ratio == pytest.approx(used, rel=0.01)
    assert measured_spectrum.components(0.999) == used
    assert measured_spectrum.ratios.shape == (20,)
    assert measured_spectrum.ratios.sum() == pytest.approx(1)


def test_rank_of_a_known_spectrum():
    measured_spectrum = Spectrum(np.array([0.5, 0.25, 0.25, 0.0]))
    assert measured_spectrum.effective_rank == pytest.approx(2**1.5)
    assert measured_spectrum.participation_ratio == pytest.approx(1 / 0.375)
    assert [measured_spectrum.components(share) for share in (0.5, 0.51, 0.75, 0.95, 1.0)] == [1, 2, 2, 3, 3]


def test_half_precision_is_taken():
    embeddings = normal(500, 6).astype(np.float16)
    assert spectrum(embeddings).effective_rank == pytest.approx(spectrum(embeddings.astype(float)).effective_rank)
    assert whitened(embeddings, components=3).dtype == np.float32


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((9, 3)), "all 9 embeddings are equal"),
        (np.full((9, 3), np.nan), "not finite"),
        (np.ones((1, 3)), "too few embeddings: 1"),
    ],
)
def test_embeddings_without_a_spectrum_are_refused(embeddings, message):
    with pytest.raises(StoreError, match=message):
        spectrum(embeddings)


def test_whitened_components_have_unit_variance_and_no_correlation():
    even = whitened(normal(4000, 5) @ normal(5, 8, seed=1), components=4)
    np.testing.assert_allclose(np.cov(even, rowvar=False), np.eye(4), atol=1e-3)
    with pytest.raises(ConfigError, match="too few components to whiten: 0"):
        whitened(even, components=0)


def reference(features, positive, metric):
    """One ranking after the other, by scikit-learn."""
    centred = features - features.mean(axis=0)
    if metric == "euclidean":
        spread = centred.std(axis=0)
        centred = centred / np.where(spread > 0, spread, 1)
    precisions = []
    for query in np.flatnonzero(positive):
        others = np.arange(len(features)) != query
        if metric == "cosine":
            norms = np.linalg.norm(centred, axis=1)
            similar = centred @ centred[query] / np.where(norms > 0, norms, 1) / max(norms[query], 1e-300)
        else:
            similar = -np.linalg.norm(centred - centred[query], axis=1)
        precisions.append(average_precision_score(positive[others], np.round(similar[others], 9)))
    return np.array(precisions)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [1, 700, 2**24])
def test_precisions_are_those_of_scikit_learn(metric, block):
    features, positive = normal(200, 6) * np.arange(1, 7) + 4, normal(200, seed=1) > 1
    ranking = average_precisions(features, positive, metric=metric, similarities=block)
    np.testing.assert_allclose(ranking.precisions, reference(features, positive, metric), atol=1e-12)
    np.testing.assert_array_equal(ranking.queries, np.flatnonzero(positive))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=4, max_size=20), st.integers(0, 9))
def test_equally_distant_galaxies_share_a_rank(galaxies, seed):
    places, positive = np.array([place for place, _ in galaxies]), np.array([is_kind for _, is_kind in galaxies])
    if not 2 <= positive.sum() < len(positive):
        return
    # Galaxies of one place have the same features, so their similarities are the same number.
    features = normal(3, 4, seed=seed)[places]
    ranking = average_precisions(features, positive, metric="euclidean").precisions
    np.testing.assert_allclose(ranking, reference(features, positive, "euclidean"), atol=1e-12)


def test_a_kind_apart_is_found_without_a_miss():
    positive = np.arange(300) < 30
    ranking = average_precisions((normal(300, 5) + 40 * positive[:, None]).astype(np.float32), positive)
    assert ranking.mean == (1, 1, 1)


def test_a_query_is_not_among_its_own_answers():
    positive = np.array([True, True, False, False])
    assert average_precisions(np.array([[0.0], [9], [1], [2]]), positive, metric="euclidean").precisions[0] < 0.5


def test_shuffled_labels_rank_at_chance():
    features, random = normal(2000, 8), np.random.default_rng(1)
    shuffles = [average_precisions(features, random.permutation(np.arange(2000) < 60)) for _ in range(10)]
    assert np.mean([shuffled.mean.value for shuffled in shuffles]) == pytest.approx(shuffles[0].chance, rel=0.05)
    assert shuffles[0].chance == pytest.approx(shuffles[0].prevalence, rel=0.15)


def test_chance_is_the_mean_over_every_order():
    everyone = [average_precision_score(order, -np.arange(6)) for order in set(permutations([1, 1, 0, 0, 0, 0]))]
    assert Ranking(np.arange(3), np.ones(3), galaxies=7, positives=3).chance == pytest.approx(np.mean(everyone))


def test_chance_where_nobody_else_is_ranked():
    assert Ranking(np.arange(2), np.ones(2), galaxies=2, positives=2).chance == 1


def test_some_queries_are_a_draw_from_all():
    features, positive = normal(400, 4), np.arange(400) < 50
    everyone, some = average_precisions(features, positive), average_precisions(features, positive, queries=12, seed=5)
    assert len(np.unique(some.queries)) == 12
    np.testing.assert_allclose(some.precisions, everyone.precisions[some.queries])
    again = average_precisions(features, positive, queries=12, seed=6)
    assert set(again.queries) != set(some.queries)


def ranking(precisions):
    return Ranking(np.arange(len(precisions)), np.asarray(precisions), galaxies=1000, positives=len(precisions))


def test_the_interval_covers_the_mean_that_was_drawn_from():
    draws = np.random.default_rng(0).beta(1, 9, size=(200, 80))
    intervals = [bootstrap_interval(precisions, draws=400) for precisions in draws]
    assert 0.88 <= np.mean([low <= 0.1 <= high for _, low, high in intervals]) <= 0.99


def test_one_query_has_no_interval():
    value, low, high = ranking([0.25]).mean
    assert value == 0.25
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("positive", "options", "kind", "message"),
    [
        ([True] + [False] * 9, {}, DataError, "1 of 10 galaxies are positive"),
        ([True] * 10, {}, DataError, "10 of 10 galaxies are positive"),
        ([True, False], {}, ConfigError, "a mask of another length"),
        ([True, True] + [False] * 8, {"metric": "manhattan"}, ConfigError, "unknown metric: manhattan"),
    ],
)
def test_what_cannot_be_ranked_is_refused(positive, options, kind, message):
    with pytest.raises(kind, match=message):
        average_precisions(normal(10, 3), np.array(positive), **options)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        average_precisions(np.array([[1.0], [np.nan], [2], [3]]), np.array([True, True, False, False]))


# --- two embeddings of the same galaxies


def blob(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_a_turned_and_stretched_embedding_is_the_same():
    first = blob(400, 6, 0)
    turn = np.linalg.qr(blob(6, 6, 1))[0]
    similarity = embedding_similarity(first, 3 * first @ turn + 5, ks=(5, 20), queries=0)
    assert (similarity.galaxies, similarity.queries) == (400, 400)
    assert similarity.cka == pytest.approx(1)
    assert [overlap.share for overlap in similarity.overlaps] == pytest.approx([1, 1], abs=0.005)


def test_unrelated_embeddings_share_what_chance_gives():
    similarity = embedding_similarity(blob(1500, 6, 0), blob(1500, 9, 1), ks=(10, 100, 5000), queries=500)
    assert [overlap.k for overlap in similarity.overlaps] == [10, 100]
    assert similarity.queries == 500
    for overlap in similarity.overlaps:
        assert overlap.chance == overlap.k / 1499
        # Shared neighbours are some 500 × 10 × 10 / 1499 ≈ 33 or more: within five standard deviations.
        assert abs(overlap.share - overlap.chance) < 5 * np.sqrt(overlap.chance / (500 * overlap.k))
    assert similarity.cka < 0.05


def test_neighbours_are_those_that_all_pairs_give_and_never_the_galaxy_itself():
    first, second = blob(60, 3, 0), blob(60, 3, 1)
    first[1] = first[0]
    near = []
    for features in (first, second):
        units = features - features.mean(axis=0)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        alike = units @ units.T
        np.fill_diagonal(alike, -np.inf)
        near.append(np.argsort(-alike, axis=1)[:, :7])
    shares = [len(set(a) & set(b)) / 7 for a, b in zip(*near, strict=True)]
    similarity = embedding_similarity(first, second, ks=(7,), queries=0)
    assert similarity.overlaps[0].share == pytest.approx(np.mean(shares))


def test_cka_is_that_of_its_definition_whatever_the_blocks():
    first, second = blob(300, 4, 0), blob(300, 7, 1)
    second[:, :2] = first[:, :2]
    x, y = (features - features.mean(axis=0) for features in (first.astype(float), second.astype(float)))
    kernels = [features @ features.T for features in (x, y)]
    expected = np.sum(kernels[0] * kernels[1]) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
    assert linear_cka(first, second, block=77) == pytest.approx(expected)
    assert linear_cka(first.astype(np.float16), second, block=77) == pytest.approx(expected, rel=1e-3)
    assert np.isnan(linear_cka(np.ones((5, 2)), first[:5]))


def test_two_galaxies_are_too_few():
    with pytest.raises(StoreError, match="too few galaxies in common: 2"):
        embedding_similarity(blob(2, 3, 0), blob(2, 3, 1))
