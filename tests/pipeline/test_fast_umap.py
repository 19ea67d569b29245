"""Our own UMAP: the same bits on any number of threads and for any batch, and a map as good as umap-learn's."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from rarezoo.benchmark.planted import planted_vectors
from rarezoo.errors import StoreError
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from rarezoo.searches.compressors.umap import Umap
from seeded_umap import layout, neighbours
from seeded_umap.graph import mutual, strengths
from seeded_umap.layout import Edges, Forces, Meetings, _force, _goes, _pull_together, names_of

pytestmark = pytest.mark.pipeline

QUICK = {"n_neighbors": 15, "n_components": 2, "n_epochs": 60}


def curved_sky(galaxies, *, width=20, seed=0):
    """Embeddings on a curved surface of three dimensions."""
    random = np.random.default_rng(seed)
    bent = np.tanh(random.normal(size=(galaxies, 3)) @ random.normal(size=(3, width)))
    return (bent + random.normal(size=(galaxies, width)) * 0.02).astype(np.float32)


def ids(galaxies):
    return [f"g{row:05d}" for row in range(galaxies)]


@pytest.fixture
def cells_at_once(monkeypatch):
    """Search in cells at a size that a test can afford."""
    monkeypatch.setattr(neighbours, "_ALL_PAIRS", 500)
    monkeypatch.setattr(neighbours, "_PER_CELL", 60)


SEARCH = """
import hashlib, sys
import numpy as np
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from seeded_umap import neighbours
neighbours._ALL_PAIRS = 500
values = np.random.default_rng(0).normal(size=(2500, 20)).astype(np.float32)
values[:400] = values[0]
fitted = FastUmap(whiten=8, n_neighbors=15, n_epochs=40).fit(values[:2400], ids=list(map(str, range(2400))), seed=4)
linkage = FastHdbscan(min_samples=20).linkage(fitted.positions)
parts = [fitted.positions, fitted.transform(values[2300:]), *(column.to_numpy() for column in linkage.columns)]
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_the_number_of_threads_changes_no_bit_of_map_placing_or_linkage():
    def digest(threads):
        variables = {**os.environ, "NUMBA_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        ran = subprocess.run([sys.executable, "-c", SEARCH], capture_output=True, text=True, env=variables, check=True)
        return ran.stdout

    assert len({digest(threads) for threads in ("1", "3", "3")}) == 1


MEETING = """
import hashlib
import numpy as np
from scipy.sparse import diags_array
from seeded_umap.layout import Edges, Forces, settled
galaxies = 51_000
chain = diags_array([np.ones(galaxies - 1)] * 2, offsets=[-1, 1], dtype=np.float32).tocsr()
start = np.repeat(np.linspace(0, 30, galaxies, dtype=np.float32)[:, None], 2, axis=1)
after = settled(start, Edges.of(chain, epochs=3), Forces.of(min_dist=0.1), epochs=3, seed=1)
print(hashlib.sha256(after.tobytes()).hexdigest(), np.isfinite(after).all() and np.ptp(after[:, 0]) > 31)
"""


def test_where_many_blocks_meet_threads_change_no_bit_and_galaxies_push_each_other():
    def told(threads):
        variables = {**os.environ, "NUMBA_NUM_THREADS": threads}
        return subprocess.run([sys.executable, "-c", MEETING], capture_output=True, text=True, env=variables).stdout

    first, other = told("1"), told("3")
    assert first.endswith("True\n")
    assert first == other


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "_IN_BLOCK", 100)


@pytest.fixture
def edges():
    cells, _ = neighbours.cut(curved_sky(1030), k=15, seed=0)
    return Edges.of(mutual(cells.neighbours(curved_sky(1030), k=15)), epochs=200)


def test_every_edge_is_in_one_meeting_with_its_pace(small_blocks, edges):
    meetings = Meetings.of(edges, seed=0)
    ends = np.repeat(np.arange(1030), np.diff(edges.starts))
    once = ends < edges.ends
    met = {(one, other): pace for one, other, pace in zip(meetings.ones, meetings.others, meetings.paces, strict=True)}
    assert met == dict(zip(zip(ends[once], edges.ends[once], strict=True), edges.paces[once], strict=True))
    assert len(meetings.ones) == once.sum() == meetings.starts[-1]


def test_no_galaxy_is_in_two_meetings_of_a_round(small_blocks, edges):
    meetings = Meetings.of(edges, seed=0)
    assert meetings.rounds[-1] == len(meetings.starts) - 1 > 20
    for first, last in itertools.pairwise(meetings.rounds):
        spans = [slice(*meetings.starts[meeting : meeting + 2]) for meeting in range(first, last)]
        who = [np.union1d(meetings.ones[span], meetings.others[span]) for span in spans]
        assert len(np.unique(np.concatenate(who))) == sum(map(len, who))


def test_both_ends_draw_an_edge_at_its_pace_and_not_together(edges):
    meetings = Meetings.of(edges, seed=0)
    drawn = {
        phases: sum(_goes(meetings.paces[5], getattr(meetings, phases)[5], epoch) for epoch in range(200))
        for phases in ("there", "back")
    }
    assert all(abs(times - 200 * meetings.paces[5]) <= 1 for times in drawn.values())
    assert abs(np.corrcoef(meetings.there, meetings.back)[0, 1]) < 0.05


def test_two_galaxies_are_pulled_together_as_by_umap_learn():
    from umap.umap_ import find_ab_params

    here = np.array([[0, 0], [3, 4]], np.float32)
    forces = Forces.of(min_dist=0.1)
    a, b = find_ab_params(1.0, 0.1)
    _pull_together(here, 0, 1, (0, 0), forces.pull, np.float32(0.5))
    # layouts.py: −2ab d^(2(b−1)) / (1 + a d^(2b)) times the separation, times the rate, both ends.
    moved = 0.5 * 2 * a * b * 25 ** (b - 1) / (1 + a * 25**b) * np.array([3, 4])
    np.testing.assert_allclose(here, [moved, [3, 4] - moved], rtol=1e-3)


@pytest.mark.slow
def test_two_seeds_agree_as_two_of_umap_learns_do():
    skies = [planted_vectors(sky, galaxies=3000, groups=8, smallest=40, largest=150).embeddings for sky in (0, 1)]

    def agreement(kind):
        return np.mean([adjusted_rand_score(*(leaves(kind, sky, seed=seed) for seed in (0, 1))) for sky in skies])

    assert agreement(FastUmap) > agreement(Umap) - 0.1


def leaves(kind, sky, *, seed):
    fitted = kind(n_neighbors=15, n_components=3).fit(sky, ids=ids(len(sky)), seed=seed)
    clusterer = FastHdbscan(min_samples=30, min_cluster_size=10)
    return clusterer.classes(clusterer.linkage(fitted.positions)).labels


def test_few_galaxies_are_searched_exactly():
    sky = np.random.default_rng(1).normal(size=(700, 9)).astype(np.float32)
    cells, order = neighbours.cut(sky, k=12, seed=0)
    found = cells.neighbours(sky, k=12)
    distances, rows = NearestNeighbors(n_neighbors=12, algorithm="brute").fit(sky.astype(float)).kneighbors(sky)
    np.testing.assert_array_equal(order, np.arange(700))
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=1e-5)


@pytest.mark.parametrize("kind", ["curved", "without structure", "one far outlier", "piles"])
def test_many_galaxies_find_nearly_all_their_neighbours_in_a_part_of_the_cells(cells_at_once, kind):
    sky = curved_sky(4000) if kind != "without structure" else np.random.default_rng(0).normal(size=(4000, 8))
    sky = sky.astype(np.float32)
    if kind == "one far outlier":
        sky[17] = 1e6
    if kind == "piles":
        sky[:1000] = sky[0]
    cells, order = neighbours.cut(sky, k=15, seed=3)
    sky = sky[order]
    found = cells.neighbours(sky, k=15)
    asked = np.random.default_rng(1).choice(4000, 200, replace=False)
    distances = np.sort(np.linalg.norm(sky[asked, None].astype(float) - sky, axis=2), axis=1)[:, :15]
    # By distance, since the equally near are not told apart.
    assert np.mean(found.distances[asked] <= distances * (1 + 1e-5) + 1e-5) >= 0.95
    assert cells.probed < len(cells.starts) - 1
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_the_graph_is_umap_learns():
    from umap.umap_ import fuzzy_simplicial_set

    sky = curved_sky(600)
    cells, _ = neighbours.cut(sky, k=15, seed=0)
    found = cells.neighbours(sky, k=15)
    theirs, _, _ = fuzzy_simplicial_set(
        sky, 15, np.random.RandomState(0), "euclidean", knn_indices=found.rows, knn_dists=found.distances
    )
    np.testing.assert_allclose(mutual(found).toarray(), theirs.toarray(), atol=1e-3)


def test_a_galaxys_strengths_sum_to_log2_of_its_neighbours():
    distances = np.sort(np.random.default_rng(0).uniform(1, 2, size=(50, 16)).astype(np.float32), axis=1)
    np.testing.assert_allclose(strengths(distances, False).sum(axis=1), 4, atol=1e-3)
    distances[:, 0] = 0
    np.testing.assert_allclose(strengths(distances, True).sum(axis=1), 4 + 1, atol=1e-3)


def test_the_map_is_as_good_as_umap_learns():
    from sklearn.manifold import trustworthiness

    sky = curved_sky(1200)
    ours, theirs = (
        trustworthiness(sky, kind(**QUICK).fit(sky, ids=ids(1200), seed=1).positions, n_neighbors=10)
        for kind in (FastUmap, Umap)
    )
    assert ours > 0.9
    assert ours > theirs - 0.01


def test_forces_are_those_of_the_curve_that_umap_learn_fits():
    from umap.umap_ import find_ab_params

    a, b = find_ab_params(1.0, 0.1)
    forces = Forces.of(min_dist=0.1)
    for square in np.geomspace(1e-6, 1e4, 200).astype(np.float32):
        s = float(square)
        assert _force(forces.pull, square) == pytest.approx(2 * a * b * s ** (b - 1) / (1 + a * s**b), rel=1e-3)
        assert _force(forces.push, square) == pytest.approx(2 * b / ((0.001 + s) * (1 + a * s**b)), rel=1e-3)


def test_the_seed_decides():
    sky = curved_sky(300)
    first, other = (FastUmap(**QUICK).fit(sky, ids=ids(300), seed=seed).positions for seed in (0, 1))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("whiten", [0, 6])
def test_a_galaxy_lands_at_the_same_place_whatever_galaxies_are_placed_with_it(cells_at_once, whiten):
    sky = curved_sky(2100)
    fitted = FastUmap(**QUICK, whiten=whiten).fit(sky[:2000], ids=ids(2000))
    together = fitted.transform(sky[2000:])
    alone = np.concatenate([fitted.transform(sky[row : row + 1]) for row in range(2000, 2020)])
    np.testing.assert_array_equal(together[:20], alone)
    np.testing.assert_array_equal(fitted.transform(sky[2000:][::-1])[::-1], together)


def test_a_galaxy_that_was_fitted_is_placed_where_its_neighbours_are():
    sky = curved_sky(800)
    fitted = FastUmap(**QUICK).fit(sky, ids=ids(800))
    away = np.linalg.norm(fitted.transform(sky) - fitted.positions, axis=1)
    across = np.linalg.norm(np.ptp(fitted.positions, axis=0))
    assert np.median(away) < 0.05 * across


def test_random_draws_hang_on_the_embedding_alone():
    sky = curved_sky(50)
    names = names_of(sky)
    assert len(set(names.tolist())) == 50
    np.testing.assert_array_equal(names_of(sky[::-1])[::-1], names)
    assert names_of(np.float32([[0.0, 1]])) == names_of(np.float32([[-0.0, 1]]))


def test_embeddings_beyond_single_precision_are_refused():
    sky = curved_sky(100)
    sky[3, 4] = 1e19
    with pytest.raises(StoreError, match=r"too large for single precision: 1e\+19. .*scale all embeddings down"):
        FastUmap(**QUICK).fit(sky, ids=ids(100))
    with pytest.raises(StoreError, match="too large"):
        FastUmap(**QUICK).fit(curved_sky(100), ids=ids(100)).transform(sky)
