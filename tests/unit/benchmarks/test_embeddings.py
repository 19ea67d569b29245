"""Tables and the figure of ``python -m benchmarks embeddings``, from a judgement whose values are known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.documents import draw_embeddings
from benchmarks.embeddings import EmbeddingTables, by_answer, by_labels
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


def judged():
    rows = [
        {
            "answer": answer, "positives": 12, "galaxies": 300, "measure": measure, "contestant": contestant,
            "value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.04, "over": "draws",
            "in_sample": contestant == "net" and answer == "odd",
        }
        for answer in ("ring", "odd")
        for measure in ("like this", "10-shot", "probe")
        for contestant in ("photometry", "net")
        if (answer, measure) != ("odd", "10-shot")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_table_has_a_row_per_measure_and_contestant_and_a_column_per_answer():
    table = by_answer(judged(), {"net": "our network"})
    assert table.columns.tolist() == ["measure", "contestant", "ring", "odd"]
    rows = table.to_numpy().tolist()
    assert rows[0] == ["galaxies of the kind", "", "12 of 300", "12 of 300"]
    assert rows[1] == ["like this", "chance", "0.040", "0.040"]
    assert rows[3] == ["like this", "our network", "0.500 (0.400–0.600)", "0.500 (0.400–0.600) *"]
    assert rows[5] == ["10-shot", "photometry", "0.500 (0.400–0.600)", "–"]
    assert [row[0] for row in rows[1:]] == sorted(
        (row[0] for row in rows[1:]), key=("like this", "10-shot", "probe").index
    )


def test_the_curve_has_a_column_per_number_of_labels():
    table = judged().replace({"measure": {"like this": "5 labels: AUC", "10-shot": "13 labels: AUC"}})
    curve = by_labels(table[table["measure"].str.contains("labels")], {"net": "our network"})
    assert curve.columns.tolist() == ["answer", "contestant", "5 labels", "13 labels"]
    assert curve.to_numpy().tolist()[-1] == ["odd", "our network", "0.500 (0.400–0.600)", "–"]


def test_the_figure_has_a_panel_per_answer_also_where_something_was_not_measured(tmp_path):
    by_answer(judged(), {}).to_csv(tmp_path / "table.csv", index=False)
    draw_embeddings(tmp_path / "table.csv", tmp_path / "figure.webp")
    drawn = np.asarray(Image.open(tmp_path / "figure.webp").convert("L"))
    assert drawn.shape[1] > 800
    assert drawn.std() > 5


def test_another_number_of_names_than_stores_is_refused():
    with pytest.raises(ConfigError, match="1 names, 2 stores"):
        EmbeddingTables(stores=["a", "b"], name="table", names=["one"])


@pytest.mark.parametrize("names", [["same", "same"], ["mine", "photometry"], ["chance", "mine"]])
def test_names_that_two_rows_would_share_are_refused(names):
    with pytest.raises(ConfigError, match=r"a name of its own: names=(same|photometry|chance)\."):
        EmbeddingTables(stores=["a", "b"], name="table", names=names)
