"""Is it a class, or what noise looks like? On constructed trees, simulated clumps and small surveys."""

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
from rarezoo.searches import significance as nulls
from rarezoo.searches.classes import class_table, with_columns
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.condensed import condensed
from rarezoo.searches.isolation import FEWEST_NEIGHBOURS, MOST_NEIGHBOURS, Nest
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import (
    Clumps,
    Evidence,
    Noise,
    Significance,
    Standing,
    noise_of,
    structureless,
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


def clumps(*, surveys=20, each=100, galaxies=1000, centre=-1.0, scatter=0.4, seed=0):
    """Nodes whose logit isolation is normal around one value, whatever their size."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(np.log(10), np.log(150), surveys * each)).astype(int)
    isolations = logistic(centre + scatter * random.normal(size=len(sizes)))
    return Clumps(surveys, galaxies, np.repeat(np.arange(surveys), each), sizes, isolations)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """What numba compiles once is no test's."""
    noise_of(sky(150, planted=()), Pca(n_components=2), settings=FEW)


# --- structureless surveys


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_structureless_keeps_mean_and_covariance_and_no_group(kind):
    features = sky(3000, planted=(400,))
    noise = structureless(features, kind=kind, random=np.random.default_rng(1))
    assert noise.shape == features.shape
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean(axis=0), features.mean(axis=0), atol=0.2)
    covariance, theirs = np.cov(features, rowvar=False), np.cov(noise, rowvar=False)
    np.testing.assert_allclose(theirs, covariance, atol=0.12 * np.trace(covariance) / len(covariance))
    group = np.arange(400)
    assert np.isin(NeighbourIndex(features).graph(MOST_NEIGHBOURS)[group], group).mean() > 0.95
    # Those in the planted group's place now are no tighter than chance: nobody near has mostly its members around.
    near = np.linalg.norm(noise - features[group].mean(axis=0), axis=1) < 1
    assert near.sum() < 100


def test_permuted_keeps_every_principal_components_values_exactly():
    features = sky()
    noise = structureless(features, kind="permuted", random=np.random.default_rng(1)).astype(np.float64)
    mean = features.astype(np.float64).mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(features.astype(np.float64), rowvar=False))
    before, after = ((one - mean) @ axes for one in (features, noise))
    np.testing.assert_allclose(np.sort(after, axis=0), np.sort(before, axis=0), atol=1e-4)
    assert not np.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_constant_and_single_columns_stay_what_they_are(kind):
    random = np.random.default_rng(0)
    features = np.column_stack([random.normal(size=50), np.full(50, 7)]).astype(np.float32)
    noise = structureless(features, kind=kind, random=random)
    np.testing.assert_allclose(noise[:, 1], 7, atol=1e-4)
    assert structureless(features[:, :1], kind=kind, random=random).shape == (50, 1)


@pytest.mark.parametrize("kind", ["permuted", "gaussian"])
def test_a_share_of_a_component_is_kept_at_that_share_of_its_spread(kind):
    features = sky(3000, planted=())
    noise = structureless(features, kind=kind, components=2.5, random=np.random.default_rng(1))
    variances, theirs = (np.linalg.eigvalsh(np.cov(one, rowvar=False))[::-1] for one in (features, noise))
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
def test_structureless_surveys_of_a_sheet_are_as_thin(kind):
    features = sheet(1500)
    kept = nulls._components(features, 1500, kind=kind, seed=0)
    noise = structureless(features, kind=kind, components=kept, random=np.random.default_rng(1))
    assert local_dimension(noise) == pytest.approx(local_dimension(features), rel=0.15)
    whole = structureless(features, kind=kind, random=np.random.default_rng(1))
    assert local_dimension(whole) > 2 * local_dimension(features)


# --- what is usual for noise


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(10, 150))
@settings(max_examples=50, deadline=None)
def test_more_isolated_scores_higher_and_is_less_likely_noise(isolations, size):
    noise, ordered = clumps(), np.sort(isolations)
    scores = noise.scores(ordered, np.full(len(ordered), size), galaxies=1000)
    assert np.all(np.diff(scores) >= 0)
    expected = noise.expected(scores, galaxies=1000, largest=0.2)
    assert np.all(np.diff(expected) <= 0)
    assert np.all((expected >= 0) & np.isfinite(expected))


def test_scores_of_noise_are_standard_whatever_the_size():
    noise, other = clumps(each=300), clumps(seed=1)
    scores = noise.scores(other.isolations, other.sizes, galaxies=1000)
    big = other.sizes > 40
    for those in (scores[big], scores[~big]):
        assert np.median(those) == pytest.approx(0, abs=0.25)
        assert np.quantile(those, 0.84) == pytest.approx(1, abs=0.35)


def test_one_structureless_survey_in_twenty_shows_a_node_of_chance_five_percent():
    """As many others as make the binomial error 1.2 %."""
    noise, shown = clumps(surveys=40), 0
    for seed in range(300):
        one = clumps(surveys=1, seed=1000 + seed)
        scores = noise.scores(one.isolations, one.sizes, galaxies=1000)
        shown += -np.expm1(-noise.expected(scores, galaxies=1000, largest=0.2).min()) <= 0.05
    assert 0.01 < shown / 300 < 0.11


def test_a_larger_survey_is_compared_by_number_when_small_and_by_share_when_bulky():
    noise = clumps()
    isolations = noise.isolations + 0.0
    steep = replace(noise, isolations=logistic(np.log(noise.sizes) - 5 + 0 * isolations))
    same = steep.scores(np.array([0.5]), np.array([50]), galaxies=1000)
    assert steep.scores(np.array([0.5]), np.array([50]), galaxies=100_000) == pytest.approx(same, abs=0.1)
    bulky = steep.scores(np.array([0.5]), np.array([140]), galaxies=1000)
    assert steep.scores(np.array([0.5]), np.array([14_000]), galaxies=100_000) == pytest.approx(bulky, abs=0.5)


def test_a_part_of_a_small_class_is_compared_with_as_large_a_share_of_noise():
    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(np.log(10), np.log(400), 2000)).astype(int)
    # Neighbours anywhere: a part's share of them is its share of the survey.
    anywhere = Clumps(
        20, 500, np.repeat(np.arange(20), 100), sizes, random.binomial(15 * sizes, sizes / 500) / (15 * sizes)
    )
    part = anywhere.scores(np.array([33 / 52]), np.array([33]), galaxies=52)
    assert abs(part[0]) < 2


def test_where_noise_has_no_clump_the_chance_is_that_of_having_one():
    empty = Clumps(20, 500, np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    scores = empty.scores(np.array([0.9]), np.array([30]), galaxies=500)
    assert np.isnan(scores).all()
    assert empty.expected(scores, galaxies=500, largest=0.2) == pytest.approx([1 / 21])


def test_where_only_some_noise_has_clumps_fewer_are_expected():
    every = clumps(surveys=10)
    some = replace(every, made=20)
    asked = {"galaxies": 1000, "largest": 0.2}
    np.testing.assert_allclose(*(one.expected(np.zeros(1), **asked) * n for one, n in ((some, 2), (every, 1))))


def test_a_survey_ten_times_as_large_shows_ten_times_as_many():
    noise, scores = clumps(), np.array([2.0, 5.0])
    small, large = (noise.expected(scores, galaxies=galaxies, largest=0.2) for galaxies in (1000, 10_000))
    np.testing.assert_allclose(large, 10 * small)


# --- which nodes are classes


def nest_of(*nodes, galaxies=1000):
    """A nest of nodes (the node above, galaxies of its own); what is left over is the root's."""
    above = np.array([-1, *(parent for parent, _ in nodes)])
    home = np.zeros(galaxies, dtype=np.int64)
    home[: sum(own for _, own in nodes)] = np.repeat(np.arange(1, len(nodes) + 1), [own for _, own in nodes])
    return Nest(above, home)


def graph_of(nest, shares, *, seed=0):
    """Neighbours of each galaxy: this share of them in the galaxy's own node, then in the node above …, else anywhere.

    Args:
        nest: a tree.
        shares: of each node, of the neighbours that are left to it.
    """
    random = np.random.default_rng(seed)
    graph = np.empty((len(nest.home), FEWEST_NEIGHBOURS), dtype=np.int32)
    inside = [nest.members(node) for node in range(len(nest.above))]
    for galaxy in range(len(graph)):
        left, node = np.arange(FEWEST_NEIGHBOURS), nest.home[galaxy]
        while node > 0:
            taken = left[: round(shares[node] * len(left))]
            graph[galaxy, taken] = random.choice(inside[node], len(taken))
            left, node = left[len(taken) :], nest.above[node]
        graph[galaxy, left] = random.integers(0, len(graph), len(left))
    return graph


def standing(nest, shares, *, significance=FEW):
    """The nodes held against noise: a fifth of a clump's neighbours inside at most, or half in small surveys."""
    whole, small = clumps(centre=-2.5, scatter=0.3), clumps(centre=-0.5, scatter=0.2, galaxies=500, seed=1)
    return Standing(nest, graph_of(nest, shares), Noise(significance, whole, small))


def test_a_node_like_those_of_noise_is_no_class():
    found, groups = standing(nest_of((0, 60), (0, 60)), [0, 0.9, 0.05]).classes()
    assert found == [1]
    assert groups == {}


def test_two_isolated_nodes_are_classes_and_what_holds_them_is_their_group():
    nest = nest_of((0, 30), (1, 60), (1, 50), (0, 40))
    one = standing(nest, [0, 0.9, 0.85, 0.85, 0.9])
    found, groups = one.classes()
    assert sorted(found) == [2, 3, 4]
    assert groups == {2: 1, 3: 1}
    assert one.chances[1] < 0.05


def test_a_node_takes_the_place_of_pieces_that_are_not_isolated_in_it():
    nest = nest_of((0, 30), (1, 60), (1, 50))
    found, groups = standing(nest, [0, 0.95, 0.1, 0.1]).classes()
    assert found == [1]
    assert groups == {}


def test_the_one_that_clearly_stands_out_more_is_the_class(monkeypatch):
    nest = nest_of((0, 100), (1, 60))
    assert standing(nest, [0, 0.2, 0.95]).classes() == ([2], {})
    assert standing(nest_of((0, 20), (1, 60)), [0, 0.97, 0.5]).classes() == ([1], {})
    one = standing(nest, [0, 0.9, 0.93])
    more = one.scores[2] - one.scores[1]
    assert more > 0
    for clearly, expected in ((more - 0.1, [2]), (more + 0.1, [1])):
        monkeypatch.setattr(nulls, "_CLEARLY", clearly)
        assert one.classes() == (expected, {})


@pytest.mark.parametrize(("steepness", "expected"), [(1.5, [2, 3]), (0.0, [1])])
def test_parts_that_are_not_isolated_in_a_node_are_kept_only_where_they_stand_out_more(steepness, expected):
    """Noise that cuts large clumps as evenly cannot tell two parts apart; that their union stands out less does."""
    nest = nest_of((0, 30), (1, 60), (1, 50))
    whole = clumps(centre=-2.5, scatter=0.3)
    logits = np.log(whole.isolations / (1 - whole.isolations)) + steepness * np.log(whole.sizes / 60)
    small = clumps(centre=1.2, scatter=0.2, galaxies=500, seed=1)
    noise = Noise(FEW, replace(whole, isolations=logistic(logits)), small)
    one = Standing(nest, graph_of(nest, [0, 0.4, 0.35, 0.35]), noise)
    assert one._apart(1, [2, 3]) == []
    assert (one.scores[1] < one.scores[[2, 3]].max()) == (expected == [2, 3])
    assert one.classes() == (expected, {})


def test_two_dense_cores_of_one_population_do_not_stand_for_it():
    """Each is isolated within it, but they hold a third of it: the rest would be lost."""
    one = standing(nest_of((0, 110), (1, 40), (1, 30)), [0, 0.9, 0.85, 0.85])
    assert sorted(one._apart(1, [2, 3])) == [2, 3]
    assert one.classes() == ([1], {})


def test_the_whole_that_clearly_stands_out_more_than_all_its_parts_is_the_class(monkeypatch):
    """Two halves of one population, each isolated within it: it is one class, not two pieces."""
    nest = nest_of((0, 30), (1, 60), (1, 50), (0, 40))
    one = standing(nest, [0, 0.97, 0.85, 0.85, 0.9])
    more = one.scores[1] - one.scores[[2, 3]].max()
    assert more > 0
    for clearly, expected in ((more - 0.1, [1, 4]), (more + 0.1, [2, 3, 4])):
        monkeypatch.setattr(nulls, "_BY_FAR", clearly)
        found, groups = one.classes()
        assert sorted(found) == expected
        assert groups == ({} if 1 in found else {2: 1, 3: 1})


def test_a_node_of_most_galaxies_is_not_rare():
    nest = nest_of((0, 500), (1, 60))
    one = standing(nest, [0, 0.99, 0.9])
    assert one.chances[1] == one.chances[0] == 1
    assert one.classes() == ([2], {})
    looser = standing(nest_of((0, 500)), [0, 0.99], significance=replace(FEW, largest=0.6))
    assert looser.classes()[0] == [1]


def test_a_class_belongs_to_the_smallest_group_that_it_shares():
    nest = nest_of((0, 10), (1, 40), (1, 10), (3, 40), (3, 40))
    one = standing(nest, [0, 0.9, 0.9, 0.7, 0.9, 0.9])
    found, groups = one.classes()
    assert sorted(found) == [2, 4, 5]
    assert groups == {2: 1, 4: 3, 5: 3}
    # A group that kept but one of its classes is none: that class is the larger group's.
    assert one._group_of([2, 4], [3, 1]) == {2: 1, 4: 1}


def test_what_all_of_a_surveys_nodes_share_is_no_evidence():
    """Many equal clumps, each far more isolated than noise's: the survey is unlike its noise."""
    many = nest_of(*[(0, 30)] * 33)
    assert standing(many, [0, *[0.5] * 33]).classes()[0] == []
    found = standing(many, [0, *[0.3] * 32, 0.95]).classes()[0]
    assert found == [33]


def test_false_discoveries_are_what_noise_shows_among_those_that_stand_out_as_much():
    """Nodes apart from each other count each; one around others adds nothing."""
    nest = nest_of((0, 60), (0, 50), (0, 10), (3, 40))
    one = standing(nest, [0, 0.4, 0.35, 0.9, 0.9])
    rates, expected = one.false_discoveries, one.expected
    order = np.argsort(expected, kind="stable")
    assert sorted(order[:2]) == [3, 4]
    assert rates[order[1]] == expected[order[1]]
    assert rates[order[2]] == pytest.approx(expected[order[2]] / 2)
    assert rates[order[3]] == pytest.approx(min(expected[order[3]] / 3, 1))
    assert rates[0] == 1
    assert np.all(np.diff(rates[order]) >= 0)


def test_a_higher_level_reports_the_doubtful_too():
    nest, shares = nest_of((0, 60), (0, 60)), [0, 0.9, 0.12]
    strict, lax = (standing(nest, shares, significance=replace(FEW, level=level)) for level in (0.0001, 0.9))
    assert strict.classes()[0] == [1]
    assert sorted(lax.classes()[0]) == [1, 2]


# --- structureless surveys, made and kept


def same(one, other):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in ((one.whole, other.whole), (one.small, other.small))
        for name in ("surveys", "sizes", "isolations")
    )


def test_same_seed_same_noise_and_another_seed_another():
    first, again, other = (noise_of(sky(), Pca(n_components=3), settings=FEW, seed=seed) for seed in (4, 4, 5))
    assert same(first, again)
    assert not same(first, other)


def test_a_killed_run_goes_on_with_the_surveys_that_are_left(tmp_path, monkeypatch):
    whole = noise_of(sky(), Pca(n_components=3), settings=FEW, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    parts = [one.name.removesuffix(".clumps.npy").split("-") for one in files]
    assert [(kind, size, survey) for kind, _, size, survey in parts] == [
        ("gaussian", "500", f"00{n}") for n in range(5)
    ]
    files[1].unlink()
    made, real = [], nulls._nodes
    monkeypatch.setattr(nulls, "_nodes", lambda *given, **settings: made.append(1) or real(*given, **settings))
    assert same(noise_of(sky(), Pca(n_components=3), settings=FEW, folder=tmp_path), whole)
    assert len(made) == 1


def test_embeddings_that_are_not_compressed_have_structureless_likes_too():
    """fast_hdbscan reads no more than thirty dimensions."""
    noise = noise_of(sky(150, planted=(), width=40), NoCompression(), settings=FEW)
    assert (noise.whole.made, noise.whole.galaxies) == (5, 150)


def test_an_earlier_searchs_surveys_are_taken_over(tmp_path, monkeypatch):
    first = noise_of(sky(), Pca(n_components=3), settings=FEW, folder=tmp_path / "before")
    monkeypatch.setattr(nulls, "_nodes", lambda *given, **settings: pytest.fail("made anew"))
    again = noise_of(
        sky(), Pca(n_components=3), settings=FEW, folder=tmp_path / "now", earlier=tmp_path / "before"
    )  # fmt: skip
    assert same(first, again)
    assert not (tmp_path / "now").exists()


def test_a_large_survey_has_small_likes_too(tmp_path):
    noise = noise_of(sky(700), Pca(n_components=3), settings=replace(FEW, galaxies=650), folder=tmp_path)
    assert (noise.whole.galaxies, noise.small.galaxies) == (650, 500)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_whitened_search_is_not_whitened_twice():
    whitening, plain = (noise_of(sky(), Pca(n_components=3, whiten=whiten), settings=FEW) for whiten in (5, 0))
    assert same(whitening, plain)


def test_neighbours_of_a_compressor_shrink_with_the_survey():
    from rarezoo.searches.compressors.umap import Umap

    assert nulls._fitting(Umap(n_neighbors=50), 200).n_neighbors == 20
    assert nulls._fitting(Umap(n_neighbors=15), 200).n_neighbors == 15


@pytest.mark.parametrize("galaxies", [1, 99])
def test_few_galaxies_are_refused(galaxies):
    with pytest.raises(ConfigError, match=f"too few galaxies to tell a class from noise: {galaxies}. Search at least"):
        noise_of(sky(galaxies, planted=()), NoCompression(), settings=FEW)


def test_a_network_that_learnt_nothing_makes_surveys_of_half_its_galaxies():
    """All of them would be the same survey every time."""
    likes = sky(800, planted=(), seed=7)
    noise = noise_of(sky(), Pca(n_components=3), settings=FEW, likes=likes)
    assert noise.whole.galaxies == noise.small.galaxies == 400
    surveys = [noise.whole.isolations[noise.whole.surveys == one].tolist() for one in range(3)]
    assert surveys[0] != surveys[1] != surveys[2]
    with pytest.raises(ConfigError, match="too few galaxies to tell a class from noise: 75"):
        noise_of(sky(), Pca(n_components=3), settings=FEW, likes=likes[:150])


@pytest.mark.parametrize("planted", [(), (30,)])
def test_the_fewest_galaxies_are_enough_though_noise_may_have_no_clump(planted):
    features = sky(nulls.FEWEST, planted=planted)
    noise = noise_of(features, Pca(n_components=3), settings=FEW)
    assert noise.whole is not None
    tree = condensed(FastHdbscan(min_samples=5).linkage(features), min_cluster_size=10)
    evidence = Evidence(NeighbourIndex(features).graph(MOST_NEIGHBOURS), noise)
    rows = np.unique(tree.rows["parent"])
    measures = evidence.measures(tree, rows)
    assert all(0 <= one <= 1 for one in measures[tables.P_VALUE])
    assert not any(one is not None and np.isnan(one) for one in measures[tables.SIGNIFICANCE])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surveys": -1}, r"significance.surveys: -1\. Choose 0 \(none\) or at least 5"),
        ({"surveys": 2}, "significance.surveys: 2"),
        ({"galaxies": 499}, r"significance.galaxies: 499\. Choose at least 500"),
        ({"kind": "store"}, "significance.store with significance.kind=store: no store. Give both"),
        ({"store": "runs/untrained"}, "significance.store with significance.kind=gaussian: runs/untrained"),
        ({"kind": "shuffled"}, r"significance.kind: shuffled\. Choose gaussian"),
        ({"level": 0.0}, r"significance.level: 0\.0\. Choose between 0 and 1"),
        ({"largest": 1.0}, r"significance.largest: 1\.0\. Choose between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Significance(**settings).refuse()


@pytest.mark.parametrize("surveys", [0, 5, 20])
def test_settings_in_range_pass(surveys):
    Significance(surveys=surveys, kind="gaussian").refuse()


# --- classes of a survey


def read(features, *, clusterer=None, surveys=5):
    """Clustering, CLASSES and truth of a survey whose classes are held against noise."""
    clusterer = clusterer or FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    compressor, ids = Pca(n_components=4), [f"g{row:04d}" for row in range(len(features))]
    fitted = compressor.fit(features, ids=ids)
    linkage = clusterer.linkage(fitted.positions)
    noise = noise_of(features, compressor, settings=replace(FEW, surveys=surveys))
    evidence = Evidence(NeighbourIndex(features).graph(MOST_NEIGHBOURS), noise)
    clustering = clusterer.classes(linkage, ids=ids, choice=evidence.nodes)
    tree = condensed(linkage, min_cluster_size=clusterer.min_cluster_size)
    classes = class_table(clustering, ids=ids, positions=fitted.positions)
    return clustering, with_columns(classes, evidence.measures(tree, clustering.nodes))


def test_planted_groups_are_the_classes_and_every_column_is_filled():
    clustering, classes = read(sky(), surveys=20)
    truth = np.repeat([0, 1, -1], [60, 40, 500])
    assert len(clustering) == 2
    for one in range(2):
        assert np.mean(clustering.labels[truth == one] == one) > 0.9
        assert np.mean(truth[clustering.labels == one] == one) > 0.9
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


def test_isolated_without_noise_is_one_message_before_the_search_begins(tmp_path):
    run = SearchRun(
        store=str(tmp_path / "nowhere"), compress=Pca(), drawing=Pca(n_components=2),
        clusterer=FastHdbscan(selection="isolated"), significance=Significance(surveys=0), out=str(tmp_path / "out"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"isolated needs structureless surveys: significance\.surveys=0\. Give"):
        run.run()
    assert not (tmp_path / "out").exists()


def test_isolated_without_a_choice_says_the_same():
    features = sky(120, planted=(30,))
    clusterer = FastHdbscan(min_samples=5, min_cluster_size=10, selection="isolated")
    with pytest.raises(ConfigError, match="isolated needs structureless surveys"):
        clusterer.classes(clusterer.linkage(features))
