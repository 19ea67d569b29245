"""The drawing of flows between classes: nothing lost, nothing overlapping, counterparts opposite each other."""

import re
from itertools import pairwise

import numpy as np
import pytest

from rarezoo.report.compare import matrix
from rarezoo.report.flows import FAINT, GAP, flows, orders
from rarezoo.searches.matching import ClassOverlap

pytestmark = pytest.mark.unit


def compared(seed=0, classes=6):
    random = np.random.default_rng(seed)
    old = random.integers(-1, classes, 600)
    names = np.append(random.permutation(classes), -1)
    new = np.where(random.random(600) < 0.8, names[old], random.integers(-1, classes, 600))
    return ClassOverlap.of_labels(old, new)


def test_every_class_has_a_bar_as_high_as_its_galaxies_and_no_two_overlap():
    comparison = compared()
    drawn = flows(comparison)
    for bars, ids, sizes in (
        (drawn.old, comparison.old, comparison.old_sizes), (drawn.new, comparison.new, comparison.new_sizes),
    ):  # fmt: skip
        assert sorted(bar.id for bar in bars) == ids.tolist()
        heights = {bar.id: bar.height for bar in bars}
        shares = np.array([heights[class_id] for class_id in ids.tolist()]) / sizes
        np.testing.assert_allclose(shares, shares[0], rtol=1e-2)
        for above, below in pairwise(bars):
            assert below.top >= above.top + above.height + GAP - 0.02
        assert bars[-1].top + bars[-1].height <= drawn.height


def test_ribbons_are_the_counts_and_stay_on_their_bars():
    comparison = compared()
    drawn = flows(comparison)
    counts = dict(np.ndenumerate(comparison.counts))
    shown = {(flow.old, flow.new): flow.galaxies for flow in drawn.flows}
    assert all(counts[pair] == galaxies for pair, galaxies in shown.items())
    left_out = [pair for pair, count in counts.items() if count and pair not in shown]
    assert len(left_out) == drawn.faint
    assert all(counts[i, j] < FAINT * max(comparison.old_sizes[i], comparison.new_sizes[j]) for i, j in left_out)
    bars = {bar.id: bar for bar in drawn.old}
    for flow in drawn.flows:
        start = float(re.match(r"M\d+ ([\d.]+)C", flow.path)[1])
        bar = bars[flow.old]
        assert bar.top - 0.1 <= start <= bar.top + bar.height + 0.1


def test_counterparts_come_in_the_same_order_on_both_sides():
    comparison = compared()
    drawn = flows(comparison)
    counterpart = {old: new for new, old in comparison.counterparts.items()}
    assert len(counterpart) == 6
    assert [counterpart[bar.id] for bar in drawn.old] == [bar.id for bar in drawn.new]


def test_what_shares_nothing_comes_last():
    old, new = np.array([5] * 9 + [1] * 2 + [-1] * 3), np.array([-1] * 9 + [1] * 2 + [7] * 3)
    comparison = ClassOverlap.of_labels(old, new)
    rows, columns = orders(comparison)
    assert comparison.old[rows].tolist() == [1, 5]
    assert comparison.new[columns].tolist() == [1, 7]


def test_no_class_at_all_is_an_empty_drawing():
    nothing = ClassOverlap.of_labels(np.array([-1, -1]), np.array([-1, 0]))
    drawn = flows(nothing)
    assert (drawn.old, len(drawn.new), drawn.flows) == ((), 1, ())
    assert matrix(nothing).cells == ()


def test_matrix_puts_every_shared_galaxy_into_its_cell():
    comparison = compared()
    class_matrix = matrix(comparison)
    assert sum(cell.shared for cell in class_matrix.cells) == comparison.counts.sum()
    for cell in class_matrix.cells:
        assert class_matrix.rows[round(cell.down / class_matrix.side)] == cell.first
        assert class_matrix.columns[round(cell.across / class_matrix.side)] == cell.second
        assert comparison.counts[cell.first, cell.second] == cell.shared
