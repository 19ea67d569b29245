"""One file per clusterer; each is a choice of ``clusterer=``."""

import numpy as np
from jaxtyping import Float

from rarezoo.searches.condensed import CondensedTree


def fine_tree(positions: Float[np.ndarray, "galaxies k"]) -> CondensedTree:
    """Return a tree of a map that holds groups of every size from 10 galaxies up, for null surveys.

    It is computed by fast_hdbscan, or above its 30 dimensions by hdbscan, with ``min_samples`` 5.
    """
    from rarezoo.searches.clusterers.fast_hdbscan import MOST_DIMENSIONS, FastHdbscan
    from rarezoo.searches.clusterers.hdbscan import Hdbscan

    kind = FastHdbscan if positions.shape[1] <= MOST_DIMENSIONS else Hdbscan
    clusterer = kind(min_samples=5, min_cluster_size=10)
    return clusterer.tree(clusterer.linkage(positions))
