"""Files of ratings: what is exported comes back, what people write is understood or refused, nothing is added twice."""

import json
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError, StoreNotFound
from rarezoo.explore.labels import Labels, Rating

pytestmark = pytest.mark.unit

SURVEY = "survey-of-the-tests"
THEN = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
STRANGE = 'J1, "é"\nnext'


@pytest.fixture
def labels(tmp_path):
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        yield labels


@pytest.fixture
def other(tmp_path):
    with Labels.open(tmp_path / "other.sqlite", survey=SURVEY) as labels:
        yield labels


@pytest.fixture
def table(tmp_path):
    """Writes a file of text."""

    def write(text, name="ratings.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def fill(labels):
    """A history with everything in it: all kinds, several people, an undo, and an undo of that."""
    labels.add([Rating(STRANGE, "interesting", 3.5, "grade", "ann", at=THEN, why="model", round=2, seconds=0.1)])
    labels.add([Rating("J2", "ring", 1, "answer", "bob"), Rating("J2", "ring", None, "answer", "ann")])
    labels.add([Rating("J3", "dust lane", 1, "tag", "ann"), Rating("J3", "artifact", 0, "artifact", "ann")])
    undoing = labels.undo(by="bob")
    labels.undo(by="bob", entry=undoing.entry)
    labels.undo(by="ann", entry=1)


def without_numbers(log):
    """The log with what each entry takes back in the place of numbers."""
    rows = log.to_pylist()
    place = {row["entry"]: number for number, row in enumerate(rows)}
    return [{**row, "entry": None, "undoes": place.get(row["undoes"])} for row in rows]


@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "LOG.PQ"])
def test_the_log_comes_back_from_a_file_with_all_that_was_taken_back(labels, other, tmp_path, name):
    fill(labels)
    assert labels.write_table(tmp_path / name) == 8
    other.add([Rating("J9", "ring", 1, "answer", "eve", at=THEN)])
    assert other.read_table(tmp_path / name).added == 8
    assert without_numbers(other.log())[1:] == [
        {**row, "undoes": None if row["undoes"] is None else row["undoes"] + 1} for row in without_numbers(labels.log())
    ]
    assert other.interest("ring") == {"J9": 1.0, "J2": 1.0}
    assert other.interest() == labels.interest() == {}


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_what_is_in_the_log_already_is_not_added_again(labels, other, tmp_path, name):
    fill(labels)
    labels.write_table(tmp_path / name)
    before = labels.log()
    assert (labels.read_table(tmp_path / name).added, other.read_table(tmp_path / name).added) == (0, 8)
    again = other.read_table(tmp_path / name)
    assert (again.added, again.known) == (0, 8)
    labels.add([Rating("J5", "ring", 1, "answer", "ann")])
    labels.write_table(tmp_path / name)
    assert other.read_table(tmp_path / name).added == 1
    assert labels.log(since=0).slice(0, 8).equals(before)


def test_the_order_of_the_rows_does_not_matter_where_entries_have_numbers(labels, other, tmp_path):
    fill(labels)
    labels.write_table(tmp_path / "log.csv")
    shuffled = pd.read_csv(tmp_path / "log.csv").sort_values("entry", ascending=False)
    shuffled.to_csv(tmp_path / "log.csv", index=False)
    other.read_table(tmp_path / "log.csv")
    assert without_numbers(other.log()) == without_numbers(labels.log())


def test_what_holds_now_can_be_exported_alone(labels, other, tmp_path):
    fill(labels)
    assert labels.write_table(tmp_path / "now.parquet", current=True) == 4
    assert labels.write_table(tmp_path / "ring.csv", label="ring") == 2
    assert labels.write_table(tmp_path / "ann.csv", label="ring", by="ann") == 1
    kept = tables.read(tmp_path / "now.parquet", tables.LABELS)
    assert kept.equals(labels.current())
    assert other.read_table(tmp_path / "now.parquet").added == 4
    assert other.interest("ring") == labels.interest("ring")


@pytest.mark.parametrize("name", ["ratings.txt", "ratings", "labels.sqlite"])
def test_an_export_needs_an_ending_that_says_what_it_is(labels, tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        labels.write_table(tmp_path / name)


def test_an_export_that_cannot_be_written_is_one_message(labels, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        labels.write_table(tmp_path / "file" / "ratings.csv")


# --- what people write


def test_names_of_columns_may_have_spaces_and_capitals_and_other_columns_are_not_read(labels, table):
    path = table("\ufeffMag, ID_STR ,Value,LABEL,by\n17.5,00123,yes,ring,ann\n18,J2,4,interesting,7\n")
    labels.read_table(path)
    assert [(row["id_str"], row["value"], row["kind"], row["by"], row["why"]) for row in labels.log().to_pylist()] == [
        ("00123", 1.0, "answer", "ann", "import"), ("J2", 4.0, "grade", "7", "import"),
    ]  # fmt: skip


def test_rows_without_label_and_person_have_those_of_the_command(labels, table):
    labels.read_table(table("id_str,value\nJ1,5\nJ2,0\n"), by="ann")
    labels.read_table(table("name,id_str,value,label\nJ3,x,yes,\n"), by="bob", label="ring", id_column="name")
    assert labels.interest() == {"J1": 1.0, "J2": 0.0}
    assert labels.interest("ring") == {"J3": 1.0}
    assert labels.people() == ["ann", "bob"]


def test_values_say_of_which_kind_they_are_unless_somebody_does(labels, table):
    text = "id_str,label,value\nJ1,a,1\nJ2,a,unsure\nJ1,b,1\nJ2,b,2\nJ1,c,No\nJ1,artifact,1\n"
    labels.read_table(table(text), by="ann")
    kinds = {(row["label"], row["kind"]) for row in labels.log().to_pylist()}
    assert kinds == {("a", "answer"), ("b", "grade"), ("c", "answer"), ("artifact", "artifact")}
    labels.read_table(table("id_str,value\nJ1,1\nJ2,0\n"), by="bob", kind="grade")
    assert labels.current(by="bob").column("kind").to_pylist() == ["grade", "grade"]


def test_a_list_of_tagged_galaxies_needs_no_values(labels, table):
    labels.read_table(table("id_str,label\nJ1,ring\nJ2,ring\nJ2,arc\n"), by="ann", kind="tag")
    assert labels.tags() == {"ring": 2, "arc": 1}


def test_tables_of_other_programs_are_read(labels, tmp_path):
    frame = pd.DataFrame({
        "id_str": [101, 102], "value": [True, False], "by": pd.Categorical(["ann", "bob"]),
        "at": pd.to_datetime(["2026-03-01T12:00:00.123456789+02:00", None]), "round": [1.0, None],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "pandas.parquet")
    labels.read_table(tmp_path / "pandas.parquet", label="ring")
    first, second = labels.log().to_pylist()
    assert (first["id_str"], first["value"], first["by"], first["round"]) == ("101", 1.0, "ann", 1)
    assert first["at"] == datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert (second["value"], second["round"]) == (0.0, 0)
    assert labels.read_table(tmp_path / "pandas.parquet", label="ring").added == 0


@pytest.mark.parametrize(
    "at", ["2026-03-01T12:30:15.123456Z", "2026-03-01 12:30:15.123456", "2026-03-01 13:30:15.123456+01:00"]
)
def test_times_are_read_as_iso_8601_has_them(labels, table, at):
    labels.read_table(table(f"id_str,value,at\nJ1,yes,{at}\n"), by="ann")
    assert labels.log().to_pylist()[0]["at"] == THEN


def test_rows_without_a_time_are_added_once_and_again_only_if_they_changed(labels, table):
    said = "id_str,label,value,by\nJ1,ring,{},ann\nJ2,ring,no,ann\nJ2,ring,no,ann\n"
    first = labels.read_table(table(said.format("yes")))
    assert (first.added, first.known) == (2, 1)
    assert labels.read_table(table(said.format("yes"))).added == 0
    labels.add([Rating("J1", "ring", None, "answer", "ann", why="model")])
    assert labels.read_table(table(said.format("yes"))).added == 0, "what was said since holds"
    assert labels.interest("ring") == {"J2": 0.0}
    assert labels.read_table(table(said.format("no"))).added == 1
    assert labels.read_table(table(said.format("yes"))).added == 1, "the file was changed back"
    assert labels.interest("ring") == {"J1": 1.0, "J2": 0.0}
    labels.undo(by="ann")
    assert labels.read_table(table(said.format("yes"))).added == 0, "what was taken back stays so"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("value\n3\n", "id_str"), ("id_str,label\nJ1,ring\n", "kind=tag"), ("id_str,value,value\nJ1,1,1\n", "value"),
        ("id_str,value,Value\nJ1,1,1\n", "twice"), ("id_str,value,lable\nJ1,1,ring\n", "label"),
        ("id_str,value,undo\nJ1,1,\n", "undoes"), ("id_str,value\nJ1,1\n,2\n", "id"),
        ("id_str,value\nJ1,1,3\n", "cells"), ("id_str,value\nJ1,inf\n", "row 1"),
        ("id_str;value\nJ1;1\n", "semicolons"), ("id_str,value\nJ0,1\nJ1,maybe\n", "row 2"),
        ("id_str,value\nJ0,1\nJ1,\n", "row 2"), ("id_str,value\nJ0,1\nJ1,9\n", "row 2"),
        ("id_str,value,kind\nJ0,1,tag\nJ1,,grade\n", "row 2"), ("id_str,value,kind\nJ1,1,vote\n", "vote"),
        ("id_str,value,at\nJ0,1,\nJ1,1,3/1/2026\n", "row 2"), ("id_str,value,at\nJ1,1,2999-01-01\n", "future"),
        ("id_str,value,round\nJ1,1,1.5\n", "whole"), ("id_str,value,entry\nJ1,1,4\nJ2,1,4\n", "one number"),
        ("id_str,value,entry,undoes,at\nJ1,,2,1,2026-01-01\n", "takes back"),
        ("id_str,value,entry,undoes,at\nJ1,1,1,,2026-01-01\nJ1,,2,1,\n", "time"),
        ("id_str,value\nJ1,yes\nJ1,no\n", "twice"), ("id_str,value,label\nJ1,yes,a\x1bb\n", "x1b"),
        ("id_str,value,by\nJ1,yes,\n", "by=NAME"), ("", "empty"),
        ("id_str,value\nJ0,5\nJ1,Yes\n", "row 2: an answer in words"),
        ("id_str,value\nJ0,unsure\nJ1,4\n", "row 1: an answer in words"),
        ("id_str,value\nJ0,5\nJ1,y\n", "row 2: an answer in words"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_valid_is_refused_with_its_row_and_nothing_of_it_is_saved(labels, table, text, what):
    with pytest.raises((ConfigError, DataError)) as refused:
        labels.read_table(table(text), by="" if "by" in text else "ann", label="ring")
    assert what in str(refused.value)
    assert "ratings.csv" in str(refused.value)
    assert str(refused.value).isprintable()
    assert labels.log().num_rows == 0


def test_a_file_without_rows_adds_nothing(labels, table):
    assert labels.read_table(table("id_str,value\n")).added == 0


@pytest.mark.parametrize("name", ["nothing.csv", "nothing.parquet", "nothing.json", "notes.docx"])
def test_a_file_that_is_not_there_or_no_table_is_refused(labels, tmp_path, name):
    (tmp_path / "notes.docx").write_text("no table")
    with pytest.raises((DataError, StoreNotFound)):
        labels.read_table(tmp_path / name)


def test_galaxies_that_are_not_in_the_survey_are_refused_or_left_out(tmp_path, table):
    with Labels.open(tmp_path / "known.sqlite", survey=SURVEY, ids=["J1", "J2"]) as labels:
        path = table("id_str,value\nJ1,yes\nJ7,no\nJ8,no\nJ7,no\n")
        with pytest.raises(ConfigError, match="J7, J8") as refused:
            labels.read_table(path, by="ann")
        assert "unknown=skip" in str(refused.value)
        assert labels.log().num_rows == 0
        imported = labels.read_table(path, by="ann", skip_unknown=True)
        assert (imported.added, imported.unknown) == (1, 2)
        assert "2 galaxies" in imported.summary()


def test_a_file_of_another_survey_is_refused(labels, tmp_path):
    with Labels.open(tmp_path / "another.sqlite", survey="another") as another:
        another.add([Rating("J1", "ring", 1, "answer", "ann")])
        another.write_table(tmp_path / "log.parquet")
        another.write_table(tmp_path / "log.csv")
    with pytest.raises(StoreError, match="another survey"):
        labels.read_table(tmp_path / "log.parquet")
    assert labels.read_table(tmp_path / "log.csv").added == 1, "the way out that the message names"


# --- what the atlas saves


def saved(table, **content):
    return table(json.dumps({"rarezoo": "ratings", "schema": 1, **content}), "saved.json")


def test_ratings_that_the_atlas_saved_are_added_once(labels, table):
    rows = [
        {"id_str": "J1", "label": "ring", "value": 1, "kind": "answer", "by": "ann", "at": "2026-03-01T12:30:15.123Z"},
        {"id_str": "J2", "label": "ring", "value": None, "kind": "answer", "by": "ann"},
        {"id_str": "J3", "value": 4.5, "seconds": 2.5},
    ]
    path = saved(table, survey=SURVEY, ratings=rows)
    assert labels.read_table(path, by="bob").added == 3
    assert labels.read_table(path, by="bob").added == 0
    assert labels.interest() == {"J3": 0.9}
    assert labels.interest("ring") == {"J1": 1.0}
    assert labels.people() == ["ann", "bob"]


def test_decisions_are_read_for_the_ratings_in_them(labels, table):
    decisions = {"rarezoo": "decisions", "classes": [{"class_id": 1, "decision": "keep"}]}
    assert labels.read_table(saved(table, **decisions, ratings=[{"id_str": "J1", "value": 5}]), by="ann").added == 1
    with pytest.raises(ConfigError, match="rarezoo classes apply"):
        labels.read_table(saved(table, **decisions), by="ann")


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        ({"rarezoo": "other", "ratings": []}, ConfigError, "no file of ratings"),
        ({"ratings": "J1"}, ConfigError, "no file of ratings"), ({"ratings": [3]}, ConfigError, "row 1"),
        ({"ratings": [], "schema": 2}, ConfigError, "version"), ({"ratings": [], "survey": "x"}, StoreError, "survey"),
        ({"ratings": [{"id_str": "J1", "value": {}}]}, ConfigError, "row 1"),
        ({"ratings": [{"id_str": "J1", "values": 1}]}, ConfigError, "value"),
        ({"ratings": [{"value": 1}]}, ConfigError, "row 1"),
    ],
)  # fmt: skip
def test_a_json_file_of_something_else_is_refused(labels, table, content, error, what):
    with pytest.raises(error, match=what):
        labels.read_table(saved(table, **content), by="ann")
    assert labels.log().num_rows == 0


def test_a_damaged_json_file_is_refused(labels, table):
    with pytest.raises(StoreError, match="damaged"):
        labels.read_table(table('{"rarezoo": "ratings", "sch', "saved.json"))


def test_a_table_of_something_else_is_refused(labels, tmp_path):
    members = pa.table({"id_str": ["J1"], "class_id": [1], "probability": [0.5], "outlier_score": [0.1]})
    pq.write_table(members, tmp_path / "members.parquet")
    with pytest.raises(ConfigError, match="no column value"):
        labels.read_table(tmp_path / "members.parquet", by="ann")


def test_a_wrong_name_of_the_column_of_ids_is_named(labels, table):
    with pytest.raises(DataError, match=r"nope"):
        labels.read_table(table("id_str,value,label\nJ3,yes,\n"), by="bob", label="ring", id_column="nope")
