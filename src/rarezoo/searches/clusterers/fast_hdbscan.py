"""The multi-threaded implementation, fast_hdbscan."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rarezoo.errors import ConfigError
from rarezoo.searches.cluster import Clusterer
from rarezoo.settings import option

# Above this number fast_hdbscan uses approximate neighbours without a warning (compute_minimum_spanning_tree).
MOST_DIMENSIONS = 30


@option("clusterer", "fast_hdbscan")
@dataclass
class FastHdbscan(Clusterer):
    """HDBSCAN on every core, with distances in single precision: the same classes as ``hdbscan`` except for ties.

    Of two equally long edges, the library takes the one that its threads meet first, which depends on their timing,
    also with ``reproducible=True``. The groups that are connected at each distance do not depend on this choice.
    Therefore the linkage is computed from these groups.
    """

    computed_by = ("fast_hdbscan", "seeded_umap.ties")

    def _merges(self, positions: Float64[np.ndarray, "galaxies k"]) -> Float64[np.ndarray, "merges 4"]:
        if positions.shape[1] > MOST_DIMENSIONS:
            raise ConfigError(
                "clusterer=fast_hdbscan is not exact above 30 dimensions", value=positions.shape[1],
                fix="Compress to fewer dimensions, or choose clusterer=hdbscan.",
            )  # fmt: skip
        from fast_hdbscan.cluster_trees import mst_to_linkage_tree
        from fast_hdbscan.hdbscan import compute_minimum_spanning_tree

        from seeded_umap.ties import canonical_tree

        edges, _, _ = compute_minimum_spanning_tree(positions, min_samples=self.min_samples, reproducible=True)
        shortest_first = edges[np.argsort(edges[:, 2], kind="stable")]
        return np.asarray(mst_to_linkage_tree(canonical_tree(shortest_first)), dtype=np.float64)
