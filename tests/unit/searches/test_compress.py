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
        "whiten_power": 1.0,
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
        (NoCompression, {"whiten_power": 0.0}),
        (NoCompression, {"whiten_power": 1.5}),
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


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_a_power_divides_each_component_by_that_power_of_its_scatter(power):
    random = np.random.default_rng(0)
    embeddings = (random.normal(size=(400, 4)) * [100.0, 4.0, 1.0, 0.01] + 7).astype(np.float32)
    fitted = NoCompression(whiten=3, whiten_power=power).fit(embeddings, ids=[f"g{row:03d}" for row in range(400)])
    variances = np.linalg.eigvalsh(np.cov(embeddings, rowvar=False))[:0:-1]
    theirs = np.cov(fitted.positions, rowvar=False)
    np.testing.assert_allclose(theirs.diagonal(), variances ** (1 - power), rtol=1e-3)
    np.testing.assert_allclose(np.corrcoef(fitted.positions, rowvar=False), np.eye(3), atol=1e-3)


@pytest.mark.parametrize("kind", [NoCompression, Pca])
def test_a_half_whitened_map_is_saved_and_places_galaxies_by_the_same_features(tmp_path, kind):
    fitted = kind(whiten=5, whiten_power=0.5).fit(EMBEDDINGS, ids=IDS, seed=2)
    opened = FittedMap.open(fitted.save(tmp_path / "map"))
    assert opened.compressor == fitted.compressor
    assert opened.compressor.whiten_power == 0.5
    np.testing.assert_array_equal(opened.features(EMBEDDINGS), fitted.features(EMBEDDINGS))
    np.testing.assert_array_equal(opened.transform(EMBEDDINGS), fitted.transform(EMBEDDINGS))
    np.testing.assert_allclose(fitted.transform(EMBEDDINGS), fitted.positions, atol=1e-4)
    # A galaxy has the same bits whatever galaxies stand beside it.
    np.testing.assert_array_equal(fitted.features(EMBEDDINGS[7:9]), fitted.features(EMBEDDINGS)[7:9])
    fully = kind(whiten=5).fit(EMBEDDINGS, ids=IDS, seed=2)
    assert not np.allclose(fully.features(EMBEDDINGS), fitted.features(EMBEDDINGS), atol=0.1)


def test_without_compression_the_map_is_the_features():
    fitted = NoCompression(whiten=5, whiten_power=0.5).fit(EMBEDDINGS, ids=IDS)
    np.testing.assert_array_equal(fitted.positions, fitted.features(EMBEDDINGS))
    np.testing.assert_array_equal(fitted.transform(EMBEDDINGS), fitted.features(EMBEDDINGS))


def test_a_map_that_was_saved_before_there_was_a_power_is_fully_whitened(tmp_path):
    fitted = NoCompression(whiten=3).fit(EMBEDDINGS, ids=IDS)
    folder = fitted.save(tmp_path / "map")
    about = json.loads((folder / "map.json").read_text())
    about["settings"].pop("whiten_power")
    (folder / "map.json").write_text(json.dumps(about))
    opened = FittedMap.open(folder)
    assert opened.compressor == fitted.compressor
    np.testing.assert_array_equal(opened.transform(EMBEDDINGS), fitted.transform(EMBEDDINGS))


def test_whitening_takes_no_more_directions_than_vary():
    embeddings = np.zeros((20, 5), np.float32)
    embeddings[:, :3] = np.random.default_rng(0).normal(size=(20, 3))
    names = [f"g{row}" for row in range(20)]
    assert NoCompression(whiten=5).fit(embeddings, ids=names).positions.shape == (20, 3)
