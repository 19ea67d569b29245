"""An EmbeddingStore is one survey under one checkpoint, whole, in the survey's order."""

import csv
import errno
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.embeddings import store as stores
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import OutputError, RarezooError, StoreError
from rarezoo.runs import claim

pytestmark = pytest.mark.unit

IDS = [f"g{row}" for row in (3, 1, 4, 0, 5, 9, 2)]
MANIFEST = Manifest(
    survey="mock",
    survey_sha256="s" * 64,
    survey_settings={"option": "mock", "n": 7, "path": None},
    checkpoint="b0.v1",
    checkpoint_sha256="c" * 64,
    precision="float32",
    width=2,
    dtype="float32",
    rows=7,
    shard_rows=3,
    answers=("bar_no", "bar_yes"),
)
EMBEDDINGS = np.arange(14, dtype=np.float32).reshape(7, 2)
FRACTIONS = np.linspace(0, 1, 14, dtype=np.float32).reshape(7, 2)


def write(store, shard, *, skip=(), embeddings=EMBEDDINGS):
    rows = [row for row in range(7)[store.manifest.rows_of(shard)] if IDS[row] not in skip]
    return store.write_shard(
        shard, ids=[IDS[row] for row in rows], embeddings=embeddings[rows], fractions=FRACTIONS[rows], skipped=skip
    )


def whole(folder, **changes):
    store = EmbeddingStore.create(folder, replace(MANIFEST, **changes))
    for shard in store.missing():
        write(store, shard)
    return store.finish()


def test_shards_written_in_any_order_read_in_the_surveys_order(tmp_path):
    store = EmbeddingStore.create(tmp_path, MANIFEST)
    for shard in (2, 0, 1):
        write(store, shard)
    opened = EmbeddingStore.open(tmp_path)
    table = opened.read()
    assert opened.manifest == MANIFEST
    assert list(opened.ids) == table.column(tables.ID).to_pylist() == IDS
    np.testing.assert_array_equal(opened.embeddings(), EMBEDDINGS)
    np.testing.assert_array_equal(tables.matrix(table, tables.EMBEDDING), EMBEDDINGS)
    np.testing.assert_array_equal(table.column("bar_yes_fraction").to_numpy(), FRACTIONS[:, 1])
    assert not (tmp_path / stores.SKIPPED_FILE).exists()


def test_a_begun_store_goes_on_with_what_is_missing(tmp_path):
    write(EmbeddingStore.create(tmp_path, MANIFEST), 1)
    with pytest.raises(StoreError, match="2 of 3 shards missing"):
        EmbeddingStore.open(tmp_path)
    assert EmbeddingStore.create(tmp_path, MANIFEST).missing() == [0, 2]
    (tmp_path / ".shard-00000.parquet.1.partial").write_text("left by a killed run")
    assert list(whole(tmp_path).ids) == IDS
    assert not list(tmp_path.glob(".shard-*"))


def test_a_shard_whose_column_names_are_no_text_counts_as_missing(tmp_path):
    store = whole(tmp_path)
    shard = tmp_path / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes().replace(b"embedding", b"embeddin\xe9"))
    assert store.missing() == [1]
    with pytest.raises(StoreError, match="1 of 3 shards missing"):
        EmbeddingStore.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"survey_sha256": "t" * 64},
        {"checkpoint_sha256": "d" * 64},
        {"dtype": "float16"},
        {"precision": "bfloat16"},
        {"shard_rows": 4},
    ],
)
def test_two_runs_never_mix_and_the_message_says_what_differs(tmp_path, change):
    whole(tmp_path)
    with pytest.raises(StoreError, match=f"{next(iter(change))}.* differ"):
        EmbeddingStore.create(tmp_path, replace(MANIFEST, **change))


def test_a_survey_that_has_moved_goes_on_and_its_new_place_is_remembered(tmp_path):
    write(EmbeddingStore.create(tmp_path, MANIFEST), 0)
    moved = {**MANIFEST.survey_settings, "path": "/elsewhere", "on_bad_image": "skip"}
    assert whole(tmp_path, survey_settings=moved).manifest.survey_settings == moved


@pytest.mark.parametrize("tied", ["survey", "checkpoint"])
def test_a_shard_smuggled_in_from_another_store_is_refused(tmp_path, tied):
    whole(tmp_path / "a")
    whole(tmp_path / "b", **{f"{tied}_sha256": "e" * 64})
    shard = "shard-00001.parquet"
    (tmp_path / "a" / shard).write_bytes((tmp_path / "b" / shard).read_bytes())
    with pytest.raises(StoreError, match=f"shard from another {tied}"):
        EmbeddingStore.open(tmp_path / "a").read()


def test_a_truncated_shard_is_refused(tmp_path):
    whole(tmp_path)
    shard = tmp_path / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match="1 of 3 shards missing or damaged"):
        EmbeddingStore.open(tmp_path).read()


def test_doubled_ids_across_shards_are_refused(tmp_path):
    whole(tmp_path)
    store = EmbeddingStore.open(tmp_path)
    store.write_shard(2, ids=[IDS[0]], embeddings=EMBEDDINGS[:1], fractions=FRACTIONS[:1])
    with pytest.raises(StoreError, match="doubled keys: g3"):
        store.read()


def test_skipped_galaxies_are_absent_and_listed(tmp_path):
    store = EmbeddingStore.create(tmp_path, MANIFEST)
    write(store, 0, skip=["g1"])
    write(store, 1)
    write(store, 2, skip=["g2"])
    store = store.finish()
    assert store.skipped() == ["g1", "g2"]
    assert (tmp_path / stores.SKIPPED_FILE).read_text().split() == [tables.ID, "g1", "g2"]
    assert list(store.ids) == [galaxy_id for galaxy_id in IDS if galaxy_id not in ("g1", "g2")]
    assert store.embeddings().shape == (5, 2)


def test_skipped_ids_of_any_text_are_read_back(tmp_path):
    ids = ["a,b", 'c"d', "two\nlines", "g\r", "=1+1", "NA", "ü"]
    store = EmbeddingStore.create(tmp_path, replace(MANIFEST, rows=8, shard_rows=8))
    store.write_shard(0, ids=["kept"], embeddings=EMBEDDINGS[:1], fractions=FRACTIONS[:1], skipped=ids)
    store.finish()
    with (tmp_path / stores.SKIPPED_FILE).open(encoding="utf-8", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)] == [tables.ID, *ids]


def test_a_store_of_skipped_galaxies_only_is_refused(tmp_path):
    store = EmbeddingStore.create(tmp_path, replace(MANIFEST, rows=3))
    write(store, 0, skip=["g3", "g1", "g4"])
    with pytest.raises(StoreError, match="no image of the survey could be read: 3 skipped"):
        store.finish()


def test_a_full_disk_is_reported_and_leaves_no_half_shard(tmp_path, monkeypatch):
    store = EmbeddingStore.create(tmp_path, MANIFEST)

    def full(writer, table, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables.pq.ParquetWriter, "write_table", full)
    with pytest.raises(OutputError, match=r"cannot write \(No space left on device\).*out=DIR"):
        write(store, 0)
    assert [path.name for path in tmp_path.iterdir()] == [stores.MANIFEST_FILE]


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("float16", 1e6)])
def test_what_the_dtype_cannot_hold_is_refused_with_the_ids(tmp_path, dtype, value):
    store = EmbeddingStore.create(tmp_path, replace(MANIFEST, dtype=dtype))
    embeddings = EMBEDDINGS.copy()
    embeddings[4, 1] = value
    with pytest.raises(StoreError, match=f"{dtype} cannot hold: 1 galaxies .galaxies g5"):
        write(store, 1, embeddings=embeddings)
    assert 1 in store.missing()


def test_half_precision_is_stored_as_such(tmp_path):
    whole(tmp_path, dtype="float16")
    assert str(pq.read_schema(tmp_path / "shard-00000.parquet").field(tables.EMBEDDING).type.value_type) == "halffloat"
    assert EmbeddingStore.open(tmp_path).embeddings().dtype == np.float16


def test_a_shard_of_other_rows_is_a_bug_not_a_users_mistake(tmp_path):
    store = EmbeddingStore.create(tmp_path, MANIFEST)
    with pytest.raises(ValueError, match="shard 0 covers"):
        store.write_shard(0, ids=IDS[:2], embeddings=EMBEDDINGS[:2], fractions=FRACTIONS[:2])


def test_what_is_no_store_is_reported(tmp_path):
    with pytest.raises(StoreError, match="no embedding store"):
        EmbeddingStore.open(tmp_path)
    (tmp_path / stores.MANIFEST_FILE).write_text('{"rows": 3}')
    with pytest.raises(StoreError, match="unreadable manifest"):
        EmbeddingStore.open(tmp_path)


def test_a_folder_of_another_command_is_not_written_into(tmp_path):
    claim(tmp_path, verb="train", settings={"seed": 1})
    with pytest.raises(OutputError, match="another command's run"):
        EmbeddingStore.create(tmp_path, MANIFEST)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shard_rows", 4, "3 instead of 4|1 of 2 shards"),
        ("dtype", "float16", "float16 vectors"),
        ("rows", 9, "1 instead of 3"),
    ],
)
def test_a_manifest_that_does_not_fit_its_shards_is_refused(tmp_path, name, value, message):
    whole(tmp_path, rows=7, shard_rows=3)
    manifest = json.loads((tmp_path / stores.MANIFEST_FILE).read_text())
    (tmp_path / stores.MANIFEST_FILE).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(StoreError, match=message):
        EmbeddingStore.open(tmp_path).embeddings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"option": "catalogue", "table": "a.csv", "images": "b", "nope": 1}, "do not exist: nope.*data="),
        ({"table": "a.csv"}, "unknown data"),
    ],
)
def test_a_recorded_survey_that_cannot_be_made_is_refused(tmp_path, settings, message):
    with pytest.raises(RarezooError, match=message):
        whole(tmp_path, survey_settings=settings).galaxies()


@pytest.fixture
def large_store(tmp_path):
    """A store that counts as too large for the memory."""
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float16)
    store = EmbeddingStore.from_array(
        [f"g{row}" for row in range(300)], vectors, out=tmp_path / "store", name="net", shard_rows=100
    )
    store.in_memory = 0
    return store


def test_the_index_of_a_large_store_is_kept_beside_it_and_used_again(large_store):
    found = large_store.neighbours("g7", 3)
    written = {path: path.stat().st_mtime_ns for path in (large_store.folder / "neighbours").glob("*.npy")}
    assert len(written) == 3
    again = EmbeddingStore.open(large_store.folder)
    assert again.neighbours("g7", 3).equals(found), "a store of this size is searched in memory"
    again = EmbeddingStore.open(large_store.folder)
    again.in_memory = 0
    assert again.neighbours("g7", 3).equals(found)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert isinstance(again.index.vectors.base, np.memmap)
    assert len(again.nearest_distances) == 300


def test_a_small_store_leaves_no_index_behind(tmp_path):
    store = EmbeddingStore.from_array(["a", "b"], np.eye(2, dtype=np.float32), out=tmp_path, name="net")
    store.neighbours("a", 1)
    assert not (tmp_path / "neighbours").exists()


def test_an_index_that_cannot_be_kept_beside_the_store_is_kept_in_the_users_cache(
    large_store, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (large_store.folder / "neighbours").touch()
    assert len(large_store.neighbours("g7", 3)) == 3
    assert "not kept" in caplog.text
    assert list((tmp_path / "cache" / "rarezoo" / "neighbours").glob("*.npy"))


def test_an_index_that_can_be_kept_nowhere_is_made_in_memory(large_store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (large_store.folder / "neighbours").touch()
    assert len(large_store.neighbours("g7", 3)) == 3


@pytest.mark.parametrize(
    ("survey", "network", "title"),
    [
        ("gz2", "efficientnet_b0.gz2", "gz2 seen by efficientnet_b0.gz2"),
        ("gz2", "imported-3f2a9c11", "gz2, imported embeddings"),
        ("imported", "my_network", "embeddings by my_network"),
        ("imported", "imported-3f2a9c11", "imported embeddings"),
    ],
)
def test_a_title_names_survey_and_network_as_far_as_they_have_names(survey, network, title):
    assert replace(MANIFEST, survey=survey, checkpoint=network).title == title
