"""What people rated becomes a class: it holds what was planted, and its evidence tells chance from truth."""

import numpy as np
import pytest

from rarezoo.errors import DataError
from rarezoo.explore.features import Features, Part
from rarezoo.explore.rankers.ridge import Ridge
from rarezoo.explore.ranking import RankingSettings
from rarezoo.explore.rated_class import FEWEST, rated_class

pytestmark = pytest.mark.unit

GALAXIES, WANTED = 400, 60
RATED = np.r_[0:25, 200:240]
SETTINGS = RankingSettings(ranker=Ridge())


def sky(apart=6.0):
    """Features of galaxies of which the first 60 lie apart."""
    vectors = np.random.default_rng(0).normal(size=(GALAXIES, 4))
    vectors[:WANTED, 0] += apart
    return Features.of([Part("embedding", vectors, 1.0)])


def learnt(features=None, rated=RATED, interest=None, **changes):
    interest = (rated < WANTED).astype(float) if interest is None else interest
    options = {"shuffles": 40, "refits": 5, **changes}
    return rated_class("ring", features or sky(), rated, interest, settings=SETTINGS, **options)


def test_a_planted_class_is_found_with_its_evidence():
    found = learnt()
    assert sorted(found.rated) == list(range(25))
    assert len(set(found.members) & set(range(WANTED))) > 0.9 * WANTED
    assert len(set(found.members) - set(range(WANTED))) < 0.15 * WANTED
    assert found.auc > 0.95
    assert found.p_value == pytest.approx(1 / 41)
    assert found.stability > 0.7


def test_what_was_rated_is_never_added_by_the_model():
    found = learnt()
    assert not set(found.predicted) & set(RATED)
    assert len(found.members) == len(set(found.members)) == len(found.probability)
    assert (found.probability[: len(found.rated)] == 1).all()
    assert ((found.probability > 0) & (found.probability <= 1)).all()


def test_shuffled_ratings_are_no_class():
    random = np.random.default_rng(3)
    p_values = [
        learnt(interest=random.permutation((RATED < WANTED).astype(float)), refits=1, shuffles=30).p_value
        for _ in range(5)
    ]
    assert np.median(p_values) > 0.1


def test_a_higher_purity_adds_fewer_galaxies():
    features = sky(apart=2.0)
    few, many = (set(learnt(features, purity=purity, shuffles=1).predicted) for purity in (0.95, 0.3))
    assert few < many


def test_grades_are_learnt_as_grades():
    interest = np.where(RATED < WANTED, 0.8, 0.2)
    assert set(learnt(interest=interest, shuffles=1).rated) == set(range(25))


@pytest.mark.parametrize(("liked", "others"), [(FEWEST - 1, 30), (30, FEWEST - 1), (0, 0)])
def test_too_few_ratings_are_one_clear_message(liked, others):
    rated = np.r_[0:liked, 200 : 200 + others].astype(np.int64)
    with pytest.raises(DataError, match=rf"ring.*{liked} interesting, {others} not.*{FEWEST}"):
        learnt(rated=rated)


def test_the_fewest_ratings_are_enough():
    found = learnt(rated=np.r_[0:FEWEST, 200 : 200 + FEWEST])
    assert np.isfinite([found.auc, found.p_value, found.stability]).all()


def test_the_same_ratings_give_the_same_class():
    first, again = learnt(), learnt()
    np.testing.assert_array_equal(first.members, again.members)
    assert (first.p_value, first.stability, first.auc) == (again.p_value, again.stability, again.auc)
