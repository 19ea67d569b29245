"""Planted offsets are recovered with the stated coverage, offsets due to mass are refused, and chance gives nothing."""

import numpy as np
import pytest
from physical_skies import sky
from scipy.stats import binomtest

from rarezoo.physical.controls import Matching
from rarezoo.physical.differences import DIFFERS, EXPLAINED, NOT_TESTED, bins_of, differences, stratified_test
from rarezoo.physical.properties import Property

pytestmark = pytest.mark.unit


def compared(random, *, properties=1, **changes):
    """Compare the classes of one sky in one or several properties."""
    labels, covariates, colour = sky(random, **changes)
    ids = np.arange(len(labels)).astype(str)
    classes = [int(one) for one in np.unique(labels) if one >= 0]
    matched = {one: Matching(controls=3).match(covariates, labels, one, ids=ids) for one in classes}
    further = [random.normal(size=len(labels)) for _ in range(properties - 1)]
    given = [Property(f"p{place}", "number", values) for place, values in enumerate([colour, *further])]
    return differences(given, covariates, labels, matched, seed=int(random.integers(1_000_000)))


def test_planted_offsets_are_recovered_in_95_percent_intervals():
    random = np.random.default_rng(7)
    inside, found = 0, 0
    for _ in range(80):
        (one,) = compared(random, offset=0.25, mass_of_members=-0.4)
        inside += one.difference.low <= 0.25 <= one.difference.high
        found += one.verdict == DIFFERS
    # Within the range that 95 % coverage gives in 998 of 1,000 cases.
    assert inside >= 69
    assert found >= 72


def test_an_offset_that_is_only_due_to_mass_is_explained_by_it():
    random = np.random.default_rng(8)
    verdicts = [compared(random, mass_of_members=-0.5)[0].verdict for _ in range(60)]
    assert verdicts.count(DIFFERS) <= 8
    assert verdicts.count(EXPLAINED) >= 45


def test_random_groups_give_nothing_in_95_percent_of_runs():
    random = np.random.default_rng(9)
    wrong = sum(any(one.verdict == DIFFERS for one in compared(random, classes=2, properties=3)) for _ in range(40))
    assert wrong <= 6


@pytest.mark.slow
def test_shuffled_classes_give_nothing_in_95_percent_of_many_runs():
    random = np.random.default_rng(10)
    labels, covariates, colour = sky(random, galaxies=900, classes=4, offset=0.4, mass_of_members=0.5)
    ids, wrong = np.arange(900).astype(str), 0
    for _ in range(300):
        shuffled = random.permutation(labels)
        matched = {one: Matching().match(covariates, shuffled, one, ids=ids) for one in range(4)}
        given = [Property("colour", "number", colour), Property("red", "share", (colour > 2).astype(float))]
        found = differences(given, covariates, shuffled, matched)
        wrong += any(one.verdict == DIFFERS for one in found)
    assert wrong <= 25


def test_with_one_control_the_test_is_the_sign_test():
    random = np.random.default_rng(0)
    own, theirs = random.normal(0.4, 1, 31), random.normal(size=(31, 1))
    effect, p = stratified_test(own, theirs)
    higher = int(np.sum(own > theirs[:, 0]))
    assert p == pytest.approx(binomtest(higher, 31).pvalue)
    assert effect == pytest.approx((2 * higher - 31) / 31)


def test_exact_and_approximate_p_agree_where_they_meet():
    random = np.random.default_rng(1)
    own, theirs = random.normal(0.15, 1, 130), random.normal(size=(130, 5))
    theirs[::7, 3:] = np.nan
    exact, approximate = stratified_test(own[:100], theirs[:100])[1], stratified_test(own[:101], theirs[:101])[1]
    assert exact == pytest.approx(approximate, abs=0.05)
    assert 0 < exact < 1


def test_shares_have_intervals_and_a_difference():
    random = np.random.default_rng(2)
    labels, covariates, _ = sky(random, galaxies=1500, members=120)
    barred = (random.random(1500) < np.where(labels == 0, 0.6, 0.25)).astype(float)
    matched = {0: Matching().match(covariates, labels, 0, ids=np.arange(1500).astype(str))}
    (one,) = differences([Property("bar", "share", barred)], covariates, labels, matched)
    assert one.verdict == DIFFERS
    assert one.members.low < 0.6 < one.members.high
    assert one.controls.low < one.controls.value < one.controls.high
    assert one.difference.value == pytest.approx(0.35, abs=0.15)
    assert one.difference.low > 0


def test_properties_and_classes_that_cannot_be_tested_say_why():
    random = np.random.default_rng(3)
    labels, covariates, colour = sky(random)
    colour[3:40] = np.nan
    matched = {0: Matching().match(covariates, labels, 0, ids=np.arange(700).astype(str))}
    (one,) = differences([Property("colour", "number", colour)], covariates, labels, matched)
    assert (one.verdict, one.sets) == (NOT_TESTED, 3)
    assert "only 3 members" in one.why
    alone = {0: Matching().match(covariates, np.where(np.arange(700) == 0, 0, -1), 0, ids=np.arange(700).astype(str))}
    (one,) = differences([Property("colour", "number", covariates["log_mass"])], covariates, labels, alone)
    assert "cannot be matched" in one.why


def test_classes_are_compared_within_ranges_of_the_mass():
    random = np.random.default_rng(4)
    labels, covariates, colour = sky(random, galaxies=3000, members=150)
    mass = covariates["log_mass"]
    colour = colour + 0.5 * ((labels == 0) & (mass > 10.2))
    matched = {0: Matching().match(covariates, labels, 0, ids=np.arange(3000).astype(str))}
    binned = {0: list(bins_of("log_mass", mass, labels == 0, [9, 10.2, 12]))}
    whole, low, high = differences([Property("colour", "number", colour)], covariates, labels, matched, binned=binned)
    assert low.difference.low < 0 < low.difference.high or abs(low.difference.value) < 0.2
    assert high.difference.value == pytest.approx(0.5, abs=0.2)
    assert low.sets + high.sets <= whole.sets


def test_a_number_that_is_mostly_the_same_value_is_not_adjusted_into_a_difference():
    random = np.random.default_rng(5)
    labels, covariates, _ = sky(random, members=80, mass_of_members=0.5)
    radius = np.where(random.random(700) < 0.7, 5.28, 5.28 + 0.5 * (covariates["log_mass"] - 10))
    matched = {0: Matching().match(covariates, labels, 0, ids=np.arange(700).astype(str))}
    (one,) = differences([Property("radius", "number", radius)], covariates, labels, matched)
    assert one.difference.value == 0
    assert one.verdict != DIFFERS


def test_ranks_that_differ_where_medians_are_equal_say_so():
    random = np.random.default_rng(6)
    labels, covariates, _ = sky(random, members=80)
    radius = np.where(random.random(700) < np.where(labels == 0, 0.4, 0.1), 6.0, 5.28)
    matched = {0: Matching().match(covariates, labels, 0, ids=np.arange(700).astype(str))}
    (one,) = differences([Property("radius", "number", radius)], covariates, labels, matched)
    assert (one.verdict, one.difference.value) == (DIFFERS, 0)
    assert "medians are equal" in one.note
