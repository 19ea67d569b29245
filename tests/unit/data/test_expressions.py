"""The language of conditions and scores: what is true, what a value is, and which columns are needed."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo.data.expressions import columns_of, decide, evaluate
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit
GALAXIES = pa.table(
    {"bar_strong_fraction": [0.5, 0.25, None], "disk-edge-on-gz2_yes_fraction": [1.0, float("nan"), 0.0]}
)
EDGE_ON = "`disk-edge-on_yes_fraction`"


def test_a_condition_is_true_false_or_undecided():
    assert decide(f"{EDGE_ON} > 0.5 or bar_strong_fraction < 0.3", GALAXIES).to_pylist() == [True, True, None]


def test_a_score_is_a_number_or_nan():
    scores = evaluate(f"bar_strong_fraction * (1 - {EDGE_ON} / 2)", GALAXIES)
    np.testing.assert_array_equal(scores, [0.25, np.nan, np.nan])


def test_a_table_in_several_pieces_gives_the_same():
    pieces = pa.concat_tables([GALAXIES.slice(0, 1), GALAXIES.slice(1)])
    np.testing.assert_array_equal(evaluate("bar_strong_fraction + 1", pieces), [1.5, 1.25, np.nan])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("bar_strong_fraction > 1", "score must be a number"),
        ("3", "score must be a number"),
        ("bar_strong_fraction *", "unreadable score"),
        ("bar_weak_fraction", "unknown column: bar_weak_fraction. Did you mean bar_strong_fraction"),
        ("().__class__", "may not hold"),
        ("(" * 500 + "1" + ")" * 500, "unreadable score"),
    ],
)
def test_what_is_no_score_is_refused(expression, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(expression, GALAXIES, called="score")


def test_columns_that_an_expression_needs_are_named_as_they_are_stored():
    text = f"{EDGE_ON} + bar_strong_fraction * {EDGE_ON}"
    assert columns_of(text, GALAXIES.column_names) == ["disk-edge-on-gz2_yes_fraction", "bar_strong_fraction"]
    assert columns_of("1 + 1", GALAXIES.column_names) == []
    with pytest.raises(ConfigError, match="filter size > 3 names an unknown column: size"):
        columns_of("size > 3", GALAXIES.column_names, called="filter")
