"""What cluster.py does with stores that are hard to search: docs/how-to/hard-inputs.md, line by line."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.benchmark.tiers import Measured
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore, Manifest

pytestmark = pytest.mark.pipeline

WIDTH = 8
FAST = ["compress=fast_umap", "compress.n_neighbors=10", "compress.n_epochs=50", "compress@drawing=fast_umap_2d"]
FAST += ["drawing.n_neighbors=10", "drawing.n_epochs=20"]
FAST += ["clusterer=fast_hdbscan", "clusterer.min_samples=5", "clusterer.min_cluster_size=10"]


def sky(galaxies):
    """Embeddings in three groups."""
    random = np.random.default_rng(0)
    return (np.arange(galaxies) % 3)[:, None] * 5 + random.normal(size=(galaxies, WIDTH)).astype(np.float32)


@pytest.fixture
def searched(cli, tmp_path):
    """Give a function that searches a store of embeddings and returns what the command wrote, and its folder."""

    def search(embeddings, *words, dtype="float32", expect=0):
        rows = len(embeddings)
        manifest = Manifest(
            survey="mock", survey_sha256="s" * 64, survey_settings={"option": "mock"}, checkpoint="b0.v1",
            checkpoint_sha256="c" * 64, precision="float32", width=WIDTH, dtype=dtype, rows=rows, shard_rows=rows,
            answers=("bar_no", "bar_yes"),
        )  # fmt: skip
        store = EmbeddingStore.create(tmp_path / "store", manifest)
        fractions = np.full((rows, 2), 0.5, np.float32)
        ids = [f"g{row:03d}" for row in range(rows)]
        # The store refuses to write what is not finite; a store that was made elsewhere may hold it.
        shard = store.write_shard(0, ids=ids, embeddings=np.nan_to_num(embeddings), fractions=fractions)
        table = pq.read_table(shard)
        column = table.column_names.index("embedding")
        pq.write_table(table.set_column(column, "embedding", tables.vectors(embeddings.astype(dtype))), shard)
        words = (f"store={store.finish().folder}", "out=found", "images=false", "logger=none", *FAST, *words)
        return cli("cluster.py", *words, cwd=tmp_path, expect=expect), tmp_path / "found"

    return search


NAN = np.where(np.arange(200)[:, None] % 10, sky(200), np.nan)


@pytest.mark.parametrize(
    ("embeddings", "words", "message"),
    [
        (sky(1), (), "too few galaxies for a map: 1"),
        (sky(9), (), "9 galaxies cannot have compress.n_neighbors: 10. Choose 2 to 8"),
        (sky(40), ("clusterer.min_samples=40",), "too few for clusterer.min_samples: 40. Choose at most 39"),
        (NAN, (), "not finite: 20 of 200 rows [galaxies g000, g010, g020, g030, g040 and 15 more]. Embed those"),
        (NAN * np.nan, ("select.not_finite=drop",), "none of 200 galaxies is left to search"),
        (sky(1) + np.zeros((50, 1)), (), "all 50 embeddings are equal"),
        (sky(60), (), "too few galaxies for null surveys: 60. Search at least 100"),
    ],
    ids=[
        "one galaxy",
        "fewer than n_neighbors",
        "fewer than min_samples",
        "a tenth NaN",
        "all NaN",
        "all equal",
        "no noise",
    ],
)
def test_a_store_that_cannot_be_searched_is_refused_in_one_message(searched, embeddings, words, message):
    finished, _ = searched(embeddings, *words, expect=2)
    assert message in finished.message


def test_galaxies_that_are_not_finite_can_be_left_out_and_are_counted(searched):
    _, result = searched(NAN, "select.not_finite=drop")
    about = json.loads((result / "run.json").read_text())
    assert (about["galaxies"], about["searched"]) == (200, 180)
    assert about["cuts"] == [{"cut": "an embedding that is not finite", "dropped": 20, "undecided": 0}]
    assert pq.read_table(result / "members.parquet").num_rows == 180


def test_half_precision_with_duplicates_a_constant_column_and_an_outlier_is_searched(searched):
    embeddings = sky(240)
    embeddings[:60:3], embeddings[:, 4], embeddings[200] = embeddings[0], 7, 3e4
    # Whitening would give the outlier a direction of its own, which is the one in which these groups differ; and groups
    # of a third of all galaxies are not rare.
    _, result = searched(embeddings, "compress.whiten=0", "clusterer.selection=leaf", dtype="float16")
    members = pq.read_table(result / "members.parquet").to_pandas().set_index("id_str")["class_id"]
    # The outlier is pulled to its nearest galaxies on the map, whose class it may join.
    ordinary = members.drop("g200").to_numpy()
    group = np.delete(np.arange(240) % 3, 200)
    purest = [
        np.bincount(group[ordinary == number]).max() / np.sum(ordinary == number)
        for number in range(ordinary.max() + 1)
    ]
    assert ordinary.max() >= 2
    assert min(purest) > 0.95


def test_a_damaged_image_does_not_stop_photometry_or_the_untrained_network(tmp_path, tiny_checkpoint):
    (tmp_path / "images").mkdir()
    ids = [f"g{number}" for number in range(6)]
    for number, galaxy in enumerate(ids):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{galaxy}.png")
    (tmp_path / "images" / "g3.png").write_bytes(b"\x89PNG damaged")
    (tmp_path / "galaxies.csv").write_text("\n".join(["id_str", *ids]) + "\n")
    galaxies = Catalogue(str(tmp_path / "galaxies.csv"), images=str(tmp_path / "images")).open()
    # The store holds the galaxies in another order than the catalogue.
    measured = Measured(galaxies, np.array(ids[::-1]), str(tiny_checkpoint), tmp_path)
    for kind in ("photometry", "native", "untrained"):
        features = measured.features(kind)
        assert np.isfinite(features).all()
        others = np.delete(features, 2, axis=0)
        np.testing.assert_allclose(features[2], np.median(others, axis=0), rtol=1e-5)
        assert len(np.unique(others, axis=0)) == 5
