"""What a notebook shows of a search: no text is taken for HTML, and colours are those of the report."""

import numpy as np
import pyarrow as pa
import pytest
from made_up import made_up_search
from matplotlib.colors import to_hex

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.report import palette
from rarezoo.report.notebook import classes_frame, classes_html, map_figure

pytestmark = pytest.mark.unit

IDS = ["a", "b", "c", "d"]
LABELS = np.array([0, 0, 9, -1], dtype=np.int32)


@pytest.fixture
def search(tmp_path):
    rows = [
        {tables.CLASS_ID: class_id, tables.SIZE: size, tables.TOP_ANSWERS: ["<b>bar</b>"], tables.EXEMPLARS: IDS[:1],
         tables.CAUSE: "<script>"}
        for class_id, size in ((0, 2), (9, 1))
    ]  # fmt: skip
    members = {
        tables.ID: IDS, tables.CLASS_ID: LABELS, tables.PROBABILITY: np.ones(4, "f4"),
        tables.OUTLIER_SCORE: np.zeros(4, "f4"),
    }  # fmt: skip
    return made_up_search(
        tmp_path / "found",
        members=pa.table(members),
        classes=pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        tree=pa.Table.from_pylist([], pa.schema(list(tables.TREE.columns.items()))),
        # In another order than the members.
        map_2d=pa.table({tables.ID: IDS[::-1], tables.POSITION: tables.vectors(np.eye(4, 2, dtype="f4"))}),
        predictions=pa.table({tables.ID: IDS, "bar_strong_fraction": np.array([0.1, 0.2, 0.3, 0.4], "f4")}),
        cutouts=lambda ids: [np.full((20, 20, 3), 90, np.uint8) for _ in ids],
        about={},
    )


def test_the_table_of_classes_has_a_picture_of_each_and_no_foreign_html(search):
    shown = classes_html(search)
    assert shown.count("<img ") == 2
    assert "<script>" not in shown
    assert "<b>bar" not in shown
    assert "&lt;b&gt;bar" in shown


def test_the_table_of_classes_is_in_the_order_of_their_ranks_with_the_grade(search):
    assert "grade" not in classes_frame(search)
    classes = search.table("classes")
    for name, values in ((tables.GRADE, ["candidate", "significant"]), (tables.RANK, [2, 1])):
        kind = tables.CLASSES.columns[name]
        classes = classes.set_column(classes.column_names.index(name), name, pa.array(values, kind))
    search._tables["classes"] = classes
    frame = classes_frame(search)
    assert frame.index.tolist() == [9, 0]
    assert frame["grade"].tolist() == ["significant", "candidate"]
    assert [found.id for found in search] == [0, 9]
    assert "1 significant class, 1 candidate among" in repr(search)
    assert search[0].grade == "candidate"
    assert repr(search[0]).endswith("candidate>")


def test_a_notebook_shows_the_map_although_pyplot_did_not_make_it(search):
    assert map_figure(search)._repr_png_().startswith(b"\x89PNG")


def test_the_map_has_the_colours_of_the_report(search):
    grey, coloured = map_figure(search).axes[0].collections
    assert len(grey.get_offsets()) == 1
    # Map order is d, c, b, a.
    assert [to_hex(colour) for colour in coloured.get_facecolors()] == [palette.LIGHT[1], *[palette.LIGHT[0]] * 2]


def test_the_map_is_coloured_by_an_answer_in_its_own_order(search):
    (points,) = map_figure(search, "bar_strong").axes[0].collections
    np.testing.assert_allclose(points.get_array(), [0.4, 0.3, 0.2, 0.1])


def test_a_column_without_numbers_is_refused(search):
    search._store = type("Store", (), {"manifest": type("Manifest", (), {"answers": ("bar_strong",)})()})()
    with pytest.raises(ConfigError, match=r"image_name.*bar_strong"):
        map_figure(search, "image_name")
