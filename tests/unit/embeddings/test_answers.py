"""Known answers: read from the command line, from columns of numbers, of texts, and from tables of one's own."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo.embeddings.answers import DEFAULT_CRITERIA, FURTHER_CRITERIA, Answer, Criterion, read_answers
from rarezoo.errors import ConfigError, DataError

pytestmark = pytest.mark.unit

TABLE = pa.table({
    "fraction": pa.array([0.1, 0.4, None, 0.9]),
    "whole": pa.array([0, 1, 1, None], pa.int64()),
    "boolean": pa.array([True, False, None, True]),
    "written": ["True", "False", None, "true"],
    "kind": ["odd", "smooth", None, "odd"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=fraction>0.3", [0.1, 0.4, np.nan, 0.9]),
        ("a=whole", [0, 1, 1, np.nan]),
        ("a=boolean", [1, 0, np.nan, 1]),
        ("a=written", [1, 0, np.nan, 1]),
        ("a=kind==odd", [1, 0, np.nan, 1]),
    ],
)
def test_columns_become_numbers_and_what_is_not_known_is_nan(text, values):
    np.testing.assert_array_equal(Criterion.parsed(text).values(TABLE), np.array(values, dtype=float))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=fractoin>0.3", "no column: fractoin. Did you mean fraction"),
        ("a=fraction", "needs a threshold: fraction.*a=fraction>"),
        ("a=kind", "not a column of numbers: kind.*a=kind==TEXT"),
        ("a=kind==rings", "rings.*odd, smooth"),
    ],
)
def test_columns_that_hold_no_answer_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Criterion.parsed(text).values(TABLE)


def test_only_galaxies_whose_answer_is_known_count():
    answer = Answer.of(Criterion("a", "fraction", 0.3), Criterion.parsed("a=fraction>0.3").values(TABLE))
    assert answer.known.tolist() == [True, True, False, True]
    assert (answer.positives, answer.galaxies) == (2, 3)
    assert answer.fraction.tolist() == [0.1, 0.4, 0.9]


def test_numbers_that_are_no_fractions_are_relevant_or_not():
    answer = Answer.of(Criterion("massive", "mass", 11.0), np.array([10.5, 11.5, 12.0]))
    assert answer.fraction.tolist() == [0, 1, 1]


def test_a_table_of_ones_own_is_brought_into_the_order_of_the_galaxies(tmp_path):
    (tmp_path / "mine.csv").write_text("name,ring\n003,1\n001,0\n777,1\n")
    table = read_answers(tmp_path / "mine.csv", ["001", "002", "003"], id_column="name")
    assert table["ring"].to_pylist() == [0, None, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,ring\n4,1\n5,0\n", "no id of .*mine.csv is in the store.*4.*1"),
        ("name,ring\n1,1\n1,0\n", "more than once: 1"),
        ("name,ring\n,1\n2,0\n", "without an id"),
        ("id,ring\n1,1\n", "name"),
    ],
)
def test_a_table_without_usable_ids_is_refused(tmp_path, content, message):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_answers(tmp_path / "mine.csv", ["1", "2"], id_column="name")


def test_a_network_is_in_sample_for_questions_that_it_was_trained_on():
    ring, _, _, odd = DEFAULT_CRITERIA["gz2"]
    _, odd_c5 = FURTHER_CRITERIA["gz2"]
    trained_on_odd = ("smooth-or-featured-gz2_smooth", "something-odd-gz2_yes", "something-odd-gz2_no")
    assert [kind.in_sample(trained_on_odd) for kind in (ring, odd, odd_c5)] == [False, True, True]
    assert ring.in_sample(("odd-feature-gz2_merger",))
    assert Criterion("merger", "merging_merger", 0.5).in_sample(("merging_merger", "merging_none"))
    assert Criterion("merger", "merging_merger_fraction", 0.5).in_sample(("merging_merger",))
    assert not Criterion("merger", "merger", 0.5).in_sample(("merging_merger",))


@pytest.mark.parametrize(
    "column", [pa.array([[1.0], [2.0]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"x", b"\xff"])]
)
def test_a_column_that_holds_no_texts_is_refused(column):
    with pytest.raises(ConfigError, match="not a column of texts: x"):
        Criterion.parsed("a=x==1").values(pa.table({"x": column}))


@pytest.mark.parametrize("threshold", ["nan", "inf", "1e999", "1_0", "0,3"])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(ConfigError, match="an answer reads"):
        Criterion.parsed(f"a=fraction>{threshold}")


def test_texts_that_differ_in_spelling_are_named(caplog):
    assert Criterion.parsed("a=x==Ring").values(pa.table({"x": ["Ring", "ring ", "no"]})).tolist() == [1, 0, 0]
    assert "'ring '" in caplog.text
