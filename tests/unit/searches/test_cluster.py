"""HDBSCAN's classes: the library's own, definite, and cheap to read again from one linkage."""

import numpy as np
import pyarrow as pa
import pytest
from hdbscan import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.condensed import condensed

pytestmark = pytest.mark.unit


def planted_sky(seed=0):
    """400 scattered galaxies, and groups of 80, 60 and 60 with two knots in the first."""
    random = np.random.default_rng(seed)
    groups = [((6, 0, 0), 0.1, 40), ((6.6, 0, 0), 0.1, 40), ((0, 6, 0), 0.15, 60), ((0, 0, 6), 0.1, 60)]
    knots = [random.normal(centre, spread, size=(n, 3)) for centre, spread, n in groups]
    return np.concatenate([random.uniform(-8, 8, size=(400, 3)), *knots]).astype(np.float32)


SKY = planted_sky()
# Equal mutual reachabilities leave the library a choice; it takes the first row, we take galaxies by position.
BY_POSITION = np.lexsort(SKY.T[::-1])


def same_partition(first, second):
    """Whether two labellings are one up to the names of their classes."""
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist())) and all(
        (a < 0) == (b < 0) for a, b in pairs
    )


@pytest.mark.parametrize("selection", ["leaf", "eom"])
@pytest.mark.parametrize("min_cluster_size", [5, 20, 50])
@pytest.mark.parametrize("min_samples", [5, 15])
def test_relabelling_gives_what_a_fresh_fit_of_the_library_gives(selection, min_cluster_size, min_samples):
    linkage = Hdbscan(min_samples=min_samples).linkage(SKY)
    ours = Hdbscan(min_cluster_size=min_cluster_size, selection=selection).classes(linkage)
    theirs = HDBSCAN(
        min_samples=min_samples,
        min_cluster_size=min_cluster_size,
        cluster_selection_method=selection,
        approx_min_span_tree=False,
    ).fit(SKY[BY_POSITION].astype(np.float64))
    assert len(ours) >= 2
    assert same_partition(ours.labels[BY_POSITION], theirs.labels_)
    np.testing.assert_allclose(ours.probabilities[BY_POSITION], theirs.probabilities_, atol=1e-6)
    np.testing.assert_allclose(ours.outlier_scores[BY_POSITION], theirs.outlier_scores_, atol=1e-6)


def test_ties_alone_tell_the_librarys_labels_in_the_tables_own_order_apart():
    ours = Hdbscan(min_samples=15, min_cluster_size=20)
    theirs = HDBSCAN(min_samples=15, min_cluster_size=20, cluster_selection_method="leaf").fit(SKY)
    labels = ours.classes(ours.linkage(SKY)).labels
    assert adjusted_rand_score(labels, theirs.labels_) > 0.95


def test_leaves_and_branches_differ_and_the_planted_groups_come_back():
    linkage = Hdbscan(min_samples=10).linkage(SKY)
    leaves = Hdbscan(min_samples=10, min_cluster_size=30).classes(linkage)
    branches = Hdbscan(min_samples=10, min_cluster_size=30, selection="eom").classes(linkage)
    assert (len(leaves), len(branches)) == (4, 3)
    for start, size in ((400, 80), (480, 60), (540, 60)):
        assert np.mean(branches.labels[start : start + size] == np.median(branches.labels[start : start + size])) > 0.9


def test_classes_are_numbered_by_size_then_by_smallest_id():
    blob = np.round(SKY[480:540] * 64) / 64
    twins = np.concatenate([blob, blob + 16])
    linkage = Hdbscan(min_samples=10).linkage(twins)
    clusterer = Hdbscan(min_samples=10, min_cluster_size=30, selection="eom")
    rows = np.arange(len(twins))
    forward, backward = (
        clusterer.classes(linkage, ids=[f"g{row:04d}" for row in order]) for order in (rows, rows[::-1])
    )
    assert len(forward) == 2
    assert len(set(forward.sizes)) == 1
    assert (forward.labels[:60].max(), forward.labels[60:120].max()) == (0, 1)
    assert (backward.labels[:60].max(), backward.labels[60:120].max()) == (1, 0)
    sizes = Hdbscan(min_cluster_size=5).classes(Hdbscan(min_samples=5).linkage(SKY)).sizes
    assert list(sizes) == sorted(sizes, reverse=True)


def test_galaxies_in_another_order_get_the_same_classes():
    ids = np.array([f"g{row:04d}" for row in range(len(SKY))])
    order = np.random.default_rng(5).permutation(len(SKY))
    clusterer = Hdbscan(min_samples=8, min_cluster_size=8)
    straight = clusterer.classes(clusterer.linkage(SKY), ids=ids)
    shuffled = clusterer.classes(clusterer.linkage(SKY[order]), ids=ids[order])
    np.testing.assert_array_equal(straight.labels[order], shuffled.labels)
    np.testing.assert_array_equal(straight.deaths, shuffled.deaths)


def test_the_linkage_and_the_tree_are_whole_tables():
    clusterer = Hdbscan(min_samples=10, min_cluster_size=20)
    linkage = clusterer.linkage(SKY)
    assert linkage.num_rows == len(SKY) - 1
    assert (np.diff(linkage[tables.DISTANCE]) >= 0).all()
    sides = np.concatenate([linkage[tables.LEFT], linkage[tables.RIGHT]])
    assert sorted(sides) == list(range(2 * len(SKY) - 2))
    tree = clusterer.classes(linkage).tree
    assert tree.schema.types == list(tables.TREE.columns.values())
    galaxies = tree[tables.CHILD].to_numpy() < len(SKY)
    assert sorted(tree[tables.CHILD].to_numpy()[galaxies]) == list(range(len(SKY)))


def test_each_class_is_a_node_of_the_tree_with_its_lifetime():
    clusterer = Hdbscan(min_samples=10, min_cluster_size=25, selection="eom")
    clustering = clusterer.classes(clusterer.linkage(SKY))
    parent, child, density, size = (clustering.tree[name].to_numpy() for name in tables.TREE.columns)
    for class_id, node in enumerate(clustering.nodes):
        assert size[child == node][0] == clustering.sizes[class_id]
        assert density[child == node][0] == clustering.births[class_id]
        assert density[parent == node].max() == clustering.deaths[class_id]
    np.testing.assert_allclose(clustering.persistences, np.log(clustering.deaths / clustering.births))


@pytest.mark.parametrize("selection", ["leaf", "eom"])
@pytest.mark.parametrize("epsilon", [0.2, 0.6, 5.0])
def test_an_epsilon_gives_what_the_library_gives(selection, epsilon):
    linkage = Hdbscan(min_samples=5).linkage(SKY)
    ours = Hdbscan(min_cluster_size=5, selection=selection, epsilon=epsilon).classes(linkage)
    theirs = HDBSCAN(
        min_samples=5, min_cluster_size=5, cluster_selection_method=selection, cluster_selection_epsilon=epsilon,
        approx_min_span_tree=False,
    ).fit(SKY[BY_POSITION])  # fmt: skip
    assert same_partition(ours.labels[BY_POSITION], theirs.labels_)
    assert len(ours) <= len(Hdbscan(min_cluster_size=5, selection=selection).classes(linkage))


@pytest.mark.parametrize("min_cluster_size", [5, 30])
@pytest.mark.parametrize("threshold", [0.05, 0.5, 1.0, 3.0, 6.0])
def test_a_cut_at_one_density_is_the_librarys_cut_at_its_inverse(min_cluster_size, threshold):
    ours = Hdbscan(min_cluster_size=min_cluster_size, selection="lambda", threshold=threshold)
    clustering = ours.classes(Hdbscan(min_samples=5).linkage(SKY))
    tree = HDBSCAN(min_samples=5, min_cluster_size=2, approx_min_span_tree=False).fit(SKY).single_linkage_tree_
    assert same_partition(clustering.labels, tree.get_clusters(1 / threshold, min_cluster_size=min_cluster_size))
    assert (np.diff(clustering.sizes) <= 0).all()
    assert ((clustering.probabilities > 0) == (clustering.labels >= 0)).all()
    assert (clustering.deaths > threshold).all()
    assert len(clustering) == 1 or (clustering.births <= threshold).all()
    assert np.isfinite(clustering.persistences).all()


@pytest.mark.parametrize("selection", ["leaf", "eom"])
def test_no_class_is_a_legitimate_result(selection):
    clusterer = Hdbscan(min_samples=5, min_cluster_size=300, selection=selection)
    clustering = clusterer.classes(clusterer.linkage(SKY))
    assert len(clustering) == 0
    assert (clustering.labels == tables.NO_CLASS).all()
    assert clustering.sizes.shape == clustering.persistences.shape == (0,)
    assert clustering.tree.num_rows == len(SKY)


@pytest.mark.parametrize("selection", ["leaf", "eom"])
def test_coincident_galaxies_are_a_class_of_infinite_density(selection):
    sky = np.concatenate([SKY, np.full((40, 3), 3, dtype=np.float32)])
    clusterer = Hdbscan(min_samples=20, min_cluster_size=30, selection=selection)
    clustering = clusterer.classes(clusterer.linkage(sky))
    pile = clustering.labels[-1]
    assert pile >= 0
    assert (clustering.labels[-40:] == pile).all()
    assert np.isinf(clustering.deaths[pile])
    assert not np.isnan(clustering.persistences).any()
    assert np.isfinite(clustering.outlier_scores).all()


@pytest.mark.parametrize(
    ("settings", "positions", "message"),
    [
        ({"min_samples": 40}, SKY[:40], "40 galaxies are too few for clusterer.min_samples: 40. Choose at most 39"),
        ({"min_samples": 1}, SKY[:1], "1 galaxies are too few"),
        ({"min_samples": 0}, SKY, "clusterer.min_samples must be at least 1: 0"),
        ({"min_samples": 5, "min_cluster_size": 1}, SKY, "min_cluster_size"),
        (
            {"min_samples": 5, "selection": "twig"},
            SKY,
            "clusterer.selection has no such choice: twig. Choose leaf or eom",
        ),
        (
            {"min_samples": 5, "selection": "lambda"},
            SKY,
            "threshold with clusterer.selection=lambda: 0.0. Give selecti",
        ),
        ({"min_samples": 5, "threshold": 0.3}, SKY, "threshold with clusterer.selection=leaf: 0.3"),
        ({"min_samples": 5, "epsilon": -1.0}, SKY, "clusterer.epsilon must be at least 0: -1.0"),
        (
            {"min_samples": 5, "selection": "lambda", "threshold": 1.0, "epsilon": 0.1},
            SKY,
            "epsilon with clusterer.selection=lambda: 0.1",
        ),
    ],
)
@pytest.mark.parametrize("kind", [Hdbscan, FastHdbscan])
def test_settings_that_do_not_fit_the_galaxies_are_refused(kind, settings, positions, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings).linkage(positions)


@pytest.mark.parametrize("kind", [Hdbscan, FastHdbscan])
def test_positions_that_cannot_be_clustered_are_refused(kind):
    with pytest.raises(StoreError, match="not finite: 2 of 600"):
        kind(min_samples=5).linkage(np.where(np.arange(600)[:, None] < 2, np.nan, SKY))
    with pytest.raises(StoreError, match="all positions are equal"):
        kind(min_samples=5).linkage(np.ones((50, 3)))


def test_fast_hdbscan_is_refused_where_it_would_quietly_approximate():
    with pytest.raises(ConfigError, match="not exact above 30 dimensions: 31"):
        FastHdbscan(min_samples=5).linkage(np.random.default_rng(0).normal(size=(50, 31)))


def test_the_tree_is_condensed_once_and_read_under_any_selection():
    linkage = Hdbscan(min_samples=10).linkage(SKY)
    tree = Hdbscan(min_cluster_size=30).tree(linkage)
    for selection in ("leaf", "eom"):
        clusterer = Hdbscan(min_cluster_size=30, selection=selection)
        np.testing.assert_array_equal(clusterer.select(tree).labels, clusterer.classes(linkage).labels)


def test_a_linkage_read_from_a_file_gives_the_same_classes(tmp_path):
    clusterer = Hdbscan(min_samples=10, min_cluster_size=20)
    linkage = clusterer.linkage(SKY)
    back = tables.read(tables.write(linkage, tmp_path / "linkage.parquet", tables.LINKAGE), tables.LINKAGE)
    chunked = pa.concat_tables([back.slice(0, 100), back.slice(100)])
    np.testing.assert_array_equal(clusterer.classes(chunked).labels, clusterer.classes(linkage).labels)


@pytest.mark.parametrize("seed", range(8))
def test_trees_scores_and_labels_are_the_librarys_to_the_bit(seed):
    from hdbscan._hdbscan_tree import compute_stability, condense_tree, get_clusters, outlier_scores

    random = np.random.default_rng(seed)
    galaxies = int(random.integers(20, 400))
    positions = random.normal(size=(galaxies, 3))
    # Coincident galaxies, which are infinitely dense, and a tight group.
    positions[:5], positions[5:15] = positions[0], positions[5] + 0.01 * random.normal(size=(10, 3))
    linkage = FastHdbscan(min_samples=int(random.integers(1, 5))).linkage(positions)
    names = (tables.LEFT, tables.RIGHT, tables.DISTANCE, tables.SIZE)
    merges = np.column_stack([linkage[name].to_numpy().astype(np.float64) for name in names])
    for smallest in (2, 5, 12):
        tree, theirs = condensed(linkage, min_cluster_size=smallest), condense_tree(merges, smallest)
        np.testing.assert_array_equal(tree.rows, theirs)
        with np.errstate(invalid="ignore"):
            scores = np.nan_to_num(outlier_scores(theirs), nan=1.0)
        np.testing.assert_array_equal(tree.outlier_scores(), scores)
        for selection, epsilon in (("leaf", 0.0), ("eom", 0.0), ("eom", 0.3)):
            with np.errstate(invalid="ignore"):
                stability = compute_stability(theirs)
                result = get_clusters(theirs, stability, selection, cluster_selection_epsilon=epsilon)
            labels, strengths, _ = tree.selected(selection, epsilon=epsilon)
            np.testing.assert_array_equal(labels, result[0])
            np.testing.assert_array_equal(strengths, result[1])
