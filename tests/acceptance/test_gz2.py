"""Real galaxies: the three doors on Galaxy Zoo 2, small enough for a laptop. `make accept` says where they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo.data.duplicates import fingerprints, near_identical
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.surveys.gz2 import FOLDER_VARIABLE, Gz2
from rarezoo.embeddings.judge import judge
from rarezoo.training.metrics import QuestionMetrics, galaxy_scores, predictions
from rarezoo.zoo.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get(FOLDER_VARIABLE) or ROOT.parent / "shared" / "data" / "gz2").resolve()
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (FOLDER / "catalogue.csv").is_file(),
        reason=f"NO REAL GALAXIES TESTED: no Galaxy Zoo 2 sample at {FOLDER}; set {FOLDER_VARIABLE}",
    ),
]
SAMPLE = ["data=gz2", f"data.folder={FOLDER}", "data.limit=6000"]


@pytest.fixture(scope="module")
def galaxies():
    return Gz2(folder=str(FOLDER)).open()


def test_the_sample_is_what_its_description_says(galaxies):
    assert len(galaxies) == 35651
    asked = galaxies.tree.asked(galaxies.votes)
    names = [question.name for question in galaxies.tree.questions]
    assert asked[:, names.index("smooth-or-featured-gz2")].sum() == 5061
    assert asked[:, names.index("bar-gz2")].sum() == 1064
    assert asked[:, names.index("class5")].sum() == 28793
    assert not any("odd" in answer for answer in galaxies.tree.answers)
    assert "Class8.1" in galaxies.catalogue.column_names
    assert galaxies.catalogue["c5"].to_pylist().count("odd") == 917


def test_counts_give_back_the_fractions_multiplied_down_the_tree(galaxies):
    tree, votes = galaxies.tree, galaxies.votes
    joint = tree.joint_fractions(tree.fractions(votes))
    published = galaxies.catalogue["Class4.1"].to_numpy()
    ours = joint[:, tree.answers.index("has-spiral-arms-gz2_yes")]
    both = np.isfinite(published) & np.isfinite(ours)
    assert both.sum() > 400
    # Class4 stands below "not edge-on" in the sample's table, directly below "featured" in zoobot's tree.
    not_edge_on = tree.fractions(votes)[:, tree.answers.index("disk-edge-on-gz2_no")]
    np.testing.assert_allclose((ours * not_edge_on)[both], published[both], atol=0.06)


def test_no_two_images_of_the_sample_are_near_identical(galaxies, tmp_path):
    groups = near_identical(fingerprints(galaxies.images, len(galaxies), cache=tmp_path / "prints.npy"))
    assert len(np.unique(groups)) == len(galaxies)


def run(*words, cwd):
    done = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:]], cwd=cwd, capture_output=True, text=True, timeout=1700
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gz2")
    quick = ["model.input_size=64", "train.epochs=3", "train.batch_size=64", "logger=none"]
    run("train.py", *SAMPLE, *quick, "out=net", cwd=folder)
    run("embed.py", *SAMPLE, "checkpoint=net", "out=store", cwd=folder)
    few = ["significance.surveys=5", "stability.refits=0"]
    run("cluster.py", "store=store", "preset=small", *few, "out=found", "logger=none", cwd=folder)
    return folder


def test_a_short_training_beats_the_mean_where_hundreds_of_galaxies_were_asked_and_volunteers_agree(home):
    rows = json.loads((home / "net" / "card.json").read_text())["metrics"]
    measured = {row["question"]: row for row in rows if row["galaxies"] >= 100}
    assert {"smooth-or-featured-gz2", "disk-edge-on-gz2", "class5"} <= set(measured)
    better = [name for name, row in measured.items() if row["loss"] < row["mean_loss"]]
    assert {"class5", "smooth-or-featured-gz2"} <= set(better), measured
    assert measured["class5"]["loss"] < 0.9 * measured["class5"]["mean_loss"]


def test_the_released_checkpoint_predicts_as_its_card_says(galaxies):
    checkpoint = Checkpoint.open("efficientnet_b0.gz2", root=ROOT / "checkpoints")
    asked = np.flatnonzero(galaxies.votes[:, -5:].sum(axis=1) > 0)
    rows = np.intersect1d(galaxies.rows("test"), asked)
    loader = CutoutLoader(galaxies, rows, view=checkpoint.view, batch_size=256, workers=2)
    said = predictions(checkpoint.network, loader)
    scores = galaxy_scores(said.concentrations, said.votes, checkpoint.tree)[-1]
    measured = QuestionMetrics.of(checkpoint.tree.questions[-1].name, scores)
    result = checkpoint.card["metrics"][-1]
    assert (measured.question, measured.galaxies) == (result["question"], result["galaxies"])
    # The card was measured before the weights were halved.
    assert measured.loss == pytest.approx(result["loss"], rel=0.02)


def test_embeddings_hold_every_galaxy_and_differ(home):
    table = pq.read_table(sorted((home / "store").glob("shard-*.parquet")))
    assert table.num_rows == 6000
    embeddings = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    assert np.isfinite(embeddings).all()
    assert np.linalg.matrix_rank(embeddings) >= 8


def test_a_search_of_real_galaxies_ends_in_a_page(home):
    classes = pq.read_table(home / "found" / "classes.parquet")
    page = (home / "found" / "report" / "index.html").read_text()
    assert classes.num_rows >= 1
    assert "gz2" in page


def test_odd_galaxies_that_the_network_was_not_told_of_are_found_better_than_by_chance(home):
    judgement = judge(home / "store", measures=["like_this", "probe"], cache=str(home / "kept"))
    assert judgement.in_sample == frozenset()
    probes = judgement.table().query("measure == 'probe'").set_index(["answer", "contestant"])
    assert {"ring", "merger", "irregular", "odd", "odd_c5"} <= set(probes.index.get_level_values("answer"))
    for contestant in ("photometry", "net"):
        for answer in ("odd", "odd_c5"):
            assert probes.low[answer, contestant] > probes.chance[answer, contestant], (answer, contestant)
    # Most galaxies have no votes, but nearly all have the largest fraction of their full votes.
    assert probes.galaxies["odd", "net"] < 1200 < 5000 < probes.galaxies["odd_c5", "net"]
