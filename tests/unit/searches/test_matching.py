"""What became of the classes of one search in another: every event, on labels made for it."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.searches.matching import ClassOverlap, fates

pytestmark = pytest.mark.unit


def compared(old, new, **classes):
    return ClassOverlap.of_labels(np.array(old), np.array(new), **classes)


def events(old, new, **classes):
    rows = compared(old, new, **classes).matches().to_pylist()
    return {(row["event"], row["class_a"], row["class_b"]) for row in rows}


def members(ids, labels):
    return pa.table({tables.ID: list(ids), tables.CLASS_ID: pa.array(labels, pa.int32())})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([0, 0, 0, 1, 1, -1], [1, 1, 1, 0, 0, -1], {("kept", 0, 1), ("kept", 1, 0)}),
        ([0, 0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 1, 1, -1], {("kept", 0, 0), ("split", 0, 1)}),
        ([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], {("split", 0, 0), ("split", 0, 1), ("split", 0, 2)}),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], [5] * 9, {("merged", 0, 5), ("merged", 1, 5), ("merged", 2, 5)}),
        ([0, 0, 0, 0, 1, 1], [0] * 6, {("kept", 0, 0), ("merged", 1, 0)}),
        ([0, 0, 0, 0, 0, -1, -1], [0, 0, -1, -1, -1, -1, -1], {("changed", 0, 0)}),
        ([0, 0, -1, -1], [-1, -1, 3, 3], {("died", 0, -1), ("appeared", -1, 3)}),
        ([-1, -1], [-1, -1], set()),
    ],
)
def test_events(old, new, expected):
    assert events(old, new) == expected


def test_a_class_without_a_galaxy_in_the_new_search_is_unseen_rather_than_dead():
    old, new = members("abcdef", [0, 0, 1, 1, 2, 2]), members("abcd", [4, 4, -1, -1])
    rows = ClassOverlap.of_members(old, new).matches().to_pylist()
    assert {(row["event"], row["class_a"], row["class_b"]) for row in rows} == {
        ("kept", 0, 4), ("died", 1, -1), ("unseen", 2, -1),
    }  # fmt: skip


def test_galaxies_that_only_one_search_knows_do_not_lower_the_overlap():
    row = ClassOverlap.of_members(members("abcxyz", [0] * 6), members("cbaw", [7] * 4)).matches().to_pylist()[0]
    assert (row["size_a"], row["size_b"], row["overlap"], row["jaccard"]) == (3, 3, 3, 1.0)


def test_two_halves_do_not_both_keep_the_class():
    found = compared([0, 0, 0, 0], [0, 0, 1, 1])
    assert found.jaccards.tolist() == [[0.5, 0.5]]
    assert found.counterparts == {0: 0}


def test_names_and_order_of_classes_change_no_counterpart():
    random = np.random.default_rng(0)
    old, new = random.integers(-1, 6, 300), random.integers(-1, 6, 300)
    new = np.where(random.random(300) < 0.8, old, new)
    straight = compared(old, new).counterparts
    names = {one: 10 - one for one in range(6)} | {-1: -1}
    turned = compared([names[one] for one in old], new).counterparts
    assert len(straight) == 6
    assert turned == {new: names[old] for new, old in straight.items()}


def test_p_value_is_that_of_labels_dealt_out_blindly():
    """Two of two shared among four galaxies: one deal in six."""
    row = compared([0, 0, -1, -1], [0, 0, -1, -1]).matches().to_pylist()[0]
    assert row["p_value"] == pytest.approx(1 / 6)


def test_fates_count_each_old_class_once():
    found = fates(compared([0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, -1, -1]).matches())
    assert dict(found) == {"kept": 1, "died": 1, "appeared": 0}


def test_best_jaccard_of_a_class_without_a_galaxy_is_unknown():
    best = compared([0, 0, 0], [0, 0, -1], old_classes=np.array([0, 1])).best
    assert best[0] == pytest.approx(2 / 3)
    assert np.isnan(best[1])


def test_searches_of_different_galaxies_are_refused():
    with pytest.raises(StoreError, match="no galaxy in common"):
        ClassOverlap.of_members(members("ab", [0, 0]), members("cd", [0, 0]))


def planted(*, seed=0):
    """Labels of two searches: four classes that both find, and one of thirty galaxies that only the first can see."""
    random = np.random.default_rng(seed)
    old = np.repeat([0, 1, 2, 3, 4, -1], [60, 50, 40, 40, 30, 780])
    new = np.where(old == 4, -1, old)
    new[random.choice(1000, 60, replace=False)] = -1
    # The second search has a broad class of its own, in which half of anything lies by chance.
    new[(new == -1) & (random.random(1000) < 0.6)] = 9
    return old, new


def test_a_class_that_only_one_search_can_see_is_its_own():
    found = compared(*planted(), level=0.01)
    assert found.relations == (
        {0: "both", 1: "both", 2: "both", 3: "both", 4: "own"},
        {0: "both", 1: "both", 2: "both", 3: "both", 9: "own"},
    )  # fmt: skip
    assert {row["event"] for row in found.matches().to_pylist()} == {"kept", "died", "appeared"}
    assert compared(*planted()).relations[0][4] == "related", "without the p-value it is half of something large"


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_labels_match_nothing(seed):
    old, new = planted(seed=seed)
    found = compared(old, np.random.default_rng(seed).permutation(new), level=0.01)
    assert not found.counterparts
    assert set(found.relations[0].values()) | set(found.relations[1].values()) == {"own"}


def test_p_values_are_corrected_for_every_pair_of_classes():
    found = compared([0, 0, 1, -1, -1, -1], [0, 0, -1, 1, 2, -1])
    assert found.p_values[0, 0] == pytest.approx(1 / 15)
    assert found.corrected[0, 0] == pytest.approx(6 / 15)
    row = found.matches().to_pylist()[0]
    assert (row["p_value"], row["p_corrected"]) == pytest.approx((1 / 15, 6 / 15))
