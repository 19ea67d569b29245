"""Every acquisition keeps the same promises, and each follows what it says it follows."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from rarezoo import settings as registry
from rarezoo.errors import ConfigError, MissingDependency
from rarezoo.explore.acquisition import State
from rarezoo.explore.acquisitions.neighbour_score import NeighbourScore
from rarezoo.explore.acquisitions.scikit_activeml import ScikitActiveML
from rarezoo.explore.acquisitions.unsupervised import LocalOutlierFactor, outlierness
from rarezoo.explore.choose import Chooser
from rarezoo.explore.ranker import Prediction

pytestmark = pytest.mark.unit

# What needs a library that is not among rarezoo's dependencies.
NEEDS = {"scikit_activeml": "skactiveml"}
GALAXIES = 120


def names():
    for name in registry.options("acquisition"):
        missing = name in NEEDS and find_spec(NEEDS[name]) is None
        yield pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{NEEDS.get(name)} is not installed"))


def state(rated=24, seed=0):
    """What is known after some ratings: galaxies that lie further in the first direction are more interesting."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(GALAXIES, 5)).astype(np.float32)
    rows = random.choice(GALAXIES, rated, replace=False)
    mean, deviation = features[:, 0] / 4, 0.2 + np.abs(features[:, 1]) / 10
    return State(
        features, rows, (features[rows, 0] > 0).astype(float), Prediction(mean, deviation),
        np.linspace(1, 0, GALAXIES, dtype=np.float32), np.random.default_rng(seed),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(names()))
class TestAcquisition:
    def test_every_galaxy_has_a_finite_value(self, name):
        values = np.asarray(registry.choice("acquisition", name)().values(state()))
        assert values.shape == (GALAXIES,)
        assert np.isfinite(values).all()

    def test_the_same_seed_gives_the_same_values(self, name):
        first, again = (registry.choice("acquisition", name)().values(state(seed=4)) for _ in range(2))
        np.testing.assert_array_equal(first, again)

    def test_a_batch_can_be_chosen_before_any_rating_and_after_equal_ones(self, name):
        acquisition = registry.choice("acquisition", name)()
        known = state()
        none = np.empty(0, dtype=np.int64)
        before = replace(known, rated=none, interest=np.empty(0), prediction=None)
        equal = replace(known, interest=np.zeros(len(known.rated)))
        for now in (before, equal):
            allowed = np.ones(GALAXIES, dtype=bool)
            allowed[now.rated] = False
            choice = Chooser().choose(now, acquisition, 10, allowed=allowed)
            assert len(set(choice.rows)) == 10
            assert allowed[choice.rows].all()

    def test_what_is_known_is_not_changed(self, name):
        known = state()
        before = [known.features.copy(), known.interest.copy(), known.prediction.mean.copy(), known.start.copy()]
        registry.choice("acquisition", name)().values(known)
        after = [known.features, known.interest, known.prediction.mean, known.start]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)


def values(name, known, **settings):
    return np.asarray(registry.choice("acquisition", name)(**settings).values(known))


def test_the_mean_and_the_uncertainty_are_those_of_the_model():
    known = state()
    np.testing.assert_array_equal(values("mean", known), known.prediction.mean)
    np.testing.assert_array_equal(values("uncertainty", known), known.prediction.deviation)


def test_of_two_galaxies_with_the_same_mean_the_less_certain_one_is_worth_more():
    known = state()
    mean = np.full(GALAXIES, 0.3, dtype=np.float32)
    deviation = np.linspace(0.1, 1, GALAXIES, dtype=np.float32)
    known = replace(known, prediction=Prediction(mean, deviation))
    for name in ("upper_confidence_bound", "expected_improvement"):
        assert (np.diff(values(name, known)) > 0).all(), name


def test_expected_improvement_is_the_mean_of_what_is_above_the_best():
    known = state()
    best = known.prediction.mean[known.rated].max()
    draws = np.random.default_rng(0).normal(size=(20_000, 1))
    mean, deviation = known.prediction
    expected = np.maximum(mean + deviation * draws - best - 0.1, 0).mean(axis=0)
    np.testing.assert_allclose(values("expected_improvement", known, tradeoff=0.1), expected, atol=0.01)


def test_expected_improvement_orders_galaxies_far_below_the_best_too():
    known = state()
    mean = np.linspace(-100, -50, GALAXIES, dtype=np.float32)
    mean[known.rated[0]] = 100
    known = replace(known, prediction=Prediction(mean, np.full(GALAXIES, 0.1, dtype=np.float32)))
    order = np.delete(values("expected_improvement", known), known.rated[0])
    assert (np.diff(order) > 0).all()


def test_thompson_differs_from_draw_to_draw_and_follows_the_model_on_average():
    known = state()
    draws = np.array([values("thompson", known) for _ in range(400)])
    assert np.ptp(draws[:, 0]) > 0
    np.testing.assert_allclose(draws.mean(axis=0), known.prediction.mean, atol=0.15)
    np.testing.assert_allclose(draws.std(axis=0), known.prediction.deviation, rtol=0.2)


@pytest.mark.parametrize("name", ["local_outlier_factor", "isolation_forest"])
def test_a_galaxy_that_lies_apart_is_worth_most_and_is_found_once_only(name):
    known = state()
    features = known.features.copy()
    features[17] = 30
    known = replace(known, features=features)
    assert values(name, known).argmax() == 17
    # Computed once for the same features: what is kept is given again.
    (kept,) = known.memory
    known.memory[kept][:] = 0
    assert not values(name, known).any()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 25])
def test_few_galaxies_have_an_outlier_factor_too(count):
    features = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    assert len(outlierness(features)) == count


def test_above_twenty_thousand_galaxies_outliers_are_still_found():
    features = np.random.default_rng(0).normal(size=(20_500, 2)).astype(np.float32)
    features[[5, 20_400]] = 40
    assert set(np.argsort(-outlierness(features))[:2]) == {5, 20_400}


def test_astronomalys_score_goes_down_near_what_was_rated_dull_and_up_near_what_was_liked():
    random = np.random.default_rng(0)
    features = random.normal(size=(GALAXIES, 2)).astype(np.float32)
    # Two groups that are equally unusual.
    features[:20] += [12, 0]
    features[20:40] += [-12, 0]
    rated = np.r_[0:5, 20:25]
    known = replace(state(), features=features, rated=rated, interest=(rated < 20).astype(float))
    scores = NeighbourScore().values(known)
    alone = NeighbourScore().values(replace(known, rated=rated[:0], interest=np.empty(0)))
    assert scores[5:20].mean() > scores[25:40].mean() + 0.5
    assert abs(alone[5:20].mean() - alone[25:40].mean()) < 0.7
    assert LocalOutlierFactor().values(known).shape == (GALAXIES,)


@pytest.mark.skipif(find_spec("skactiveml") is None, reason="scikit-activeml is not installed")
@pytest.mark.parametrize("strategy", ["UncertaintySampling", "QueryByCommittee"])
def test_strategies_of_scikit_activeml_ask_for_unrated_galaxies(strategy):
    known = state()
    utilities = ScikitActiveML(strategy=strategy).values(known)
    assert np.ptp(utilities) > 0
    assert not utilities[known.rated].any()


@pytest.mark.skipif(find_spec("skactiveml") is None, reason="scikit-activeml is not installed")
def test_a_strategy_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="Guesswork"):
        ScikitActiveML(strategy="Guesswork").values(state())


@pytest.mark.skipif(find_spec("skactiveml") is not None, reason="scikit-activeml is installed")
def test_without_scikit_activeml_its_strategies_say_what_to_install():
    with pytest.raises(MissingDependency, match="scikit-activeml"):
        ScikitActiveML().values(state())
