"""The figure of how classes were chosen, and the table that it is drawn from."""

import numpy as np
import pyarrow as pa
import pytest
from made_up import write_report
from PIL import Image

from rarezoo import tables
from rarezoo.report.evidence import draw_evidence
from rarezoo.searches.isolation import NodeTree
from rarezoo.searches.null_surveys import NullSurveys
from rarezoo.searches.significance import Significance, TreeScores

pytestmark = pytest.mark.unit
GALAXIES, NODES = 2000, 60


def drawn_scores(*, isolated=0.9, rows=50):
    """A survey whose tree has 60 nodes of 20 galaxies below the root, two of them isolated, and ten null surveys."""
    random = np.random.default_rng(0)
    surveys = [
        np.stack([np.full(NODES, -1.0), np.full(NODES, 20.0), random.uniform(0.1, 0.3, NODES)]) for _ in range(10)
    ]
    parents = np.append(-1, np.zeros(NODES, dtype=np.int64))
    homes = np.append(np.repeat(np.arange(1, NODES + 1), 20), np.zeros(GALAXIES - 20 * NODES, dtype=np.int64))
    tree = NodeTree(parents, homes)
    shares = random.uniform(0.1, 0.3, NODES + 1)
    shares[[5, 9]] = isolated
    inside = random.random((GALAXIES, 100)) < shares[homes][:, None]
    members = {node: np.flatnonzero(homes == node) for node in range(NODES + 1)}
    own = np.array([random.choice(members[node], 100) for node in homes])
    other = np.array([random.choice(members[(node + 1) % (NODES + 1)], 100) for node in homes])
    graph = np.where(inside, own, other).astype(np.int32)
    return TreeScores(tree, np.ones(GALAXIES), graph, NullSurveys.of(GALAXIES, surveys), Significance(rows=rows))


def test_the_table_holds_the_nodes_of_the_survey_and_those_of_null_surveys():
    scores = drawn_scores()
    nodes = tables.check(scores.table(), tables.NODES).to_pandas()
    survey = nodes[nodes["null_survey"].isna()]
    assert survey["node"].tolist() == list(range(GALAXIES + 1, GALAXIES + NODES + 1))
    np.testing.assert_allclose(survey["significance"], scores.scores[1:])
    chosen = survey.loc[survey["is_candidate"], "node"] - GALAXIES
    assert sorted(chosen) == sorted(scores.candidates)
    null = nodes[nodes["null_survey"].notna()]
    assert null.groupby("null_survey").size().tolist() == [NODES] * 10
    assert null["node"].isna().all()


def test_scores_are_excesses_over_what_is_usual_in_units_of_the_scatter():
    scores = drawn_scores()
    survey = scores.table().to_pandas().query("null_survey.isna()")
    excess = scores.common_excess(survey["size"].to_numpy())
    logits = survey["usual"] + survey["scatter"] * (survey["significance"] + excess)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), survey["isolation"], atol=0.005)


@pytest.mark.parametrize("isolated", [0.9, 0.2], ids=["two significant", "none significant"])
def test_the_evidence_is_drawn(tmp_path, isolated):
    scores = drawn_scores(isolated=isolated)
    assert len(scores.significant) == (2 if isolated > 0.5 else 0)
    paths = [tmp_path / "a.webp", tmp_path / "b.webp"]
    assert all(draw_evidence(scores.table(), path, level=0.05) for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as figure:
        assert figure.width > 900


def test_nothing_is_drawn_where_no_candidate_has_a_score(tmp_path):
    nodes = drawn_scores().table()
    empty = nodes.filter(nodes["null_survey"].is_valid())
    assert not draw_evidence(empty, tmp_path / "a.webp", level=0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def parts():
    """The tables of a search with one class."""
    ids = [f"g{row}" for row in range(40)]
    labels = np.repeat([0, -1], 20).astype(np.int32)
    row = {
        "class_id": 0, "node": GALAXIES + 5, "size": 20, "fraction": 0.5, "lambda_birth": 1.0, "lambda_death": 2.0,
        "persistence": 0.7, "significance": 9.0, "top_answers": [], "exemplars": ids[:5], "flags": [],
    }  # fmt: skip
    places = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    members = {"id_str": ids, "class_id": labels, "probability": np.ones(40, "f4"), "outlier_score": np.zeros(40, "f4")}
    return {
        "members": pa.table(members), "predictions": pa.table({"id_str": ids}), "cutouts": None,
        "classes": pa.Table.from_pylist([row], pa.schema(list(tables.CLASSES.columns.items()))),
        "tree": pa.table({"parent": [40], "child": [GALAXIES + 5], "lambda_val": [1.0], "child_size": [20]}),
        "map_2d": pa.table({"id_str": ids, "position": tables.vectors(places)}),
    }  # fmt: skip


@pytest.mark.parametrize(("selection", "shown"), [("isolated", True), ("leaf", False)])
def test_the_evidence_is_on_the_pages_where_null_surveys_chose_the_classes(tmp_path, parts, selection, shown):
    about = {"title": "a sky", "settings": {"clusterer": {"selection": selection}, "seed": 0}}
    index = write_report(tmp_path / "report", about=about, nodes=drawn_scores().table(), **parts)
    assert ("images/evidence.webp" in index.read_text()) is shown
    assert ("index.html#chosen" in (index.parent / "class-000.html").read_text()) is shown
    assert (index.parent / "images" / "evidence.webp").exists() is shown
