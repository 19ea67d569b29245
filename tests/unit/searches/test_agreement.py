"""Agreement of two searches in which many galaxies are in no class."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from rarezoo.searches.matching import ClassOverlap, agreement, co_assignment

pytestmark = pytest.mark.unit

NONE = -1


def labels(*sizes, unassigned=0):
    return np.repeat([*range(len(sizes)), NONE], [*sizes, unassigned])


def alone(labels):
    """Every unassigned galaxy in a class of its own."""
    return np.where(labels == NONE, 1000 + np.arange(len(labels)), labels)


@pytest.mark.parametrize("unassigned", [0.0, 0.5, 0.95])
def test_co_assignment_is_the_rand_index_with_the_unassigned_alone(unassigned):
    random = np.random.default_rng(0)
    first, second = (np.where(random.random(600) < unassigned, NONE, random.integers(0, 5, 600)) for _ in range(2))
    second[:200] = first[:200]
    result = co_assignment(ClassOverlap.of_labels(first, second))
    assert result == pytest.approx(adjusted_rand_score(alone(first), alone(second)), abs=1e-12)


def test_the_same_classes_agree_in_everything():
    first = labels(20, 30, unassigned=500)
    result = agreement(first, np.where(first == NONE, NONE, 1 - first))
    assert result.kept == 2
    assert (result.co_assignment, result.ari_both, result.ami_both, result.assigned, result.matched) == pytest.approx(
        (1,) * 5
    )


def test_many_unassigned_galaxies_are_no_agreement():
    first, second = np.full((2, 1000), NONE)
    first[:20], second[500:520] = 0, 0
    result = agreement(first, second)
    assert result.co_assignment == pytest.approx(0, abs=1e-3)
    assert (result.assigned, result.kept, result.matched) == (0, 0, 0)
    assert np.isnan([result.ari_both, result.ami_both]).all(), "no galaxy is in a class in both"


def test_indices_over_galaxies_assigned_in_both_ignore_lost_members():
    first = labels(50, 50, unassigned=100)
    second = first.copy()
    second[:40] = NONE
    result = agreement(first, second)
    assert (result.ari_both, result.ami_both) == pytest.approx((1, 1))
    assert result.assigned == pytest.approx(0.6)
    assert result.co_assignment < 0.8
    assert result.kept == 1
    assert result.matched == pytest.approx(0.5)


def test_without_any_class_the_indices_are_not_defined():
    result = agreement(labels(unassigned=10), labels(unassigned=10))
    assert np.isnan([result.co_assignment, result.ari_both, result.assigned, result.matched]).all()


def test_one_class_of_all_galaxies_agrees_with_itself():
    assert agreement(labels(10), labels(10)).co_assignment == 1


def test_same_classes_under_other_names_agree():
    old = np.repeat([0, 1, 2, -1], 30)
    result = agreement(old, np.choose(old + 1, [-1, 7, 5, 6]))
    assert (result.both, result.first, result.second, result.neither) == (90, 0, 0, 30)
    assert (result.ari_both, result.ami_both, result.ari_all, result.ami_all) == pytest.approx((1, 1, 1, 1))


def test_shuffled_labels_agree_no_more_than_chance():
    random = np.random.default_rng(0)
    old = random.integers(-1, 8, 3000)
    result = agreement(old, random.permutation(old))
    assert max(map(abs, (result.ari_both, result.ami_both, result.ari_all, result.ami_all))) < 0.02


def test_members_that_one_search_leaves_out_lower_only_the_indices_over_all_galaxies():
    old = np.repeat([0, 1, -1], 40)
    new = old.copy()
    new[:20], new[80:90] = -1, 3
    result = agreement(old, new)
    assert (result.both, result.first, result.second, result.neither) == (60, 20, 10, 30)
    assert result.ari_both == result.ami_both == 1
    assert 0 < result.ari_all < 0.9
    assert 0 < result.ami_all < 0.9


def test_no_galaxy_in_a_class_of_both_is_no_agreement():
    result = agreement(np.array([0, 0, -1, -1]), np.array([-1, -1, 0, 0]))
    assert np.isnan(result.ari_both)
    assert np.isnan(result.ami_both)
    assert result.ari_all == 1, "a class of one search is the unassigned part of the second"
