"""What the CLASSES table says of a class."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.searches.classes import class_table, member_table, nearest_to_medoid, with_columns
from rarezoo.searches.cluster import Clustering

pytestmark = pytest.mark.unit

IDS = ["d", "a", "c", "b", "f", "e"]
POSITIONS = np.array([[0, 0], [1, 0], [2, 0], [9, 9], [9, 8], [50, 50]], dtype=np.float32)
NAN = float("nan")
PREDICTIONS = pa.table(
    {
        tables.ID: IDS,
        "bar_strong_fraction": [0.9, 0.8, 0.7, 0.1, 0.1, 0.4],
        "ring_yes_fraction": [0.5, NAN, 0.5, 0.0, NAN, 0.0],
        "arms_1_fraction": [NAN] * 6,
    }
)


def clustering(labels, *, deaths=(2.0, 4.0)):
    labels = np.array(labels, dtype=np.int32)
    classes = int(labels.max()) + 1
    return Clustering(
        labels=labels,
        probabilities=np.linspace(0, 1, len(labels), dtype=np.float32),
        outlier_scores=np.linspace(1, 0, len(labels), dtype=np.float32),
        tree=pa.table({name: pa.array([], kind) for name, kind in tables.TREE.columns.items()}),
        nodes=np.arange(7, 7 + classes),
        births=np.ones(classes),
        deaths=np.array(deaths[:classes]),
    )


def test_classes_are_described():
    table = class_table(clustering([0, 0, 0, 1, 1, -1]), ids=IDS, positions=POSITIONS, predictions=PREDICTIONS)
    big, small = tables.check(table, tables.CLASSES).to_pylist()
    assert (big[tables.CLASS_ID], big[tables.NODE], big[tables.SIZE], big[tables.FRACTION]) == (0, 7, 3, 0.5)
    assert big[tables.TOP_ANSWERS] == ["bar_strong 0.80 (sample 0.50)", "ring_yes 0.50 (sample 0.25)"]
    assert small[tables.TOP_ANSWERS] == ["bar_strong 0.10 (sample 0.50)", "ring_yes 0.00 (sample 0.25)"]
    assert big[tables.EXEMPLARS] == ["a", "c", "d"]
    assert small[tables.PERSISTENCE] == pytest.approx(np.log(4))
    assert big[tables.FLAGS] == []


def test_what_was_not_measured_is_null_not_zero():
    table = class_table(clustering([0, 0, 0, 1, 1, -1]), ids=IDS, positions=POSITIONS)
    assert table[tables.SIGNIFICANCE].null_count == table[tables.STABILITY].null_count == 2
    assert table[tables.TOP_ANSWERS].to_pylist() == [[], []]


def test_what_is_measured_later_takes_its_column_and_type():
    bare = class_table(clustering([0, 0, 0, 1, 1, -1]), ids=IDS, positions=POSITIONS)
    table = with_columns(bare, {tables.BEYOND: [0.5, None], tables.CAUSE: ["clean", None]})
    assert tables.check(table, tables.CLASSES).schema == bare.schema
    assert table[tables.BEYOND].to_pylist() == [0.5, None]
    assert table[tables.CAUSE].to_pylist() == ["clean", None]


def test_coincident_galaxies_are_flagged():
    table = class_table(clustering([0, 0, 0, 1, 1, -1], deaths=(2.0, np.inf)), ids=IDS, positions=POSITIONS)
    assert table[tables.FLAGS].to_pylist() == [[], ["coincident"]]


def test_no_class_gives_empty_tables_of_the_right_schema(tmp_path):
    none = clustering([-1] * 6)
    table = class_table(none, ids=IDS, positions=POSITIONS, predictions=PREDICTIONS)
    back = tables.read(tables.write(table, tmp_path / "classes.parquet", tables.CLASSES), tables.CLASSES)
    assert back.num_rows == 0
    assert back.schema.names == list(tables.CLASSES.columns)
    assert set(member_table(none, ids=IDS)[tables.CLASS_ID].to_pylist()) == {tables.NO_CLASS}


def test_members_are_every_galaxy_in_the_order_given():
    table = tables.check(member_table(clustering([0, 0, 0, 1, 1, -1]), ids=pa.chunked_array([IDS])), tables.MEMBERS)
    assert table[tables.ID].to_pylist() == IDS
    assert table[tables.CLASS_ID].to_pylist() == [0, 0, 0, 1, 1, -1]


def test_exemplars_are_at_most_24_and_nearest_first():
    line = np.arange(101, dtype=np.float32)[:, None]
    nearest = nearest_to_medoid(line, np.arange(101))
    assert nearest[0] == 50
    assert sorted(nearest) == list(range(38, 62))


def test_the_medoid_is_a_member_where_the_mean_lies_in_the_void():
    ring = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, 2 * np.pi, 50, endpoint=False)], dtype=np.float32)
    tail = np.array([[1.0, 0.01], [1.0, 0.02], [1.0, 0.03]], dtype=np.float32)
    nearest = nearest_to_medoid(np.concatenate([ring, tail]), np.arange(53), most=1)
    assert nearest[0] in (0, 50, 51, 52)


def test_a_big_class_is_shown_around_its_mean():
    blob = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    nearest = nearest_to_medoid(blob, np.arange(3000), most=5)
    assert np.linalg.norm(blob[nearest] - blob.mean(axis=0), axis=1).max() < 0.5
