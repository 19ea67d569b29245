"""Searches compared, class ids that live on, stability, and new galaxies placed, on mock surveys under one network."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.data.surveys.mock import Mock
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.searches.assign import AssignRun, ReferenceSet
from rarezoo.searches.assigner import Assigner
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compare import DiffRun
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.compressors.umap import Umap
from rarezoo.searches.result import Search
from rarezoo.searches.run import SearchRun
from rarezoo.searches.stability import Stability
from rarezoo.track import Tracker

pytestmark = pytest.mark.pipeline

# The tiny survey has 40 galaxies more.
GALAXIES, MORE = 220, 260


def search(home, out, *, store="store", seed=0, **settings):
    settings = {
        "compress": Umap(whiten=8, n_neighbors=10, n_epochs=60), "stability": Stability(refits=0), **settings
    }  # fmt: skip
    run = SearchRun(
        store=str(home / store), drawing=Pca(n_components=2), clusterer=Hdbscan(min_samples=4, min_cluster_size=6),
        logger=Tracker(mode="none"), images=False, out=str(home / out), seed=seed, **settings,
    )  # fmt: skip
    run.run()
    return run


def part(store, out, *, rows):
    """The first galaxies of a store, as a store of their own."""
    whole = EmbeddingStore.open(store)
    manifest = replace(whole.manifest, rows=rows, shard_rows=90, survey_sha256=f"first {rows}")
    begun = EmbeddingStore.create(out, manifest)
    content, embeddings = whole.read([tables.ID, *map(tables.fraction_column, manifest.answers)]), whole.embeddings()
    fractions = np.stack([column.to_numpy() for column in content.columns[1:]], axis=1)
    for shard in range(manifest.shards):
        inside = manifest.rows_of(shard)
        begun.write_shard(
            shard, ids=list(whole.ids[inside]), embeddings=embeddings[inside], fractions=fractions[inside]
        )
    begun.finish()


@pytest.fixture(scope="module")
def home(two_networks, tmp_path_factory):
    """Stores of a part of the tiny survey, of all of it, and of another sky; two searches of the first."""
    home = tmp_path_factory.mktemp("placing")
    (home / "more").symlink_to(two_networks / "a")
    part(two_networks / "a", home / "store", rows=GALAXIES)
    part(two_networks / "b", home / "other-store", rows=40)
    elsewhere = Mock(n=GALAXIES, side=32, seed=5, workers=1, cache=str(home / "cache"))
    checkpoint = str(two_networks / "net-a")
    EmbedRun(data=elsewhere, checkpoint=checkpoint, out=str(home / "elsewhere"), workers=0, shard_rows=90).run()
    search(home, "old")
    search(home, "new", seed=1, stability=Stability(refits=3))
    return home


def classes_of(home, out):
    return pq.read_table(home / out / "classes.parquet").to_pylist()


def test_two_searches_are_compared_in_the_terminal_and_in_a_table(cli, home):
    out = cli("rarezoo", "classes", "diff", "old", "new", "out=compared", cwd=home).out
    about, head, _, *rows = out.splitlines()
    old, new = (len(classes_of(home, name)) for name in ("old", "new"))
    assert about.startswith(f"{GALAXIES} galaxies in both searches; {old} classes before, {new} now: ")
    assert head.startswith("| event ")
    written = tables.read(home / "compared" / "matches.parquet", tables.MATCHES)
    assert len(rows) == written.num_rows
    assert (
        pq.read_table(home / "compared" / "matches.parquet").to_pylist()
        == (json.loads((home / "compared" / "diff.json").read_text())["matches"])
    )
    assert len((home / "compared" / "matches.csv").read_text().splitlines()) == 1 + written.num_rows
    assert set(written["class_a"].to_pylist()) - {-1} == set(range(old))
    assert set(written["class_b"].to_pylist()) - {-1} == set(range(new))


def test_a_search_is_the_same_as_itself(home):
    about = DiffRun(old=str(home / "old"), new=str(home / "old")).run().summary().splitlines()[0]
    assert about.endswith(f": {len(classes_of(home, 'old'))} kept")


def test_the_classes_of_one_search_are_listed(cli, home):
    plain, measured = (cli("rarezoo", "classes", "list", name, cwd=home).out for name in ("old", "new"))
    assert plain.count("not measured") == len(classes_of(home, "old"))
    assert "not measured" not in measured
    assert ", kept in " in measured
    refused = cli("rarezoo", "classes", "diff", "old", cwd=home, expect=2)
    assert "rarezoo classes diff OLD NEW" in refused.message
    assert "nowhere" in cli("rarezoo", "classes", "diff", "old", "nowhere", cwd=home, expect=2).message


def test_stability_is_measured_and_shown(home):
    classes = classes_of(home, "new")
    stabilities = tables.read(home / "new" / "stability.parquet", tables.STABILITIES).to_pandas()
    assert set(stabilities["refit"]) == {"other seed 1", "subsample 2", "other seed 3"}
    for row in classes:
        best = stabilities.loc[stabilities["class_id"] == row["class_id"], "jaccard"]
        assert row["stability"] == pytest.approx(best.mean())
        assert row["survived"] == pytest.approx((best >= 0.5).mean())
    assert len(list((home / "new" / "refits").glob("refit-*.parquet"))) == 3
    page = (home / "new" / "report" / "index.html").read_text()
    assert page.count("<dt>stability</dt>") == len(classes)
    assert "<dt>stability</dt>" not in (home / "old" / "report" / "index.html").read_text()


def refitted_again(*arguments, **settings):
    raise AssertionError("a refit that was there already was made again")


def test_a_killed_search_does_not_fit_its_map_again(home, monkeypatch):
    (home / "new" / "run.json").rename(home / "run.json")
    monkeypatch.setattr(SearchRun, "labels", refitted_again)
    try:
        search(home, "new", seed=1, stability=Stability(refits=3))
    finally:
        (home / "run.json").replace(home / "new" / "run.json")


@pytest.mark.slow
def test_another_network_is_a_refit_of_the_galaxies_that_it_has_seen_too(home):
    search(home, "judged", stability=Stability(refits=0, stores=[str(home / "other-store")]))
    stabilities = tables.read(home / "judged" / "stability.parquet", tables.STABILITIES)
    assert set(stabilities["refit"].to_pylist()) == {f"store {home / 'other-store'}"}
    refit = tables.read(home / "judged" / "refits" / "refit-000.parquet", tables.REFITS)
    assert refit.num_rows == 40
    with pytest.raises(StoreError, match="no embedding store"):
        search(home, "unjudged", stability=Stability(stores=[str(home / "nowhere")]))


@pytest.mark.slow
def test_a_search_too_small_for_subsamples_says_so_and_goes_on(home, caplog):
    search(home, "tight", compress=Umap(n_neighbors=180, n_epochs=10), stability=Stability(refits=2))
    assert f"left out of stability, subsample 2 of {round(0.8 * GALAXIES)} galaxies" in caplog.text
    stabilities = tables.read(home / "tight" / "stability.parquet", tables.STABILITIES)
    assert set(stabilities["refit"].to_pylist()) == {"other seed 1"}


def test_classes_keep_their_ids_with_a_tenth_more_galaxies(home):
    search(home, "grown", store="more", previous=str(home / "old"))
    evolution = tables.read(home / "grown" / "evolution.parquet", tables.MATCHES).to_pylist()
    kept = [row for row in evolution if row["event"] == "kept"]
    assert kept
    assert all(row["class_a"] == row["class_b"] and row["jaccard"] >= 0.5 for row in kept)
    old = {row["class_id"] for row in classes_of(home, "old")}
    grown = {row["class_id"] for row in classes_of(home, "grown")}
    assert grown & old == {row["class_a"] for row in kept}
    members = pq.read_table(home / "grown" / "members.parquet")
    assert set(members["class_id"].to_pylist()) - {-1} == grown
    for class_id in grown:
        assert (home / "grown" / "report" / f"class-{class_id:03d}.html").exists()


@pytest.mark.slow
def test_an_id_is_never_given_twice(home):
    """Back to the first galaxies: classes that were lost in between do not hand on their ids."""
    search(home, "between", seed=7, previous=str(home / "old"))
    search(home, "back", previous=str(home / "between"))
    old, between, back = ({row["class_id"] for row in classes_of(home, name)} for name in ("old", "between", "back"))
    assert not (back - between) & old


def test_new_galaxies_are_placed(cli, home):
    out = cli("rarezoo", "assign", "old", "elsewhere", "out=placed", "rows=50", cwd=home).out
    assigned = tables.read(home / "placed" / "assigned.parquet", tables.ASSIGNED)
    assert assigned["id_str"].to_pylist() == [f"mock-{row:07d}" for row in range(GALAXIES)]
    assert set(assigned["class_id"].to_pylist()) <= {-1, *(row["class_id"] for row in classes_of(home, "old"))}
    assert f"{GALAXIES} galaxies of elsewhere" in out
    assert "population" in out.splitlines()[-1]
    assert json.loads((home / "placed" / "assign.json").read_text())["text"] == out.strip()
    assert cli("rarezoo", "assign", "old", "elsewhere", "out=placed", cwd=home).out == out


def test_a_killed_assignment_continues_to_the_same_table(home, monkeypatch):
    def assignment(out):
        return AssignRun(search=str(home / "old"), store=str(home / "elsewhere"), out=str(home / out))

    whole = assignment("straight").run()
    shard = EmbeddingStore.shard
    monkeypatch.setattr(EmbeddingStore, "shard", killed(shard, at="elsewhere", index=2))
    with pytest.raises(KeyboardInterrupt):
        assignment("killed").run()
    assert len(list((home / "killed").glob("part-*.parquet"))) == 2
    monkeypatch.setattr(EmbeddingStore, "shard", shard)
    looked = []
    assigned = Assigner.assign
    monkeypatch.setattr(
        Assigner, "assign", lambda *arguments, **other: looked.append(1) or assigned(*arguments, **other)
    )
    result = assignment("killed").run()
    assert result.about == whole.about
    assert result.table.equals(whole.table)
    assert len(looked) == 1, "only the shard that was missing"
    first, second = (tables.read(home / name / "assigned.parquet", tables.ASSIGNED) for name in ("straight", "killed"))
    assert first.equals(second)


def killed(shard, *, at, index):
    """Reading a store's shards until one of them brings Ctrl-C."""

    def read(store, number, columns=None):
        if store.folder.name == at and number == index:
            raise KeyboardInterrupt
        return shard(store, number, columns)

    return read


def test_galaxies_that_were_searched_are_not_their_own_neighbours(home):
    reference = ReferenceSet.read(Search.open(home / "old"))

    def rows(name):
        store = _open(home, name)
        batches = [reference.batches(store, index, size=50) for index in range(store.manifest.shards)]
        return np.concatenate([rows for shard in batches for _, _, rows in shard])

    np.testing.assert_array_equal(rows("more"), np.append(np.arange(GALAXIES), np.full(MORE - GALAXIES, -1)))
    assert (rows("elsewhere") == -1).mean() > 0.9, "the same ids, other galaxies"


def test_a_search_assigns_the_galaxies_of_a_store(home):
    frame = Search.open(home / "old").assign(_open(home, "elsewhere"))
    assert list(frame.columns) == list(tables.ASSIGNED.columns)
    assert len(frame) == GALAXIES
    assert frame["probability"].between(0, 1).all()


def _open(home, name):
    return EmbeddingStore.open(home / name)


def test_galaxies_that_cannot_be_assigned_are_refused(home):
    def assignment(search, store, **settings):
        return AssignRun(search=str(home / search), store=str(home / store), **settings)

    with pytest.raises(StoreError, match=r"another checkpoint.*net-b.* net-a "):
        assignment("old", "other-store").run()
    with pytest.raises(FileNotFoundError, match="no finished search"):
        assignment("store", "elsewhere").run()
    with pytest.raises(ConfigError, match=r"too few to guarantee level: 1e-06"):
        assignment("old", "elsewhere", level=1e-6).run()
    assignment("old", "elsewhere", out=str(home / "taken")).run()
    with pytest.raises(OutputError, match=r"level 0.05 → 0.2"):
        assignment("old", "elsewhere", level=0.2, out=str(home / "taken")).run()
