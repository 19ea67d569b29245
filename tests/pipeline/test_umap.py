"""What is UMAP's own among the compressors."""

import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.searches.compressors.umap import Umap

pytestmark = pytest.mark.pipeline

IDS = [f"g{row:03d}" for row in range(200)]
EMBEDDINGS = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
# The same galaxies in three groups far from each other.
GROUPS = np.arange(200) % 3
GROUPED = EMBEDDINGS + 20 * np.eye(6, dtype=np.float32)[GROUPS]
QUICK = {"n_neighbors": 10, "n_components": 2, "n_epochs": 20}


@pytest.mark.slow
def test_the_seed_decides_and_the_thread_count_is_left_alone():
    import numba

    threads = numba.get_num_threads()
    maps = [Umap(**QUICK).fit(EMBEDDINGS, ids=IDS, seed=seed).positions for seed in (0, 0, 1)]
    assert numba.get_num_threads() == threads
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_a_densmap_can_be_fitted_but_not_placed_on():
    fitted = Umap(**QUICK, densmap=True).fit(EMBEDDINGS, ids=IDS)
    assert fitted.positions.shape == (200, 2)
    with pytest.raises(ConfigError, match=r"densMAP map cannot place.*densmap=false"):
        fitted.transform(EMBEDDINGS[:3])


def test_many_identical_galaxies_do_not_break_the_map():
    piled = GROUPED.copy()
    piled[:60] = piled[0]
    positions = Umap(**QUICK).fit(piled, ids=IDS).positions
    assert np.isfinite(positions).all()
    assert share_of_neighbours_in_the_same_group(positions[60:], GROUPS[60:]) > 0.9


def test_a_map_without_a_seed_keeps_groups_apart():
    positions = Umap(**QUICK, seeded=False).fit(GROUPED, ids=IDS).positions
    assert share_of_neighbours_in_the_same_group(positions, GROUPS) > 0.9


def share_of_neighbours_in_the_same_group(positions, groups):
    """Return how many of the five nearest galaxies on the map belong to the same group, as a share."""
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:6]
    return np.mean(groups[nearest] == groups[:, None])


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown compress.metric: furlong. Choose: .*cosine"):
        Umap(**QUICK, metric="furlong").fit(EMBEDDINGS, ids=IDS)
