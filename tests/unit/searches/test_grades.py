"""The grade of a class, the order in which classes are shown, and what is left of it after rows were dropped."""

import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.searches.grades import CANDIDATE, MEANINGS, SIGNIFICANT, STABLE, counts, graded, in_order, renumbered

pytestmark = pytest.mark.unit


def table(*rows):
    numbered = [{tables.CLASS_ID: number, **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, pa.schema(list(tables.CLASSES.columns.items())))


def test_a_better_grade_comes_first_and_then_the_higher_significance():
    classes = table(
        {tables.FALSE_DISCOVERY: 0.4, tables.SIGNIFICANCE: 9.0},
        {tables.FALSE_DISCOVERY: 0.01, tables.SIGNIFICANCE: 3.0, tables.STABILITY: 0.9},
        {tables.FALSE_DISCOVERY: 0.01, tables.SIGNIFICANCE: 5.0, tables.STABILITY: 0.2},
        {tables.FALSE_DISCOVERY: 0.01, tables.SIGNIFICANCE: 4.0, tables.STABILITY: 0.6},
    )
    after = in_order(graded(classes, level=0.05))
    assert after[tables.CLASS_ID].to_pylist() == [3, 1, 2, 0]
    assert after[tables.GRADE].to_pylist() == [STABLE, STABLE, SIGNIFICANT, CANDIDATE]
    assert after[tables.RANK].to_pylist() == [1, 2, 3, 4]


def test_without_significance_there_are_ranks_but_no_grades():
    after = graded(table({tables.PERSISTENCE: 1.0}, {tables.PERSISTENCE: 2.0}), level=0.05)
    assert after[tables.GRADE].to_pylist() == [None, None]
    assert after[tables.RANK].to_pylist() == [2, 1]
    assert counts(after[tables.GRADE].to_pylist()) == {}


def test_classes_without_ranks_stay_in_their_order():
    assert in_order(table({}, {}, {}))[tables.CLASS_ID].to_pylist() == [0, 1, 2]
    assert renumbered(table({}, {}))[tables.RANK].to_pylist() == [None, None]


def test_ranks_are_numbered_again_without_gaps():
    after = renumbered(
        table({tables.RANK: 7, tables.GRADE: CANDIDATE}, {tables.RANK: 2}, {tables.RANK: 4, tables.GRADE: STABLE})
    )
    assert after[tables.RANK].to_pylist() == [2, 3, 1]


def test_every_grade_has_a_meaning():
    assert list(MEANINGS) == [STABLE, SIGNIFICANT, CANDIDATE]
