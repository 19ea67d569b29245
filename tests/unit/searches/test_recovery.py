"""A population is found if one class consists mostly of it and contains most of it."""

import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.searches.recovery import recovery

pytestmark = pytest.mark.unit


def table(labels, populations):
    ids = [f"g{i}" for i in range(len(labels))]
    members = pa.table({tables.ID: ids, tables.CLASS_ID: pa.array(labels, pa.int32())})
    return recovery(members, pa.table({tables.ID: ids, tables.POPULATION: populations})).to_pylist()


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
