"""HDBSCAN on a GPU through cuML (RAPIDS). It was never run on a GPU; tests play cuML by a stand-in."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rarezoo.errors import ConfigError
from rarezoo.searches.cluster import Clusterer
from rarezoo.settings import option


@option("clusterer", "hdbscan_cuml")
@dataclass
class HdbscanCuml(Clusterer):
    """HDBSCAN of cuML on an NVIDIA GPU; the condensed tree and the choice of classes are our own, as always."""

    def _merges(self, positions: Float64[np.ndarray, "galaxies k"]) -> Float64[np.ndarray, "merges 4"]:
        try:
            from cuml.cluster.hdbscan import HDBSCAN
        except ImportError as problem:
            raise ConfigError(
                "clusterer=hdbscan_cuml needs an NVIDIA GPU and cuML, which cannot be imported", value=problem,
                fix="Install it (https://docs.rapids.ai/install), or choose clusterer=fast_hdbscan.",
            ) from problem  # fmt: skip
        # The library's labels are not used, and min_cluster_size does not change the linkage.
        estimator = HDBSCAN(min_samples=self.min_samples, min_cluster_size=2, output_type="numpy")
        estimator.fit(np.asarray(positions, dtype=np.float32))
        return np.asarray(estimator.single_linkage_tree_.to_numpy(), dtype=np.float64)
