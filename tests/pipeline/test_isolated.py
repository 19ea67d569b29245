"""cluster.py preset=multiscale: planted groups are significant, nothing is in noise, and killed searches go on."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.searches.grades import CANDIDATE, SIGNIFICANT, STABLE

pytestmark = pytest.mark.pipeline

GALAXIES, WIDTH = 1200, 16
# A group of more than 7 % of the galaxies would be a main group.
MEMBERS = (80, 50, 30)
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


def classes_of(folder):
    """CLASSES table of a search, as rows."""
    return pq.read_table(folder / "classes.parquet").to_pylist()


def significant(rows):
    """Of the rows of a CLASSES table, those that are no candidates."""
    return [row for row in rows if row[tables.GRADE] in (STABLE, SIGNIFICANT)]


def test_planted_groups_are_the_significant_classes(home):
    members = pq.read_table(home / "found" / "members.parquet")
    assert members[tables.ID].to_pylist() == IDS
    labels = members[tables.CLASS_ID].to_numpy()
    rows = significant(classes_of(home / "found"))
    best = []
    for number in range(len(MEMBERS)):
        inside = labels[(number == PLANTED) & (labels >= 0)]
        best.append(np.bincount(inside).argmax())
        assert np.sum(inside == best[-1]) > 0.8 * MEMBERS[number]
        assert np.mean(PLANTED[labels == best[-1]] == number) > 0.8
    assert sorted(best) == sorted(row[tables.CLASS_ID] for row in rows)
    assert all(row[tables.FALSE_DISCOVERY] <= 0.05 and row[tables.P_VALUE] <= 0.05 for row in rows)
    assert all(row[tables.ISOLATION] > 0.5 and row[tables.SIGNIFICANCE] > 0 for row in rows)


def test_candidates_follow_the_significant_classes_until_the_list_is_full(home):
    rows = sorted(classes_of(home / "found"), key=lambda row: row[tables.RANK])
    assert [row[tables.RANK] for row in rows] == list(range(1, len(rows) + 1))
    assert len(MEMBERS) < len(rows) <= 50
    assert {row[tables.GRADE] for row in rows[: len(MEMBERS)]} == {SIGNIFICANT}
    assert {row[tables.GRADE] for row in rows[len(MEMBERS) :]} == {CANDIDATE}
    assert all(row[tables.FALSE_DISCOVERY] > 0.05 for row in rows[len(MEMBERS) :])
    assert all(row[tables.SIZE] <= 0.07 * GALAXIES for row in rows)


@pytest.mark.parametrize("rows", [0, 5])
def test_another_length_of_the_list_keeps_the_significant_classes(cli, home, rows):
    words = [f"significance.rows={rows}", "reuse=found", f"out=rows{rows}"]
    cli("cluster.py", "store=planted", *SEARCH, *QUICK, *words, cwd=home)
    few, many = classes_of(home / f"rows{rows}"), classes_of(home / "found")
    assert len(few) == max(rows, len(MEMBERS))
    names = (tables.NODE, tables.SIZE, tables.SIGNIFICANCE, tables.P_VALUE, tables.FALSE_DISCOVERY)
    values = [[row[name] for name in names] for row in significant(few)]
    assert values == [[row[name] for name in names] for row in significant(many)]


def test_the_page_says_it(home):
    page = (home / "found" / "report" / "index.html").read_text()
    # The page explains each number once and states it for every class.
    assert page.count("<dt>false discovery</dt>") == 1 + len(classes_of(home / "found"))


def test_nothing_is_significant_where_columns_are_shuffled(cli, home):
    cli("cluster.py", "store=noise", *SEARCH, *QUICK, "out=nothing", cwd=home)
    rows = classes_of(home / "nothing")
    assert rows
    assert {row[tables.GRADE] for row in rows} == {CANDIDATE}
    cli("cluster.py", "store=noise", *SEARCH, *QUICK, "significance.rows=0", "reuse=nothing", "out=none", cwd=home)
    assert json.loads((home / "none" / "run.json").read_text())["classes"] == 0
    assert "class-000.html" not in (home / "none" / "report" / "index.html").read_text()


def test_a_group_of_too_many_galaxies_is_a_main_group(cli, home):
    embeddings = sky()
    random = np.random.default_rng(3)
    large = np.flatnonzero(PLANTED < 0)[:240]
    embeddings[large] = embeddings[large[0]] + 2 + 0.15 * random.normal(size=(240, WIDTH))
    store(home / "large", embeddings.astype(np.float32))
    cli("cluster.py", "store=large", *SEARCH, *QUICK, "out=main", cwd=home)
    groups = pq.read_table(home / "main" / "main_groups.parquet").to_pylist()
    assert any(abs(group[tables.SIZE] - 240) < 30 and group[tables.P_VALUE] <= 0.05 for group in groups)
    assert all(0.07 * GALAXIES < group[tables.SIZE] <= 0.5 * GALAXIES for group in groups)
    rows = classes_of(home / "main")
    assert all(row[tables.SIZE] <= 0.07 * GALAXIES for row in rows)
    assert not {group[tables.NODE] for group in groups} & {row[tables.NODE] for row in rows}
    assert len(significant(rows)) >= len(MEMBERS)


def test_without_null_surveys_there_is_one_message(cli, home):
    words = ("store=planted", *SEARCH, "significance.surveys=0", "out=refused")
    assert "significance.surveys=0" in cli("cluster.py", *words, cwd=home, expect=2).message
    assert not (home / "refused" / "fitted_map").exists()


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
    grades = [table[tables.GRADE].to_pylist() for table in (strict, lax)]
    assert grades[1].count(SIGNIFICANT) > grades[0].count(SIGNIFICANT)
    rates = [row[tables.FALSE_DISCOVERY] for row in significant(lax.to_pylist())]
    assert 0.05 < max(rates) <= 0.99


def test_a_search_killed_among_the_null_surveys_continues(cli, start_process, home):
    words = ("store=planted", *SEARCH, *QUICK, "out=killed")
    process = start_process("cluster.py", *words, cwd=home)
    folder = home / "killed" / "null_surveys"
    while not (folder.exists() and len(list(folder.glob("*.tree.npy"))) > 3):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert 3 < len(before) < 8, "killed before the last"
    cli("cluster.py", *words, cwd=home)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    for name in ("members", "classes", "main_groups"):
        killed, straight = (pq.read_table(home / run / f"{name}.parquet") for run in ("killed", "found"))
        assert killed.equals(straight)
