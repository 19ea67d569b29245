"""A population is found if one class consists mostly of it and contains most of it."""

import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.searches.recovery import recovery, recovery_text

pytestmark = pytest.mark.unit


def table(labels, populations, grades=None):
    ids = [f"g{i}" for i in range(len(labels))]
    members = pa.table({tables.ID: ids, tables.CLASS_ID: pa.array(labels, pa.int32())})
    classes = None
    if grades is not None:
        classes = pa.table({tables.CLASS_ID: pa.array(grades, pa.int32()), tables.GRADE: list(grades.values())})
    return recovery(members, pa.table({tables.ID: ids, tables.POPULATION: populations}), classes).to_pylist()


@pytest.mark.parametrize(
    ("labels", "purity", "completeness", "result"),
    [
        ([0, 0, 0, -1, -1, -1], 1.0, 0.75, True),
        ([0, 0, 0, 0, 0, 0], 4 / 6, 1.0, True),
        ([0, 0, -1, -1, -1, -1], 1.0, 0.5, False),
        ([0, 0, 1, 1, -1, -1], 1.0, 0.5, False),
        ([0, 0, 1, 1, 0, 0], 0.5, 0.5, False),
        ([-1] * 6, 0.0, 0.0, False),
    ],
)
def test_purity_and_completeness_of_the_best_class(labels, purity, completeness, result):
    (row,) = table(labels, ["ring"] * 4 + ["ordinary"] * 2)
    assert row["size"] == 4
    assert (row["purity"], row["completeness"]) == (pytest.approx(purity), pytest.approx(completeness))
    assert row["found"] is result


def test_galaxies_that_were_not_searched_do_not_count():
    members = pa.table({tables.ID: ["a", "b"], tables.CLASS_ID: pa.array([0, 0], pa.int32())})
    truth = pa.table({tables.ID: ["a", "b", "c", "d"], tables.POPULATION: ["ring", "ring", "ring", "shell"]})
    rows = {row["population"]: row for row in recovery(members, truth).to_pylist()}
    assert (rows["ring"]["size"], rows["ring"]["found"]) == (2, True)
    assert (rows["shell"]["size"], rows["shell"]["found"]) == (0, False)


@pytest.mark.parametrize(
    ("grade", "found"),
    [("significant and stable", True), ("significant", True), (None, True), ("candidate", False)],
)
def test_a_candidate_shows_a_population_but_does_not_find_it(grade, found):
    (row,) = table([0, 0, 0, -1], ["ring"] * 4, {0: grade})
    assert (row["found"], row["shown"], row["grade"]) == (found, True, grade)
    assert (row["best_class"], row["purity"], row["completeness"]) == (0, 1.0, 0.75)


def test_the_text_says_what_was_found_and_why_others_were_missed():
    labels = {
        "arc": [0, 0, 0], "bar_thin": [1, 1, 1], "bar-thick": [5, 5, 5], "dust": [-1, -1], "edge": [2, 2, 3, -1],
        "fan": [2, 2, 2], "gap": [4, -1, -1], "ordinary": [2, 6, 6, 6, 3, 3, -1], "hook": [6, 3, -1],
    }  # fmt: skip
    populations = [name for name, inside in labels.items() for _ in inside]
    grades = {0: "significant", 1: "candidate", 5: "candidate", **dict.fromkeys([2, 3, 4, 6], "significant")}
    text = recovery_text(table([label for inside in labels.values() for label in inside], populations, grades))
    assert text == (
        "1 of 8 planted populations were found: arc. Seven were missed: bar thick and bar thin are listed as "
        "candidates, because null surveys show such groups too often; no class has a galaxy of dust; the search does "
        "not separate edge and hook from other galaxies: no class holds more than half of any of them; class 2 mixes "
        "fan with edge; class 4 consists mostly of gap, but holds only 33% of it."
    )


def test_the_text_of_a_full_success_names_no_reason():
    assert recovery_text(table([0, 0], ["ring", "ring"])) == "1 of 1 planted populations were found: ring."
    missing = pa.table({tables.ID: ["a"], tables.CLASS_ID: pa.array([-1], pa.int32())})
    truth = pa.table({tables.ID: ["a", "b"], tables.POPULATION: ["ordinary", "{x}"]})
    assert recovery_text(recovery(missing, truth).to_pylist()).endswith(
        "One was missed: no galaxy of {x} was searched."
    )


def test_names_with_braces_stay_what_they_are():
    text = recovery_text(table([0, 0, 0, 0], ["a", "a", "{b}", "{b}"]))
    assert "class 0 mixes a with {b}; class 0 mixes {b} with a" in text
