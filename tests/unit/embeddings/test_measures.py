"""Measures with known answers: 1 where the answer is a feature, at chance where nothing is there, and never misled."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score

from rarezoo.embeddings.measures import (
    DRAWS,
    GALAXIES,
    QUERIES,
    Sample,
    few_labels,
    like_this,
    probe,
    refuse_too_few,
    resampled_precisions,
    retrieval,
    standardised,
)
from rarezoo.errors import ConfigError, DataError

pytestmark = pytest.mark.unit

MEASURES = {
    "like this": lambda features, positive: like_this(features, positive),
    "few labels": lambda features, positive: few_labels(features, positive, labels=5, others=25, draws=4)["AUC"],
    "probe": lambda features, positive: probe(features, positive, seeds=1, resamples=200),
    "retrieval": lambda features, positive: retrieval(features, positive.astype(float), queries=20),
}


def world(galaxies=400, members=40, width=6, seed=0):
    """Features without meaning, and which galaxies are of a kind."""
    random = np.random.default_rng(seed)
    positive = np.zeros(galaxies, dtype=bool)
    positive[random.choice(galaxies, members, replace=False)] = True
    return random.normal(size=(galaxies, width)), positive


@pytest.mark.parametrize("name", MEASURES)
def test_features_that_hold_the_answer_reach_one(name):
    features, positive = world()
    with_answer = np.column_stack([features * 0.01, positive])
    if name in ("few labels", "probe"):  # The classifier finds the one feature among others of the same variance.
        with_answer[:, :-1] *= 0
    sample = MEASURES[name](with_answer, positive)
    assert sample.value > 0.98
    assert sample.interval.low > 0.95


@pytest.mark.parametrize("name", MEASURES)
def test_features_without_meaning_are_at_chance(name):
    values, chances = [], []
    for seed in range(6):
        features, positive = world(seed=seed)
        sample = MEASURES[name](features, positive)
        values.append(sample.value)
        chances.append(sample.chance)
    scatter = np.std(values, ddof=1) / np.sqrt(len(values))
    # A fold lacks those members that it is ranked by, so that a probe of noise is a little below the share of members.
    assert np.mean(values) == pytest.approx(np.mean(chances), abs=4 * scatter + 0.01)


@pytest.mark.parametrize("name", MEASURES)
def test_constant_features_are_at_chance_and_cause_no_warning(name):
    features, positive = np.full((400, 3), 0.1), world()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = MEASURES[name](features, positive)
    if name == "retrieval":  # All galaxies are equally near: the first ten are taken.
        assert 0 <= sample.value <= 1
    else:
        assert sample.value == pytest.approx(sample.chance, abs=0.02)


@pytest.mark.parametrize("name", MEASURES)
def test_features_that_are_not_finite_are_refused(name):
    features, positive = world()
    features[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        MEASURES[name](features, positive)


@pytest.mark.parametrize("name", ["like this", "few labels", "probe"])
@pytest.mark.parametrize("members", [0, 4, 396, 400])
def test_too_few_galaxies_of_a_kind_or_of_others_are_refused(name, members):
    features, _ = world()
    with pytest.raises(DataError, match=f"{members} of 400"):
        MEASURES[name](features, np.arange(400) < members)


def test_five_galaxies_are_enough_for_a_probe():
    features, positive = world(members=5)
    assert 0 < probe(features, positive, resamples=50).value <= 1
    refuse_too_few(positive)


def test_what_one_direction_holds_a_classifier_finds_although_nearest_neighbours_do_not():
    features, positive = world(galaxies=2000, members=100, width=60)
    features[positive, 0] += 3
    assert like_this(features, positive).value < 0.2
    assert probe(features, positive, seeds=1).value > 0.6


def test_the_probe_ranks_galaxies_by_classifiers_that_have_not_seen_them():
    # As many features as galaxies: a classifier that has seen a galaxy knows its answer by heart.
    features, positive = world(galaxies=200, members=60, width=300)
    seen = LogisticRegression(C=1).fit(features, positive).decision_function(features)
    assert average_precision_score(positive, seen) > 0.99
    assert probe(features, positive, strength=1).value < 0.5


def test_values_do_not_depend_on_scale_and_shift_of_the_features():
    features, positive = world()
    features[positive, 0] += 1
    other = features * np.geomspace(0.001, 1000, 6) + 7
    for name in ("few labels", "probe"):
        assert MEASURES[name](other, positive).value == pytest.approx(
            MEASURES[name](features, positive).value, abs=1e-4
        )


def test_draws_and_resamples_are_the_same_for_every_embedding_so_that_differences_are_paired():
    features, positive = world()
    features[positive, 0] += 1.5
    better = features.copy()
    better[positive, 1] += 1.5
    for name, measure in MEASURES.items():
        first, second = measure(features, positive), measure(better, positive)
        difference = second.minus(first)
        assert difference.value == pytest.approx(second.value - first.value), name
        assert second.minus(second)[:] == (0, 0, 0)
    paired = probe(better, positive, seeds=1).minus(probe(features, positive, seeds=1))
    apart = probe(better, positive, seeds=1).interval
    assert paired.high - paired.low < 1.5 * (apart.high - apart.low)


def test_samples_of_different_things_have_no_difference():
    first = Sample(0.5, np.array([0.4, 0.6]), QUERIES, 0.1)
    for other in (Sample(0.5, np.array([0.4, 0.6]), DRAWS, 0.1), Sample(0.5, np.array([0.4]), QUERIES, 0.1)):
        with pytest.raises(ConfigError, match="different galaxies"):
            first.minus(other)


def test_the_interval_of_a_probe_covers_what_a_large_sample_gives():
    def draw(galaxies, seed):
        features, positive = world(galaxies=galaxies, members=galaxies // 10, width=2, seed=seed)
        features[positive, 0] += 2
        return features, positive

    truth = probe(*draw(10_000, 99), seeds=1, resamples=2).value
    intervals = [probe(*draw(400, seed), seeds=1, resamples=200).interval for seed in range(20)]
    assert np.mean([interval.low <= truth <= interval.high for interval in intervals]) >= 0.8


def test_resampled_precision_without_repetition_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 30, 200).astype(float), random.random(200) < 0.2
    resamples = resampled_precisions(scores, positive, resamples=3, seed=5)
    again = np.random.default_rng(5)
    order = np.argsort(-scores, kind="stable")
    place = np.argsort(order)
    for value in resamples:
        rows = [again.choice(place[kind], kind.sum()) for kind in (positive, ~positive)]
        weights = np.bincount(np.concatenate(rows), minlength=200)
        expected = average_precision_score(positive[order], scores[order], sample_weight=weights)
        assert value == pytest.approx(expected)


def test_retrieval_is_the_ndcg_of_scikit_learn():
    random = np.random.default_rng(0)
    features, fraction = random.normal(size=(80, 5)), random.random(80)
    sample = retrieval(features, fraction, queries=7)
    centred = features - features.mean(axis=0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    best = np.argsort(-fraction)[:7]
    expected = []
    for query in best:
        others = np.delete(np.arange(80), query)
        expected.append(ndcg_score([fraction[others]], [(units @ units[query])[others]], k=10))
    assert sample.over == QUERIES
    np.testing.assert_allclose(sample.values, expected)


def test_several_examples_are_left_out_of_their_own_ranking_and_average_what_they_show():
    random = np.random.default_rng(0)
    fraction = np.r_[np.ones(30), np.zeros(970)]
    features = random.normal(size=(1000, 20))
    features[:30, 0] += 3
    single, ten = (retrieval(features, fraction, examples=examples, queries=30).value for examples in (1, 10))
    assert ten > single + 0.2
    # If examples were found again, ten of eleven would make this perfect.
    noise = retrieval(random.normal(size=(1000, 20)), fraction, examples=10, queries=30)
    assert noise.value < 0.2
    assert noise.chance == pytest.approx(20 / 990, abs=0.01)


def test_too_few_galaxies_with_votes_are_refused_as_examples():
    features, _ = world()
    fraction = np.zeros(400)
    fraction[:7] = 0.5
    assert 0 <= retrieval(features, fraction, examples=3).value <= 1
    with pytest.raises(DataError, match="7 of 400"):
        retrieval(features, fraction, examples=10)


def test_what_the_intervals_describe():
    features, positive = world()
    assert [MEASURES[name](features, positive).over for name in MEASURES] == [QUERIES, DRAWS, GALAXIES, QUERIES]


def test_half_precision_is_taken_and_a_constant_column_is_zero():
    values = standardised(np.column_stack([np.arange(50), np.full(50, 0.1)]).astype(np.float16))
    assert values[:, 0].std() == pytest.approx(1)
    assert (values[:, 1] == 0).all()
