"""cluster.py preset=multiscale: planted groups are found, nothing is found in noise, and killed searches go on."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest

pytestmark = pytest.mark.pipeline

GALAXIES, WIDTH = 1200, 16
MEMBERS = (120, 60, 30)
PLANTED = np.repeat([0, 1, 2, -1], [*MEMBERS, GALAXIES - sum(MEMBERS)])
IDS = [f"g{row:04d}" for row in range(GALAXIES)]
SEARCH = [
    "preset=multiscale", "compress@drawing=pca", "drawing.n_components=2", "images=false", "beyond=false",
    "stability.refits=0", "logger=none",
]  # fmt: skip
QUICK = ["significance.surveys=8", "significance.galaxies=600"]


def sky():
    """A normal bulk of few dimensions with three tight groups; one with corners may have clumps of its own."""
    random = np.random.default_rng(0)
    bulk = random.normal(size=(GALAXIES, 6)) @ random.normal(size=(6, WIDTH)) / 4
    embeddings = bulk + 0.3 * random.normal(size=(GALAXIES, WIDTH))
    for group, members in enumerate(MEMBERS):
        centre = bulk[random.integers(GALAXIES)] + 0.5 * random.normal(size=WIDTH)
        embeddings[group == PLANTED] = centre + 0.15 * random.normal(size=(members, WIDTH))
    return embeddings.astype(np.float32)


def shuffled(embeddings):
    """Every column's values in an order of their own."""
    return np.random.default_rng(1).permuted(embeddings, axis=0)


def store(folder, embeddings):
    answers = ("smooth-or-featured_smooth", "smooth-or-featured_featured")
    manifest = Manifest(
        survey="none", survey_sha256="0", survey_settings={}, checkpoint="efficientnet_b0.test", checkpoint_sha256="0",
        precision="float32", width=WIDTH, dtype="float32", rows=GALAXIES, shard_rows=2000, answers=answers,
    )  # fmt: skip
    fractions = np.full((GALAXIES, 2), 0.5, np.float32)
    EmbeddingStore.create(folder, manifest).write_shard(0, ids=IDS, embeddings=embeddings, fractions=fractions)


@pytest.fixture(scope="module")
def home(cli, tmp_path_factory):
    """A store with planted groups, searched; and one without."""
    folder = tmp_path_factory.mktemp("isolated")
    store(folder / "planted", sky())
    store(folder / "noise", shuffled(sky()))
    cli("cluster.py", "store=planted", *SEARCH, *QUICK, "out=found", cwd=folder)
    return folder


def test_planted_groups_are_the_classes(home):
    members = pq.read_table(home / "found" / "members.parquet")
    assert members[tables.ID].to_pylist() == IDS
    labels = members[tables.CLASS_ID].to_numpy()
    classes = pq.read_table(home / "found" / "classes.parquet").to_pylist()
    for number in range(len(MEMBERS)):
        inside = labels[(number == PLANTED) & (labels >= 0)]
        best = np.bincount(inside).argmax()
        assert np.sum(inside == best) > 0.8 * MEMBERS[number]
        assert np.mean(PLANTED[labels == best] == number) > 0.8
    assert len(classes) == len(MEMBERS)
    assert all(row[tables.FALSE_DISCOVERY] <= 0.05 and row[tables.P_VALUE] <= 0.05 for row in classes)
    assert all(row[tables.ISOLATION] > 0.5 and row[tables.SIGNIFICANCE] > 0 for row in classes)


def test_the_page_says_it(home):
    page = (home / "found" / "report" / "index.html").read_text()
    # The page explains each number once and states it for every class.
    assert page.count("<dt>false discovery</dt>") == 1 + len(MEMBERS)


def test_nothing_is_found_where_columns_are_shuffled(cli, home):
    cli("cluster.py", "store=noise", *SEARCH, *QUICK, "out=nothing", cwd=home)
    assert json.loads((home / "nothing" / "run.json").read_text())["classes"] == 0
    assert "class-000.html" not in (home / "nothing" / "report" / "index.html").read_text()


def test_without_null_surveys_there_is_one_message(cli, home):
    words = ("store=planted", *SEARCH, "significance.surveys=0", "out=none")
    assert "significance.surveys=0" in cli("cluster.py", *words, cwd=home, expect=2).message
    assert not (home / "none" / "fitted_map").exists()


def test_leaves_without_null_surveys_are_not_measured(cli, home):
    words = ["clusterer.selection=leaf", "significance.surveys=0", "reuse=found", "out=leaves"]
    cli("cluster.py", "store=planted", *SEARCH, *words, cwd=home)
    classes = pq.read_table(home / "leaves" / "classes.parquet")
    assert classes.num_rows
    assert classes[tables.P_VALUE].null_count == classes[tables.SIGNIFICANCE].null_count == classes.num_rows
    assert not (home / "leaves" / "null_surveys").exists()


def test_less_certain_classes_come_from_the_same_null_surveys(cli, home):
    # A tree read finely has doubtful nodes.
    words = ["significance.level=0.99", "clusterer.min_samples=5", "reuse=found", "out=doubtful"]
    cli("cluster.py", "store=planted", *SEARCH, *QUICK, *words, cwd=home)
    assert not (home / "doubtful" / "null_surveys").exists()
    strict, lax = (pq.read_table(home / run / "classes.parquet") for run in ("found", "doubtful"))
    assert lax.num_rows > strict.num_rows
    rates = lax[tables.FALSE_DISCOVERY].to_pylist()
    assert 0.05 < max(rates) <= 0.99


def test_a_search_killed_among_the_null_surveys_continues(cli, start_process, home):
    words = ("store=planted", *SEARCH, *QUICK, "out=killed")
    process = start_process("cluster.py", *words, cwd=home)
    folder = home / "killed" / "null_surveys"
    while not (folder.exists() and len(list(folder.glob("*.npy"))) > 3):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert 3 < len(before) < 16, "killed before the last"
    cli("cluster.py", *words, cwd=home)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert len(after) == 16
    assert {name: after[name] for name in before} == before
    for name in ("members", "classes"):
        killed, straight = (pq.read_table(home / run / f"{name}.parquet") for run in ("killed", "found"))
        assert killed.equals(straight)
