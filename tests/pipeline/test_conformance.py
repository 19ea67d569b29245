"""Every registered compressor, clusterer and training objective keeps the same promises."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from rarezoo import settings as registry
from rarezoo import tables
from rarezoo.data.loaders import Batch
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import RarezooError
from rarezoo.searches.compress import FittedMap
from rarezoo.training.module import Learner, TrainSettings
from rarezoo.training.objective import LOSS
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import BottleneckNetwork

pytestmark = pytest.mark.pipeline

# What needs a library that is not among rarezoo's dependencies.
NEEDS = {"umap_cuml": "cuml", "hdbscan_cuml": "cuml"}


def choices(group):
    """Every choice, those whose library is missing skipped."""
    for name in registry.options(group):
        missing = name in NEEDS and find_spec(NEEDS[name]) is None
        yield pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{NEEDS.get(name)} is not installed"))


COMPRESSORS = list(choices("compress"))
CLUSTERERS = list(choices("clusterer"))
OBJECTIVES = list(choices("objective"))

GALAXIES, WIDTH = 300, 12
IDS = np.array([f"g{row:03d}" for row in np.random.default_rng(2).permutation(GALAXIES)])


def sky(groups=3):
    """Embeddings of galaxies in well separated groups of equal size, and which is in which."""
    random = np.random.default_rng(0)
    group = np.arange(GALAXIES) % groups
    return (random.normal(size=(groups, WIDTH)) * 8)[group] + random.normal(size=(GALAXIES, WIDTH)), group


EMBEDDINGS, GROUP = sky()
PILED = np.where((np.arange(GALAXIES) < 180)[:, None] & (GROUP == 1)[:, None], EMBEDDINGS[1], EMBEDDINGS)
HARD = {
    "coincident galaxies": PILED,
    "constant columns": np.where(np.arange(WIDTH) < 4, 3.0, EMBEDDINGS),
    "one far outlier": np.where((np.arange(GALAXIES) == 7)[:, None], 1e4, EMBEDDINGS),
    "groups with no neighbour in common": EMBEDDINGS * 1e3,
    "half precision": EMBEDDINGS.astype(np.float16),
}


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
        placed = fitted.transform(EMBEDDINGS[new])
        centres = np.array([fitted.positions[GROUP[old] == group].mean(axis=0) for group in range(3)])
        distances = np.linalg.norm(placed[:, None] - centres, axis=2)
        assert placed.shape == (60, fitted.positions.shape[1])
        assert (distances.argmin(axis=1) == GROUP[new]).all()
        opened = FittedMap.open(fitted.save(tmp_path))
        np.testing.assert_array_equal(opened.positions, fitted.positions)
        np.testing.assert_array_equal(opened.transform(EMBEDDINGS[new]), placed)

    @pytest.mark.parametrize("kind", HARD)
    def test_hard_input_is_mapped_with_its_groups_apart(self, name, kind):
        fitted = registry.choice("compress", name)().fit(HARD[kind], ids=IDS)
        assert np.isfinite(fitted.positions).all()
        ordinary = np.arange(GALAXIES) != 7
        positions, group = fitted.positions[ordinary], GROUP[ordinary]
        centres = np.array([np.median(positions[group == number], axis=0) for number in range(3)])
        nearest = np.linalg.norm(positions[:, None] - centres, axis=2).argmin(axis=1)
        assert np.mean(nearest == group) > 0.98

    @pytest.mark.parametrize(
        ("embeddings", "message"),
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
    def test_hard_input_is_refused_with_value_and_way_out(self, name, embeddings, message):
        with pytest.raises(RarezooError, match=message):
            registry.choice("compress", name)().fit(embeddings, ids=IDS[: len(np.atleast_2d(embeddings))])


@pytest.mark.parametrize("name", CLUSTERERS)
class TestClusterer:
    def classes(self, name, positions, ids=IDS):
        clusterer = registry.choice("clusterer", name)(min_samples=10, min_cluster_size=30)
        return clusterer.classes(clusterer.linkage(positions), ids=ids)

    def test_separate_groups_are_classes(self, name):
        clustering = self.classes(name, EMBEDDINGS)
        assert len(clustering) == 3
        assert len(set(zip(GROUP, clustering.labels, strict=True)) - {(g, -1) for g in range(3)}) == 3
        assert clustering.sizes.sum() > 0.95 * GALAXIES

    def test_the_order_of_galaxies_changes_nothing(self, name):
        order = np.random.default_rng(7).permutation(GALAXIES)
        straight, shuffled = self.classes(name, EMBEDDINGS), self.classes(name, EMBEDDINGS[order], ids=IDS[order])
        np.testing.assert_array_equal(straight.labels[order], shuffled.labels)
        np.testing.assert_array_equal(straight.deaths, shuffled.deaths)

    def test_a_far_outlier_is_in_no_class_and_takes_none_away(self, name):
        clustering = self.classes(name, HARD["one far outlier"])
        assert clustering.labels[7] == tables.NO_CLASS
        assert len(clustering) == 3

    def test_coincident_galaxies_are_a_class_of_infinite_density(self, name):
        clustering = self.classes(name, PILED)
        piled = clustering.labels[np.equal(PILED, EMBEDDINGS[1]).all(axis=1)]
        assert len(set(piled)) == 1
        assert np.isinf(clustering.deaths[piled[0]])

    def test_half_precision_is_taken(self, name):
        half = EMBEDDINGS.astype(np.float16)
        np.testing.assert_array_equal(self.classes(name, half).labels, self.classes(name, half.astype(float)).labels)

    def test_its_tables_fit_their_kinds(self, name):
        clusterer = registry.choice("clusterer", name)(min_samples=10, min_cluster_size=30)
        linkage = clusterer.linkage(EMBEDDINGS)
        tables.check(clusterer.classes(linkage).tree, tables.TREE)
        tables.check(linkage, tables.LINKAGE)
        assert linkage.num_rows == GALAXIES - 1
        assert linkage[tables.SIZE][-1].as_py() == GALAXIES

    @pytest.mark.parametrize(
        ("positions", "message"),
        [
            (EMBEDDINGS[:10], "10 galaxies are too few for clusterer.min_samples: 10"),
            (EMBEDDINGS[:1], "1 galaxies are too few"),
            (np.full((GALAXIES, WIDTH), np.nan), "not finite: 300 of 300"),
            (np.ones((GALAXIES, WIDTH)), "all positions are equal"),
        ],
        ids=["fewer than min_samples", "one galaxy", "all NaN", "constant"],
    )
    def test_hard_input_is_refused_with_value_and_way_out(self, name, positions, message):
        with pytest.raises(RarezooError, match=message):
            registry.choice("clusterer", name)(min_samples=10).linkage(positions)

    def test_it_agrees_with_the_reference_up_to_ties(self, name):
        from sklearn.metrics import adjusted_rand_score

        assert (
            adjusted_rand_score(self.classes(name, EMBEDDINGS).labels, self.classes("hdbscan", EMBEDDINGS).labels)
            > 0.95
        )


class SmallTrunk(nn.Module):
    """Features of an image: a small grid of it, through one layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 6)

    def forward(self, images):
        return self.layer(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


TREE = QuestionTree("two", (Question("shape", ("shape_smooth", "shape_disk")), Question("bar", ("bar_yes", "bar_no"))))


@pytest.mark.parametrize("name", OBJECTIVES)
class TestObjective:
    def learner(self, name):
        torch.manual_seed(0)
        learner = Learner(
            BottleneckNetwork(SmallTrunk(), native=6, width=4, answers=4, dropout=0),
            objective=registry.choice("objective", name)(),
            tree=TREE,
            settings=TrainSettings(),
            encoder=EfficientNetB0(input_size=32),
            id_of=str,
            seed=0,
        )
        learner.log = lambda *_, **__: None
        return learner

    def batch(self):
        random = np.random.default_rng(0)
        images = torch.as_tensor(random.integers(0, 256, (16, 3, 32, 32)), dtype=torch.uint8)
        return Batch(torch.arange(16), images, torch.as_tensor(random.integers(0, 9, (16, 4)), dtype=torch.float32))

    def loss(self, learner):
        torch.manual_seed(1)
        return learner.training_step(self.batch(), 0)

    def test_the_same_seed_gives_the_same_finite_loss(self, name):
        first, again = (float(self.loss(self.learner(name)).detach()) for _ in range(2))
        assert np.isfinite(first)
        assert first == again

    def test_training_lowers_the_loss_and_trains_trunk_and_head(self, name):
        learner = self.learner(name)
        optimiser = torch.optim.Adam([*learner.network.parameters(), *learner.extra_modules.parameters()], lr=1e-2)
        before = float(self.loss(learner).detach())
        for _ in range(20):
            optimiser.zero_grad()
            self.loss(learner).backward()
            optimiser.step()
        assert float(self.loss(learner).detach()) < before
        gradients = {key: weight.grad for key, weight in learner.network.named_parameters()}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        assert gradients["trunk.layer.weight"].abs().sum() > 0
        assert gradients["head.weight"].abs().sum() > 0

    def test_validation_returns_a_loss_and_its_number_of_galaxies(self, name):
        learner, batch = self.learner(name), self.batch()
        with torch.no_grad():
            prediction = learner.network(batch.images)
        watched = learner.objective.validation(prediction, batch.votes, tree=TREE)
        loss, galaxies = watched[LOSS]
        assert np.isfinite(float(loss))
        assert galaxies == len(batch.rows)

    def test_the_card_names_it_and_its_settings(self, name):
        entries = registry.choice("objective", name)().card_entries()
        assert entries["objective"] == name
        assert json.loads(json.dumps(entries)) == entries
