"""Which nodes are classes: on constructed trees, simulated null nodes and small surveys."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.quality import local_dimension
from rarezoo.errors import ConfigError
from rarezoo.searches.classes import class_table, with_columns
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.condensed import condensed
from rarezoo.searches.isolation import FEWEST_NEIGHBOURS, MOST_NEIGHBOURS, NodeTree
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import (
    FEWEST,
    NullModel,
    NullNodes,
    Rule,
    Significance,
    TreeScores,
    compressor_for,
    matched_components,
    null_model,
    null_survey,
    smallest_groups,
)

pytestmark = pytest.mark.unit

FEW = Significance(surveys=5, galaxies=500)
PLANTED = (60, 40)


def sky(galaxies=600, *, planted=PLANTED, width=8, seed=0):
    """Galaxies of unequal spread, with tight groups in the first rows."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(galaxies, width)) * np.linspace(2, 1, width)
    first = 0
    for members in planted:
        centre = 2.5 * random.normal(size=width)
        features[first : first + members] = centre + 0.15 * random.normal(size=(members, width))
        first += members
    return features.astype(np.float32)


def logistic(logits):
    return 1 / (1 + np.exp(-logits))


def null_nodes(*, surveys=20, each=100, galaxies=1000, centre=-1.0, scatter=0.4, seed=0):
    """Nodes whose logit isolation is normal around one value, whatever their size."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(np.log(10), np.log(150), surveys * each)).astype(int)
    isolations = logistic(centre + scatter * random.normal(size=len(sizes)))
    return NullNodes(surveys, galaxies, np.repeat(np.arange(surveys), each), sizes, isolations)


def model_of(features, compressor, *, settings=FEW, tree_of=fine_tree, **others):
    return null_model(features, compressor, settings=settings, tree_of=tree_of, **others)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile what numba compiles once, so that no test's time includes it."""
    model_of(sky(150, planted=()), Pca(n_components=2))


# --- null surveys


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_a_null_survey_keeps_mean_and_covariance_and_no_group(kind):
    features = sky(3000, planted=(400,))
    null = null_survey(features, kind=kind, random=np.random.default_rng(1))
    assert null.shape == features.shape
    assert null.dtype == np.float32
    np.testing.assert_allclose(null.mean(axis=0), features.mean(axis=0), atol=0.2)
    covariance, theirs = np.cov(features, rowvar=False), np.cov(null, rowvar=False)
    np.testing.assert_allclose(theirs, covariance, atol=0.12 * np.trace(covariance) / len(covariance))
    group = np.arange(400)
    assert np.isin(NeighbourIndex(features).graph(MOST_NEIGHBOURS)[group], group).mean() > 0.95
    # Few galaxies lie where the planted group was.
    near = np.linalg.norm(null - features[group].mean(axis=0), axis=1) < 1
    assert near.sum() < 100


def test_permuted_keeps_every_principal_components_values_exactly():
    features = sky()
    null = null_survey(features, kind="permuted", random=np.random.default_rng(1)).astype(np.float64)
    mean = features.astype(np.float64).mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(features.astype(np.float64), rowvar=False))
    before, after = ((values - mean) @ axes for values in (features, null))
    np.testing.assert_allclose(np.sort(after, axis=0), np.sort(before, axis=0), atol=1e-4)
    assert not np.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_constant_and_single_columns_stay_what_they_are(kind):
    random = np.random.default_rng(0)
    features = np.column_stack([random.normal(size=50), np.full(50, 7)]).astype(np.float32)
    null = null_survey(features, kind=kind, random=random)
    np.testing.assert_allclose(null[:, 1], 7, atol=1e-4)
    assert null_survey(features[:, :1], kind=kind, random=random).shape == (50, 1)


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_a_share_of_a_component_is_kept_at_that_share_of_its_spread(kind):
    features = sky(3000, planted=())
    null = null_survey(features, kind=kind, components=2.5, random=np.random.default_rng(1))
    variances, theirs = (np.linalg.eigvalsh(np.cov(values, rowvar=False))[::-1] for values in (features, null))
    np.testing.assert_allclose(theirs[:3], variances[:3] * [1, 1, 0.25], rtol=0.2)
    np.testing.assert_allclose(theirs[3:], 0, atol=1e-6)


def sheet(galaxies, *, width=20, seed=0):
    """A plane, bent into more dimensions than it has."""
    random = np.random.default_rng(seed)
    waves = np.sin(random.normal(size=(galaxies, 2)) @ random.normal(size=(2, width)) * 2)
    return waves.astype(np.float32)


def test_the_local_dimension_is_that_of_a_sheet_not_of_the_space_that_it_is_bent_into():
    random = np.random.default_rng(0)
    assert local_dimension(sheet(2000)) == pytest.approx(2, abs=0.4)
    assert local_dimension(random.normal(size=(2000, 6)).astype(np.float32)) == pytest.approx(6, abs=1)


def test_the_local_dimension_leaves_out_galaxies_that_are_exactly_alike():
    twice = np.repeat(sheet(400), [1, 2] * 200, axis=0)
    assert local_dimension(twice) == pytest.approx(local_dimension(sheet(400)), abs=0.5)
    assert local_dimension(np.zeros((50, 3), np.float32)) == 0


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_null_surveys_of_a_sheet_are_as_thin(kind):
    features = sheet(1500)
    kept = matched_components(features, 1500, kind=kind, seed=0)
    null = null_survey(features, kind=kind, components=kept, random=np.random.default_rng(1))
    assert local_dimension(null) == pytest.approx(local_dimension(features), rel=0.15)
    whole = null_survey(features, kind=kind, random=np.random.default_rng(1))
    assert local_dimension(whole) > 2 * local_dimension(features)


# --- what is usual in null surveys


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(10, 150))
@settings(max_examples=50, deadline=None)
def test_more_isolated_nodes_score_higher_and_are_rarer_in_null_surveys(isolations, size):
    nodes, ordered = null_nodes(), np.sort(isolations)
    scores = nodes.scores(ordered, np.full(len(ordered), size), galaxies=1000)
    assert np.all(np.diff(scores) >= 0)
    expected = nodes.expected(scores, galaxies=1000, largest=0.2)
    assert np.all(np.diff(expected) <= 0)
    assert np.all((expected >= 0) & np.isfinite(expected))


def test_scores_of_null_nodes_are_standard_whatever_their_size():
    nodes, other = null_nodes(each=300), null_nodes(seed=1)
    scores = nodes.scores(other.isolations, other.sizes, galaxies=1000)
    big = other.sizes > 40
    for part in (scores[big], scores[~big]):
        assert np.median(part) == pytest.approx(0, abs=0.25)
        assert np.quantile(part, 0.84) == pytest.approx(1, abs=0.35)


def test_one_null_survey_in_twenty_shows_a_node_of_p_value_five_percent():
    """300 other surveys make the binomial error 1.2 %."""
    nodes, shown = null_nodes(surveys=40), 0
    for seed in range(300):
        other = null_nodes(surveys=1, seed=1000 + seed)
        scores = nodes.scores(other.isolations, other.sizes, galaxies=1000)
        shown += -np.expm1(-nodes.expected(scores, galaxies=1000, largest=0.2).min()) <= 0.05
    assert 0.01 < shown / 300 < 0.11


def test_a_larger_survey_is_compared_by_number_when_small_and_by_share_when_bulky():
    nodes = null_nodes()
    isolations = nodes.isolations + 0.0
    steep = replace(nodes, isolations=logistic(np.log(nodes.sizes) - 5 + 0 * isolations))
    same = steep.scores(np.array([0.5]), np.array([50]), galaxies=1000)
    assert steep.scores(np.array([0.5]), np.array([50]), galaxies=100_000) == pytest.approx(same, abs=0.1)
    bulky = steep.scores(np.array([0.5]), np.array([140]), galaxies=1000)
    assert steep.scores(np.array([0.5]), np.array([14_000]), galaxies=100_000) == pytest.approx(bulky, abs=0.5)


def test_a_part_of_a_small_class_is_compared_with_an_equal_share_of_a_null_survey():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(10), np.log(400), 2000)).astype(int)
    # Neighbours anywhere: a part's share of them is its share of the survey.
    anywhere = NullNodes(
        20, 500, np.repeat(np.arange(20), 100), sizes, random.binomial(15 * sizes, sizes / 500) / (15 * sizes)
    )
    part = anywhere.scores(np.array([33 / 52]), np.array([33]), galaxies=52)
    assert abs(part[0]) < 2


def test_without_null_nodes_the_expected_number_is_that_of_any_node():
    empty = NullNodes(20, 500, np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    scores = empty.scores(np.array([0.9]), np.array([30]), galaxies=500)
    assert np.isnan(scores).all()
    assert empty.expected(scores, galaxies=500, largest=0.2) == pytest.approx([1 / 21])


def test_fewer_are_expected_where_only_some_null_surveys_have_nodes():
    every = null_nodes(surveys=10)
    some = replace(every, count=20)
    asked = {"galaxies": 1000, "largest": 0.2}
    np.testing.assert_allclose(*(nodes.expected(np.zeros(1), **asked) * n for nodes, n in ((some, 2), (every, 1))))


def test_a_survey_ten_times_as_large_shows_ten_times_as_many():
    nodes, scores = null_nodes(), np.array([2.0, 5.0])
    small, large = (nodes.expected(scores, galaxies=galaxies, largest=0.2) for galaxies in (1000, 10_000))
    np.testing.assert_allclose(large, 10 * small)


# --- which nodes are classes


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


def scores_of(tree, shares, *, significance=FEW, rule=None):
    """Scores of nodes: a fifth of a null node's neighbours lie inside it at most, or half in small null surveys."""
    whole, small = null_nodes(centre=-2.5, scatter=0.3), null_nodes(centre=-0.5, scatter=0.2, galaxies=500, seed=1)
    return TreeScores(tree, graph_of(tree, shares), NullModel(significance, whole, small, rule or Rule()))


def test_a_node_like_those_of_null_surveys_is_no_class():
    chosen, groups = scores_of(tree_of_nodes((0, 60), (0, 60)), [0, 0.9, 0.05]).choice
    assert chosen == [1]
    assert groups == {}


def test_two_isolated_nodes_are_classes_and_what_holds_them_is_their_group():
    tree = tree_of_nodes((0, 30), (1, 60), (1, 50), (0, 40))
    scores = scores_of(tree, [0, 0.9, 0.85, 0.85, 0.9])
    chosen, groups = scores.choice
    assert sorted(chosen) == [2, 3, 4]
    assert groups == {2: 1, 3: 1}
    assert scores.p_values[1] < 0.05


def test_a_node_takes_the_place_of_pieces_that_are_not_isolated_in_it():
    tree = tree_of_nodes((0, 30), (1, 60), (1, 50))
    chosen, groups = scores_of(tree, [0, 0.95, 0.1, 0.1]).choice
    assert chosen == [1]
    assert groups == {}


def test_the_node_that_clearly_stands_out_more_is_the_class():
    tree = tree_of_nodes((0, 100), (1, 60))
    assert scores_of(tree, [0, 0.2, 0.95]).choice == ([2], {})
    assert scores_of(tree_of_nodes((0, 20), (1, 60)), [0, 0.97, 0.5]).choice == ([1], {})
    scores = scores_of(tree, [0, 0.9, 0.93])
    more = scores.scores[2] - scores.scores[1]
    assert more > 0
    for clear_lead, expected in ((more - 0.1, [2]), (more + 0.1, [1])):
        other = scores_of(tree, [0, 0.9, 0.93], rule=Rule(clear_lead=clear_lead))
        assert other.choice == (expected, {})


@pytest.mark.parametrize(("steepness", "expected"), [(1.5, [2, 3]), (0.0, [1])])
def test_parts_that_are_not_isolated_in_a_node_are_kept_only_where_they_stand_out_more(steepness, expected):
    """Null surveys whose large nodes split as evenly do not separate two parts; a union that stands out less does."""
    tree = tree_of_nodes((0, 30), (1, 60), (1, 50))
    whole = null_nodes(centre=-2.5, scatter=0.3)
    logits = np.log(whole.isolations / (1 - whole.isolations)) + steepness * np.log(whole.sizes / 60)
    small = null_nodes(centre=1.2, scatter=0.2, galaxies=500, seed=1)
    null = NullModel(FEW, replace(whole, isolations=logistic(logits)), small)
    scores = TreeScores(tree, graph_of(tree, [0, 0.4, 0.35, 0.35]), null)
    assert scores.isolated_parts(1, [2, 3]) == []
    assert (scores.scores[1] < scores.scores[[2, 3]].max()) == (expected == [2, 3])
    assert scores.choice == (expected, {})


def test_two_dense_cores_of_one_population_do_not_stand_for_it():
    """Each is isolated within it, but they hold a third of it: the rest would be lost."""
    scores = scores_of(tree_of_nodes((0, 110), (1, 40), (1, 30)), [0, 0.9, 0.85, 0.85])
    assert sorted(scores.isolated_parts(1, [2, 3])) == [2, 3]
    assert scores.choice == ([1], {})


def test_the_whole_that_stands_out_far_more_than_all_its_parts_is_the_class():
    """Two halves of one population, each isolated within it: it is one class, not two pieces."""
    tree = tree_of_nodes((0, 30), (1, 60), (1, 50), (0, 40))
    scores = scores_of(tree, [0, 0.97, 0.85, 0.85, 0.9])
    more = scores.scores[1] - scores.scores[[2, 3]].max()
    assert more > 0
    for far_lead, expected in ((more - 0.1, [1, 4]), (more + 0.1, [2, 3, 4])):
        other = scores_of(tree, [0, 0.97, 0.85, 0.85, 0.9], rule=Rule(far_lead=far_lead))
        chosen, groups = other.choice
        assert sorted(chosen) == expected
        assert groups == ({} if 1 in chosen else {2: 1, 3: 1})


def test_a_node_of_most_galaxies_is_not_rare():
    tree = tree_of_nodes((0, 500), (1, 60))
    scores = scores_of(tree, [0, 0.99, 0.9])
    assert scores.p_values[1] == scores.p_values[0] == 1
    assert scores.choice == ([2], {})
    looser = scores_of(tree_of_nodes((0, 500)), [0, 0.99], significance=replace(FEW, largest=0.6))
    assert looser.choice[0] == [1]


def test_a_class_belongs_to_the_smallest_group_that_it_shares():
    tree = tree_of_nodes((0, 10), (1, 40), (1, 10), (3, 40), (3, 40))
    scores = scores_of(tree, [0, 0.9, 0.9, 0.7, 0.9, 0.9])
    chosen, groups = scores.choice
    assert sorted(chosen) == [2, 4, 5]
    assert groups == {2: 1, 4: 3, 5: 3}
    # A group that kept but one of its classes is none: that class is the larger group's.
    assert smallest_groups(scores.tree, [2, 4], [3, 1]) == {2: 1, 4: 1}


def test_what_all_nodes_of_a_survey_share_is_no_evidence():
    """Many equal nodes, each far more isolated than null nodes: the survey differs from its null surveys."""
    many = tree_of_nodes(*[(0, 30)] * 33)
    assert scores_of(many, [0, *[0.5] * 33]).choice[0] == []
    chosen = scores_of(many, [0, *[0.3] * 32, 0.95]).choice[0]
    assert chosen == [33]


def test_false_discoveries_are_null_nodes_among_those_that_stand_out_as_much():
    """Nodes apart from each other count each; one around others adds nothing."""
    tree = tree_of_nodes((0, 60), (0, 50), (0, 10), (3, 40))
    scores = scores_of(tree, [0, 0.4, 0.35, 0.9, 0.9])
    rates, expected = scores.false_discoveries, scores.expected
    order = np.argsort(expected, kind="stable")
    assert sorted(order[:2]) == [3, 4]
    assert rates[order[1]] == expected[order[1]]
    assert rates[order[2]] == pytest.approx(expected[order[2]] / 2)
    assert rates[order[3]] == pytest.approx(min(expected[order[3]] / 3, 1))
    assert rates[0] == 1
    assert np.all(np.diff(rates[order]) >= 0)


def test_a_higher_level_reports_the_doubtful_too():
    tree, shares = tree_of_nodes((0, 60), (0, 60)), [0, 0.9, 0.12]
    strict, lax = (scores_of(tree, shares, significance=replace(FEW, level=level)) for level in (0.0001, 0.9))
    assert strict.choice[0] == [1]
    assert sorted(lax.choice[0]) == [1, 2]


# --- null surveys, made and kept


def same(value, other):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in ((value.whole, other.whole), (value.small, other.small))
        for name in ("surveys", "sizes", "isolations")
    )


def test_the_same_seed_gives_the_same_null_model_and_another_seed_another():
    first, again, other = (model_of(sky(), Pca(n_components=3), seed=seed) for seed in (4, 4, 5))
    assert same(first, again)
    assert not same(first, other)


def test_a_killed_run_continues_with_the_surveys_that_are_left(tmp_path):
    whole = model_of(sky(), Pca(n_components=3), folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    parts = [file.name.removesuffix(".nodes.npy").split("-") for file in files]
    assert [(kind, size, survey) for kind, _, size, survey in parts] == [
        ("gaussian", "500", f"00{n}") for n in range(5)
    ]
    files[1].unlink()
    built = []

    def counting(positions):
        built.append(1)
        return fine_tree(positions)

    assert same(model_of(sky(), Pca(n_components=3), folder=tmp_path, tree_of=counting), whole)
    assert len(built) == 1


def test_embeddings_that_are_not_compressed_have_null_surveys_too():
    """fast_hdbscan reads no more than thirty dimensions."""
    null = model_of(sky(150, planted=(), width=40), NoCompression())
    assert (null.whole.count, null.whole.galaxies) == (5, 150)


def test_null_surveys_of_an_earlier_search_are_taken_over(tmp_path):
    first = model_of(sky(), Pca(n_components=3), folder=tmp_path / "before")
    again = model_of(
        sky(), Pca(n_components=3), folder=tmp_path / "now", earlier=tmp_path / "before",
        tree_of=lambda positions: pytest.fail("computed again"),
    )  # fmt: skip
    assert same(first, again)
    assert not (tmp_path / "now").exists()


def test_a_large_survey_has_small_null_surveys_too(tmp_path):
    null = model_of(sky(700), Pca(n_components=3), settings=replace(FEW, galaxies=650), folder=tmp_path)
    assert (null.whole.galaxies, null.small.galaxies) == (650, 500)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_whitened_search_is_not_whitened_twice():
    whitening, plain = (model_of(sky(), Pca(n_components=3, whiten=whiten)) for whiten in (5, 0))
    assert same(whitening, plain)


def test_neighbours_of_a_compressor_shrink_with_the_survey():
    from rarezoo.searches.compressors.umap import Umap

    assert compressor_for(Umap(n_neighbors=50), 200).n_neighbors == 20
    assert compressor_for(Umap(n_neighbors=15), 200).n_neighbors == 15


@pytest.mark.parametrize("galaxies", [1, 99])
def test_few_galaxies_are_refused(galaxies):
    with pytest.raises(ConfigError, match=f"too few galaxies for null surveys: {galaxies}. Search at least"):
        model_of(sky(galaxies, planted=()), NoCompression())


def test_a_network_that_learnt_nothing_makes_surveys_of_half_its_galaxies():
    """All of them would be the same survey every time."""
    untrained = sky(800, planted=(), seed=7)
    null = model_of(sky(), Pca(n_components=3), untrained=untrained)
    assert null.whole.galaxies == null.small.galaxies == 400
    surveys = [null.whole.isolations[null.whole.surveys == number].tolist() for number in range(3)]
    assert surveys[0] != surveys[1] != surveys[2]
    with pytest.raises(ConfigError, match="too few galaxies for null surveys: 75"):
        model_of(sky(), Pca(n_components=3), untrained=untrained[:150])


@pytest.mark.parametrize("planted", [(), (30,)])
def test_the_fewest_galaxies_are_enough_though_null_surveys_may_have_no_node(planted):
    features = sky(FEWEST, planted=planted)
    null = model_of(features, Pca(n_components=3))
    tree = condensed(FastHdbscan(min_samples=5).linkage(features), min_cluster_size=10)
    columns = TreeScores.of(tree, features, null).columns(np.unique(tree.rows["parent"]))
    assert all(0 <= p_value <= 1 for p_value in columns[tables.P_VALUE])
    assert not any(score is not None and np.isnan(score) for score in columns[tables.SIGNIFICANCE])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surveys": -1}, r"significance.surveys must be at least 0: -1"),
        ({"surveys": 2}, r"significance.surveys: 2\. Choose 0 \(none\) or at least 5"),
        ({"galaxies": 499}, r"significance.galaxies must be at least 500: 499"),
        ({"kind": "store"}, "significance.store with significance.kind=store: no store. Give both"),
        ({"store": "runs/untrained"}, "significance.store with significance.kind=gaussian: runs/untrained"),
        ({"kind": "shuffled"}, r"significance.kind has no such choice: shuffled\. Choose gaussian"),
        ({"level": 0.0}, r"significance.level must be more than 0: 0\.0"),
        ({"largest": 1.0}, r"significance.largest must be less than 1: 1\.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Significance(**settings)


@pytest.mark.parametrize("surveys", [0, 5, 20])
def test_settings_in_range_pass(surveys):
    assert Significance(surveys=surveys, kind="gaussian").surveys == surveys


# --- classes of a survey


def read(features, *, clusterer=None, surveys=5):
    """Clustering and CLASSES table of a survey whose classes are compared with null surveys."""
    clusterer = clusterer or FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    compressor, ids = Pca(n_components=4), [f"g{row:04d}" for row in range(len(features))]
    fitted = compressor.fit(features, ids=ids)
    tree = clusterer.tree(clusterer.linkage(fitted.positions))
    scores = TreeScores.of(tree, features, model_of(features, compressor, settings=replace(FEW, surveys=surveys)))
    clustering = clusterer.select(tree, scores, ids=ids)
    classes = class_table(clustering, ids=ids, positions=fitted.positions)
    return clustering, with_columns(classes, scores.columns(clustering.nodes))


def test_planted_groups_are_the_classes_and_every_column_is_filled():
    clustering, classes = read(sky(), surveys=20)
    truth = np.repeat([0, 1, -1], [60, 40, 500])
    assert len(clustering) == 2
    for number in range(2):
        assert np.mean(clustering.labels[truth == number] == number) > 0.9
        assert np.mean(truth[clustering.labels == number] == number) > 0.9
    table = tables.check(classes, tables.CLASSES)
    assert min(table[tables.ISOLATION].to_pylist()) > 0.9
    assert min(table[tables.SIGNIFICANCE].to_pylist()) > 0
    chances, rates = (np.array(table[name].to_pylist()) for name in (tables.P_VALUE, tables.FALSE_DISCOVERY))
    assert np.all(chances <= 0.05)
    assert np.all(rates <= 0.05)
    # Benjamini and Hochberg: two stand out at least as much as the lesser of the two.
    assert rates.max() <= -np.log1p(-chances.max()) / 2 + 1e-12
    assert table[tables.GROUP].null_count == 2


def test_nothing_planted_nothing_found_and_the_columns_are_empty():
    clustering, classes = read(sky(planted=()), surveys=10)
    assert len(clustering) == classes.num_rows == 0
    assert classes.schema.field(tables.GROUP).type == pa.int64()


def test_leaves_are_measured_whether_they_count_or_not():
    _, classes = read(sky(), clusterer=Hdbscan(min_samples=5, min_cluster_size=10, selection="leaf"), surveys=20)
    chances = np.array(classes[tables.P_VALUE].to_pylist())
    assert np.sum(chances <= 0.05) >= 2
    assert classes[tables.ISOLATION].null_count == classes[tables.P_VALUE].null_count == 0


# --- refusals


def test_isolated_without_null_surveys_is_refused_when_the_search_is_described():
    with pytest.raises(ConfigError, match=r"isolated needs null surveys: significance\.surveys=0\. Give"):
        SearchRun(store="nowhere", clusterer=FastHdbscan(selection="isolated"), significance=Significance(surveys=0))


def test_isolated_without_scores_says_the_same():
    features = sky(120, planted=(30,))
    clusterer = FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    with pytest.raises(ConfigError, match="isolated needs null surveys"):
        clusterer.classes(clusterer.linkage(features))


def test_a_tree_is_scored_once_per_search(monkeypatch):
    """Choosing the classes and measuring them use the same scores."""
    counted = []
    real = NodeTree.isolations
    monkeypatch.setattr(NodeTree, "isolations", lambda *arguments: counted.append(1) or real(*arguments))
    features = sky()
    null = model_of(features, Pca(n_components=4))
    counted.clear()
    clusterer = FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    tree = clusterer.tree(clusterer.linkage(features))
    scores = TreeScores.of(tree, features, null)
    scores.columns(clusterer.select(tree, scores).nodes)
    assert len(counted) == 1
