"""Votes: every kind of cell has one meaning."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    counts = votes(shape_smooth=[3, None, 0], shape_disk=[float("nan"), 2.0, 0.0])
    np.testing.assert_array_equal(counts, [[3, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])


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


# ── counts, weighted votes, fractions and percentages ───────────────────────────────────────────────────────────────


def drawn(seed, *, galaxies=200):
    """Numbers of volunteers (galaxies, 4): some forty for the shape, and those who saw a disk for the bar."""
    random = np.random.default_rng(seed)
    volunteers = random.integers(20, 60, galaxies)
    disk = random.binomial(volunteers, random.beta(2, 2, galaxies))
    bar = random.binomial(disk, 0.3)
    return np.stack([volunteers - disk, disk, bar, disk - bar], axis=1).astype(float)


def fractions_of(counts):
    return np.nan_to_num(TREE.fractions(counts).astype(float))


def read(values, scale=0.0):
    return votes_of(pa.table(dict(zip(TREE.answers, values.T, strict=True))), TREE, source="votes.csv", scale=scale)


def debiased(counts, random):
    """Debiased fractions are shifted answer by answer, so that they do not add up to one."""
    fractions = fractions_of(counts)
    return np.clip(fractions + random.normal(0, 0.1, fractions.shape) * (fractions > 0), 0, 1)


KINDS_OF_FRACTIONS = {
    "conditional": lambda counts, random: fractions_of(counts),
    "cumulative": lambda counts, random: TREE.joint_fractions(fractions_of(counts)),
    "debiased": debiased,
    "rounded": lambda counts, random: fractions_of(counts).round(2),
    "float32": lambda counts, random: fractions_of(counts).astype(np.float32).astype(float),
    "one answer": lambda counts, random: fractions_of(counts) * [1, 0, 0, 0],
}


@pytest.mark.parametrize("kind", KINDS_OF_FRACTIONS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), counts_among_them=st.integers(0, 20))
def test_fractions_of_every_kind_are_refused_also_with_some_counts_among_them(kind, seed, counts_among_them):
    counts, random = drawn(seed), np.random.default_rng(seed)
    values = KINDS_OF_FRACTIONS[kind](counts, random)
    values[:counts_among_them] = counts[:counts_among_them]
    with pytest.raises(DataError, match=r"vote fractions.*data.votes_scale"):
        read(values)
    if not counts_among_them:
        np.testing.assert_allclose(read(values, scale=40), values * 40, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.booleans())
def test_counts_are_counts_and_are_never_multiplied(seed, noise):
    counts = drawn(seed)
    values = counts * (1 + 1e-7) if noise else counts
    np.testing.assert_allclose(read(values), counts, rtol=1e-6)
    with pytest.raises(DataError, match="these are counts"):
        read(values, scale=40)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_votes_of_weighted_volunteers_are_kept(seed):
    """The bar of some galaxies then has a total below one, as fractions have."""
    weighted = drawn(seed) * np.random.default_rng(seed).uniform(0.3, 1, (200, 1))
    np.testing.assert_allclose(read(weighted), weighted, rtol=1e-6)
    with pytest.raises(DataError, match="these are counts"):
        read(weighted, scale=40)


def test_a_few_fractions_among_counts_are_refused_with_their_galaxies():
    counts = drawn(0)
    counts[7] = fractions_of(counts)[7]
    with pytest.raises(DataError, match=r"in 1 of 200 galaxies.*galaxies row 7"):
        read(counts)


@pytest.mark.parametrize("scale", [0, 40])
@pytest.mark.parametrize("digits", [0, 2])
@pytest.mark.parametrize("parts", [100, 1000])
def test_percentages_and_parts_of_a_thousand_are_refused(scale, digits, parts):
    with pytest.raises(DataError, match=rf"percentages.*by {parts}\b"):
        read((fractions_of(drawn(1)) * parts).round(digits), scale=scale)


def test_three_galaxies_are_enough_if_their_percentages_are_not_whole_numbers():
    percentages = np.array([[46.1, 53.9, 30.2, 69.8], [12.5, 87.5, 99.9, 0.1], [50.4, 49.6, 1.3, 98.7]])
    with pytest.raises(DataError, match=r"percentages.*by 100"):
        read(percentages)
    # A hundred volunteers may have been asked about each of three galaxies.
    np.testing.assert_array_equal(read(percentages.round()), percentages.round())


def test_a_scale_of_one_keeps_numbers_whatever_they_look_like():
    values = np.array([[0.7, 0.2, 0.1, 0.1], [1.5, 0.5, 0.4, 0.0]])
    np.testing.assert_allclose(read(values, scale=1), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"shape_smooth": [1, -2]}, r"not negative.*shape_smooth: -2.0 \[galaxies g1\]"),
        ({"shape_smooth": [1.0, float("inf")]}, "finite"),
        ({"shape_smooth": ["many", "few"]}, "no numbers in shape_smooth"),
        ({"shape_smooth": [[1], [2]]}, "no numbers in shape_smooth"),
        ({"shape_smooth": ["46%", "54%"]}, "no numbers in shape_smooth"),
        ({"shape_smooth": [1], "shape_artifact": [1]}, "that tree small lacks: shape_artifact"),
        ({"colour_red": [1]}, "no column of tree small"),
    ],
)
def test_values_that_are_not_votes_are_an_error(columns, message):
    with pytest.raises(DataError, match=message):
        votes(**columns)


def test_published_tables_derived_columns_are_no_foreign_answers():
    counts = votes(shape_smooth=[4], shape_disk=[1], **{"shape_smooth_fraction": [0.8], "shape_smooth_debiased": [0.7]})
    np.testing.assert_array_equal(counts[0, :2], [4, 1])


def test_percentages_of_which_only_the_first_question_adds_up_to_100_are_refused():
    counts = drawn(3)
    first, second = counts[:, :2], counts[:, 2:]
    volunteers = first.sum(1, keepdims=True)
    cumulative = (100 * np.hstack([first, second]) / volunteers).round(1)
    for scale in (0, 40):
        with pytest.raises(DataError, match=r"percentages.*by 100"):
            read(cumulative, scale=scale)


@pytest.mark.parametrize("column", ["SHAPE_DISK", "shape-disk", " shape disk", "Shape.Disk"])
def test_votes_in_a_column_that_is_spelled_otherwise_are_not_lost(column):
    with pytest.raises(DataError, match=f"spelling: {column} .for shape_disk.*Rename"):
        votes(shape_smooth=[3], **{column: [4]})
    np.testing.assert_array_equal(votes(shape_smooth=[3], shape_disk=[5], **{column: [4]})[0, :2], [3, 5])


@pytest.mark.parametrize("value", [1e39, 1e30, 2.0**24 + 2])
def test_more_votes_than_float32_holds_are_refused(value):
    with pytest.raises(DataError, match=r"at most 16,777,216, shape_smooth.*galaxies g0"):
        votes(shape_smooth=[value])
