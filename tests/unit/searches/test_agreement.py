"""Agreement of two searches, the unassigned dealt with openly."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from rarezoo.searches.matching import ClassOverlap, agreement, co_assignment

pytestmark = pytest.mark.unit

NONE = -1


def labels(*sizes, nobody=0):
    return np.repeat([*range(len(sizes)), NONE], [*sizes, nobody])


def alone(one):
    """Every unassigned galaxy in a class of its own."""
    return np.where(one == NONE, 1000 + np.arange(len(one)), one)


@pytest.mark.parametrize("unassigned", [0.0, 0.5, 0.95])
def test_co_assignment_is_the_rand_index_with_the_unassigned_alone(unassigned):
    random = np.random.default_rng(0)
    one, other = (np.where(random.random(600) < unassigned, NONE, random.integers(0, 5, 600)) for _ in range(2))
    other[:200] = one[:200]
    found = co_assignment(ClassOverlap.of_labels(one, other))
    assert found == pytest.approx(adjusted_rand_score(alone(one), alone(other)), abs=1e-12)


def test_the_same_classes_agree_in_everything():
    one = labels(20, 30, nobody=500)
    found = agreement(one, np.where(one == NONE, NONE, 1 - one))
    assert found.kept == 2
    assert (found.co_assignment, found.ari_both, found.ami_both, found.assigned, found.matched) == pytest.approx(
        (1,) * 5
    )


def test_a_crowd_of_unassigned_is_no_agreement():
    one, other = np.full((2, 1000), NONE)
    one[:20], other[500:520] = 0, 0
    found = agreement(one, other)
    assert found.co_assignment == pytest.approx(0, abs=1e-3)
    assert (found.assigned, found.kept, found.matched) == (0, 0, 0)
    assert np.isnan([found.ari_both, found.ami_both]).all(), "no galaxy is in a class in both"


def test_indices_over_the_both_assigned_do_not_see_what_is_lost():
    one = labels(50, 50, nobody=100)
    other = one.copy()
    other[:40] = NONE
    found = agreement(one, other)
    assert (found.ari_both, found.ami_both) == pytest.approx((1, 1))
    assert found.assigned == pytest.approx(0.6)
    assert found.co_assignment < 0.8
    assert found.kept == 1
    assert found.matched == pytest.approx(0.5)


def test_without_any_class_nothing_is_said():
    found = agreement(labels(nobody=10), labels(nobody=10))
    assert np.isnan([found.co_assignment, found.ari_both, found.assigned, found.matched]).all()


def test_one_class_of_all_galaxies_agrees_with_itself():
    assert agreement(labels(10), labels(10)).co_assignment == 1


def test_same_classes_under_other_names_agree():
    old = np.repeat([0, 1, 2, -1], 30)
    found = agreement(old, np.choose(old + 1, [-1, 7, 5, 6]))
    assert (found.both, found.first, found.second, found.neither) == (90, 0, 0, 30)
    assert (found.ari_both, found.ami_both, found.ari_all, found.ami_all) == pytest.approx((1, 1, 1, 1))


def test_shuffled_labels_agree_no_more_than_chance():
    random = np.random.default_rng(0)
    old = random.integers(-1, 8, 3000)
    found = agreement(old, random.permutation(old))
    assert max(map(abs, (found.ari_both, found.ami_both, found.ari_all, found.ami_all))) < 0.02


def test_what_one_search_leaves_out_does_not_count_against_what_both_sort_alike():
    old = np.repeat([0, 1, -1], 40)
    new = old.copy()
    new[:20], new[80:90] = -1, 3
    found = agreement(old, new)
    assert (found.both, found.first, found.second, found.neither) == (60, 20, 10, 30)
    assert found.ari_both == found.ami_both == 1
    assert 0 < found.ari_all < 0.9
    assert 0 < found.ami_all < 0.9


def test_no_galaxy_in_a_class_of_both_is_no_agreement_rather_than_full():
    found = agreement(np.array([0, 0, -1, -1]), np.array([-1, -1, 0, 0]))
    assert np.isnan(found.ari_both)
    assert np.isnan(found.ami_both)
    assert found.ari_all == 1, "what is a class to the one is what the other leaves out"
