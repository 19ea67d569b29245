"""Every table that leaves a room is checked, written whole, and says where it comes from."""

import json

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import OutputError, StoreError
from rarezoo.report import exports

pytestmark = pytest.mark.unit


def members(**changes):
    columns = {
        tables.ID: ["a", "b", "c"],
        tables.CLASS_ID: pa.array([0, 0, -1], pa.int32()),
        tables.PROBABILITY: pa.array([1.0, 0.5, 0.0], pa.float32()),
        tables.OUTLIER_SCORE: pa.array([0.0, 0.1, 0.9], pa.float32()),
    }
    return pa.table({**columns, **changes})


def test_a_written_table_comes_back_with_its_provenance_and_further_columns(tmp_path):
    path = tables.write(members(note=["x", "y", "z"]), tmp_path / "deep" / "members.parquet", tables.MEMBERS, seed=3)
    back = tables.read(path, tables.MEMBERS)
    assert back.equals(members(note=["x", "y", "z"]))
    about = tables.provenance(back)
    assert (about["kind"], about["seed"], about["schema"]) == ("members", 3, tables.SCHEMA_VERSION)
    assert [file.name for file in path.parent.iterdir()] == ["members.parquet"]


def test_only_some_columns_can_be_read(tmp_path):
    path = tables.write(members(), tmp_path / "members.parquet", tables.MEMBERS)
    assert tables.read(path, tables.MEMBERS, columns=[tables.ID]).column_names == [tables.ID]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_vectors_and_matrix_are_inverse_through_a_file_in_several_chunks(tmp_path, kind):
    values = np.arange(12, dtype=kind).reshape(4, 3)
    halves = [pa.table({tables.ID: ids, tables.EMBEDDING: tables.vectors(values[rows])}) for ids, rows in PARTS]
    path = tables.write(pa.concat_tables(halves), tmp_path / "e.parquet", tables.EMBEDDINGS)
    for table in (pa.concat_tables(halves), tables.read(path, tables.EMBEDDINGS)):
        class_matrix = tables.matrix(table, tables.EMBEDDING)
        assert class_matrix.dtype == kind
        np.testing.assert_array_equal(class_matrix, values)


PARTS = [(["a"], slice(0, 1)), (["b", "c", "d"], slice(1, 4))]


def test_numbers_of_another_type_are_cast_and_int_ids_become_strings():
    table = tables.check(members(id_str=[1, 2, 3], class_id=[0, 0, -1]), tables.MEMBERS)
    assert table.schema.field(tables.CLASS_ID).type == pa.int32()
    assert table.column(tables.ID).to_pylist() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (members().drop_columns([tables.CLASS_ID]), "needs a column: class_id"),
        (members(id_str=["a", "b", "a"]), "doubled keys: a"),
        (members(id_str=["a", None, "c"]), "null values in column: id_str"),
        (members(class_id=pa.array([0, None, 1], pa.int32())), "null values in column: class_id"),
        (members(class_id=["one", "two", "three"]), "column class_id must be int32"),
    ],
)
def test_a_table_that_does_not_fit_its_kind_is_refused(table, message, tmp_path):
    with pytest.raises(StoreError, match=message):
        tables.write(table, tmp_path / "members.parquet", tables.MEMBERS)
    assert not list(tmp_path.iterdir())


def test_a_missing_a_broken_and_a_foreign_file_are_told_apart(tmp_path):
    with pytest.raises(StoreError, match="no members table"):
        tables.read(tmp_path / "members.parquet", tables.MEMBERS)
    whole = tables.write(members(), tmp_path / "members.parquet", tables.MEMBERS).read_bytes()
    (tmp_path / "members.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="unreadable members table"):
        tables.read(tmp_path / "members.parquet", tables.MEMBERS)
    tables.write(pa.table({tables.ID: ["a"], tables.POPULATION: ["x"]}), tmp_path / "t.parquet", tables.TRUTH)
    with pytest.raises(StoreError, match="is a truth table"):
        tables.read(tmp_path / "t.parquet", tables.MEMBERS)


def test_an_output_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        tables.write(members(), tmp_path / "file" / "members.parquet", tables.MEMBERS)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupted_write():
        with tables.atomic(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.json": "old"}


def test_json_takes_numpy_and_writes_nan_as_null(tmp_path):
    content = {"loss": np.float32("nan"), "n": np.int64(3), "path": tmp_path, "row": np.array([1.5, np.inf])}
    loaded = json.loads(tables.write_json(content, tmp_path / "run.json").read_text())
    assert loaded == {"loss": None, "n": 3, "path": str(tmp_path), "row": [1.5, None]}


def test_fraction_columns_are_distinguished_from_a_class_share():
    assert tables.answer_of(tables.fraction_column("bar_strong")) == "bar_strong"
    assert tables.answer_of(tables.FRACTION) is None


def written(format, path, table):
    """Write a table as a file of a format, as a command does."""
    writer = {"csv": exports.write_csv, "fits": exports.write_fits, "votable": exports.write_votable}.get(format)
    if writer is None:
        return tables.write(table, path, tables.MEMBERS)
    return writer(path, table, {"survey": "mock"})


@pytest.mark.parametrize("format", ["csv", "parquet", "fits", "votable"])
def test_a_command_may_write_its_own_table_again_but_no_other_file(tmp_path, format):
    path = written(format, tmp_path / "members", members())
    tables.refuse_other_file(path, [tables.ID, tables.PROBABILITY])
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"another file is there already: .*members.*out=FILE"):
        tables.refuse_other_file(path, [tables.ID, tables.SCORE])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"name,magnitude\nid_str,3\n",
        b"PAR1 and no Parquet",
        b"\x00\xff\n",
        b"my_id_str,score2\n",
        b"an id_string\n",
    ],
    ids=["a later line", "damaged", "binary", "longer names", "text"],
)
def test_a_file_of_the_user_is_never_taken_for_a_table(tmp_path, content):
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(OutputError, match="another file is there already"):
        tables.refuse_other_file(tmp_path / "mine", [tables.ID])


def test_a_new_name_and_an_empty_file_can_be_written_and_a_folder_cannot(tmp_path):
    (tmp_path / "empty.csv").touch()
    tables.refuse_other_file(tmp_path / "empty.csv", [tables.ID])
    tables.refuse_other_file(tmp_path / "new" / "one.csv", [tables.ID])
    with pytest.raises(OutputError, match="is a folder"):
        tables.refuse_other_file(tmp_path, [tables.ID])
