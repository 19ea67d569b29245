"""Decisions about classes: read from JSON and CSV, refused if they are not valid, applied to the tables of a search."""

import json

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.decisions import ApplyRun, Decisions, apply_decisions, search_key
from rarezoo.searches.result import FREE

pytestmark = pytest.mark.unit

IDS = [f"g{row:02d}" for row in range(20)]
LABELS = np.repeat([-1, 0, 1, 2], 5).astype(np.int32)
KEY = search_key(IDS, LABELS)
HEAD = "search,class_id,size,decision,name,merge_into\n"


def members():
    strengths = np.where(LABELS >= 0, 0.5, 0).astype(np.float32)
    columns = {tables.ID: IDS, tables.CLASS_ID: LABELS, tables.PROBABILITY: strengths, tables.OUTLIER_SCORE: strengths}
    return pa.table(columns)


def classes():
    rows = [
        {tables.CLASS_ID: class_id, tables.NODE: 21 + class_id, tables.SIZE: 5, tables.FRACTION: 0.25,
         tables.BIRTH: 1.0, tables.DEATH: 2.0, tables.PERSISTENCE: 0.7, tables.EXEMPLARS: [IDS[5 * class_id + 5]],
         tables.TOP_ANSWERS: [], tables.FLAGS: [], tables.ISOLATION: 0.5, tables.P_VALUE: 0.01,
         tables.FALSE_DISCOVERY: 0.01, tables.GROUP: 20}
        for class_id in range(3)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))


def positions():
    return np.column_stack([np.arange(20), np.zeros(20)]).astype(np.float32)


def saved(folder, *made, search=KEY):
    path = folder / "decisions.json"
    path.write_text(json.dumps({"rarezoo": "decisions", "schema": 1, "search": search, "classes": list(made)}))
    return path


def merge(class_id, into):
    return {"class_id": class_id, "decision": "merge", "merge_into": into}


def applied(folder, *made):
    decisions = Decisions.read(saved(folder, *made))
    return apply_decisions(decisions, members=members(), classes=classes(), positions=positions())


def test_members_of_dropped_classes_are_in_no_class_and_others_stay(tmp_path):
    after = applied(tmp_path, {"class_id": 1, "decision": "drop"}, {"class_id": 2, "decision": "keep", "name": "rings"})
    labels = after.members[tables.CLASS_ID].to_numpy()
    np.testing.assert_array_equal(labels, np.where(LABELS == 1, -1, LABELS))
    assert not np.any(after.members[tables.PROBABILITY].to_numpy()[labels < 0])
    rows = after.classes.to_pylist()
    assert [(row["class_id"], row["name"], row["decision"]) for row in rows] == [(0, "", ""), (2, "rings", "keep")]
    assert rows[0][tables.PERSISTENCE] == 0.7


def test_merged_classes_are_measured_again(tmp_path):
    after = applied(
        tmp_path,
        merge(0, 1),
        merge(1, 2),
    )
    (row,) = after.classes.to_pylist()
    assert (row[tables.CLASS_ID], row[tables.SIZE], row[tables.FRACTION], row["decision"]) == (2, 15, 0.75, "merged")
    assert row[tables.EXEMPLARS][0] == "g12", "the medoid of all fifteen"
    assert row[tables.PERSISTENCE] is None
    assert row[tables.NODE] is None
    assert [row[name] for name in (tables.ISOLATION, tables.P_VALUE, tables.FALSE_DISCOVERY, tables.GROUP)] == [
        None
    ] * 4
    assert set(after.members[tables.CLASS_ID].to_pylist()) == {-1, 2}


def test_a_merged_class_has_no_grade_and_ranks_have_no_gap(tmp_path):
    grades, ranks = pa.array(["candidate", "significant", "significant and stable"]), pa.array([3, 2, 1], pa.int32())
    before = classes()
    for name, values in ((tables.GRADE, grades), (tables.RANK, ranks)):
        before = before.set_column(before.column_names.index(name), name, values)

    def decide(*made):
        decisions = Decisions.read(saved(tmp_path, *made))
        return apply_decisions(decisions, members=members(), classes=before, positions=positions()).classes

    after = decide({"class_id": 2, "decision": "drop"})
    assert after[tables.RANK].to_pylist() == [2, 1]
    after = decide(merge(1, 2))
    assert after.select([tables.CLASS_ID, tables.GRADE, tables.RANK]).to_pylist() == [
        {"class_id": 0, "grade": "candidate", "rank": 1}, {"class_id": 2, "grade": None, "rank": 2},
    ]  # fmt: skip


def test_a_class_merged_into_a_dropped_class_is_dropped(tmp_path):
    after = applied(tmp_path, merge(0, 1), {"class_id": 1, "decision": "drop"})
    assert after.classes[tables.CLASS_ID].to_pylist() == [2]


def test_csv_and_json_hold_the_same_decisions(tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text(HEAD + f'{KEY},0,5,merge,"arcs, ""thin""",2\n{KEY},1,5,drop,,\n', encoding="utf-8")
    made = (
        {"class_id": 0, "decision": "merge", "name": 'arcs, "thin"', "merge_into": 2},
        {"class_id": 1, "decision": "drop"},
    )
    assert Decisions.read(path) == Decisions.read(saved(tmp_path, *made))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"class_id": 9, "decision": "drop"}], r"does not have: \[9\].*0, 1, 2"),
        ([merge(0, 7)], r"does not have: \[7\]"),
        ([merge(0, 1), merge(1, 0)], "circle"),
        ([{"class_id": 0, "decision": "burn"}], r"class 0.*: burn\. Write keep, drop, or merge"),
        ([{"class_id": 0, "decision": "merge"}], r"class 0.*: merge\."),
        ([{"class_id": 0, "decision": "keep", "merge_into": 1}], r"class 0.*: keep\."),
        ([{"class_id": 0}, {"class_id": 0}], r"more than one decision.*: \[0\]"),
        ([{"decision": "keep"}], "not a decision"),
        ([{"class_id": 1.5, "decision": "keep"}], "not a decision"),
        ([{"class_id": True, "decision": "keep"}], "not a decision"),
        ([{"class_id": "1_0", "decision": "keep"}], "not a decision"),
        (["keep"], "not a decision: keep"),
    ],
)  # fmt: skip
def test_decisions_that_are_not_valid_are_refused(tmp_path, made, message):
    with pytest.raises(ConfigError, match=message):
        applied(tmp_path, *made)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rarezoo": "decisions", "schema": 2, "classes": []}', "class_id\n1", "[" * 99_999]
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "decisions.json").write_text(text)
    with pytest.raises(ConfigError, match="no file of decisions"):
        Decisions.read(tmp_path / "decisions.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_decisions_that_a_spreadsheet_saved_are_read(tmp_path, encoding):
    path = tmp_path / "decisions.csv"
    path.write_bytes((HEAD + f'{KEY}, 0 ,5,keep,"two\nlines",\r\n,,,,,\r\n').encode(encoding))
    assert [(item.class_id, item.name) for item in Decisions.read(path).items] == [(0, "two\nlines")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + f"{KEY},0,5,merge,arcs, thin,2\n", "more cells than the header"),
        (HEAD + f"{KEY},1_0,5,keep,,\n", "not a decision"),
        (HEAD + f"{KEY},1.5,5,keep,,\n", "not a decision"),
        (HEAD + "x" * 200_000 + "\n", "no file of decisions"),
        (b"\xff\xfe\0", "no file of decisions"),
    ],
)
def test_csv_files_that_hold_no_certain_decisions_are_refused(tmp_path, content, message):
    path = tmp_path / "decisions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        Decisions.read(path)


def test_key_depends_on_the_classes_and_not_on_the_order(tmp_path):
    assert search_key(IDS[::-1], LABELS[::-1]) == KEY
    assert search_key(IDS, np.roll(LABELS, 1)) != KEY
    assert len(KEY) == 16


def finished(folder):
    """Write the folder of a search whose embedding store does not exist any more."""
    kept = {
        "settings": {"store": str(folder / "gone"), "seed": 0}, "survey": "mock", "survey_sha256": "s",
        "checkpoint": "net", "checkpoint_sha256": "c",
    }  # fmt: skip
    tables.write(members(), folder / "members.parquet", tables.MEMBERS, **kept)
    tables.write(classes(), folder / "classes.parquet", tables.CLASSES, **{FREE: 3}, **kept)
    drawn = pa.table({tables.ID: IDS, tables.POSITION: tables.vectors(positions())})
    for name in ("map", "map_2d"):
        tables.write(drawn, folder / f"{name}.parquet", tables.MAP)
    tree = {tables.PARENT: [20] * 3, tables.CHILD: [21, 22, 23], tables.LAMBDA: [1.0] * 3, tables.CHILD_SIZE: [5] * 3}
    tables.write(pa.table(tree), folder / "tree.parquet", tables.TREE)
    tables.write_json({**kept, "title": "twenty", "classes": 3}, folder / "run.json")
    return folder


def apply(search, file, out=""):
    return ApplyRun(search=str(search), file=str(file), out=str(out)).run()


def test_applied_decisions_make_a_search(tmp_path, caplog):
    source = finished(tmp_path / "search")
    made = ({"class_id": 0, "decision": "drop"}, {"class_id": 1, "decision": "merge", "merge_into": 2, "name": ""})
    applied = apply(source, saved(tmp_path, *made, {"class_id": 2, "name": "rings"}))
    first, page = applied.summary().splitlines()
    assert first == "3 classes of 15 galaxies before, 1 of 10 now; 2 dropped or merged, 1 named"
    assert "answers of merged classes are left empty" in caplog.text
    folder = source / "decided"
    assert page == str(folder / "report" / "index.html")
    after = tables.read(folder / "classes.parquet", tables.CLASSES)
    assert after["name"].to_pylist() == ["rings"]
    assert tables.provenance(after)[FREE] == 3, "no id is used twice"
    assert "Class 2: rings" in (folder / "report" / "index.html").read_text()
    assert json.loads((folder / "run.json").read_text())["classes"] == 1
    again = apply(folder, saved(tmp_path, search=""))
    assert again.summary().startswith("1 classes of 10 galaxies before, 1 of 10 now")


def test_decisions_about_another_search_are_refused(tmp_path):
    source = finished(tmp_path / "search")
    with pytest.raises(ConfigError, match=r"about another search.*0123456789abcdef"):
        apply(source, saved(tmp_path, search="0123456789abcdef"))
    with pytest.raises(ConfigError, match=r"overwrite the search itself.*out=DIR"):
        apply(source, saved(tmp_path), out=source)
    with pytest.raises(StoreError, match="no finished search"):
        apply(tmp_path, saved(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", b'{"rarezoo": "decisions", "schema": 1, "classes": [{"class_id": 1e999}]}'),
        ("d.json", b'{"rarezoo": "decisions", "schema": 1, "classes": [{"class_id": 0.5}]}'),
        ("d.json", b'{"rarezoo": "decisions", "schema": 1, "classes": [{"class_id": true}]}'),
        ("d.json", b'{"rarezoo": "decisions", "schema": 1, "classes": [{"class_id": 1, "name": "\\ud800"}]}'),
        ("d.json", b"[" * 200_000),
        ("d.json", b"null"),
        ("d.csv", f"{HEAD}{KEY},0,5,keep,{'x' * 200_000},\n".encode()),
        ("d.csv", f"{HEAD}{KEY},0,5,ke\0ep,,\n".encode()),
        ("d.csv", b"\xff\xfe" + HEAD.encode("utf-16-le")),
    ],
)
def test_damaged_and_hostile_files_are_refused_with_a_message(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError):
        Decisions.read(tmp_path / name)


def test_a_csv_file_that_a_spreadsheet_saved_is_read(tmp_path):
    (tmp_path / "d.csv").write_text(f"{HEAD}{KEY},0,5,keep,rings,\r\n", encoding="utf-8-sig", newline="")
    assert Decisions.read(tmp_path / "d.csv").names == {0: "rings"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", '{"class_id": 1, "decision": "drop", "class_id": 2}', r"occurs twice: \['class_id'\]"),
        ("d.json", '{"class_id": 1, "decison": "drop"}', "no such column or key: decison. Did you mean decision"),
        ("d.json", '{"class_id": 1, "Decision": "drop"}', "no such column or key: Decision"),
        ("d.csv", "class_id,decision,Decision\n1,drop,keep\n", r"occurs twice: \['decision'\]"),
        ("d.csv", "", "it is empty"),
        ("d.csv", "class_id,decisions\n1,drop\n", "no such column or key: decisions"),
    ],
)
def test_a_column_that_would_not_be_read_is_refused(tmp_path, name, content, message):
    whole = content if name == "d.csv" else f'{{"rarezoo": "decisions", "schema": 1, "classes": [{content}]}}'
    (tmp_path / name).write_text(whole)
    with pytest.raises(ConfigError, match=message):
        Decisions.read(tmp_path / name)


def test_case_and_spaces_in_a_csv_file_of_decisions_do_not_matter(tmp_path):
    (tmp_path / "d.csv").write_text("Class_ID, Decision, Name, Notes\n1, Drop, thin arcs, see below\n")
    (decision,) = Decisions.read(tmp_path / "d.csv").items
    assert (decision.class_id, decision.decision, decision.name) == (1, "drop", "thin arcs")
