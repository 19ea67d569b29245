"""Scores of classes against the truth, on cases small enough to count by hand."""

import numpy as np
import pytest

from rarezoo.benchmark.scores import (
    FIRST_ROWS,
    ROWS,
    Enrichment,
    Tally,
    Truth,
    best_precisions,
    class_precisions,
    discovery,
    expected_shown,
    galaxies_shown,
    ideal_order,
    interval,
    meetings,
    rows_to_half,
    stability,
)
from rarezoo.statistics import students_interval

pytestmark = pytest.mark.unit

# Populations of 10, 20 and 30 galaxies among 100.
GROUPS = np.repeat([0, 1, 2, -1], [10, 20, 30, 40])
TRUTH = Truth.of_groups(GROUPS, names=["a", "b", "c"])


def labelled(*classes):
    labels = np.full(len(GROUPS), -1)
    for class_id, rows in enumerate(classes):
        labels[rows] = class_id
    return labels


def test_a_class_is_found_or_a_piece_or_impure():
    # Most of a; half of b exactly, which is not more than half; c with as many others, not more than half pure.
    tally = Tally.of(labelled(slice(0, 8), slice(10, 20), slice(30, 90), slice(90, 100)), TRUTH)
    assert tally.found.tolist() == [True, False, False]
    assert (tally.pieces, tally.impure) == (1, 2)
    assert tally.purity == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert tally.measures() == {
        "found": 1.0, "impure": 2, "pieces": 1, "classes": 4, "purity": pytest.approx(0.625)
    }  # fmt: skip


def test_without_classes_nothing_is_found_and_purity_is_not_known():
    tally = Tally.of(labelled(), TRUTH)
    assert tally.found.tolist() == [False] * 3
    assert (tally.pieces, tally.impure, len(tally.classes)) == (0, 0, 0)
    assert np.isnan(tally.purity)


def test_two_populations_may_share_a_class_where_they_overlap():
    members = np.zeros((6, 2), bool)
    members[:3, 0] = members[:4, 1] = True
    truth = Truth(("ring", "odd"), members, np.ones_like(members), {})
    assert Tally.of(np.array([0, 0, 0, -1, -1, -1]), truth).found.tolist() == [True, True]


def test_a_population_is_seen_in_the_row_half_of_which_it_makes_up():
    rows = np.array([[60, 61, 62, 63], [0, 1, 60, 61], [30, -1, -1, -1], [10, 60, 61, 62]])
    curve = discovery(rows, TRUTH.members)
    assert curve[:4].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3])
    assert curve[-1] == pytest.approx(2 / 3)
    assert len(curve) == ROWS
    assert discovery(rows, TRUTH.members, share=0)[:4].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_population_stays_seen_and_rows_after_the_last_that_counts_are_not_read():
    rows = np.full((ROWS + 1, 2), 60)
    rows[3], rows[5], rows[ROWS] = [0, 1], [0, 60], [10, 11]
    curve = discovery(rows, TRUTH.members)
    assert curve[[2, 3, 4, -1]].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert np.isnan(discovery(rows, np.empty((100, 0), bool))).all()


def where_known(known, members):
    return Truth(tuple("abc"[: len(members)]), np.array(members, bool).T, np.array(known, bool).T, {})


@pytest.mark.parametrize(
    ("members", "known", "met"),
    [
        ([1, 1, 0, 0], [1, 1, 1, 1], True),
        ([1, 1, 0, 0, 0], [1, 1, 1, 1, 1], False),
        # Only of three of the five is it known.
        ([1, 1, 0, 0, 0], [1, 1, 1, 0, 0], True),
        # One galaxy may be there by chance.
        ([1, 0, 0, 0], [1, 0, 0, 0], False),
        # A galaxy of which it is not known counts on neither side.
        ([1, 1, 0, 0], [1, 0, 0, 0], False),
        ([0, 0, 0, 0], [0, 0, 0, 0], False),
    ],
)
def test_a_kind_is_met_in_a_row_with_two_of_it_that_are_half_of_those_known(members, known, met):
    row = np.array([[*range(len(members)), -1]])
    assert meetings(row, where_known([known], [members])).tolist() == [float(met)] * ROWS


def test_kinds_are_met_one_after_another():
    truth = where_known(np.ones((2, 6)), [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]])
    rows = np.array([[4, 5, -1], [0, 1, 4], [2, 4, 5], [2, 3, -1]])
    assert meetings(rows, truth)[:4].tolist() == [0, 0.5, 0.5, 1]
    assert np.isnan(meetings(rows, where_known(np.empty((0, 6)), np.empty((0, 6))))).all()


def test_without_rows_nothing_is_met_or_seen():
    nothing = np.empty((0, 10), np.int32)
    assert not discovery(nothing, TRUTH.members).any()
    assert not meetings(nothing, TRUTH).any()
    assert galaxies_shown(nothing, TRUTH.members[:, 0]) == 0


def test_rows_to_half_are_counted_from_one():
    assert rows_to_half(np.array([0.5] * ROWS)) == 1
    assert rows_to_half(np.repeat([0.49, 1.0], [ROWS - 1, 1])) == ROWS
    assert rows_to_half(np.repeat(0.49, ROWS)) == ROWS + 1
    assert rows_to_half(np.repeat(np.nan, ROWS)) == ROWS + 1


def test_galaxies_of_a_kind_are_counted_once_in_the_first_rows():
    rows = np.full((FIRST_ROWS + 1, 2), -1)
    rows[0], rows[1], rows[FIRST_ROWS] = [0, 50], [0, 1], [2, 3]
    assert galaxies_shown(rows, TRUTH.members[:, 0]) == 2
    assert expected_shown(TRUTH.members[:, 0]) == pytest.approx(FIRST_ROWS * 10 * 0.1)


def test_an_ideal_order_shows_another_population_in_every_row():
    assert ideal_order(4)[:5].tolist() == [0.25, 0.5, 0.75, 1, 1]


def test_stability_is_the_mean_best_jaccard_of_the_classes():
    labels, other = labelled(slice(0, 10), slice(20, 40)), labelled(slice(30, 40), slice(0, 10), slice(50, 60))
    assert stability(labels, other) == pytest.approx((1 + 0.5) / 2)
    assert stability(labels, labelled()) == 0
    assert np.isnan(stability(labelled(), labels))


def test_enrichment_is_fishers_test_over_the_galaxies_of_whom_it_is_known():
    from scipy.stats import fisher_exact

    members = np.zeros((40, 1), bool)
    members[[0, 1, 2, 20]] = True
    known = np.ones_like(members)
    known[5:10] = False
    labels = np.repeat([0, -1], [10, 30])
    enrichment = Enrichment.of(labels, Truth(("ring",), members, known, {}))
    expected = fisher_exact([[3, 2], [1, 29]], alternative="greater").pvalue
    assert enrichment.corrected[0, 0] == pytest.approx(expected)
    assert enrichment.lifts[0, 0] == pytest.approx((3 / 5) / (4 / 35))
    assert enrichment.counts.tolist() == [[3]]


def test_many_tests_are_corrected_for():
    """Benjamini & Hochberg: of two classes, the richer one's p-value counts twice."""
    from scipy.stats import fisher_exact

    members = np.zeros((40, 1), bool)
    members[:4] = True
    enrichment = Enrichment.of(np.repeat([0, 1, -1], [5, 5, 30]), Truth(("x",), members, np.ones_like(members), {}))
    alone = fisher_exact([[4, 1], [0, 35]], alternative="greater").pvalue
    assert enrichment.corrected[0].tolist() == pytest.approx([2 * alone, 1])


def test_a_class_is_rich_where_it_holds_enough_of_a_population_and_not_by_chance():
    members = np.zeros((400, 3), bool)
    members[:12, 0] = True  # twelve of them in the first class of fifteen: rich
    members[:2, 1] = True  # too few
    members[:100, 2] = members[200:, 2] = True  # not twice its share
    labels = np.repeat([0, 1, -1], [15, 85, 300])
    enrichment = Enrichment.of(labels, Truth(("a", "b", "c"), members, np.ones_like(members), {}))
    assert enrichment.rich.tolist() == [[True, False], [False, False], [False, False]]


def test_intervals_are_over_seeds():
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    value, low, high = interval([1.0, 2.0, np.nan, 3.0])
    assert (value, low, high) == (2.0, 1.0, 3.0)
    assert np.isnan(interval([5.0]).low)
    assert np.isnan(interval([np.nan]).value)


def test_students_interval_is_from_the_table():
    value, low, high = students_interval(np.array([1.0, 2.0, 3.0]))
    assert (value, value - low, high - value) == pytest.approx((2.0, 4.303 / np.sqrt(3), 4.303 / np.sqrt(3)), rel=1e-3)
    assert students_interval(np.array([2.0, 2.0])) == (2.0, 2.0, 2.0)
    assert np.isnan(students_interval(np.array([5.0])).low)
    assert np.isnan(students_interval(np.array([1.0, np.nan])).value)


def test_an_interval_is_written_with_as_much_as_is_known():
    assert interval([1.0, 2.0, 3.0]).text(".1f") == "2.0 (1.0–3.0)"
    assert interval([5.0]).text(".1f") == "5.0"
    assert interval([np.nan]).text(".1f") == "–"


def partly_known():
    """Forty galaxies of a kind among 200, and a kind of four."""
    members = np.zeros((200, 2), bool)
    members[:40, 0] = members[:4, 1] = True
    return Truth(("ring", "lane"), members, np.ones_like(members), {})


def test_most_like_this_class_is_judged_where_the_class_was_not_chosen():
    truth = partly_known()
    rings = -np.arange(200, dtype=np.float32)
    precisions = class_precisions(np.stack([-rings, rings]), truth, seed=0)
    assert precisions.shape == (2, 2, 2)
    assert precisions[:, 1, 0] == pytest.approx([1, 1])
    assert (precisions[:, 0, 0] < 0.2).all()
    # Four galaxies of a kind tell nothing.
    assert np.isnan(precisions[:, :, 1]).all()
    ranking = best_precisions(precisions, truth)
    assert ranking[0] == pytest.approx(1)
    assert np.isnan(ranking[1])


def test_a_class_that_is_best_on_one_half_by_chance_gains_nothing():
    precisions = np.array([[[0.9], [0.2]], [[0.1], [0.3]]])
    assert best_precisions(precisions, partly_known())[0] == pytest.approx((0.2 + 0.1) / 2)


def test_without_classes_a_ranking_is_what_chance_gives():
    ranking = best_precisions(np.empty((2, 0, 2)), partly_known())
    assert ranking[0] == pytest.approx(0.2)
    assert np.isnan(ranking[1])


def test_galaxies_of_whom_it_is_not_known_are_not_ranked():
    truth = partly_known()
    known = truth.known.copy()
    known[40:100] = False
    # Those not known would be ranked first.
    order = -np.arange(200, dtype=np.float32)
    order[40:100] = 1
    unknown = Truth(truth.names, truth.members, known, {})
    assert class_precisions(order[None], unknown, seed=0)[:, 0, 0] == pytest.approx([1, 1])
