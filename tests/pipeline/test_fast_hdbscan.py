"""fast_hdbscan's classes are hdbscan's, and ties are broken one way whatever the threads."""

import numpy as np
import pytest
from fast_hdbscan.cluster_trees import mst_to_linkage_tree
from hdbscan import HDBSCAN
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from rarezoo import tables
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from seeded_umap.ties import canonical_tree

pytestmark = pytest.mark.pipeline


def lattice_sky(seed=0):
    """Galaxies on a lattice on which single precision is exact, with two groups; in the order of their positions."""
    random = np.random.default_rng(seed)
    groups = [
        random.normal(centre, spread, size=(n, 3)) for centre, spread, n in ((0, 3, 900), (7, 0.3, 80), (-7, 0.4, 90))
    ]
    sky = np.unique(np.round(np.concatenate(groups) * 64) / 64, axis=0)
    return sky[np.lexsort(sky.T[::-1])]


@pytest.mark.parametrize("min_samples", [1, 5, 40])
def test_linkage_is_that_of_hdbscans_spanning_tree_once_ties_are_broken_alike(min_samples):
    sky = lattice_sky()
    theirs = HDBSCAN(min_samples=min_samples, approx_min_span_tree=False, gen_min_span_tree=True).fit(sky)
    edges = theirs.minimum_spanning_tree_.to_numpy()
    expected = mst_to_linkage_tree(canonical_tree(edges[np.argsort(edges[:, 2], kind="stable")]))
    ours = FastHdbscan(min_samples=min_samples).linkage(sky)
    np.testing.assert_allclose(ours[tables.DISTANCE], expected[:, 2], rtol=1e-12)
    np.testing.assert_array_equal(ours[tables.SIZE], expected[:, 3])
    np.testing.assert_array_equal(
        np.column_stack([ours[tables.LEFT], ours[tables.RIGHT]]), np.sort(expected[:, :2], axis=1)
    )


def test_the_tree_does_not_depend_on_which_of_equally_long_edges_are_given():
    random = np.random.default_rng(0)
    distances = random.integers(1, 6, size=(60, 60))
    distances = np.maximum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    trees = []
    for _ in range(5):
        order = random.permutation(60)
        result = minimum_spanning_tree(csr_array(distances[np.ix_(order, order)])).tocoo()
        edges = np.column_stack([order[result.row], order[result.col], result.data]).astype(float)
        trees.append(canonical_tree(edges[np.argsort(edges[:, 2], kind="stable")]))
    assert len(np.unique(trees[0][:, 2])) < 6
    for tree in trees[1:]:
        np.testing.assert_array_equal(tree, trees[0])
