"""Labels of one's own: what is read, what is unknown, what is refused, and how they are split."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from rarezoo.data.own_labels import OwnLabels
from rarezoo.errors import ConfigError, DataError, RarezooError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("cells", "kind", "names", "values"),
    [
        ({"a": 1, "b": 0, "c": None}, "binary", ("x",), [[1], [0], [np.nan]]),
        ({"a": "yes", "b": "No", "c": ""}, "binary", ("x",), [[1], [0], [np.nan]]),
        ({"a": True, "b": False, "c": float("nan")}, "binary", ("x",), [[1], [0], [np.nan]]),
        ({"a": "ring", "b": "bar", "c": None}, "classes", ("bar", "ring"), [[0, 1], [1, 0], [np.nan, np.nan]]),
        ({"a": ["r", "s"], "b": [], "c": None}, "tags", ("r", "s"), [[1, 1], [0, 0], [np.nan, np.nan]]),
        ({"a": 0.5, "b": 2.5, "c": None}, "number", ("x",), [[0.5], [2.5], [np.nan]]),
    ],
)
def test_the_values_say_what_the_labels_are(cells, kind, names, values):
    labels = OwnLabels.read(cells, label="x")
    assert (labels.kind, labels.names, labels.ids.tolist()) == (kind, names, ["a", "b", "c"])
    np.testing.assert_array_equal(labels.values, values)
    assert labels.known.tolist() == [True, True, False]


def test_a_table_has_columns_of_tags_or_counts_and_ids_stay_text(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("id,ring,bar,votes_yes,votes_no\n007,1,0,3,10\n12e5,,1,0,0\n")
    tags = OwnLabels.read(file, label="ring,bar")
    counts = OwnLabels.read(file, label=["votes_yes", "votes_no"])
    assert (tags.kind, tags.ids.tolist(), counts.kind) == ("tags", ["007", "12e5"], "counts")
    assert counts.known.tolist() == [True, False]  # a galaxy without any vote is unknown
    table = pa.table({"id_str": ["a", "b"], "ring": [1, 0]})
    assert (
        OwnLabels.read(table).names == OwnLabels.read(pd.DataFrame({"id_str": ["a"], "ring": [1]})).names == ("ring",)
    )


def test_a_folder_has_one_sub_folder_per_class(tmp_path):
    for place in ("ring/J1.jpg", "ring/J2.png", "other/deep/J3.fits.gz", "readme.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    Image.new("RGB", (2, 2)).save(tmp_path / "ring/J1.jpg")
    labels = OwnLabels.read(tmp_path)
    assert dict(zip(labels.ids, labels.values.argmax(axis=1), strict=True)) == {"J1": 1, "J2": 1, "J3": 0}


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ({"a": -1, "b": 0, "c": 1}, {}, ["-1", "kind="]),
        ({"a": 2, "b": 0}, {"kind": "binary"}, ["2", "kind=number"]),
        ({"a": "big", "b": "3"}, {"kind": "number"}, ["big", "kind=classes"]),
        ({"a": float("inf"), "b": 0.5}, {}, ["inf"]),
        ({"a": 1}, {"kind": "counts"}, ["several columns"]),
        (pa.table({"id": ["a"], "x": [1], "y": [2]}), {}, ["x, y", "label="]),
        (pa.table({"id": ["a"], "x": [1]}), {"label": "ring"}, ["ring", "x"]),
        (pa.table({"id": ["a", "b", "a"], "x": [1, 1, 0]}), {}, ["1 galaxies", "a", "one row"]),
        (pa.table({"id": ["a"], "x": [-1], "y": [2]}), {"label": "x,y"}, ["-1"]),
        ("nowhere.csv", {}, ["nowhere.csv"]),
        ({"a": 1}, {"kind": "stars"}, ["stars", "binary"]),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_a_way_out(source, settings, message):
    with pytest.raises(RarezooError) as refused:
        OwnLabels.read(source, **settings)
    assert all(part in str(refused.value) for part in message), refused.value


@pytest.mark.parametrize("file", ["run.json", "manifest.json"])
def test_the_tables_of_a_search_or_a_store_are_no_labels(tmp_path, file):
    (tmp_path / file).write_text("{}")
    pd.DataFrame({"id_str": ["a", "b"], "probability": [0.1, 0.9]}).to_parquet(tmp_path / "members.parquet")
    with pytest.raises(DataError, match=r"nothing was rated.*rarezoo serve"):
        OwnLabels.read(tmp_path, label="ring")


def test_rows_of_one_galaxy_that_agree_are_joined():
    table = pa.table({"id": ["a", "b", "a"], "x": [1, 0, None]})
    assert OwnLabels.read(table).values.ravel().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        ({"a": 1, "b": 1, "c": 1}, "auto", ["one class only", "3 galaxies with it and 0 without", "marked 0"]),
        ({"a": 0, "b": 0, "c": 0}, "auto", ["no galaxy is marked", "0 galaxies with it"]),
        ({"a": 1, "b": 0, "c": 0}, "auto", ["only one galaxy"]),
        ({"a": "r", "b": "r", "c": "s"}, "auto", ["one class only", "s: 1"]),
        ({f"g{row}": f"name {row}" for row in range(90)}, "auto", ["no class has two", "85 more", "label="]),
        ({"a": None, "b": None}, "binary", ["no label"]),
        ({"a": 1.5, "b": 1.5, "c": 1.5}, "number", ["1 in 3"]),
    ],
)
def test_labels_that_nothing_can_be_learnt_from_are_refused(cells, kind, message):
    with pytest.raises(DataError) as refused:
        OwnLabels.read(cells, kind=kind).usable()
    assert all(part in str(refused.value) for part in message), refused.value


def test_a_class_with_one_member_is_left_out_with_a_warning(caplog):
    labels = OwnLabels.read({"a": "r", "b": "r", "c": "s", "d": "s", "e": "odd"}).usable()
    assert (labels.names, labels.known.tolist()) == (("r", "s"), [True] * 4 + [False])
    assert "odd" in caplog.text


def test_a_table_without_a_row_is_refused_as_such():
    empty = pa.table({"id": pa.array([], pa.string()), "ring": pa.array([], pa.float64())})
    with pytest.raises(DataError, match="no label"):
        OwnLabels.read(empty).for_ids(["J1"])


def test_labels_of_other_galaxies_are_counted_and_named(caplog):
    labels = OwnLabels.read({"a": 1, "b": 0, "x": 1, "y": None}).for_ids(["b", "c", "a"], of="the store mine")
    assert labels.values.ravel()[[0, 2]].tolist() == [0, 1]
    assert labels.unmatched == ("x",)
    assert "1 of 3" in caplog.text
    assert "the store mine" in caplog.text
    with pytest.raises(DataError, match="zeros before them"):
        OwnLabels.read({"1": 1, "2": 0}).for_ids(["01", "02"])


def test_splits_follow_the_ids_and_give_each_split_its_share_of_rare_classes():
    cells = {f"g{row}": int(row % 10 == 0) for row in range(300)}
    labels = OwnLabels.read({**cells, "unknown": None})
    splits = labels.splits()
    for value, number in ((1, 30), (0, 270)):
        inside = labels.values[:, 0] == value
        assert abs((splits[inside] == "test").sum() - 0.2 * number) <= (1 if value else 25)
        assert (splits[inside] == "validation").sum() > 0
    assert splits[-1] == ""
    backwards = OwnLabels.read(dict(reversed({**cells, "unknown": None}.items()))).splits()
    assert backwards[::-1].tolist() == splits.tolist()
    assert labels.splits(seed=1).tolist() != splits.tolist()
    with pytest.raises(ConfigError, match=r"test=0\.2"):
        labels.splits(validation=0.5, test=0.5)


def test_a_number_that_may_be_a_class_gets_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert OwnLabels.read({"a": 1, "b": 2, "c": 3}).kind == "number"
    assert "kind=classes" in caplog.text
    assert OwnLabels.read({"a": 1, "b": 2, "c": 3}, kind="classes").names == ("1", "2", "3")
