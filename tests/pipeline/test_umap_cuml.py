"""compress=umap_cuml speaks cuML's API, played by a stand-in, and says what is missing where it is not installed."""

import sys
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.compressors.umap_cuml import UmapCuml

pytestmark = pytest.mark.pipeline

IDS = [f"g{row:03d}" for row in range(120)]
EMBEDDINGS = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)


class StandIn:
    """cuml.manifold.UMAP as of 25.x: keyword settings, fit, fit_transform, transform, embedding_."""

    made: ClassVar[list] = []

    def __init__(self, *, n_neighbors=15, n_components=2, min_dist=0.1, metric="euclidean", n_epochs=None,
                 random_state=None, output_type=None):  # fmt: skip
        self.settings = dict(locals())
        self.components = n_components
        self.made.append(self)

    def fit(self, X):
        self.embeddings, self.embedding_ = X, X[:, : self.components].astype(np.float64)
        return self

    def fit_transform(self, X):
        return self.fit(X).embedding_

    def transform(self, X):
        nearest = ((X[:, None] - self.embeddings) ** 2).sum(axis=2).argmin(axis=1)
        return self.embedding_[nearest]


@pytest.fixture
def cuml(monkeypatch):
    package, manifold = ModuleType("cuml"), ModuleType("cuml.manifold")
    manifold.UMAP, StandIn.made = StandIn, []
    monkeypatch.setitem(sys.modules, "cuml", package)
    monkeypatch.setitem(sys.modules, "cuml.manifold", manifold)
    return StandIn


def test_settings_and_seed_reach_cuml_and_arrays_come_back(cuml):
    fitted = UmapCuml(n_neighbors=9, n_components=3, min_dist=0.2, n_epochs=7).fit(EMBEDDINGS, ids=IDS, seed=5)
    settings = cuml.made[0].settings
    assert [settings[key] for key in ("n_neighbors", "n_components", "min_dist", "n_epochs")] == [9, 3, 0.2, 7]
    assert (settings["random_state"], settings["output_type"], settings["metric"]) == (5, "numpy", "euclidean")
    assert fitted.positions.dtype == np.float32
    np.testing.assert_array_equal(fitted.positions, EMBEDDINGS[:, :3])


def test_an_opened_map_places_by_its_own_positions(cuml, tmp_path):
    fitted = UmapCuml(n_neighbors=9).fit(EMBEDDINGS, ids=IDS)
    opened = FittedMap.open(fitted.save(tmp_path))
    np.testing.assert_array_equal(opened.transform(EMBEDDINGS[:9]), fitted.positions[:9])


def test_without_cuml_the_user_is_told_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuml", None)
    with pytest.raises(ConfigError, match=r"needs an NVIDIA GPU and cuML.*choose compress=fast_umap"):
        UmapCuml(n_neighbors=9).fit(EMBEDDINGS, ids=IDS)
