"""The reference implementation, the hdbscan library."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rarezoo.searches.cluster import Clusterer
from rarezoo.settings import option


@option("clusterer", "hdbscan")
@dataclass
class Hdbscan(Clusterer):
    """HDBSCAN by the reference implementation: exact in any number of dimensions, on one thread."""

    computed_by = ("hdbscan",)

    def _merges(self, positions: Float64[np.ndarray, "galaxies k"]) -> Float64[np.ndarray, "merges 4"]:
        from hdbscan import HDBSCAN

        # The library's labels are not used, and min_cluster_size does not change the linkage.
        estimator = HDBSCAN(min_samples=self.min_samples, min_cluster_size=2, approx_min_span_tree=False)
        return np.asarray(estimator.fit(positions).single_linkage_tree_.to_numpy(), dtype=np.float64)
