"""Every compressor and every clusterer, today's and tomorrow's, keeps the same promises."""

import numpy as np
import pytest

from rarezoo import registry, tables
from rarezoo.errors import RarezooError
from rarezoo.explore.compress import FittedMap

pytestmark = pytest.mark.pipeline

COMPRESSORS = list(registry.options("compress"))
CLUSTERERS = list(registry.options("clusterer"))

GALAXIES, WIDTH = 300, 12
IDS = np.array([f"g{row:03d}" for row in np.random.default_rng(2).permutation(GALAXIES)])


def sky(groups=3):
    """Embeddings of galaxies in well separated groups of equal size, and which is in which."""
    random = np.random.default_rng(0)
    group = np.arange(GALAXIES) % groups
    return (random.normal(size=(groups, WIDTH)) * 8)[group] + random.normal(size=(GALAXIES, WIDTH)), group


EMBEDDINGS, GROUP = sky()


@pytest.mark.parametrize("name", COMPRESSORS)
class TestCompressor:
    def test_the_same_seed_gives_the_same_map_whatever_the_order_of_galaxies(self, name):
        order = np.random.default_rng(7).permutation(GALAXIES)
        first, again = (registry.choice("compress", name)().fit(EMBEDDINGS, ids=IDS, seed=1) for _ in range(2))
        shuffled = registry.choice("compress", name)().fit(EMBEDDINGS[order], ids=IDS[order], seed=1)
        assert first.positions.dtype == np.float32
        assert len(first.positions) == GALAXIES
        np.testing.assert_array_equal(first.positions, again.positions)
        np.testing.assert_array_equal(first.positions[order], shuffled.positions)

    def test_groups_stay_together_and_new_galaxies_are_placed_among_their_like(self, name, tmp_path):
        old, new = slice(0, 240), slice(240, None)
        fitted = registry.choice("compress", name)().fit(EMBEDDINGS[old], ids=IDS[old], seed=1)
        placed = fitted.place(EMBEDDINGS[new])
        centres = np.array([fitted.positions[GROUP[old] == group].mean(axis=0) for group in range(3)])
        distances = np.linalg.norm(placed[:, None] - centres, axis=2)
        assert placed.shape == (60, fitted.positions.shape[1])
        assert (distances.argmin(axis=1) == GROUP[new]).all()
        opened = FittedMap.open(fitted.save(tmp_path))
        np.testing.assert_array_equal(opened.positions, fitted.positions)
        np.testing.assert_array_equal(opened.place(EMBEDDINGS[new]), placed)

    def test_half_precision_is_taken(self, name):
        fitted = registry.choice("compress", name)().fit(EMBEDDINGS.astype(np.float16), ids=IDS)
        assert np.isfinite(fitted.positions).all()

    @pytest.mark.parametrize(
        ("embeddings", "told"),
        [
            (np.full((GALAXIES, WIDTH), np.nan), "not finite: 300 of 300 rows"),
            (np.where(np.arange(GALAXIES)[:, None] % 10, EMBEDDINGS, np.nan), "not finite: 30 of 300 rows .galaxies g"),
            (np.where(np.arange(GALAXIES)[:, None] == 5, np.inf, EMBEDDINGS), f"1 of 300 rows .galaxies {IDS[5]}"),
            (np.ones((GALAXIES, WIDTH)), "all 300 embeddings are equal"),
            (EMBEDDINGS[:1], "too few galaxies for a map: 1"),
            (EMBEDDINGS[:0], "too few galaxies for a map: 0"),
            (EMBEDDINGS[0], "must be a matrix"),
        ],
        ids=["all NaN", "a tenth NaN", "one infinite", "constant", "one galaxy", "none", "a vector"],
    )
    def test_hard_input_is_refused_with_value_and_way_out(self, name, embeddings, told):
        with pytest.raises(RarezooError, match=told):
            registry.choice("compress", name)().fit(embeddings, ids=IDS[: len(np.atleast_2d(embeddings))])


@pytest.mark.parametrize("name", CLUSTERERS)
class TestClusterer:
    def classes(self, name, positions, ids=IDS):
        clusterer = registry.choice("clusterer", name)(min_samples=10, min_cluster_size=30)
        return clusterer.classes(clusterer.linkage(positions), ids=ids)

    def test_separate_groups_are_classes(self, name):
        found = self.classes(name, EMBEDDINGS)
        assert len(found) == 3
        assert len(set(zip(GROUP, found.labels, strict=True)) - {(g, -1) for g in range(3)}) == 3
        assert found.sizes.sum() > 0.95 * GALAXIES

    def test_the_order_of_galaxies_changes_nothing(self, name):
        order = np.random.default_rng(7).permutation(GALAXIES)
        straight, shuffled = self.classes(name, EMBEDDINGS), self.classes(name, EMBEDDINGS[order], ids=IDS[order])
        np.testing.assert_array_equal(straight.labels[order], shuffled.labels)
        np.testing.assert_array_equal(straight.deaths, shuffled.deaths)

    def test_its_tables_fit_their_kinds(self, name):
        clusterer = registry.choice("clusterer", name)(min_samples=10, min_cluster_size=30)
        linkage = clusterer.linkage(EMBEDDINGS)
        tables.check(clusterer.classes(linkage).tree, tables.TREE)
        tables.check(linkage, tables.LINKAGE)
        assert linkage.num_rows == GALAXIES - 1
        assert linkage[tables.SIZE][-1].as_py() == GALAXIES

    @pytest.mark.parametrize(
        ("positions", "told"),
        [
            (EMBEDDINGS[:10], "10 galaxies are too few for clusterer.min_samples: 10"),
            (EMBEDDINGS[:1], "1 galaxies are too few"),
            (np.full((GALAXIES, WIDTH), np.nan), "not finite: 300 of 300"),
            (np.ones((GALAXIES, WIDTH)), "all positions are equal"),
        ],
        ids=["fewer than min_samples", "one galaxy", "all NaN", "constant"],
    )
    def test_hard_input_is_refused_with_value_and_way_out(self, name, positions, told):
        with pytest.raises(RarezooError, match=told):
            registry.choice("clusterer", name)(min_samples=10).linkage(positions)

    def test_it_agrees_with_the_reference_up_to_ties(self, name):
        from sklearn.metrics import adjusted_rand_score

        assert (
            adjusted_rand_score(self.classes(name, EMBEDDINGS).labels, self.classes("hdbscan", EMBEDDINGS).labels)
            > 0.95
        )
