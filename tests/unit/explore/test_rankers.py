"""Every ranker learns a planted direction, and keeps the promises on which the rest relies."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rarezoo import settings as registry
from rarezoo.errors import ConfigError
from rarezoo.explore.ranker import BLOCK
from rarezoo.explore.rankers.gaussian_process import GaussianProcess
from rarezoo.explore.rankers.optimised_gaussian_process import OptimisedGaussianProcess

pytestmark = pytest.mark.unit

RANKERS = list(registry.options("ranker"))
GALAXIES, WIDTH, RATED = 600, 8, 60
DISTANCE = float(np.sqrt(2 * WIDTH))


def sky(seed=0):
    """Features of galaxies, of which 10 in 100 lie far out in the first direction, and who rated which of them."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(GALAXIES, WIDTH)).astype(np.float32)
    wanted = np.arange(GALAXIES) < GALAXIES // 10
    features[wanted, 0] += 4
    rated = np.r_[0 : RATED // 4, GALAXIES - 3 * RATED // 4 : GALAXIES]
    return features, wanted, rated


def fitted(name, features, interest, seed=0):
    return registry.choice("ranker", name)().fit(features, interest, distance=DISTANCE, seed=seed)


@pytest.mark.parametrize("name", RANKERS)
class TestRanker:
    @pytest.mark.parametrize("graded", [False, True])
    def test_a_planted_direction_is_ranked_above_the_rest(self, name, graded):
        features, wanted, rated = sky()
        interest = wanted[rated].astype(float)
        if graded:
            interest = np.where(wanted[rated], 0.8, 0.2)
        unrated = np.setdiff1d(np.arange(GALAXIES), rated)
        mean, deviation = fitted(name, features[rated], interest).predict(features)
        assert roc_auc_score(wanted[unrated], mean[unrated]) > 0.97
        assert mean.dtype == deviation.dtype == np.float32

    @pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
    @pytest.mark.parametrize("count", [1, 30])
    def test_ratings_that_are_all_equal_give_finite_numbers(self, name, value, count):
        features, _, _ = sky()
        mean, deviation = fitted(name, features[:count], np.full(count, value)).predict(features)
        assert np.isfinite(mean).all()
        assert np.isfinite(deviation).all()
        assert (deviation >= 0).all()

    def test_one_rating_that_differs_decides_the_order(self, name):
        # What an optimised kernel without a fallback loses: it calls everything noise.
        features, wanted, _ = sky()
        rated = np.r_[0, 300:315]
        mean = fitted(name, features[rated], wanted[rated].astype(float)).predict(features).mean
        assert np.ptp(mean) > 0
        assert roc_auc_score(wanted, mean) > 0.8

    def test_galaxies_that_were_rated_twice_or_are_the_same_do_no_harm(self, name):
        features, wanted, rated = sky()
        twice = np.concatenate([rated, rated, rated[:5]])
        mean, deviation = fitted(name, features[twice], wanted[twice].astype(float)).predict(features)
        assert roc_auc_score(wanted, mean) > 0.97
        assert np.isfinite(deviation).all()

    def test_features_that_are_all_the_same_give_the_same_finite_numbers(self, name):
        features = np.zeros((20, WIDTH), dtype=np.float32)
        model = registry.choice("ranker", name)().fit(features[:4], np.array([0, 1, 0, 1.0]), distance=0.0, seed=0)
        mean, deviation = model.predict(features)
        assert np.ptp(mean) == pytest.approx(0, abs=1e-6)
        assert np.isfinite(mean).all()
        assert (deviation >= 0).all()

    def test_the_same_seed_gives_the_same_numbers(self, name):
        features, wanted, rated = sky()
        first, again = (fitted(name, features[rated], wanted[rated].astype(float), seed=3) for _ in range(2))
        for one, other in zip(first.predict(features), again.predict(features), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_more_galaxies_than_a_block_have_the_numbers_that_they_have_alone(self, name):
        features, wanted, rated = sky()
        model = fitted(name, features[rated[::4]], wanted[rated[::4]].astype(float))
        many = np.tile(features, (BLOCK // GALAXIES + 2, 1))
        assert len(many) > BLOCK
        mean, deviation = model.predict(many)
        alone = model.predict(features)
        np.testing.assert_allclose(
            mean.reshape(-1, GALAXIES), np.tile(alone.mean, (len(many) // GALAXIES, 1)), atol=1e-5
        )
        np.testing.assert_allclose(deviation[-GALAXIES:], alone.deviation, atol=1e-5)

    def test_no_galaxies_have_no_numbers(self, name):
        features, wanted, rated = sky()
        mean, deviation = fitted(name, features[rated], wanted[rated].astype(float)).predict(features[:0])
        assert len(mean) == len(deviation) == 0


@pytest.mark.parametrize("name", ["gaussian_process", "ridge", "logistic"])
def test_what_is_far_from_every_rating_is_less_certain(name):
    features, wanted, rated = sky()
    model = fitted(name, features[rated], wanted[rated].astype(float))
    near = model.predict(features[rated]).deviation.max()
    assert model.predict(np.full((1, WIDTH), 30, dtype=np.float32)).deviation[0] > near


def test_the_gaussian_process_is_that_of_scikit_learn_with_the_same_kernel():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    features, wanted, rated = sky()
    ours = GaussianProcess(length=1.5, noise=0.2)
    mean, deviation = ours.fit(features[rated], wanted[rated].astype(float), distance=DISTANCE, seed=0).predict(
        features
    )
    theirs = GaussianProcessRegressor(RBF(1.5 * DISTANCE), alpha=0.2, optimizer=None)
    answers = wanted[rated].astype(float)
    theirs.fit(features[rated].astype(float), answers - answers.mean())
    expected, spread = theirs.predict(features.astype(float), return_std=True)
    np.testing.assert_allclose(mean, expected + answers.mean(), atol=1e-4)
    np.testing.assert_allclose(deviation, spread, atol=1e-4)


def test_an_optimised_kernel_that_is_a_constant_is_replaced_and_the_log_says_so(caplog):
    features, _, _ = sky()
    rated, interest = features[:20], np.zeros(20)
    alone = OptimisedGaussianProcess(fallback=False).fit(rated, interest, distance=DISTANCE, seed=0).predict(features)
    assert np.ptp(alone.deviation) < 1e-3, "the optimum is a constant"
    with caplog.at_level("INFO", logger="rarezoo"):
        kept = OptimisedGaussianProcess(fallback=True).fit(rated, interest, distance=DISTANCE, seed=0)
    fixed = GaussianProcess().fit(rated, interest, distance=DISTANCE, seed=0)
    assert "length scale" in caplog.text
    np.testing.assert_array_equal(kept.predict(features).deviation, fixed.predict(features).deviation)
    assert np.ptp(fixed.predict(features).deviation) > 0.01


@pytest.mark.parametrize("settings", [{"length": 1e-30}, {"length": float("inf")}, {"noise": 0.0}, {"noise": 1e300}])
def test_a_kernel_that_no_numbers_can_hold_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GaussianProcess(**settings)
