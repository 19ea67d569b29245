"""Class ids over a chain of searches."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.searches.previous import FREE, PreviousSearch

pytestmark = pytest.mark.unit

IDS = [f"g{row}" for row in range(12)]


def members(labels, ids=IDS):
    columns = {tables.ID: list(ids), tables.CLASS_ID: pa.array(labels, pa.int32())}
    zeros = pa.array(np.zeros(len(labels)), pa.float32())
    return pa.table({**columns, tables.PROBABILITY: zeros, tables.OUTLIER_SCORE: zeros})


def ids_after(previous, labels):
    return dict(previous.lineage(members(labels)).ids)


def test_a_class_keeps_its_id_and_another_gets_a_new_one():
    previous = PreviousSearch(members([0] * 4 + [1] * 4 + [-1] * 4), free=2)
    assert ids_after(previous, [1] * 4 + [-1] * 4 + [0] * 4) == {0: 2, 1: 0}


@pytest.mark.parametrize(("shared", "kept"), [(2, True), (1, False)])
def test_a_jaccard_index_of_one_half_is_enough(shared, kept):
    previous = PreviousSearch(members([0] * 4 + [-1] * 8), free=1)
    assert ids_after(previous, [0] * shared + [-1] * (12 - shared)) == {0: 0 if kept else 1}


def test_ids_of_classes_that_were_lost_are_not_used_again():
    first = PreviousSearch(members([0] * 4 + [1] * 4 + [-1] * 4), free=2)
    without = [0] * 4 + [-1] * 8
    gone = first.lineage(members(without))
    assert dict(gone.ids) == {0: 0}
    second = PreviousSearch(gone.renamed(members(without)), gone.free)
    assert ids_after(second, [0] * 4 + [1] * 4 + [-1] * 4) == {0: 0, 1: 2}


def test_a_search_without_classes_keeps_the_next_free_id():
    nothing = PreviousSearch(members([0] * 12), free=9).lineage(members([-1] * 12))
    assert (dict(nothing.ids), nothing.free) == ({}, 9)
    assert nothing.evolution.to_pylist()[0]["event"] == "lost"


def test_evolution_uses_the_new_ids():
    lineage = PreviousSearch(members([0] * 6 + [-1] * 6), free=5).lineage(members([1] * 6 + [0] * 6))
    rows = lineage.evolution.to_pylist()
    assert {(row["event"], row["class_a"], row["class_b"]) for row in rows} == {("kept", 0, 0), ("new", -1, 5)}


@pytest.mark.parametrize(("about", "free"), [({}, 4), ({FREE: 11}, 11)])
def test_the_first_free_id_is_read_from_a_folder(tmp_path, about, free):
    blank = {name: pa.nulls(1, kind) for name, kind in tables.CLASSES.columns.items()}
    classes = pa.table({**blank, tables.CLASS_ID: pa.array([3], pa.int32())})
    tables.write(classes, tmp_path / "classes.parquet", tables.CLASSES, **about)
    tables.write(members([3] * 12), tmp_path / "members.parquet", tables.MEMBERS)
    tables.write_json({"settings": {}}, tmp_path / "run.json")
    assert PreviousSearch.read(tmp_path).free == free


def test_a_previous_search_of_other_galaxies_is_refused(caplog):
    previous = PreviousSearch(members([0] * 12), free=1)
    with caplog.at_level("INFO"):
        previous.require_common_galaxies(np.array(["g3", "other"], dtype=object))
    assert "1 of 2 ids of this search and of 12 ids of the previous search match" in caplog.text
    with pytest.raises(StoreError, match=r"no galaxy in common.*previous="):
        previous.require_common_galaxies(np.array(["other"], dtype=object))
