"""What a reader decides in the atlas comes back: through `rarezoo classes apply`, and through cluster.py decisions=."""

import json

import numpy as np
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.searches.decisions import search_key

pytestmark = pytest.mark.pipeline

GALAXIES, WIDTH = 240, 3
# A survey that is not the store's any more, small because it is opened.
ELSEWHERE = {"option": "mock", "n": 8, "side": 32, "workers": 1}
SEARCH = ["compress=none", "compress@drawing=pca", "drawing.n_components=2", "~preset", "clusterer.min_samples=5",
          "clusterer.min_cluster_size=20", "images=false", "logger=none", "stability.refits=0"]  # fmt: skip


def labels(folder):
    members = tables.read(folder / "members.parquet", tables.MEMBERS)
    return members[tables.ID].to_pylist(), members[tables.CLASS_ID].to_numpy()


@pytest.fixture(scope="module")
def home(cli, tmp_path_factory):
    """A search of four groups, and decisions about three of them."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    centres = np.vstack([np.zeros(WIDTH), 9 * np.eye(WIDTH)])
    embeddings = (centres[np.arange(GALAXIES) % 4] + random.normal(size=(GALAXIES, WIDTH))).astype(np.float32)
    manifest = Manifest(
        survey="mock", survey_sha256="s" * 64, survey_settings=ELSEWHERE, checkpoint="b0.v1",
        checkpoint_sha256="c" * 64, precision="float32", width=WIDTH, dtype="float32", rows=GALAXIES,
        shard_rows=GALAXIES, answers=("bar_no", "bar_yes"),
    )  # fmt: skip
    store = EmbeddingStore.create(home / "store", manifest)
    fractions = np.random.default_rng(1).random((GALAXIES, 2)).astype(np.float32)
    store.write_shard(0, ids=[f"g{row:03d}" for row in range(GALAXIES)], embeddings=embeddings, fractions=fractions)
    store.finish()
    cli("cluster.py", "store=store", "out=search", *SEARCH, cwd=home)
    made = [
        {"class_id": 0, "decision": "keep", "name": "arcs"}, {"class_id": 1, "decision": "drop"},
        {"class_id": 2, "decision": "merge", "merge_into": 0},
    ]  # fmt: skip
    content = {"rarezoo": "decisions", "schema": 1, "search": search_key(*labels(home / "search")), "classes": made}
    (home / "decisions.json").write_text(json.dumps(content))
    return home


def check(home, folder):
    before, after = labels(home / "search")[1], labels(folder)[1]
    np.testing.assert_array_equal(after, np.where(before == 1, -1, np.where(before == 2, 0, before)))
    rows = {row[tables.CLASS_ID]: row for row in tables.read(folder / "classes.parquet", tables.CLASSES).to_pylist()}
    assert set(rows) == {0, 3}
    assert rows[0]["name"] == "arcs"
    assert rows[0][tables.SIZE] == int(np.isin(before, (0, 2)).sum())
    assert rows[0][tables.PERSISTENCE] is None
    assert rows[0][tables.TOP_ANSWERS], "computed again from the store"
    assert rows[3][tables.PERSISTENCE] is not None
    assert "Class 0: arcs" in (folder / "report" / "index.html").read_text()
    assert json.loads((folder / "run.json").read_text())["classes"] == 2


def test_classes_apply_makes_a_search_that_other_commands_take(cli, home):
    assert len(set(labels(home / "search")[1]) - {-1}) == 4
    text = cli("rarezoo", "classes", "apply", "search", "decisions.json", "out=decided", cwd=home).text
    assert "4 classes" in text
    assert "2 dropped or merged, 1 named" in text
    check(home, home / "decided")
    assert "| 0 " in cli("rarezoo", "classes", "list", "decided", cwd=home).out
    assert "1 lost" in cli("rarezoo", "classes", "diff", "search", "decided", cwd=home).out


def test_cluster_takes_decisions_of_the_same_search(cli, home):
    cli("cluster.py", "store=store", "out=again", "reuse=search", "decisions=decisions.json", *SEARCH, cwd=home)
    check(home, home / "again")


def test_cluster_takes_decisions_of_the_previous_search(cli, home):
    words = ["previous=search", "decisions=decisions.json"]
    cli("cluster.py", "store=store", "out=later", *words, *SEARCH, cwd=home)
    check(home, home / "later")


def test_decisions_of_another_search_are_refused_in_one_message(cli, home):
    other = [word.replace("size=20", "size=70") for word in SEARCH]
    words = ("store=store", "out=other", "decisions=decisions.json", *other)
    assert "another search" in cli("cluster.py", *words, cwd=home, expect=2).message
    refused = cli("rarezoo", "classes", "apply", "search", cwd=home, expect=2)
    assert "rarezoo classes apply SEARCH FILE" in refused.message
