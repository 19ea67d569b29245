"""Events of the classes of two searches, on labels that were made to show each of them."""

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
        ([0, 0, -1, -1], [-1, -1, 3, 3], {("lost", 0, -1), ("new", -1, 3)}),
        ([-1, -1], [-1, -1], set()),
    ],
)
def test_events(old, new, expected):
    assert events(old, new) == expected


def test_a_class_without_a_galaxy_in_the_new_search_is_unseen_and_not_dead():
    old, new = members("abcdef", [0, 0, 1, 1, 2, 2]), members("abcd", [4, 4, -1, -1])
    rows = ClassOverlap.of_members(old, new).matches().to_pylist()
    assert {(row["event"], row["class_a"], row["class_b"]) for row in rows} == {
        ("kept", 0, 4), ("lost", 1, -1), ("unseen", 2, -1),
    }  # fmt: skip


def test_galaxies_of_only_one_search_do_not_lower_the_overlap():
    row = ClassOverlap.of_members(members("abcxyz", [0] * 6), members("cbaw", [7] * 4)).matches().to_pylist()[0]
    assert (row["size_a"], row["size_b"], row["overlap"], row["jaccard"]) == (3, 3, 3, 1.0)


def test_two_halves_do_not_both_keep_the_class():
    overlap = compared([0, 0, 0, 0], [0, 0, 1, 1])
    assert overlap.jaccards.tolist() == [[0.5, 0.5]]
    assert overlap.counterparts == {0: 0}


def test_names_and_order_of_classes_change_no_counterpart():
    random = np.random.default_rng(0)
    old, new = random.integers(-1, 6, 300), random.integers(-1, 6, 300)
    new = np.where(random.random(300) < 0.8, old, new)
    straight = compared(old, new).counterparts
    names = {class_id: 10 - class_id for class_id in range(6)} | {-1: -1}
    turned = compared([names[label] for label in old], new).counterparts
    assert len(straight) == 6
    assert turned == {new: names[old] for new, old in straight.items()}


def test_p_value_is_that_of_random_labels():
    """Two of two shared among four galaxies: one arrangement in six."""
    row = compared([0, 0, -1, -1], [0, 0, -1, -1]).matches().to_pylist()[0]
    assert row["p_value"] == pytest.approx(1 / 6)


def test_fates_count_each_old_class_once():
    counts = fates(compared([0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, -1, -1]).matches())
    assert dict(counts) == {"kept": 1, "lost": 1, "new": 0}


def test_best_jaccard_of_a_class_without_a_galaxy_is_unknown():
    best = compared([0, 0, 0], [0, 0, -1], old_classes=np.array([0, 1])).best
    assert best[0] == pytest.approx(2 / 3)
    assert np.isnan(best[1])


def test_searches_of_different_galaxies_are_refused():
    with pytest.raises(StoreError, match="no galaxy in common: 2 and 2"):
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
    overlap = compared(*planted(), level=0.01)
    assert overlap.relations == (
        {0: "both", 1: "both", 2: "both", 3: "both", 4: "own"},
        {0: "both", 1: "both", 2: "both", 3: "both", 9: "own"},
    )  # fmt: skip
    assert {row["event"] for row in overlap.matches().to_pylist()} == {"kept", "lost", "new"}
    assert compared(*planted()).relations[0][4] == "related", "without the p-value it is half of something large"


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_labels_match_nothing(seed):
    old, new = planted(seed=seed)
    overlap = compared(old, np.random.default_rng(seed).permutation(new), level=0.01)
    assert not overlap.counterparts
    assert set(overlap.relations[0].values()) | set(overlap.relations[1].values()) == {"own"}


def test_p_values_are_corrected_for_every_pair_of_classes():
    overlap = compared([0, 0, 1, -1, -1, -1], [0, 0, -1, 1, 2, -1])
    assert overlap.p_values[0, 0] == pytest.approx(1 / 15)
    assert overlap.corrected[0, 0] == pytest.approx(6 / 15)
    row = overlap.matches().to_pylist()[0]
    assert (row["p_value"], row["p_corrected"]) == pytest.approx((1 / 15, 6 / 15))
