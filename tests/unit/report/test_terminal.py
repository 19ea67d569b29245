"""What a terminal shows of a search."""

import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.report.cards import classes_table

pytestmark = pytest.mark.unit


def saved(folder, **columns):
    rows = [
        {tables.CLASS_ID: one, tables.SIZE: 30, tables.FRACTION: 0.1, tables.PERSISTENCE: 1.0 + one,
         tables.TOP_ANSWERS: [], **{name: values[one] for name, values in columns.items()}}
        for one in range(3)
    ]  # fmt: skip
    classes = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
    tables.write(classes, folder / "classes.parquet", tables.CLASSES)
    return folder


def cells(table, column):
    """A column of what is shown, by class."""
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[head.index(column)] for row in rows}


def test_classes_come_by_significance_with_their_false_discovery_rate(tmp_path):
    noise = {tables.SIGNIFICANCE: [3.0, None, 9.0], tables.FALSE_DISCOVERY: [0.0321, 0.05, 1e-12]}
    table = classes_table(saved(tmp_path, **noise))
    assert list(cells(table, "false discovery").items()) == [("2", "1e-12"), ("0", "0.032"), ("1", "0.05")]


def test_where_noise_was_not_asked_they_come_by_persistence(tmp_path):
    table = classes_table(saved(tmp_path))
    assert list(cells(table, "false discovery").items()) == [("2", "–"), ("1", "–"), ("0", "–")]
    assert set(cells(table, "stability").values()) == {"not measured"}
