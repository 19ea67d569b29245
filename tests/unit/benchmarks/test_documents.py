"""Tables in the documentation are those of the files of results."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.documents import RESULTS, draw_scores, with_tables
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit
DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_tables_in_the_documentation_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m benchmarks documents"


def test_a_table_is_filled_from_its_file():
    page = "<!-- table: null_skies_500 | method | skies -->\nold\n<!-- end of table -->"
    lines = with_tables(page).splitlines()
    assert lines[0] == page.splitlines()[0]
    assert "ours: preset=multiscale" in lines[3]
    assert "old" not in lines


@pytest.mark.parametrize("table", ["no_such_file", "null_skies_500 | no such column"])
def test_a_table_that_does_not_exist_is_refused(table):
    with pytest.raises(DataError, match="no such"):
        with_tables(f"<!-- table: {table} -->\n<!-- end of table -->")


def test_scores_are_drawn_with_one_row_per_method(tmp_path):
    draw_scores(RESULTS / "galaxies_50000_scores.csv", tmp_path / "scores.webp")
    with Image.open(tmp_path / "scores.webp") as figure:
        assert figure.width > 800


def test_the_highest_discovery_is_at_the_top_and_a_ranking_has_no_classes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), Path(path).write_bytes(b""))
    )
    (tmp_path / "scores.csv").write_text(
        "method,discovery,found,impure,pieces\n"
        "ours: the default,0.70 (0.60–0.80),3.0 (2.0–4.0),1.0 (1.0–1.0),0.0 (0.0–0.0)\n"
        "a ranking,0.80 (0.70–0.90),–,–,–\n"
        "one sky,0.10,1.0,2.0,3.0\n"
        "failed,–,–,–,–\n"
    )
    draw_scores(tmp_path / "scores.csv", tmp_path / "scores.webp")
    discovery, found, false = drawn[0].axes
    assert [label.get_text() for label in discovery.get_yticklabels()] == ["one sky", "ours: the default", "a ranking"]
    assert [tuple(map(float, point)) for point in discovery.collections[1].get_offsets()] == [
        (0.1, 0),
        (0.7, 1),
        (0.8, 2),
    ]
    assert found.collections[1].get_offsets()[:2, 0].tolist() == [1, 3]
    assert false.collections[0].get_offsets()[:2, 0].tolist() == [5, 1]
