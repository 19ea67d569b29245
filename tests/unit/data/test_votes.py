"""Votes: every kind of cell has one meaning."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.data.votes import votes_of
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit

TREE = QuestionTree(
    "small", (Question("shape", ("shape_smooth", "shape_disk")), Question("bar", ("bar_yes", "bar_no"), "shape_disk"))
)


def votes(scale=0.0, **columns):
    table = pa.table({"id_str": [f"g{i}" for i in range(len(next(iter(columns.values()))))], **columns})
    return votes_of(table, TREE, source="votes.csv", scale=scale)


def test_missing_null_nan_and_zero_mean_no_volunteer():
    found = votes(shape_smooth=[3, None, 0], shape_disk=[float("nan"), 2.0, 0.0])
    np.testing.assert_array_equal(found, [[3, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])


def test_weighted_votes_are_kept_as_they_are():
    np.testing.assert_allclose(votes(shape_smooth=[3.25], shape_disk=[1.5])[0, :2], [3.25, 1.5])


def test_numbers_written_as_text_are_numbers():
    np.testing.assert_array_equal(votes(shape_smooth=["3", None], shape_disk=["1", "2"])[:, :2], [[3, 1], [0, 2]])


def test_fractions_of_one_are_refused_unless_scaled():
    with pytest.raises(DataError, match="vote fractions, not counts"):
        votes(shape_smooth=[0.25, 0.5], shape_disk=[0.75, 0.5])
    np.testing.assert_allclose(votes(scale=40, shape_smooth=[0.25], shape_disk=[0.75])[0, :2], [10, 30])


def test_single_whole_votes_are_not_mistaken_for_fractions():
    np.testing.assert_array_equal(votes(shape_smooth=[1, 0], shape_disk=[0, 1])[:, :2], [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"shape_smooth": [1, -2]}, r"not negative, shape_smooth: -2.0 \[galaxies g1\]"),
        ({"shape_smooth": [1.0, float("inf")]}, "finite"),
        ({"shape_smooth": ["many", "few"]}, "no numbers in shape_smooth"),
        ({"shape_smooth": [1], "shape_artifact": [1]}, "that tree small lacks: shape_artifact"),
        ({"colour_red": [1]}, "no column of tree small"),
    ],
)
def test_values_that_are_not_votes_are_an_error(columns, message):
    with pytest.raises(DataError, match=message):
        votes(**columns)


def test_published_tables_derived_columns_are_no_foreign_answers():
    found = votes(shape_smooth=[4], shape_disk=[1], **{"shape_smooth_fraction": [0.8], "shape_smooth_debiased": [0.7]})
    np.testing.assert_array_equal(found[0, :2], [4, 1])
