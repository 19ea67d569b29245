"""clusterer=hdbscan_cuml speaks cuML's API, played by the hdbscan package, and says what is missing without it."""

import sys
from types import ModuleType

import hdbscan
import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.clusterers.hdbscan_cuml import HdbscanCuml

pytestmark = pytest.mark.unit
POSITIONS = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)


class StandIn:
    """cuml.cluster.hdbscan.HDBSCAN as of 25.x: fit, and single_linkage_tree_ with to_numpy."""

    def __init__(self, *, min_samples=None, min_cluster_size=5, output_type=None):
        self.settings = {"min_samples": min_samples, "min_cluster_size": min_cluster_size}
        self.output_type = output_type

    def fit(self, positions):
        assert self.output_type == "numpy"
        fitted = hdbscan.HDBSCAN(**self.settings, approx_min_span_tree=False).fit(positions)
        self.single_linkage_tree_ = fitted.single_linkage_tree_


def test_the_tree_is_that_of_hdbscan(monkeypatch):
    for name in ("cuml", "cuml.cluster", "cuml.cluster.hdbscan"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cuml.cluster.hdbscan"].HDBSCAN = StandIn
    ours, theirs = (kind(min_samples=5, min_cluster_size=10).linkage(POSITIONS) for kind in (HdbscanCuml, Hdbscan))
    assert np.allclose(ours["distance"].to_numpy(), theirs["distance"].to_numpy(), atol=1e-5)


def test_without_cuml_the_message_names_another_clusterer():
    with pytest.raises(ConfigError, match="fast_hdbscan"):
        HdbscanCuml(min_samples=5).linkage(POSITIONS)
