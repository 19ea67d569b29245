"""Planted vectors through the real commands: a new draw of a survey brings no news, a planted group does."""

import numpy as np
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.searches.assign import AssignRun
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.run import SearchRun
from rarezoo.searches.stability import Stability
from rarezoo.track import Tracker

pytestmark = pytest.mark.pipeline

WIDTH, BULK, MEMBERS, CLASSES = 6, 2000, 80, 3
NEW_GROUP, NEW = 60, np.array([0, 0, 0, 0, 0, -9.0])


def survey(seed, *, more=()):
    """A bulk and classes at its edge."""
    random = np.random.default_rng(seed)
    parts = [random.normal(size=(BULK, WIDTH))]
    parts += [random.normal(4.5 * direction, 0.3, (MEMBERS, WIDTH)) for direction in np.eye(WIDTH)[:CLASSES]]
    parts += [random.normal(middle, 0.3, (size, WIDTH)) for middle, size in more]
    return np.concatenate(parts).astype(np.float32)


def write_store(folder, vectors, name):
    manifest = Manifest(
        survey=name, survey_sha256=name, survey_settings={}, checkpoint="net", checkpoint_sha256="net",
        precision="float32", width=WIDTH, dtype="float32", rows=len(vectors), shard_rows=700, answers=(),
    )  # fmt: skip
    store = EmbeddingStore.create(folder / name, manifest)
    for shard in range(manifest.shards):
        rows = range(len(vectors))[manifest.rows_of(shard)]
        ids = [f"{name}-{row:05d}" for row in rows]
        store.write_shard(shard, ids=ids, embeddings=vectors[rows], fractions=np.empty((len(rows), 0)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("news")
    write_store(home, survey(0), "old")
    write_store(home, survey(1), "again")
    write_store(home, survey(2, more=[(NEW, NEW_GROUP)]), "news")
    SearchRun(
        store=str(home / "old"), compress=Pca(n_components=WIDTH), drawing=Pca(n_components=2), images=False,
        clusterer=Hdbscan(min_samples=10, min_cluster_size=40), logger=Tracker(mode="none"),
        stability=Stability(refits=2), out=str(home / "search"),
    ).run()  # fmt: skip
    return home


def test_the_planted_classes_were_found_and_come_back(home):
    classes = tables.read(home / "search" / "classes.parquet", tables.CLASSES)
    planted = [row for row in classes.to_pylist() if 60 <= row[tables.SIZE] <= 100]
    assert len(planted) >= CLASSES
    assert sum(row[tables.STABILITY] > 0.8 for row in planted) >= CLASSES


def test_a_new_draw_brings_no_news_and_its_members_are_found(cli, home):
    out = cli("rarezoo", "assign", "search", "again", "out=placed", cwd=home).out
    assert out.splitlines()[-1].startswith("No new population")
    table = tables.read(home / "placed" / "assigned.parquet", tables.ASSIGNED).column("class_id").to_numpy()
    own = []
    for planted in range(CLASSES):
        members = table[BULK + planted * MEMBERS :][:MEMBERS]
        own.append(np.bincount(members[members >= 0]).argmax())
        assert np.mean(members == own[-1]) > 0.7
    assert len(set(own)) == CLASSES
    assert np.isin(table[:BULK], own).mean() <= 0.05, "the bulk is a class of its own, or none"


def test_a_planted_group_is_a_new_population(cli, home):
    last = cli("rarezoo", "assign", "search", "news", cwd=home).out.splitlines()[-1]
    assert last.startswith("A new population has appeared")
    galaxy = last.split("around galaxy news-")[1][:5]
    assert int(galaxy) >= BULK + CLASSES * MEMBERS


def test_galaxies_at_once_change_nothing(home):
    runs = [
        AssignRun(search=str(home / "search"), store=str(home / "news"), rows=rows, out=str(home / f"at{rows}"))
        for rows in (64, 9999)
    ]
    assert runs[0].run().about == runs[1].run().about
    few, many = (tables.read(home / f"at{rows}" / "assigned.parquet", tables.ASSIGNED) for rows in (64, 9999))
    assert few.equals(many)
