"""Any compressor: what it refuses, and that a map does not depend on the order of galaxies. PCA stands for them all.

The same on every registered compressor: tests/pipeline/test_conformance.py (compiling UMAP takes longer than a second).
"""

import json

import numpy as np
import pytest

from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.compressors.umap import Umap

pytestmark = pytest.mark.unit

IDS = [f"g{row:03d}" for row in np.random.default_rng(1).permutation(60)]
EMBEDDINGS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)


def test_pca_is_scikit_learns():
    from sklearn.decomposition import PCA

    ours = Pca(n_components=3).fit(EMBEDDINGS, ids=IDS).positions
    theirs = PCA(n_components=3, svd_solver="full").fit_transform(EMBEDDINGS)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-4, atol=1e-4)


def test_no_compression_gives_the_embeddings_in_their_own_order():
    fitted = NoCompression().fit(EMBEDDINGS, ids=IDS)
    np.testing.assert_array_equal(fitted.positions, EMBEDDINGS)
    assert list(fitted.ids) == IDS


def test_a_saved_map_places_galaxies_as_before(tmp_path):
    fitted = Pca(n_components=2).fit(EMBEDDINGS, ids=IDS, seed=3)
    opened = FittedMap.open(fitted.save(tmp_path / "map"))
    assert (opened.compressor, opened.seed, opened.width) == (Pca(n_components=2), 3, 8)
    assert list(opened.ids) == IDS
    np.testing.assert_array_equal(opened.positions, fitted.positions)
    np.testing.assert_allclose(opened.transform(EMBEDDINGS[:5]), fitted.positions[:5], atol=1e-5)
    assert opened.transform(np.empty((0, 8))).shape == (0, 2)


def test_half_precision_embeddings_are_lifted():
    fitted = Pca(n_components=2).fit(EMBEDDINGS.astype(np.float16), ids=IDS)
    assert fitted.positions.dtype == np.float32
    np.testing.assert_allclose(
        np.abs(fitted.positions), np.abs(Pca(n_components=2).fit(EMBEDDINGS, ids=IDS).positions), atol=0.1
    )


def test_placing_refuses_another_width_and_nan(tmp_path):
    fitted = Pca(n_components=2).fit(EMBEDDINGS, ids=IDS)
    with pytest.raises(StoreError, match="another width: 7 instead of 8"):
        fitted.transform(EMBEDDINGS[:, :7])
    with pytest.raises(StoreError, match=r"not finite: 1 of 2 rows .galaxies new2"):
        fitted.transform(np.array([[0.0] * 8, [np.nan] * 8]), ids=["new1", "new2"])


def test_an_empty_folder_is_no_map(tmp_path):
    with pytest.raises(StoreError, match="no fitted map"):
        FittedMap.open(tmp_path)


@pytest.mark.parametrize("lost", ["map.json", "state.npz", "map.parquet"])
def test_a_map_that_is_not_complete_is_refused(tmp_path, lost):
    folder = Pca(n_components=2).fit(EMBEDDINGS, ids=IDS).save(tmp_path / "map")
    (folder / lost).unlink()
    with pytest.raises(StoreError, match=r"no fitted map|no map table"):
        FittedMap.open(folder)


def test_a_map_holds_no_pickle(tmp_path):
    folder = Pca(n_components=2).fit(EMBEDDINGS, ids=IDS).save(tmp_path / "map")
    with np.load(folder / "state.npz", allow_pickle=False) as state:
        assert set(state) == {"mean", "components"}
    assert json.loads((folder / "map.json").read_text())["settings"] == {
        "option": "pca",
        "whiten": 0,
        "n_components": 2,
    }


@pytest.mark.parametrize(
    ("compressor", "galaxies", "message"),
    [
        (Umap(n_neighbors=50), 50, "50 galaxies cannot have compress.n_neighbors: 50. Choose 2 to 49"),
        (Umap(n_neighbors=5, n_components=5), 6, "n_components: 5. Choose 1 to 4"),
        (Pca(n_components=9), 60, "n_components: 9. Choose 1 to 8"),
        (Pca(n_components=5), 4, "n_components: 5. Choose 1 to 4"),
        (NoCompression(), 1, "too few galaxies for a map: 1"),
        (NoCompression(), 0, "too few galaxies for a map: 0"),
    ],
)
def test_settings_that_do_not_fit_the_galaxies_are_refused(compressor, galaxies, message):
    with pytest.raises(ConfigError, match=message):
        compressor.fit(EMBEDDINGS[:galaxies], ids=IDS[:galaxies])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Umap, {"n_neighbors": 1}),
        (Umap, {"n_components": 0}),
        (Umap, {"min_dist": 1.5}),
        (Umap, {"n_epochs": 0}),
        (Pca, {"n_components": 0}),
        (NoCompression, {"whiten": -1}),
    ],
)
def test_settings_out_of_range_are_refused_when_they_are_made(kind, settings):
    (name, value) = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"compress\.{name} must be .*: {value}"):
        kind(**settings)


def test_ids_that_do_not_go_with_the_rows_are_refused():
    with pytest.raises(StoreError, match=r"differ in number: \(59, 60\)"):
        Pca().fit(EMBEDDINGS, ids=IDS[1:])


def test_whitening_gives_directions_equal_weight_and_survives_saving(tmp_path):
    random = np.random.default_rng(0)
    scales = np.array([1000.0, 1.0, 0.5, 0.01])
    embeddings = (random.normal(size=(400, 4)) * scales + 7).astype(np.float32)
    names = [f"g{row:03d}" for row in range(400)]
    fitted = NoCompression(whiten=3).fit(embeddings, ids=names)
    np.testing.assert_allclose(np.cov(fitted.positions, rowvar=False), np.eye(3), atol=0.02)
    again = FittedMap.open(fitted.save(tmp_path / "map"))
    np.testing.assert_allclose(again.transform(embeddings[:5]), fitted.positions[:5], atol=1e-4)


def test_whitening_takes_no_more_directions_than_vary():
    embeddings = np.zeros((20, 5), np.float32)
    embeddings[:, :3] = np.random.default_rng(0).normal(size=(20, 3))
    names = [f"g{row}" for row in range(20)]
    assert NoCompression(whiten=5).fit(embeddings, ids=names).positions.shape == (20, 3)
