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
from seeded_umap import SeededUMAP
from seeded_umap.graph import edge_strengths, mutual_graph
from seeded_umap.layout import Edges, Forces, Schedule, _force, _is_due, _pull_together, hashes_of
from seeded_umap.neighbours import build_cells

pytestmark = pytest.mark.pipeline

QUICK = {"n_neighbors": 15, "n_components": 2, "n_epochs": 60}


def curved_sky(galaxies, *, width=20, seed=0):
    """Embeddings on a curved surface of three dimensions."""
    random = np.random.default_rng(seed)
    bent = np.tanh(random.normal(size=(galaxies, 3)) @ random.normal(size=(3, width)))
    return (bent + random.normal(size=(galaxies, width)) * 0.02).astype(np.float32)


def ids(galaxies):
    return [f"g{row:05d}" for row in range(galaxies)]


# Settings with which neighbours are searched in cells at a size that a test can afford.
CELLS = {"exact_below": 500, "cell_size": 60}


SEARCH = """
import hashlib, sys
import numpy as np
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from seeded_umap import SeededUMAP
values = np.random.default_rng(0).normal(size=(2500, 20)).astype(np.float32)
values[:400] = values[0]
fitted = FastUmap(whiten=8, n_neighbors=15, n_epochs=40).fit(values[:2400], ids=list(map(str, range(2400))), seed=4)
cells = SeededUMAP(15, n_epochs=40, exact_below=500).fit(values[:2400])
linkage = FastHdbscan(min_samples=20).linkage(fitted.positions)
parts = [cells.embedding_, cells.transform(values[2300:]), fitted.positions, fitted.transform(values[2300:])]
parts += [column.to_numpy() for column in linkage.columns]
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
from seeded_umap.layout import Edges, Forces, optimise
galaxies = 51_000
chain = diags_array([np.ones(galaxies - 1)] * 2, offsets=[-1, 1], dtype=np.float32).tocsr()
start = np.repeat(np.linspace(0, 30, galaxies, dtype=np.float32)[:, None], 2, axis=1)
after = optimise(start, Edges.from_graph(chain, epochs=3), Forces.from_min_dist(0.1), epochs=3, seed=1)
print(hashlib.sha256(after.tobytes()).hexdigest(), np.isfinite(after).all() and np.ptp(after[:, 0]) > 31)
"""


def test_where_many_blocks_meet_threads_change_no_bit_and_galaxies_push_each_other():
    def printed(threads):
        variables = {**os.environ, "NUMBA_NUM_THREADS": threads}
        return subprocess.run([sys.executable, "-c", MEETING], capture_output=True, text=True, env=variables).stdout

    first, other = printed("1"), printed("3")
    assert first.endswith("True\n")
    assert first == other


@pytest.fixture
def edges():
    cells, _ = build_cells(curved_sky(1030), k=15, seed=0)
    return Edges.from_graph(mutual_graph(cells.neighbours(curved_sky(1030), k=15)), epochs=200)


def test_every_edge_is_in_the_schedule_once_with_its_pace(edges):
    schedule = Schedule.from_edges(edges, seed=0, block_size=100)
    ends = np.repeat(np.arange(1030), np.diff(edges.starts))
    once = ends < edges.ends
    met = {(a, b): pace for a, b, pace in zip(schedule.left, schedule.right, schedule.paces, strict=True)}
    assert met == dict(zip(zip(ends[once], edges.ends[once], strict=True), edges.paces[once], strict=True))
    assert len(schedule.left) == once.sum() == schedule.starts[-1]


def test_no_point_is_in_two_pairs_of_blocks_of_a_round(edges):
    schedule = Schedule.from_edges(edges, seed=0, block_size=100)
    assert schedule.rounds[-1] == len(schedule.starts) - 1 > 20
    for first, last in itertools.pairwise(schedule.rounds):
        spans = [slice(*schedule.starts[pair : pair + 2]) for pair in range(first, last)]
        who = [np.union1d(schedule.left[span], schedule.right[span]) for span in spans]
        assert len(np.unique(np.concatenate(who))) == sum(map(len, who))


def test_both_ends_draw_an_edge_at_its_pace_and_not_together(edges):
    schedule = Schedule.from_edges(edges, seed=0)
    for phases in (schedule.left_phases, schedule.right_phases):
        drawn = sum(_is_due(schedule.paces[5], phases[5], epoch) for epoch in range(200))
        assert abs(drawn - 200 * schedule.paces[5]) <= 1
    assert abs(np.corrcoef(schedule.left_phases, schedule.right_phases)[0, 1]) < 0.05


def test_two_galaxies_are_pulled_together_as_by_umap_learn():
    from umap.umap_ import find_ab_params

    here = np.array([[0, 0], [3, 4]], np.float32)
    forces = Forces.from_min_dist(0.1)
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
    cells, order = build_cells(sky, k=12, seed=0)
    near = cells.neighbours(sky, k=12)
    distances, rows = NearestNeighbors(n_neighbors=12, algorithm="brute").fit(sky.astype(float)).kneighbors(sky)
    np.testing.assert_array_equal(order, np.arange(700))
    np.testing.assert_array_equal(near.rows, rows)
    np.testing.assert_allclose(near.distances, distances, atol=1e-5)


@pytest.mark.parametrize("kind", ["curved", "without structure", "one far outlier", "piles"])
def test_many_galaxies_find_nearly_all_their_neighbours_in_a_part_of_the_cells(kind):
    sky = curved_sky(4000) if kind != "without structure" else np.random.default_rng(0).normal(size=(4000, 8))
    sky = sky.astype(np.float32)
    if kind == "one far outlier":
        sky[17] = 1e6
    if kind == "piles":
        sky[:1000] = sky[0]
    cells, order = build_cells(sky, k=15, seed=3, **CELLS)
    sky = sky[order]
    near = cells.neighbours(sky, k=15)
    asked = np.random.default_rng(1).choice(4000, 200, replace=False)
    distances = np.sort(np.linalg.norm(sky[asked, None].astype(float) - sky, axis=2), axis=1)[:, :15]
    # By distance, since the equally near are not told apart.
    assert np.mean(near.distances[asked] <= distances * (1 + 1e-5) + 1e-5) >= 0.95
    assert cells.probed < len(cells.starts) - 1
    assert (np.diff(near.distances, axis=1) >= 0).all()


def test_the_graph_is_umap_learns():
    from umap.umap_ import fuzzy_simplicial_set

    sky = curved_sky(600)
    cells, _ = build_cells(sky, k=15, seed=0)
    near = cells.neighbours(sky, k=15)
    theirs, _, _ = fuzzy_simplicial_set(
        sky, 15, np.random.RandomState(0), "euclidean", knn_indices=near.rows, knn_dists=near.distances
    )
    np.testing.assert_allclose(mutual_graph(near).toarray(), theirs.toarray(), atol=1e-3)


def test_a_galaxys_strengths_sum_to_log2_of_its_neighbours():
    distances = np.sort(np.random.default_rng(0).uniform(1, 2, size=(50, 16)).astype(np.float32), axis=1)
    np.testing.assert_allclose(edge_strengths(distances, False).sum(axis=1), 4, atol=1e-3)
    distances[:, 0] = 0
    np.testing.assert_allclose(edge_strengths(distances, True).sum(axis=1), 4 + 1, atol=1e-3)


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
    forces = Forces.from_min_dist(0.1)
    for square in np.geomspace(1e-6, 1e4, 200).astype(np.float32):
        s = float(square)
        assert _force(forces.pull, square) == pytest.approx(2 * a * b * s ** (b - 1) / (1 + a * s**b), rel=1e-3)
        assert _force(forces.push, square) == pytest.approx(2 * b / ((0.001 + s) * (1 + a * s**b)), rel=1e-3)


def test_the_seed_decides():
    sky = curved_sky(300)
    first, other = (FastUmap(**QUICK).fit(sky, ids=ids(300), seed=seed).positions for seed in (0, 1))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("whiten", [0, 6])
def test_a_galaxy_lands_at_the_same_place_whatever_galaxies_are_placed_with_it(whiten):
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
    hashes = hashes_of(sky)
    assert len(set(hashes.tolist())) == 50
    np.testing.assert_array_equal(hashes_of(sky[::-1])[::-1], hashes)
    assert hashes_of(np.float32([[0.0, 1]])) == hashes_of(np.float32([[-0.0, 1]]))


def test_embeddings_beyond_single_precision_are_refused():
    sky = curved_sky(100)
    sky[3, 4] = 1e19
    with pytest.raises(StoreError, match=r"too large for single precision: 1e\+19. .*scale all embeddings down"):
        FastUmap(**QUICK).fit(sky, ids=ids(100))
    with pytest.raises(StoreError, match="too large"):
        FastUmap(**QUICK).fit(curved_sky(100), ids=ids(100)).transform(sky)


def test_the_estimator_in_cells_transforms_each_point_alone_and_takes_up_a_saved_map():
    sky = curved_sky(2100)
    fitted = SeededUMAP(15, n_epochs=60, **CELLS).fit(sky[:2000])
    together = fitted.transform(sky[2000:])
    alone = np.concatenate([fitted.transform(sky[row : row + 1]) for row in range(2000, 2020)])
    np.testing.assert_array_equal(together[:20], alone)
    restored = SeededUMAP(15, n_epochs=60, **CELLS).restore(sky[:2000], fitted.embedding_)
    np.testing.assert_array_equal(restored.transform(sky[2000:]), together)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e19])
def test_the_estimator_refuses_values_beyond_single_precision(value):
    sky = curved_sky(100)
    sky[3, 4] = value
    with pytest.raises(ValueError, match="single precision"):
        SeededUMAP(15).fit(sky)
