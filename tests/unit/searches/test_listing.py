"""The list of classes in a terminal."""

import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.searches.listing import ListRun

pytestmark = pytest.mark.unit


def saved(folder, **columns):
    rows = [
        {tables.CLASS_ID: number, tables.SIZE: 30, tables.FRACTION: 0.1, tables.PERSISTENCE: 1.0 + number,
         tables.TOP_ANSWERS: [], **{name: values[number] for name, values in columns.items()}}
        for number in range(3)
    ]  # fmt: skip
    classes = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
    tables.write(classes, folder / "classes.parquet", tables.CLASSES)
    tables.write_json({"settings": {}}, folder / "run.json")
    return folder


def cells(table, column):
    """Return one column of the table, by class."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[head.index(column)] for row in rows}


def test_classes_are_listed_by_significance_with_their_false_discovery_rate(tmp_path):
    noise = {tables.SIGNIFICANCE: [3.0, None, 9.0], tables.FALSE_DISCOVERY: [0.0321, 0.05, 1e-12]}
    table = ListRun(search=str(saved(tmp_path, **noise))).run()
    assert list(cells(table, "false discovery").items()) == [("2", "1e-12"), ("0", "0.032"), ("1", "0.05")]


def test_classes_without_significance_are_listed_by_persistence(tmp_path):
    table = ListRun(search=str(saved(tmp_path))).run()
    assert list(cells(table, "false discovery").items()) == [("2", "–"), ("1", "–"), ("0", "–")]
    assert set(cells(table, "stability").values()) == {"not measured"}


def test_classes_with_ranks_are_listed_by_rank_with_their_grade(tmp_path):
    grades = {
        tables.RANK: [3, 1, 2], tables.GRADE: ["candidate", "significant and stable", None],
        tables.SIGNIFICANCE: [9.0, 1.0, 2.0],
    }  # fmt: skip
    table = ListRun(search=str(saved(tmp_path, **grades))).run()
    assert list(cells(table, "grade").items()) == [("1", "significant and stable"), ("2", "–"), ("0", "candidate")]
