"""Null surveys: what they keep of a survey, what is usual in them, which nodes are candidates, and what is kept."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.quality import local_dimension
from rarezoo.errors import ConfigError
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.compressors.umap import Umap
from rarezoo.searches.isolation import MOST_NEIGHBOURS
from rarezoo.searches.null_surveys import (
    NullSurveys,
    best_nodes,
    compressor_for,
    matched_components,
    null_survey,
    null_surveys,
)

pytestmark = pytest.mark.unit

RARE = (0, 0.2)


def sky(galaxies=600, *, planted=(), width=8, seed=0):
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


def null_tree(random, *, nodes=100, centre=-1.0, scatter=0.4):
    """Parents, sizes and isolations: half of the nodes lie in a larger one, and size tells nothing of isolation."""
    sizes = np.sort(np.exp(random.uniform(np.log(10), np.log(150), nodes)).astype(int))[::-1]
    around = np.floor(random.uniform(size=nodes) * np.arange(nodes))
    parents = np.where(random.uniform(size=nodes) < 0.5, around, -1.0)
    parents[0] = -1
    return np.stack([parents, sizes, logistic(centre + scatter * random.normal(size=nodes))])


@cache
def simulated(*, count=20, galaxies=1000, seed=0, **others):
    """Null surveys of which only the nodes are drawn."""
    random = np.random.default_rng(seed)
    return NullSurveys.of(galaxies, [null_tree(random, **others) for _ in range(count)])


def made(features, compressor, *, count=5, galaxies=500, tree_of=fine_tree, **others):
    return null_surveys(features, compressor, count=count, galaxies=galaxies, tree_of=tree_of, **others)


def same(null, other):
    names = ("count", "galaxies", "surveys", "parents", "sizes", "isolations")
    return all(np.array_equal(getattr(null, name), getattr(other, name)) for name in names)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile what numba compiles once, so that no test's time includes it."""
    made(sky(150), Pca(n_components=2))


# --- null surveys are like the survey, without its groups


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
    features = sky(3000)
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
    null, ordered = simulated(), np.sort(isolations)
    scores = null.scores(ordered, np.full(len(ordered), size), galaxies=1000)
    assert np.all(np.diff(scores) >= 0)
    expected = null.expected(scores, galaxies=1000, shares=RARE)
    assert np.all(np.diff(expected) <= 0)
    assert np.all((expected >= 0) & np.isfinite(expected))


def test_scores_of_null_nodes_are_standard_whatever_their_size():
    null, other = simulated(nodes=300), simulated(seed=1)
    scores = null.scores(other.isolations, other.sizes, galaxies=1000)
    big = other.sizes > 40
    for part in (scores[big], scores[~big]):
        assert np.median(part) == pytest.approx(0, abs=0.25)
        assert np.quantile(part, 0.84) == pytest.approx(1, abs=0.35)


def test_one_null_survey_in_twenty_shows_a_candidate_of_p_value_five_percent():
    """300 other surveys make the binomial error 1.3 %."""
    null, shown = simulated(count=40), 0
    for seed in range(300):
        other = simulated(count=1, seed=1000 + seed)
        scores = null.scores(other.isolations, other.sizes, galaxies=1000)
        rare = other.sizes <= RARE[1] * 1000
        candidates = best_nodes(other.parents, scores, rare)
        shown += -np.expm1(-null.expected(scores[candidates], galaxies=1000, shares=RARE).min()) <= 0.05
    assert 0.01 < shown / 300 < 0.10


@pytest.mark.parametrize("score", [-1.0, 0.0, 1.0, 2.0])
def test_as_many_candidates_are_expected_as_other_null_surveys_show(score):
    null, shown = simulated(count=40), []
    for seed in range(100):
        other = simulated(count=1, seed=1000 + seed)
        scores = null.scores(other.isolations, other.sizes, galaxies=1000)
        candidates = best_nodes(other.parents, scores, other.sizes <= RARE[1] * 1000)
        shown.append(np.sum(scores[candidates] >= score))
    expected = null.expected(np.array([score]), galaxies=1000, shares=RARE)[0]
    assert expected == pytest.approx(np.mean(shown), rel=0.15, abs=0.3)


def test_only_nodes_of_the_shares_that_are_asked_for_are_counted():
    null, lowest = simulated(), np.array([-100.0])
    rare, main, all_sizes = (
        null.expected(lowest, galaxies=1000, shares=shares)[0] for shares in ((0, 0.07), (0.07, 0.5), (0, 0.5))
    )
    inside = (null.sizes > 70) & (null.sizes <= 500)
    assert main == pytest.approx(len(best_nodes(null.parents, null.isolations, inside)) / 20, rel=0.05)
    # A candidate that holds a smaller one is counted for it.
    assert max(rare, main) < all_sizes < rare + main
    assert null.expected(lowest, galaxies=1000, shares=(0.4, 0.5)) == pytest.approx([1 / 21])


def test_a_larger_survey_is_compared_by_number_when_small_and_by_share_when_bulky():
    null = simulated()
    steep = replace(null, isolations=logistic(np.log(null.sizes) - 5))
    half = np.array([0.5])
    same_number = steep.scores(half, np.array([50]), galaxies=1000)
    assert steep.scores(half, np.array([50]), galaxies=100_000) == pytest.approx(same_number, abs=0.1)
    same_share = steep.scores(half, np.array([140]), galaxies=1000)
    assert steep.scores(half, np.array([14_000]), galaxies=100_000) == pytest.approx(same_share, abs=0.5)


def test_a_part_of_a_small_survey_is_compared_with_an_equal_share_of_a_null_survey():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(10), np.log(400), 2000)).astype(int)
    # Neighbours anywhere: a node's share of them is its share of the survey.
    anywhere = NullSurveys(
        20, 500, np.repeat(np.arange(20), 100), np.full(2000, -1), sizes,
        random.binomial(15 * sizes, sizes / 500) / (15 * sizes),
    )  # fmt: skip
    part = anywhere.scores(np.array([33 / 52]), np.array([33]), galaxies=52)
    assert abs(part[0]) < 2


def test_without_null_nodes_the_expected_number_is_that_of_any_node():
    empty = NullSurveys.of(500, [np.empty((3, 0))] * 20)
    scores = empty.scores(np.array([0.9]), np.array([30]), galaxies=500)
    assert np.isnan(scores).all()
    assert empty.expected(scores, galaxies=500, shares=RARE) == pytest.approx([1 / 21])


def test_null_surveys_without_a_node_count_too():
    random = np.random.default_rng(0)
    trees = [null_tree(random) for _ in range(10)]
    every, half = NullSurveys.of(1000, trees), NullSurveys.of(1000, [*trees, *[np.empty((3, 0))] * 10])
    scores = np.array([-1.0, 0.0])
    expected, of_half = (null.expected(scores, galaxies=1000, shares=RARE) for null in (every, half))
    np.testing.assert_allclose(of_half, expected / 2)


def test_a_survey_ten_times_as_large_shows_ten_times_as_many():
    null, scores = simulated(), np.array([2.0, 5.0])
    small, large = (null.expected(scores, galaxies=galaxies, shares=RARE) for galaxies in (1000, 10_000))
    np.testing.assert_allclose(large, 10 * small)


def test_surveys_are_joined_with_parents_of_their_own():
    first = np.array([[-1, 0, 0], [60, 30, 20], [0.1, 0.2, 0.3]])
    second = np.array([[-1, -1], [50, 40], [0.4, 0.5]])
    null = NullSurveys.of(200, [first, np.empty((3, 0)), second])
    assert (null.count, null.galaxies) == (3, 200)
    assert null.surveys.tolist() == [0, 0, 0, 2, 2]
    assert null.parents.tolist() == [-1, 0, 0, -1, -1]
    assert null.sizes.tolist() == [60, 30, 20, 50, 40]
    swapped = NullSurveys.of(200, [second, first])
    assert swapped.parents.tolist() == [-1, -1, -1, 2, 2]


# --- the best node of each branch


@st.composite
def scored_trees(draw):
    """Parents, scores with ties and NaN, and whether each node may be chosen."""
    nodes = draw(st.integers(0, 25))
    parents = [draw(st.integers(-1, node - 1)) for node in range(nodes)]
    scores = draw(st.lists(st.sampled_from([np.nan, -1.0, 0.0, 0.5, 2.0, 3.0]), min_size=nodes, max_size=nodes))
    distinct = draw(st.booleans())
    values = np.array(scores) + (np.random.default_rng(nodes).uniform(0, 0.1, nodes) if distinct else 0)
    allowed = draw(st.lists(st.booleans(), min_size=nodes, max_size=nodes))
    return np.array(parents, dtype=np.int64), values, np.array(allowed, dtype=bool)


def holders(parents, node):
    """Return the nodes around a node."""
    around = []
    while parents[node] >= 0:
        node = parents[node]
        around.append(node)
    return around


def by_hand(parents, scores, allowed):
    """Take the best node, drop what holds it or lies in it, and so on. Of equal nodes the first is the outer one."""
    left, chosen = [node for node in range(len(parents)) if allowed[node]], []
    while left:
        best = max(left, key=lambda node: (-np.inf if np.isnan(scores[node]) else scores[node], -node))
        chosen.append(best)
        related = {best, *holders(parents, best), *(n for n in left if best in holders(parents, n))}
        left = [node for node in left if node not in related]
    return sorted(chosen)


@given(scored_trees())
@settings(max_examples=300, deadline=None)
def test_the_best_nodes_are_those_that_one_takes_by_hand(tree):
    assert best_nodes(*tree).tolist() == by_hand(*tree)


@given(scored_trees())
@settings(max_examples=100, deadline=None)
def test_every_allowed_node_is_chosen_or_lies_in_or_around_one_that_is(tree):
    parents, scores, allowed = tree
    chosen = best_nodes(parents, scores, allowed).tolist()
    assert all(allowed[node] for node in chosen)
    for node in range(len(parents)):
        around = holders(parents, node)
        assert not (node in chosen and set(around) & set(chosen))
        inside = [other for other in chosen if node in holders(parents, other)]
        assert node in chosen or not allowed[node] or set(around) & set(chosen) or inside


# --- null surveys, made and kept


def test_the_same_seed_gives_the_same_null_surveys_and_another_seed_others():
    first, again, other = (made(sky(planted=(60,)), Pca(n_components=3), seed=seed) for seed in (4, 4, 5))
    assert same(first, again)
    assert not same(first, other)


def test_null_surveys_differ_from_each_other():
    null = made(sky(), Pca(n_components=3))
    surveys = [null.isolations[null.surveys == number].tolist() for number in range(5)]
    assert all(surveys[one] != surveys[other] for one in range(5) for other in range(one))


def test_nodes_come_after_the_nodes_around_them_and_are_no_larger():
    null = made(sky(2000), Pca(n_components=2), galaxies=2000)
    inside = np.flatnonzero(null.parents >= 0)
    assert len(inside)
    assert np.all(null.parents[inside] < inside)
    assert np.all(null.sizes[null.parents[inside]] >= null.sizes[inside])
    assert np.all(null.surveys[null.parents[inside]] == null.surveys[inside])
    # The root, which holds all galaxies, is left out.
    assert null.sizes.max() < 2000
    assert np.all((null.isolations >= 0) & (null.isolations <= 1))


def test_a_killed_run_continues_with_the_surveys_that_are_left(tmp_path):
    whole = made(sky(), Pca(n_components=3), folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    parts = [file.name.removesuffix(".tree.npy").split("-") for file in files]
    assert [(kind, size, survey) for kind, _, size, survey in parts] == [
        ("gaussian", "500", f"00{number}") for number in range(5)
    ]
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:40])
    built = []

    def counting(positions):
        built.append(1)
        return fine_tree(positions)

    assert same(made(sky(), Pca(n_components=3), folder=tmp_path, tree_of=counting), whole)
    assert len(built) == 2


def test_more_null_surveys_go_on_from_those_that_are_kept(tmp_path):
    five = made(sky(), Pca(n_components=3), folder=tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    seven = made(sky(), Pca(n_components=3), count=7, folder=tmp_path)
    assert same(five, made(sky(), Pca(n_components=3), folder=tmp_path))
    assert before.items() <= {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}.items()
    assert seven.isolations[: len(five.isolations)].tolist() == five.isolations.tolist()


def test_null_surveys_of_an_earlier_search_are_taken_over(tmp_path):
    first = made(sky(), Pca(n_components=3), folder=tmp_path / "before")
    again = made(
        sky(), Pca(n_components=3), folder=tmp_path / "now", earlier=tmp_path / "before",
        tree_of=lambda positions: pytest.fail("computed again"),
    )  # fmt: skip
    assert same(first, again)
    assert not (tmp_path / "now").exists()


def test_they_hold_no_more_galaxies_than_the_survey():
    assert made(sky(300), Pca(n_components=3), galaxies=500).galaxies == 300
    assert made(sky(700), Pca(n_components=3), galaxies=500).galaxies == 500


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_the_order_of_galaxies_changes_nothing_but_rounding(kind):
    """Whoever permutes the galaxies permutes the normal distribution that is fitted to them, or the shuffled values."""
    features = sky(400, planted=(20,))
    reverse = features[::-1].copy()
    first, other = (made(values, Pca(n_components=3), kind=kind, count=8) for values in (features, reverse))
    for level in (0.1, 0.5, 0.9):
        assert np.quantile(other.isolations, level) == pytest.approx(np.quantile(first.isolations, level), abs=0.15)
    if kind == "gaussian":
        np.testing.assert_allclose(other.isolations, first.isolations, atol=1e-3)


def test_embeddings_that_are_not_compressed_have_null_surveys_too():
    """fast_hdbscan reads no more than thirty dimensions."""
    null = made(sky(150, width=40), NoCompression())
    assert (null.count, null.galaxies) == (5, 150)


@pytest.mark.parametrize("whitening", [{"whiten": 5}, {"whiten": 5, "whiten_power": 0.5}])
def test_a_whitened_search_is_not_whitened_twice(whitening):
    whitened, plain = (made(sky(), Pca(n_components=3, **settings)) for settings in (whitening, {}))
    assert same(whitened, plain)


def test_neighbours_of_a_compressor_shrink_with_the_survey():
    assert compressor_for(Umap(n_neighbors=50), 200).n_neighbors == 20
    assert compressor_for(Umap(n_neighbors=15), 200).n_neighbors == 15
    assert compressor_for(Pca(n_components=3), 200) == Pca(n_components=3)


@pytest.mark.parametrize("galaxies", [1, 99])
def test_few_galaxies_are_refused(galaxies):
    with pytest.raises(ConfigError, match=f"too few galaxies for null surveys: {galaxies}. Search at least"):
        made(sky(galaxies), NoCompression())


def test_a_network_that_learnt_nothing_makes_surveys_of_half_its_galaxies():
    """All of them would be the same survey every time."""
    untrained = sky(800, seed=7)
    null = made(sky(), Pca(n_components=3), untrained=untrained, kind="store")
    assert null.galaxies == 400
    surveys = [null.isolations[null.surveys == number].tolist() for number in range(3)]
    assert surveys[0] != surveys[1] != surveys[2]
    with pytest.raises(ConfigError, match="too few galaxies for null surveys: 75"):
        made(sky(), Pca(n_components=3), untrained=untrained[:150], kind="store")


def test_embeddings_of_a_network_that_learnt_nothing_are_whitened_as_the_search_whitens():
    untrained = sky(800, seed=7)
    whitened, plain = (
        made(sky(), Pca(n_components=3, whiten=whiten), untrained=untrained, kind="store") for whiten in (5, 0)
    )
    assert not same(whitened, plain)
