"""Which nodes are candidates and classes: on constructed trees with simulated null nodes, and on small surveys."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rarezoo import tables
from rarezoo.benchmark.planted import planted_vectors
from rarezoo.errors import ConfigError
from rarezoo.searches.classes import class_table, with_columns
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.condensed import condensed
from rarezoo.searches.isolation import FEWEST_NEIGHBOURS, NodeTree
from rarezoo.searches.null_surveys import FEWEST, NullSurveys, null_surveys
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import Significance, TreeScores, smallest_groups, strongest_nodes

pytestmark = pytest.mark.unit

FEW = Significance(surveys=5, galaxies=500)
PLANTED = (50, 30)


def sky(galaxies=800, *, planted=PLANTED, width=8, seed=0):
    """Galaxies of unequal spread, with tight groups in the first rows."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(galaxies, width)) * np.linspace(2, 1, width)
    first = 0
    for members in planted:
        centre = 2.5 * random.normal(size=width)
        features[first : first + members] = centre + 0.15 * random.normal(size=(members, width))
        first += members
    return features.astype(np.float32)


@cache
def simulated(*, count=20, each=100, galaxies=1000, seed=0):
    """Null nodes, none inside another, of which a fourteenth of the neighbours are members, whatever their size."""
    random = np.random.default_rng(seed)
    surveys = []
    for _ in range(count):
        sizes = np.exp(random.uniform(np.log(10), np.log(150), each)).astype(int)
        isolations = 1 / (1 + np.exp(2.5 - 0.3 * random.normal(size=each)))
        surveys.append(np.stack([np.full(each, -1.0), sizes, isolations]))
    return NullSurveys.of(galaxies, surveys)


def nulls_of(features, compressor, *, settings=FEW, **others):
    return null_surveys(
        features, compressor, count=settings.surveys, galaxies=settings.galaxies, tree_of=fine_tree, **others
    )


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile what numba compiles once, so that no test's time includes it."""
    nulls_of(sky(150, planted=()), Pca(n_components=2))


# --- constructed trees


def tree_of_nodes(*nodes, galaxies=1000):
    """A tree of nodes, each given as (its parent, galaxies of its own); the other galaxies are the root's."""
    parents = np.array([-1, *(parent for parent, _ in nodes)])
    homes = np.zeros(galaxies, dtype=np.int64)
    homes[: sum(own for _, own in nodes)] = np.repeat(np.arange(1, len(nodes) + 1), [own for _, own in nodes])
    return NodeTree(parents, homes)


def graph_of(tree, shares, *, seed=0):
    """Neighbours of each galaxy: this share of them in the galaxy's own node, then in the node above …, else anywhere.

    Args:
        tree: a tree.
        shares: of each node, of the neighbours that are left to it.
    """
    random = np.random.default_rng(seed)
    graph = np.empty((len(tree.homes), FEWEST_NEIGHBOURS), dtype=np.int32)
    inside = [tree.members(node) for node in range(len(tree.parents))]
    for galaxy in range(len(graph)):
        left, node = np.arange(FEWEST_NEIGHBOURS), tree.homes[galaxy]
        while node > 0:
            taken = left[: round(shares[node] * len(left))]
            graph[galaxy, taken] = random.choice(inside[node], len(taken))
            left, node = left[len(taken) :], tree.parents[node]
        graph[galaxy, left] = random.integers(0, len(graph), len(left))
    return graph


def scores_of(tree, shares, *, significance=FEW, seed=0):
    """Scores of a tree; a share of 0.1 is usual among null nodes, and 0.2 is hardly ever seen."""
    densities = np.ones(len(tree.homes))
    return TreeScores(tree, densities, graph_of(tree, shares, seed=seed), simulated(), significance)


def test_a_node_like_those_of_null_surveys_is_a_candidate_and_no_significant_class():
    scores = scores_of(tree_of_nodes((0, 60), (0, 60)), [0, 0.9, 0.05])
    assert scores.candidates.tolist() == [1, 2]
    assert scores.significant.tolist() == [1]
    assert scores.nodes == [1001, 1002]


def test_two_isolated_nodes_are_classes_and_what_holds_them_is_their_group():
    tree = tree_of_nodes((0, 10), (1, 30), (1, 25), (0, 40))
    scores = scores_of(tree, [0, 0.3, 0.85, 0.85, 0.9])
    assert sorted(scores.significant.tolist()) == [2, 3, 4]
    groups = scores.columns(np.array([1002, 1003, 1004]))[tables.GROUP]
    assert groups == [1001, 1001, None]


def test_a_node_takes_the_place_of_pieces_that_stand_out_less():
    tree = tree_of_nodes((0, 10), (1, 30), (1, 25))
    scores = scores_of(tree, [0, 0.95, 0.1, 0.1])
    assert scores.candidates.tolist() == scores.significant.tolist() == [1]
    assert scores.columns(np.array([1001]))[tables.GROUP] == [None]


def test_of_two_nodes_on_a_branch_the_one_that_stands_out_more_is_the_candidate():
    outer, inner = (0, 40), (1, 25)
    tree = tree_of_nodes(outer, inner)
    for shares in ([0, 0.2, 0.95], [0, 0.97, 0.3], [0, 0.9, 0.93]):
        scores = scores_of(tree, shares)
        better = 1 + int(np.argmax(scores.scores[1:]))
        assert scores.candidates.tolist() == [better]
    assert scores_of(tree, [0, 0.2, 0.95]).candidates.tolist() == [2]
    assert scores_of(tree, [0, 0.97, 0.3]).candidates.tolist() == [1]


def test_a_second_best_node_on_a_branch_is_a_candidate_only_beside_the_best():
    """The best part of a node replaces it; its other part is then a candidate too, however little it stands out."""
    tree = tree_of_nodes((0, 5), (1, 30), (1, 30))
    scores = scores_of(tree, [0, 0.15, 0.95, 0.02])
    assert scores.scores[2] > scores.scores[1] > scores.scores[3]
    assert scores.candidates.tolist() == [2, 3]
    assert scores.significant.tolist() == [2]


@st.composite
def trees(draw):
    """A random tree of small nodes, and the share of its neighbours that each node keeps."""
    count = draw(st.integers(1, 12))
    nodes = [(draw(st.integers(0, node)), draw(st.integers(10, 40))) for node in range(count)]
    shares = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    return tree_of_nodes(*nodes), [0.0, *shares]


@given(trees(), st.integers(0, 5), st.sampled_from([0.0001, 0.05, 0.5]))
@settings(max_examples=30, deadline=None)
def test_what_is_true_of_every_list(tree_and_shares, rows, level):
    tree, shares = tree_and_shares
    scores = scores_of(tree, shares, significance=replace(FEW, rows=rows, level=level))
    candidates, significant = scores.candidates.tolist(), scores.significant.tolist()
    listed = [node - scores.galaxies for node in scores.nodes]
    # The highest first; the significant ones are the first of them; the list holds the first of them too.
    assert np.all(np.diff(scores.scores[candidates]) <= 0)
    assert significant == candidates[: len(significant)]
    assert sorted(candidates[: max(rows, len(significant))]) == listed
    # No galaxy is in two of them, and none of them is too large.
    members = [row for node in candidates for row in tree.members(node).tolist()]
    assert len(members) == len(set(members))
    assert np.all(tree.sizes[candidates] <= FEW.largest * scores.galaxies)
    assert 0 not in candidates
    assert np.all(scores.false_discoveries(scores.significant) <= level + 1e-12)
    # A rare node that is no candidate lies in or around one.
    for node in np.flatnonzero(tree.sizes <= FEW.largest * scores.galaxies):
        assert any(node in tree.subtree(other) or other in tree.subtree(node) for other in candidates)
    # Whether anything is significant depends on the highest score only.
    assert np.all(scores.scores[candidates[:1]] <= scores.scores[1:].max())


# --- the nodes with the most evidence


@st.composite
def forests(draw):
    """Parents and evidence of a few nodes, with ties and without evidence, under one root or several."""
    count = draw(st.integers(0, 9))
    lowest = draw(st.sampled_from([-1, 0]))
    parents = [-1 if node == 0 else draw(st.integers(lowest, node - 1)) for node in range(count)]
    evidence = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 9.0]), min_size=count, max_size=count))
    return np.array(parents, dtype=np.int64), np.array(evidence, dtype=np.float64)


def related(parents, node, other):
    """Return whether one of two nodes holds the other."""
    inner, outer = max(node, other), min(node, other)
    while inner > outer:
        inner = parents[inner]
    return inner == outer


@given(forests())
@settings(max_examples=150, deadline=None)
def test_no_other_choice_of_nodes_apart_has_more_evidence(forest):
    parents, evidence = forest
    chosen = strongest_nodes(parents, evidence).tolist()
    assert np.all(evidence[chosen] > 0)
    best = 0.0
    for size in range(len(parents) + 1):
        for nodes in combinations(range(len(parents)), size):
            if not any(related(parents, *pair) for pair in combinations(nodes, 2)):
                best = max(best, float(evidence[list(nodes)].sum()))
    assert not any(related(parents, *pair) for pair in combinations(chosen, 2))
    assert evidence[chosen].sum() == best


# --- the core of a class


def test_the_core_of_a_class_is_without_the_galaxies_that_only_blur_it():
    """Sixty galaxies, of which the fifteen least dense have their neighbours elsewhere."""
    tree = tree_of_nodes((0, 60))
    random = np.random.default_rng(0)
    graph = graph_of(tree, [0, 0.97])
    graph[:60] = random.integers(0, 45, (60, FEWEST_NEIGHBOURS))
    graph[45:60] = random.integers(60, 1000, (15, FEWEST_NEIGHBOURS))
    densities = np.where(np.arange(1000) < 45, 2.0, 1.0)
    core = TreeScores(tree, densities, graph, simulated(), FEW).core(1001)
    assert np.sum(core < 45) >= 42
    assert np.sum(core >= 45) <= 5
    assert np.all(np.diff(core) > 0)


def test_a_class_that_is_isolated_as_a_whole_is_its_own_core():
    tree = tree_of_nodes((0, 60), (0, 40))
    random = np.random.default_rng(0)
    graph = graph_of(tree, [0, 0, 0])
    graph[:60] = random.integers(0, 60, (60, FEWEST_NEIGHBOURS))
    scores = TreeScores(tree, random.uniform(size=1000), graph, simulated(), FEW)
    assert scores.core(1001).tolist() == list(range(60))
    # Whatever happens, half of the galaxies stay.
    assert len(scores.core(1002)) >= 20


@given(trees())
@settings(max_examples=20, deadline=None)
def test_a_core_is_at_least_the_denser_half_of_its_node(tree_and_shares):
    tree, shares = tree_and_shares
    densities = np.random.default_rng(1).uniform(size=len(tree.homes))
    scores = TreeScores(tree, densities, graph_of(tree, shares), simulated(), FEW)
    for node in range(1, len(tree.parents)):
        members, core = tree.members(node), scores.core(node + scores.galaxies)
        assert set(core) <= set(members)
        assert len(core) >= len(members) // 2
        left = np.setdiff1d(members, core)
        assert densities[core].min() > densities[left].max(initial=-1)


# --- how long the list is, and in which order


SHARES = [0, 0.9, 0.05, 0.8, 0.07, 0.02]


@pytest.mark.parametrize(
    ("rows", "listed"), [(0, [1, 3]), (1, [1, 3]), (2, [1, 3]), (3, [1, 3, 4]), (50, [1, 2, 3, 4, 5])]
)
def test_after_the_significant_classes_come_the_best_candidates_until_the_list_is_full(rows, listed):
    tree = tree_of_nodes(*[(0, 60)] * 5)
    scores = scores_of(tree, SHARES, significance=replace(FEW, rows=rows))
    assert scores.significant.tolist() == [1, 3]
    assert scores.candidates.tolist() == [1, 3, 4, 2, 5]
    assert scores.nodes == [1000 + node for node in listed]


def test_the_length_of_the_list_changes_neither_scores_nor_error_rates():
    tree = tree_of_nodes(*[(0, 60)] * 5)
    few, many = (scores_of(tree, SHARES, significance=replace(FEW, rows=rows)) for rows in (0, 50))
    few_columns, many_columns = (scores.columns(np.array(scores.nodes)) for scores in (few, many))
    rows = [many.nodes.index(node) for node in few.nodes]
    for name in (tables.SIGNIFICANCE, tables.P_VALUE, tables.FALSE_DISCOVERY):
        assert few_columns[name] == [many_columns[name][row] for row in rows]


def test_a_higher_level_calls_the_doubtful_significant_too():
    tree, shares = tree_of_nodes((0, 60), (0, 60)), [0, 0.9, 0.12]
    strict, lax = (
        scores_of(tree, shares, significance=replace(FEW, level=level)).significant.tolist() for level in (1e-6, 0.95)
    )
    assert strict == [1]
    assert lax == [1, 2]


def test_a_survey_without_a_rare_node_has_no_candidate():
    for tree, shares in ((tree_of_nodes(), [0]), (tree_of_nodes((0, 400)), [0, 0.9])):
        scores = scores_of(tree, shares)
        assert scores.candidates.tolist() == scores.significant.tolist() == scores.nodes == []
        assert scores.columns(np.array([], dtype=int))[tables.P_VALUE] == []


# --- main groups


def test_a_node_of_too_many_galaxies_is_a_main_group_and_no_class():
    tree = tree_of_nodes((0, 240), (1, 60), (0, 40))
    scores = scores_of(tree, [0, 0.99, 0.9, 0.9])
    assert scores.candidates.tolist() == [3, 2] or scores.candidates.tolist() == [2, 3]
    (group,) = scores.main_groups
    assert (group.node, len(group.members)) == (1001, 300)
    assert group.members.tolist() == tree.members(1).tolist()
    assert group.significance == scores.scores[1]
    assert 0 <= group.p_value <= 0.05
    assert group.node not in scores.nodes
    # As a class it would be none whatever its score.
    columns = scores.columns(np.array([1001]))
    assert columns[tables.P_VALUE] == columns[tables.FALSE_DISCOVERY] == [1]


@pytest.mark.parametrize("node", [(0, 60), (0, 550)])
def test_a_rare_node_and_one_of_most_galaxies_are_no_main_groups(node):
    assert scores_of(tree_of_nodes(node), [0, 0.99]).main_groups == []


def test_a_large_node_like_those_of_null_surveys_is_no_main_group():
    assert scores_of(tree_of_nodes((0, 100), (0, 120)), [0, 0.02, 0.02]).main_groups == []


def test_main_groups_are_the_best_of_their_branch_and_the_largest_comes_first():
    tree = tree_of_nodes((0, 100), (0, 50), (2, 130), (2, 90))
    scores = scores_of(tree, [0, 0.9, 0.3, 0.95, 0.95])
    assert [group.node for group in scores.main_groups] == [1003, 1001, 1004]
    tree = tree_of_nodes((0, 150), (1, 130))
    assert [group.node for group in scores_of(tree, [0, 0.99, 0.3]).main_groups] == [1001]


@pytest.mark.parametrize(("size", "rare"), [(70, True), (71, False)])
def test_the_largest_share_is_still_rare(size, rare):
    scores = scores_of(tree_of_nodes((0, size)), [0, 0.95])
    assert scores.candidates.tolist() == ([1] if rare else [])
    assert len(scores.main_groups) == (not rare)
    looser = scores_of(tree_of_nodes((0, size)), [0, 0.95], significance=replace(FEW, largest=0.1))
    assert looser.candidates.tolist() == [1]


def test_classes_of_a_main_group_belong_to_it():
    tree = tree_of_nodes((0, 100), (1, 40), (1, 30), (0, 40))
    scores = scores_of(tree, [0, 0.95, 0.9, 0.9, 0.9])
    assert scores.columns(np.array(scores.nodes))[tables.GROUP] == [1001, 1001, None]


def test_a_class_belongs_to_the_smallest_group_that_it_shares():
    tree = tree_of_nodes((0, 10), (1, 40), (1, 10), (3, 40), (3, 40))
    assert smallest_groups(tree, [2, 4, 5], [3, 1]) == {2: 1, 4: 3, 5: 3}
    # A group that kept but one of its classes is none: that class is the larger group's.
    assert smallest_groups(tree, [2, 4], [3, 1]) == {2: 1, 4: 1}


# --- what counts as evidence


def test_what_all_nodes_of_a_survey_share_is_no_evidence():
    """Many equal nodes, each far more isolated than null nodes: the survey differs from its null surveys."""
    many = tree_of_nodes(*[(0, 30)] * 33)
    scores = scores_of(many, [0, *[0.5] * 33])
    assert scores.significant.tolist() == []
    assert len(scores.candidates) == 33
    assert np.median(scores.scores[1:]) < 3
    assert scores_of(many, [0, *[0.3] * 32, 0.95]).significant.tolist() == [33]


def test_a_survey_that_stands_apart_less_than_null_surveys_gains_nothing_by_it():
    """Scores are never counted from below what is usual in null surveys."""
    many = tree_of_nodes(*[(0, 30)] * 33)
    for shares in ([0, *[0.0] * 33], [0, *[0.0] * 32, 0.1]):
        scores = scores_of(many, shares)
        raw = scores.null.scores(scores.isolations, many.sizes, galaxies=scores.galaxies)
        assert np.all(scores.scores <= raw)
        assert scores.significant.tolist() == []


def test_false_discovery_rates_are_those_that_one_computes_by_hand():
    """Expected candidates of a null survey, over the candidates that stand out as much; never falling (Benjamini)."""
    scores = scores_of(tree_of_nodes(*[(0, 60)] * 5), SHARES)
    nodes = scores.candidates
    expected = scores.expected(nodes)
    assert np.all(np.diff(expected) >= 0)
    by_hand = [min(1.0, min(expected[place] / (place + 1) for place in range(row, 5))) for row in range(5)]
    np.testing.assert_allclose(scores.false_discoveries(nodes), by_hand)
    # In whichever order they are given, and of the nodes that are given only.
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(scores.false_discoveries(nodes[order]), np.array(by_hand)[order])
    assert scores.false_discoveries(nodes[1:2]) == pytest.approx(min(expected[1], 1.0))
    assert scores.false_discoveries(nodes[:0]).shape == (0,)
    columns = scores.columns(nodes + scores.galaxies)
    np.testing.assert_allclose(columns[tables.P_VALUE], -np.expm1(-expected))
    np.testing.assert_allclose(columns[tables.FALSE_DISCOVERY], by_hand)


def test_main_groups_have_no_part_in_the_false_discovery_rates_of_classes():
    alone = scores_of(tree_of_nodes((0, 60), (0, 60)), [0, 0.9, 0.09])
    beside = scores_of(tree_of_nodes((0, 60), (0, 60), (0, 200)), [0, 0.9, 0.09, 0.99])
    assert len(beside.main_groups) == 1
    assert beside.candidates.tolist() == [1, 2]
    for scores in (alone, beside):
        expected = scores.expected(scores.candidates)
        assert scores.false_discoveries(scores.candidates)[1] == pytest.approx(min(expected[1] / 2, 1))


def read(features, *, clusterer=None, surveys=5, rows=50, ids=None, seed=0):
    """Clustering and CLASSES table of a survey whose classes are compared with null surveys."""
    clusterer = clusterer or FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    compressor, ids = Pca(n_components=4), ids or [f"g{row:04d}" for row in range(len(features))]
    fitted = compressor.fit(features, ids=ids, seed=seed)
    tree = clusterer.tree(clusterer.linkage(fitted.positions))
    significance = replace(FEW, surveys=surveys, galaxies=1000, rows=rows)
    null = nulls_of(features, compressor, settings=significance, seed=seed)
    scores = TreeScores.of(tree, features, null, significance, seed=seed)
    clustering = clusterer.select(tree, scores, ids=ids)
    classes = class_table(clustering, ids=ids, positions=fitted.positions)
    return clustering, with_columns(classes, scores.columns(clustering.nodes))


# --- classes of a survey


def test_planted_groups_are_the_significant_classes_and_every_column_is_filled():
    clustering, classes = read(sky(), surveys=20)
    truth = np.repeat([0, 1, -1], [*PLANTED, 800 - sum(PLANTED)])
    table = tables.check(classes, tables.CLASSES)
    rates = np.array(table[tables.FALSE_DISCOVERY].to_pylist())
    significant = np.flatnonzero(rates <= 0.05)
    assert len(significant) == 2
    assert len(clustering) > 2
    for group, class_id in enumerate(significant):
        assert np.mean(clustering.labels[truth == group] == class_id) > 0.9
        assert np.mean(truth[clustering.labels == class_id] == group) > 0.9
    isolations, scores, chances = (
        np.array(table[name].to_pylist()) for name in (tables.ISOLATION, tables.SIGNIFICANCE, tables.P_VALUE)
    )
    assert isolations[significant].min() > 0.9
    assert scores[significant].min() > np.delete(scores, significant).max()
    assert np.all((chances >= 0) & (chances <= 1) & (rates >= 0) & (rates <= 1))
    # Benjamini and Hochberg: two stand out at least as much as the lesser of the two.
    assert rates[significant].max() <= -np.log1p(-chances[significant].max()) / 2 + 1e-12


def test_without_candidates_only_the_significant_classes_are_listed():
    clustering, classes = read(sky(), surveys=20, rows=0)
    assert len(clustering) == classes.num_rows == 2
    assert max(classes[tables.FALSE_DISCOVERY].to_pylist()) <= 0.05


def test_nothing_planted_nothing_significant_and_the_columns_of_an_empty_list_have_their_types():
    clustering, classes = read(sky(planted=()), surveys=10, rows=0)
    assert len(clustering) == classes.num_rows == 0
    assert classes.schema.field(tables.GROUP).type == pa.int64()
    assert min(read(sky(planted=()), surveys=10)[1][tables.FALSE_DISCOVERY].to_pylist()) > 0.05


def test_leaves_are_measured_whether_they_count_or_not():
    _, classes = read(sky(), clusterer=Hdbscan(min_samples=5, min_cluster_size=10, selection="leaf"), surveys=20)
    chances = np.array(classes[tables.P_VALUE].to_pylist())
    assert np.sum(chances <= 0.05) >= 2
    assert classes[tables.ISOLATION].null_count == classes[tables.P_VALUE].null_count == 0


def test_the_same_seed_gives_the_same_bits():
    (first, classes), (again, classes_again) = (read(sky(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert classes.equals(classes_again)


def test_the_order_of_the_galaxies_changes_nothing():
    features, ids = sky(), [f"g{row:04d}" for row in range(800)]
    order = np.random.default_rng(5).permutation(800)
    first, classes = read(features, ids=ids, surveys=10)
    other, classes_other = read(features[order], ids=[ids[row] for row in order], surveys=10)
    np.testing.assert_array_equal(other.labels, first.labels[order])
    # The covariance from which null surveys are drawn is a sum in another order.
    for name in (tables.SIGNIFICANCE, tables.P_VALUE, tables.FALSE_DISCOVERY):
        np.testing.assert_allclose(classes_other[name], classes[name], rtol=0.02, atol=0.02)
    for name in (tables.SIZE, tables.ISOLATION, tables.EXEMPLARS):
        assert classes_other[name].equals(classes[name])


@pytest.mark.parametrize("planted", [(), (7,)])
def test_the_fewest_galaxies_are_enough_though_null_surveys_may_have_no_node(planted):
    features = sky(FEWEST, planted=planted)
    null = nulls_of(features, Pca(n_components=3))
    tree = condensed(FastHdbscan(min_samples=5).linkage(features), min_cluster_size=10)
    scores = TreeScores.of(tree, features, null, FEW)
    columns = scores.columns(np.unique(tree.rows["parent"]))
    assert all(0 <= p_value <= 1 for p_value in columns[tables.P_VALUE])
    assert not any(score is not None and np.isnan(score) for score in columns[tables.SIGNIFICANCE])
    assert scores.main_groups == []


def test_a_tree_is_scored_once_per_search(monkeypatch):
    """Choosing the classes and measuring them use the same scores."""
    counted = []
    real = NodeTree.isolations
    monkeypatch.setattr(NodeTree, "isolations", lambda *arguments: counted.append(1) or real(*arguments))
    features = sky()
    null = nulls_of(features, Pca(n_components=4))
    counted.clear()
    clusterer = FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    tree = clusterer.tree(clusterer.linkage(features))
    scores = TreeScores.of(tree, features, null, FEW)
    scores.columns(clusterer.select(tree, scores).nodes)
    assert len(counted) == 1


# --- the error rate


def structureless(number):
    """Surveys without any group, of which the latent distribution is normal; some are bent into more dimensions."""
    if number % 2:
        return planted_vectors(number, galaxies=400, groups=0).embeddings
    return sky(400, planted=(), width=4 + number % 8, seed=number)


@pytest.mark.slow
def test_at_most_one_structureless_survey_in_twenty_shows_a_significant_class():
    """60 surveys. If the rate is 5 %, more than 7 show one with a probability of 1 %."""
    surveys, shown = 60, []
    for number in range(surveys):
        _, classes = read(structureless(number), surveys=20, rows=0)
        shown.append(classes.num_rows > 0)
    assert sum(shown) <= binom.ppf(0.99, surveys, 0.05), np.flatnonzero(shown)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surveys": -1}, r"significance.surveys must be at least 0: -1"),
        ({"surveys": 2}, r"significance.surveys: 2\. Choose at least 5; or 0"),
        ({"galaxies": 499}, r"significance.galaxies must be at least 500: 499"),
        ({"kind": "store"}, "significance.store with significance.kind=store: no store. Give both"),
        ({"store": "runs/untrained"}, "significance.store with significance.kind=gaussian: runs/untrained"),
        ({"kind": "shuffled"}, r"significance.kind has no such choice: shuffled\. Choose gaussian"),
        ({"level": 0.0}, r"significance.level must be more than 0: 0\.0"),
        ({"largest": 0.5}, r"significance.largest must be less than 0\.5: 0\.5"),
        ({"rows": -1}, r"significance.rows must be at least 0: -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Significance(**settings)


@pytest.mark.parametrize("surveys", [0, 5, 20])
def test_settings_in_range_pass(surveys):
    assert Significance(surveys=surveys, kind="gaussian").surveys == surveys


def test_isolated_without_null_surveys_is_refused_when_the_search_is_described():
    with pytest.raises(ConfigError, match=r"isolated needs null surveys: significance\.surveys=0\. Give"):
        SearchRun(store="nowhere", clusterer=FastHdbscan(selection="isolated"), significance=Significance(surveys=0))


def test_isolated_without_scores_says_the_same():
    features = sky(120, planted=(30,))
    clusterer = FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    with pytest.raises(ConfigError, match="isolated needs null surveys"):
        clusterer.classes(clusterer.linkage(features))
