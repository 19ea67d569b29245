"""Embeddings of other networks become stores: from arrays, and from tables in the formats that people publish."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, ImportStore
from rarezoo.errors import DataError, OutputError, StoreError

pytestmark = pytest.mark.unit

IDS = [f"J{row:03d}" for row in range(25)]
X = np.random.default_rng(0).normal(size=(25, 12)).astype(np.float32)


def test_an_array_becomes_a_store(tmp_path):
    fractions = {"bar_yes": np.linspace(0, 1, 25)}
    store = EmbeddingStore.from_array(IDS, X, out=tmp_path, name="net", fractions=fractions, shard_rows=10)
    again = EmbeddingStore.open(tmp_path)
    np.testing.assert_array_equal(again.embeddings(), X)
    assert again.ids.tolist() == IDS
    assert len(again) == 25
    assert len(list(tmp_path.glob("shard-*"))) == 3
    np.testing.assert_allclose(again.read()["bar_yes_fraction"].to_numpy(), np.linspace(0, 1, 25), atol=1e-6)
    assert (store.manifest.checkpoint, store.manifest.survey, store.manifest.width) == ("net", "imported", 12)
    assert not store.has_survey


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64])
def test_half_precision_is_kept_and_other_types_become_float32(tmp_path, kind):
    store = EmbeddingStore.from_array(np.arange(25), X.astype(kind), out=tmp_path)
    assert store.embeddings().dtype == (np.float16 if kind == np.float16 else np.float32)
    assert store.ids.tolist() == [str(row) for row in range(25)]


def test_the_same_content_again_is_the_same_store_and_other_content_is_refused(tmp_path):
    first = EmbeddingStore.from_array(IDS, X, out=tmp_path / "a")
    assert EmbeddingStore.from_array(IDS, X, out=tmp_path / "a").manifest == first.manifest
    with pytest.raises(StoreError, match="content_sha256"):
        EmbeddingStore.from_array(IDS, X + 1, out=tmp_path / "a")


def test_two_networks_of_the_same_galaxies_have_the_same_survey(tmp_path):
    order = np.random.default_rng(1).permutation(25)
    first = EmbeddingStore.from_array(IDS, X, out=tmp_path / "a", name="one").manifest
    second = EmbeddingStore.from_array([IDS[row] for row in order], X[order], out=tmp_path / "b", name="two").manifest
    assert first.survey_sha256 == second.survey_sha256
    assert first.checkpoint_sha256 != second.checkpoint_sha256


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (IDS, np.where(X > 2, np.nan, X), "not finite: .* of 25 rows .galaxies J"),
        (["a", *IDS[1:-1], "a"], X, "more than once: 1 .galaxies a"),
        (IDS[1:], X, "24 ids, 25 rows"),
        ([None, *IDS[1:]], X, "without an id"),
        (IDS, X[:, 0], "must be a matrix"),
        (IDS, X.astype(str), "must be a matrix of numbers"),
        ([], X[:0], "no embeddings"),
        (IDS, X.astype(np.float64) * 1e39, "not finite"),
        (IDS, X * 1e30, r"the largest number: .*e\+30"),
        (IDS, X * 1e-30, r"the largest number: .*e-30"),
    ],
)
def test_unusable_arrays_are_refused_in_one_message(tmp_path, ids, vectors, message):
    with pytest.raises(StoreError, match=message):
        EmbeddingStore.from_array(ids, vectors, out=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def zoobot_table():
    """A table with the columns of Zoobot's published features, in an order that is not that of their numbers."""
    columns = {f"feat_pca_{number}": X[:, number] for number in sorted(range(12), key=str)}
    return pa.table({"iauname": IDS, "ra": X[:, 0], **columns})


def test_numbered_columns_of_a_parquet_file_are_taken_in_the_order_of_their_numbers(tmp_path):
    pq.write_table(zoobot_table(), tmp_path / "zoobot.parquet")
    store = EmbeddingStore.from_table(
        tmp_path / "zoobot.parquet", id_column="iauname", columns="feat_pca_*", out=tmp_path / "store"
    )
    np.testing.assert_array_equal(store.embeddings(), X)
    assert store.ids.tolist() == IDS
    assert store.manifest.checkpoint == "zoobot"


def test_chosen_columns_keep_the_order_in_which_they_are_named(tmp_path):
    pq.write_table(zoobot_table(), tmp_path / "t.parquet")
    store = EmbeddingStore.from_table(
        tmp_path / "t.parquet", id_column="iauname", columns=["feat_pca_7", "feat_pca_2"], out=tmp_path / "store"
    )
    np.testing.assert_array_equal(store.embeddings(), X[:, [7, 2]])


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 12)])
def test_a_column_of_lists_is_an_embedding(tmp_path, kind):
    pq.write_table(pa.table({"id_str": IDS, "embeddings": pa.array(X.tolist(), kind)}), tmp_path / "clip.parquet")
    store = EmbeddingStore.from_table(tmp_path / "clip.parquet", columns="embeddings", out=tmp_path / "store")
    np.testing.assert_array_equal(store.embeddings(), X)


def test_a_csv_file_and_a_fits_file_with_a_vector_column_are_read(tmp_path):
    pd.DataFrame({"id_str": np.arange(25), "f_0": X[:, 0], "f_1": X[:, 1]}).to_csv(tmp_path / "t.csv", index=False)
    store = EmbeddingStore.from_table(tmp_path / "t.csv", columns="f_*", out=tmp_path / "csv")
    np.testing.assert_allclose(store.embeddings(), X[:, :2], rtol=1e-6)
    assert store.ids.tolist() == [str(row) for row in range(25)]
    Table({"id_str": IDS, "vector": X}).write(tmp_path / "t.fits")
    store = EmbeddingStore.from_table(tmp_path / "t.fits", columns="vector", out=tmp_path / "fits")
    np.testing.assert_array_equal(store.embeddings(), X)
    assert store.ids.tolist() == IDS


@pytest.mark.parametrize(
    ("columns", "content", "kind", "message"),
    [
        ("feat_*", {"id_str": ["a"], "f": [1.0]}, DataError, "no column: feat_.*there are: id_str, f"),
        ("f", {"id_str": ["a", "b"], "f": [[1.0], [1.0, 2.0]]}, StoreError, "different widths in column f: 1, 2"),
        ("f", {"id_str": ["a", "b"], "f": [[1.0], None]}, StoreError, "without a vector"),
        ("f", {"id_str": ["a"], "f": ["text"]}, StoreError, "does not hold numbers: f"),
        ("f", {"name": ["a"], "f": [1.0]}, DataError, "no column: id_str"),
    ],
)
def test_unusable_tables_are_refused_in_one_message(tmp_path, columns, content, kind, message):
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    with pytest.raises(kind, match=message):
        EmbeddingStore.from_table(tmp_path / "t.parquet", columns=columns, out=tmp_path / "store")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, "007", b"a  "], ["1", "007", "a"]),
        ([2**70, 1], ["1180591620717411303424", "1"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1.0, "x"], ["1", "x"]),
        (np.array([588017702939984047, 7]), ["588017702939984047", "7"]),
        (np.array([b"a ", b"bc"]), ["a", "bc"]),
        (pd.Series(["a", "b"]), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    ],
)
def test_ids_of_python_are_text(tmp_path, ids, expected):
    assert EmbeddingStore.from_array(ids, X[: len(expected)], out=tmp_path).ids.tolist() == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([588017702939984047.0, 7.0]), "floating-point"),
        (np.array([2**24, 7], np.float32), "floating-point"),
        ([5.88e17, "7"], "floating-point"),
        ([1.5, 2.0], "whole numbers"),
        ([None, "a"], "without an id"),
        ([float("nan"), "a"], "without an id"),
        ([pd.NA, "a"], "without an id"),
    ],
)
def test_ids_of_python_that_stand_for_nothing_certain_are_refused(tmp_path, ids, message):
    with pytest.raises(StoreError, match=message):
        EmbeddingStore.from_array(ids, X[:2], out=tmp_path)


def test_a_folder_of_parquet_files_is_imported(tmp_path):
    for part in range(2):
        (tmp_path / "parts").mkdir(exist_ok=True)
        rows = pa.table({"id_str": IDS[part::2], "f": X[part::2].tolist(), "mag": X[part::2, 0]})
        pq.write_table(rows, tmp_path / "parts" / f"{part}.parquet")
    store = EmbeddingStore.from_table(tmp_path / "parts", columns="f", out=tmp_path / "store")
    assert store.ids.tolist() == IDS[0::2] + IDS[1::2]


def test_a_missing_file_and_a_missing_store_are_file_not_found_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such table"):
        EmbeddingStore.from_table(tmp_path / "t.parquet", out=tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="no embedding store"):
        EmbeddingStore.open(tmp_path)


def test_a_folder_of_another_command_is_not_written_into(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(OutputError):
        EmbeddingStore.from_array(IDS, X, out=tmp_path)


def test_the_job_imports_a_table_and_returns_the_store(tmp_path):
    pq.write_table(zoobot_table(), tmp_path / "zoobot.parquet")
    job = ImportStore(table=str(tmp_path / "zoobot.parquet"), out=str(tmp_path / "store"), id_column="iauname")
    store = job.run()
    assert store.manifest.width == 12
    assert "25" in store.summary()
    assert job.run().manifest == store.manifest


def test_neighbours_are_the_most_similar_galaxies_in_order(tmp_path):
    store = EmbeddingStore.from_array(IDS, X, out=tmp_path)
    nearest = store.neighbours(["J003", "J007"], 4)
    directions = X - X.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for galaxy, rows in nearest.groupby(tables.ID):
        cosines = directions @ directions[IDS.index(galaxy)]
        cosines[IDS.index(galaxy)] = -2
        assert rows["neighbour"].tolist() == [IDS[row] for row in np.argsort(-cosines)[:4]]
        np.testing.assert_allclose(rows["similarity"], np.sort(cosines)[::-1][:4], atol=1e-5)
        assert rows["rank"].tolist() == [1, 2, 3, 4]
    with pytest.raises(StoreError, match="nobody"):
        store.neighbours("nobody")


def test_a_store_shows_its_facts_and_escapes_them(tmp_path):
    store = EmbeddingStore.from_array(IDS, X, out=tmp_path, name="<net>")
    for fact in ("25", "12", "imported", "<net>"):
        assert fact in repr(store)
    assert "&lt;net&gt;" in store._repr_html_()
