"""Sets, experts, trajectory and feature matching, and the judge, on galaxies of a few pixels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rarezoo.data.images import ImageSource
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies, catalogue_table
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.distillation import features
from rarezoo.distillation.augmentation import AUGMENTATIONS, augment, generator
from rarezoo.distillation.data import RECIPES, SetSettings, class_scores, galaxy_set
from rarezoo.distillation.experts import Experts, ExpertSettings, train_experts
from rarezoo.distillation.features import (
    FeatureSettings,
    FrozenEncoder,
    companion_of,
    distil_features,
    match_features,
    means_and_scatter,
)
from rarezoo.distillation.judge import JudgeSettings, judge, paired_difference, spokes
from rarezoo.distillation.matching import MatchingSettings, match_trajectories, student_batches, student_loss
from rarezoo.distillation.networks import build, flat_network
from rarezoo.distillation.output import Distillation, write_distillation
from rarezoo.distillation.random_networks import DmSettings, match_distributions
from rarezoo.distillation.real_images import STARTS, real_images, start_images
from rarezoo.distillation.run import DistilRun
from rarezoo.distillation.schedules import SelfAdaptive, Widening
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError, StoreNotFound

pytestmark = pytest.mark.unit
TREE = QuestionTree("shapes", (Question("shape", ("shape_round", "shape_long", "shape_ring")),))
RECIPE = {"round": "shape_round", "long": "shape_long", "ring": "shape_ring"}
SET = SetSettings(
    recipe=[f"{name}={answer}" for name, answer in RECIPE.items()], train=12, validation=3, test=5, side=8, zoom=1.0
)
EXPERTS = ExpertSettings(count=2, epochs=3, width=4, rate=0.05, batch=8)
MATCHING = MatchingSettings(iterations=4, steps=3, check_every=2, check_steps=4, image_rate=1.0)


class Shapes(ImageSource):
    """Round, long and ring-shaped galaxies in turn, with noise; notes the rows that are read."""

    def __init__(self, *, side=12, odd_size=False, copies=False):
        self.side, self.odd_size, self.copies = side, odd_size, copies
        self.read = []

    def cutout(self, row):
        self.read.append(row)
        seed = row if not self.copies or row % 2 else 0
        random = np.random.default_rng([seed, 1])
        side = self.side + 2 * (self.odd_size and row == 4)
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        turn = random.uniform(0, np.pi)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        radius = np.hypot(along, across * (1, 3, 1)[row % 3])
        light = np.exp(-(((radius - 0.6 * (row % 3 == 2)) / 0.3) ** 2))
        noisy = 150 * light[..., None] * [1, 0.9, 0.8] + random.normal(40, 20, (side, side, 1))
        return np.clip(noisy, 0, 255).astype(np.uint8)


def made_up(count=72, **images):
    """Return a survey in which galaxy number i is of the shape i % 3."""
    ids = [f"g{row:03d}" for row in range(count)]
    votes = np.full((count, 3), 2.0, dtype=np.float32)
    votes[np.arange(count), np.arange(count) % 3] = 30 + np.arange(count) % 7
    catalogue = catalogue_table(ids, ids, survey="made up", source="test")
    return Galaxies(catalogue=catalogue, images=Shapes(**images), tree=TREE, votes=votes)


@pytest.fixture(scope="module")
def shapes():
    return galaxy_set(made_up(), SET)


@pytest.fixture(scope="module")
def experts(shapes, tmp_path_factory):
    return train_experts(shapes, EXPERTS, tmp_path_factory.mktemp("experts"))


# ── sets ──


def test_a_set_is_balanced_and_its_parts_are_disjoint(shapes):
    counts = {part: np.bincount(shapes.labels_of(part)).tolist() for part in (TRAIN, VALIDATION, TEST)}
    assert counts == {TRAIN: [9, 9, 9], VALIDATION: [3, 3, 3], TEST: [5, 5, 5]}
    assert len(set(shapes.rows)) == len(shapes.rows)
    assert (shapes.rows % 3 == shapes.labels).all()


def test_the_surest_galaxies_are_chosen_and_few_votes_count_less():
    galaxies = made_up()
    votes = np.zeros((72, 3), dtype=np.float32)
    votes[:, 0] = np.where(np.arange(72) == 7, 3, 40)
    votes[:, 1] = np.where(np.arange(72) == 7, 0, np.arange(72) % 5)
    galaxies = replace(galaxies, votes=votes)
    only = replace(SET, recipe=["round=shape_round"])
    _, plain = class_scores(galaxies, only)
    _, bounded = class_scores(galaxies, replace(only, score="lower_bound"))
    assert plain[7, 0] == 1
    assert plain[7, 0] > plain[6, 0] > bounded[6, 0] > bounded[7, 0]


def test_near_identical_images_are_in_one_part():
    chosen = galaxy_set(made_up(count=180, copies=True), SET)
    copies = {part: set(chosen.rows[chosen.parts == part][chosen.rows[chosen.parts == part] % 2 == 0] % 3)
              for part in (TRAIN, VALIDATION, TEST)}  # fmt: skip
    for shape in range(3):
        assert sum(shape in found for found in copies.values()) <= 1


@pytest.mark.parametrize("name", ["gz2_nine", "desi_nine"])
def test_the_nine_classes_of_the_paper_are_found_in_the_published_trees(name):
    from rarezoo.data.trees import named_tree

    tree = named_tree(name.partition("_")[0])
    votes = np.ones((4, len(tree.answers)), dtype=np.float32)
    galaxies = replace(made_up(count=4), tree=tree, votes=votes)
    names, scores = class_scores(galaxies, SetSettings(classes=name))
    assert names == tuple(RECIPES[name])
    assert scores.shape == (4, 9)


@pytest.mark.parametrize(
    ("images", "settings", "error", "words"),
    [
        ({}, {"train": 30}, DataError, ["round", "24", "set.train"]),
        ({"odd_size": True}, {}, DataError, ["14×14", "set.several_sizes=resize"]),
        ({}, {"only": ["spiral"]}, ConfigError, ["spiral", "ring"]),
        ({}, {"recipe": []}, ConfigError, ["shapes", "set.recipe"]),
    ],
)
def test_a_set_that_cannot_be_made_is_refused(images, settings, error, words):
    with pytest.raises(error) as refused:
        galaxy_set(made_up(**images), replace(SET, **settings))
    for word in words:
        assert word in str(refused.value)


def test_images_of_several_sizes_are_resized_if_one_says_so():
    chosen = galaxy_set(made_up(odd_size=True), replace(SET, several_sizes="resize"))
    assert chosen.pixels(TRAIN).shape[-2:] == (8, 8)


# ── networks and random changes ──


@pytest.mark.parametrize("name", ["convnet", "resnet18", "efficientnet_b0"])
def test_every_network_is_a_function_of_one_vector(name):
    network = flat_network(name, side=16, classes=3, width=4, depth=2)
    images = torch.randn(2, 3, 16, 16)
    logits = network(network.start(seed=3), images)
    assert logits.shape == (2, 3)
    assert torch.equal(logits, network(network.start(seed=3), images))
    assert not torch.equal(logits, network(network.start(seed=4), images))


def test_a_side_that_cannot_be_halved_is_refused():
    with pytest.raises(ConfigError, match="multiple of 8"):
        build("convnet", side=20, classes=2)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_random_changes_follow_from_their_seed_and_can_be_differentiated(kind):
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    for seed in range(8):
        changed = augment(images, kind, generator(seed))
        assert torch.equal(changed, augment(images, kind, generator(seed)))
        assert changed.isfinite().all()
        torch.autograd.grad(changed.sum(), images)


def test_galaxy_augmentation_keeps_colours():
    images = torch.rand(4, 1, 8, 8).repeat(1, 3, 1, 1) * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    changed = augment(images, "galaxy", generator(1))
    torch.testing.assert_close(changed[:, 1], 0.5 * changed[:, 0])


# ── trajectory matching ──


@pytest.fixture
def student():
    """Return a network, images, weights and a target for a student of six steps, in double precision."""
    network = flat_network("convnet", side=8, classes=3, width=4, depth=2)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    start = network.start(seed=1).double()
    target = start + 0.01 * torch.randn(len(start), dtype=torch.float64)
    batches = student_batches(torch.arange(3).repeat(2), batch=4, kind="galaxy", seeds=(1, 2))
    return network, images, batches, start, target


def test_the_adjoint_is_the_gradient_of_the_unrolled_student(student):
    network, images, batches, start, target = student
    found = student_loss(network, images, batches, start=start, target=target, log_rate=np.log(0.1), steps=6)
    seen, weights = images.clone().requires_grad_(), start.clone().requires_grad_()
    log_rate = torch.tensor(np.log(0.1), dtype=torch.float64, requires_grad=True)
    for step in range(6):
        (slope,) = torch.autograd.grad(network.loss(weights, *batches(seen, step)), weights, create_graph=True)
        weights = weights - log_rate.exp() * slope
    loss = (weights - target).square().sum() / (start - target).square().sum()
    of_images, of_rate = torch.autograd.grad(loss, (seen, log_rate))
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-10)
    torch.testing.assert_close(found.images, of_images, rtol=1e-8, atol=1e-12)
    assert found.log_rate == pytest.approx(float(of_rate), rel=1e-8)


def test_the_adjoint_is_the_finite_difference(student):
    network, images, batches, start, target = student

    def loss(shift, factor=1.0):
        return student_loss(
            network, images + shift, batches, start=start, target=target, log_rate=np.log(0.1 * factor), steps=4
        )  # fmt: skip

    direction, small = torch.randn_like(images), 1e-5
    slope = (loss(small * direction).loss - loss(-small * direction).loss) / (2 * small)
    assert float((loss(0.0).images * direction).sum()) == pytest.approx(slope, rel=1e-4)
    by_rate = (loss(0.0, np.exp(small)).loss - loss(0.0, np.exp(-small)).loss) / (2 * small)
    assert loss(0.0).log_rate == pytest.approx(by_rate, rel=1e-4)


def test_a_student_that_equals_the_expert_has_no_loss(student):
    network, images, batches, start, _ = student
    target = network.descend(start, lambda step: batches(images, step), steps=6, rate=lambda step: 0.1)
    found = student_loss(network, images, batches, start=start, target=target, log_rate=np.log(0.1), steps=6)
    assert found.loss < 1e-8


def stages(values, *, length=200):
    schedule = SelfAdaptive(last=5)
    for number in range(length):
        schedule.observe(values(number))
    return schedule


def test_the_cap_rises_on_falling_and_on_rising_probes():
    assert stages(lambda number: 1 - 0.01 * number).cap > 1
    assert stages(lambda number: 1 + 0.01 * number).cap > 1
    assert stages(lambda number: 1.0).cap == 1
    # Experts of one epoch have no second epoch to probe.
    assert SelfAdaptive(last=0).probed is None


def test_the_cap_hardly_ever_rises_on_noise():
    random = np.random.default_rng(0)
    risen = [stages(lambda number: random.normal(), length=100).cap > 1 for _ in range(300)]
    # 3 sigma on one side, tested ten times.
    assert np.mean(risen) < 0.02


def test_the_schedule_ends_after_its_patience():
    schedule = SelfAdaptive(last=5, patience=20, decay_every=2)
    rates = []
    for iteration in range(80):
        schedule.start(iteration, torch.Generator())
        if schedule.probed is not None:
            schedule.observe(1.0)
        rates.append(schedule.rate)
    assert rates == sorted(rates, reverse=True)
    assert schedule.finished


def test_the_widening_bound_grows_to_the_last_epoch():
    random, schedule = generator(0), Widening(last=3, iterations=40)
    drawn = [[schedule.start(iteration, random) for _ in range(30)] for iteration in (0, 20, 400)]
    assert [max(starts) for starts in drawn] == [0, 2, 3]


@pytest.mark.parametrize("schedule", ["stm", "mtt", "widening"])
def test_matching_gives_images_of_every_class_and_reads_no_test_galaxy(shapes, experts, tmp_path, schedule):
    images = shapes.galaxies.images
    fresh = galaxy_set(shapes.galaxies, SET)
    images.read.clear()
    settings = replace(MATCHING, schedule=schedule, target_epochs=2 if schedule == "mtt" else 1)
    found = match_trajectories(fresh, experts, settings, per_class=2, folder=tmp_path)
    assert found.images.shape == (6, 3, 8, 8)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.rate > 0
    assert [row["iteration"] for row in found.curve] == [0, 2, 4]
    write_distillation(tmp_path / "out", fresh, found, method="a test", facts={})
    assert not set(images.read) & set(fresh.rows[fresh.parts == TEST].tolist())


def test_images_that_matching_makes_worse_are_not_taken(shapes, experts, tmp_path):
    # Noise of this size destroys any image.
    ruinous = replace(MATCHING, start="medoid", image_rate=1e4)
    found = match_trajectories(shapes, experts, ruinous, per_class=2, folder=tmp_path)
    best = max(found.curve, key=lambda row: row["train_accuracy"])
    assert best["iteration"] == 0
    assert torch.equal(found.images, real_images(shapes, "medoid", per_class=2)[0])


@pytest.mark.parametrize(("cap", "starts"), [(1, {0}), (2, {0, 1}), (99, {0, 1, 2})])
def test_the_self_adaptive_schedule_begins_with_so_many_epochs(cap, starts):
    schedule = replace(MATCHING, schedule="stm", first_cap=cap, last_start=3).chosen_schedule(epochs=4)
    assert {schedule.start(iteration, torch.Generator()) for iteration in range(12)} == starts
    assert schedule.probed == len(starts)


@pytest.mark.parametrize("start", STARTS)
def test_matching_starts_from_images_of_every_class(shapes, start):
    images, labels = start_images(shapes, per_class=2, start=start, seed=0)
    assert images.shape == (6, 3, 8, 8)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(images, start_images(shapes, per_class=2, start=start, seed=0)[0])


def test_a_stopped_matching_continues_to_the_same_images(shapes, experts, tmp_path):
    whole = match_trajectories(shapes, experts, MATCHING, per_class=1, folder=tmp_path / "whole", save_every=1)

    class Stopped(Exception):
        pass

    class Failing(Experts):
        def weights(self, number, epoch):
            if Failing.left == 0:
                raise Stopped
            Failing.left -= 1
            return super().weights(number, epoch)

    Failing.left = 9  # Two states of each student and of each probe: it stops in the third iteration.
    failing = Failing(experts.folder, experts.about, experts.count)
    with pytest.raises(Stopped):
        match_trajectories(shapes, failing, MATCHING, per_class=1, folder=tmp_path / "parts", save_every=1)
    again = match_trajectories(shapes, experts, MATCHING, per_class=1, folder=tmp_path / "parts", save_every=1)
    assert torch.equal(whole.images, again.images)
    assert whole.curve[-1]["loss"] == again.curve[-1]["loss"]
    assert whole.rate == again.rate


def test_a_loss_that_is_no_number_says_where_and_what_to_lower(shapes, experts, tmp_path):
    with pytest.raises(ConfigError) as refused:
        match_trajectories(shapes, experts, replace(MATCHING, student_rate=1e30), per_class=1, folder=tmp_path)
    for word in ("iteration 1", "step 2", "matching.student_rate", "matching.image_rate"):
        assert word in str(refused.value)


class Arms(ImageSource):
    """Galaxies with one, two or three arms at random angles, in turn: the mean image of each class is the same disc."""

    def cutout(self, row):
        random = np.random.default_rng([row, 2])
        y, x = np.mgrid[-1:1:16j, -1:1:16j]
        radius, angle = np.hypot(x, y), np.arctan2(y, x) - random.uniform(0, 2 * np.pi)
        light = np.exp(-radius / 0.35) * (1 + np.cos((row % 3 + 1) * angle) * np.minimum(1, radius / 0.3))
        noisy = 150 * light[..., None] * [1, 0.9, 0.8] + random.normal(40, 12, (16, 16, 1))
        return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_distilled_mock_set_beats_its_mean_images(tmp_path):
    """The angles are random, so that no mean image has arms, and networks learn next to nothing from it."""
    galaxies = replace(made_up(count=300), images=Arms())
    arms = galaxy_set(galaxies, replace(SET, train=60, validation=15, test=40, side=16))
    experts = train_experts(arms, ExpertSettings(count=2, epochs=10, width=16, rate=0.05, batch=16), tmp_path)
    settings = MatchingSettings(
        iterations=50, steps=10, student_rate=0.05, last_start=8, check_every=25, check_steps=60
    )
    found = match_trajectories(arms, experts, settings, per_class=1, folder=tmp_path / "state")
    # Real images, from which they start, beat the means too. The loss says that they were matched: that of a student
    # that does not move is 1.
    losses = [row["loss"] for row in found.curve[1:]]
    assert losses[-1] < min(losses[0], 1)
    judging = JudgeSettings(networks=3, steps=80, width=16, rates=[0.05, 0.01])
    distilled, mean = (judge([part], arms, judging) for part in (found[:2], real_images(arms, "mean", per_class=1)))
    assert paired_difference(distilled.right, mean.right, draws=500).low > 0.1, losses


# ── experts ──


def test_experts_continue_with_the_ones_that_are_missing(shapes, experts, tmp_path):
    train_experts(shapes, replace(EXPERTS, count=1), tmp_path)
    first = experts.path(0).read_bytes()
    assert (tmp_path / experts.path(0).name).read_bytes() == first
    train_experts(shapes, EXPERTS, tmp_path)
    assert (tmp_path / experts.path(1).name).read_bytes() == experts.path(1).read_bytes()
    assert experts.weights(0, 0).shape == experts.weights(1, 3).shape
    assert not torch.equal(experts.weights(0, 3), experts.weights(1, 3))


def test_experts_that_cannot_be_used_are_refused(shapes, experts, tmp_path):
    with pytest.raises(StoreNotFound, match="no experts"):
        Experts.open(tmp_path, shapes, count=1)
    with pytest.raises(StoreNotFound, match="3 of 5 experts"):
        Experts.open(experts.folder, shapes, count=5)
    other = galaxy_set(shapes.galaxies, replace(SET, seed=9))
    with pytest.raises(StoreError, match="another set"):
        Experts.open(experts.folder, other, count=1)
    with pytest.raises(OutputError, match="other settings"):
        train_experts(shapes, replace(EXPERTS, rate=0.5), experts.folder)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(shapes, tmp_path):
    with pytest.raises(OutputError, match=r"disk is too small.*GB"):
        train_experts(shapes, replace(EXPERTS, count=10**12), tmp_path / "experts")
    assert not (tmp_path / "experts").exists()


def test_an_epoch_of_few_steps_is_warned_of(shapes, tmp_path, caplog):
    train_experts(shapes, replace(EXPERTS, count=1, epochs=1), tmp_path / "few")
    assert "experts.batch (now 8)" in caplog.text
    caplog.clear()
    train_experts(shapes, replace(EXPERTS, count=1, epochs=1, batch=3), tmp_path / "enough")
    assert not caplog.text


def test_weights_of_an_expert_that_are_no_numbers_are_refused(shapes, tmp_path):
    with pytest.raises(ConfigError, match=r"experts\.rate"):
        train_experts(shapes, replace(EXPERTS, rate=1e30, count=1), tmp_path)


# ── features ──


def stub_encoder(side=8):
    """Return a frozen encoder of a few random filters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, images):
            return SimpleNamespace(embedding=self.body(images))

    checkpoint = SimpleNamespace(
        name="stub", encoder=SimpleNamespace(input_size=side, zoom=1.0), sha256="0", network=Network()
    )
    return FrozenEncoder(checkpoint)


@pytest.mark.parametrize("match", ["centre", "gradients"])
def test_matching_features_turns_images_towards_their_classes(shapes, tmp_path, match):
    encoder, settings = stub_encoder(), FeatureSettings(match=match, steps=60, rate=0.05, noise=0, prior=0)
    real, labels = encoder.embedded(shapes.pixels(TRAIN)), shapes.labels_of(TRAIN)
    centres = torch.stack([real[labels == number].mean(dim=0) for number in range(3)])
    pixels = shapes.pixels(TRAIN).float() / 255
    start, scatter = means_and_scatter([pixels] * 3)
    parts = (encoder, centres, real.mean(dim=0), real.std(dim=0), start, scatter, settings)
    samples = (real, labels, torch.arange(3))
    images, curve = match_features(*parts, samples=samples, saved=tmp_path / "state.pt")
    assert len(curve) == 7
    # All start from the same image, and each comes nearest to the mean of its own class.
    made, wanted = ((part - real.mean(dim=0)) / real.std(dim=0).clamp(min=0.01) for part in (encoder(images), centres))
    assert nn.functional.cosine_similarity(made[:, None], wanted[None], dim=2).argmax(dim=1).tolist() == [0, 1, 2]
    assert (images >= 0).all()
    assert (images <= 1).all()
    again, _ = match_features(*parts, samples=samples, saved=tmp_path / "state.pt")
    torch.testing.assert_close(images, again)
    # The state of a pyramid with other levels is not continued.
    _, coarse = match_features(*parts, samples=samples, finest=4, saved=tmp_path / "state.pt")
    assert coarse[0]["iteration"] == 1
    assert coarse[0]["loss"] == curve[0]["loss"]
    assert coarse[-1]["loss"] != curve[-1]["loss"]


def test_images_start_as_medoids_and_keep_details_that_random_networks_do_not_see(shapes, monkeypatch):
    encoder = stub_encoder(side=16)
    monkeypatch.setattr(FrozenEncoder, "open", classmethod(lambda *_: encoder))
    seen = {}

    def matched(*parts, finest, **others):
        images, curve = match_features(*parts, finest=finest, **others)
        seen.update(start=parts[4], images=images, finest=finest)
        return images, curve

    monkeypatch.setattr(features, "match_features", matched)
    settings = FeatureSettings(checkpoint="stub", steps=4, rate=0.3, networks=2, views=1)
    distil_features(shapes, settings, per_class=2)
    pixels = shapes.pixels(TRAIN, side=16).float() / 255
    assert all(any(torch.equal(image, galaxy) for galaxy in pixels) for image in seen["start"])
    assert seen["finest"] == shapes.settings.side == 8
    # The change is a sum of images of 1, 2, 4 and 8 px that were made larger, and has no finer detail.
    change = torch.logit(seen["images"].double()) - torch.logit(seen["start"].clamp(0.004, 0.996).double())
    coarse = torch.cat(
        [
            nn.functional.interpolate(torch.eye(size**2).reshape(-1, 1, size, size), (16, 16), mode="bilinear")
            for size in (1, 2, 4, 8)
        ]
    ).reshape(-1, 256)  # fmt: skip
    flat = change.reshape(-1, 256).T
    explained = coarse.double().T @ torch.linalg.lstsq(coarse.double().T, flat, driver="gelsd").solution
    assert float(change.abs().max()) > 0.3
    torch.testing.assert_close(explained, flat, atol=1e-3, rtol=0)
    # Without random networks the pyramid ends at the side of the encoder.
    distil_features(shapes, replace(settings, networks=0, steps=1, start="mean"), per_class=1)
    assert seen["finest"] == 16
    means = [pixels[shapes.labels_of(TRAIN) == number].mean(dim=0) for number in range(3)]
    torch.testing.assert_close(seen["start"], torch.stack(means))


def test_random_networks_hold_images_near_to_their_classes(shapes):
    encoder, settings = stub_encoder(), FeatureSettings(steps=120, rate=0.1, noise=0, prior=0, networks=3, weight=0.01)
    labels, pixels = shapes.labels_of(TRAIN), shapes.pixels(TRAIN).float() / 255
    groups = [torch.nonzero(labels == number).flatten() for number in range(3)]
    real = encoder.embedded(shapes.pixels(TRAIN))
    start, scatter = means_and_scatter([pixels] * 3)
    # The encoder asks for places where no galaxy is: eight times as far out as the means of the classes.
    centres = real.mean(dim=0) + 8 * torch.stack([real[rows].mean(dim=0) - real.mean(dim=0) for rows in groups])
    companion = companion_of(shapes, groups, settings)

    def distance(images):
        return np.mean([float(companion(images, generator(step, 99))) for step in range(20)])

    def made(**others):
        return match_features(
            encoder, centres, real.mean(dim=0), real.std(dim=0), start, scatter, settings, **others
        )[0]  # fmt: skip

    held, free = made(companion=companion), made()
    assert distance(held) < 0.8 * distance(start)
    assert distance(held) < 0.8 * distance(free)
    # A galaxy of each class is nearer to its group than a galaxy of the next class is.
    own = torch.stack([pixels[rows[0]] for rows in groups])
    assert distance(own) < distance(own.roll(1, dims=0))


DM = DmSettings(networks=3, width=4, depth=2, steps=60, rate=0.05)


def test_distribution_matching_lowers_its_loss(shapes):
    found = match_distributions(shapes, DM, per_class=2)
    assert found.images.shape == (6, 3, 8, 8)
    assert np.mean([row["loss"] for row in found.curve[-1:]]) < found.curve[0]["loss"]


def test_a_stopped_distribution_matching_continues_to_the_same_images(shapes, tmp_path):
    whole = match_distributions(shapes, DM, per_class=1)

    class Stopped(Exception):
        pass

    def stop_late(*_):
        stop_late.left -= 1
        if not stop_late.left:
            raise Stopped

    # It stops in step 60; the state of step 50 was kept.
    stop_late.left = 60
    hook = register_optimizer_step_pre_hook(stop_late)
    with pytest.raises(Stopped):
        match_distributions(shapes, DM, per_class=1, folder=tmp_path)
    hook.remove()
    again = match_distributions(shapes, DM, per_class=1, folder=tmp_path)
    assert torch.equal(whole.images, again.images)
    assert whole.curve == again.curve
    # With other settings it starts anew.
    other = match_distributions(shapes, replace(DM, seed=1, steps=2), per_class=1, folder=tmp_path)
    assert other.curve[0]["iteration"] == 1


# ── the judge and the output ──


def test_the_judge_prefers_good_images(shapes):
    settings = JudgeSettings(networks=2, steps=40, width=4, depth=2, rates=[0.1, 0.01])
    images, labels = real_images(shapes, "random", per_class=6)
    good = judge([(images, labels)], shapes, settings)
    wrong = judge([(images, labels.roll(6))], shapes, settings)
    assert good.right.shape == (2, 15)
    assert good.accuracy > wrong.accuracy
    assert paired_difference(good.right, wrong.right, draws=200).low > 0


@pytest.mark.parametrize("kind", ["random", "medoid", "kmeans", "mean"])
def test_real_images_of_every_kind_have_the_wanted_number(shapes, kind):
    images, labels = real_images(shapes, kind, per_class=3)
    assert images.shape == (9, 3, 8, 8)
    assert np.bincount(labels).tolist() == [3, 3, 3]


def test_a_star_has_more_spokes_than_an_edge_on_galaxy():
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    star = np.exp(-radius) * (1 + np.cos(8 * angle))
    long = np.exp(-np.hypot(x, 2 * y))
    first, second = spokes(np.stack([star, long]))
    assert first > 0.8
    assert second < 0.3


def test_a_fits_file_holds_the_grey_levels_of_the_survey(shapes, tmp_path):
    from astropy.io import fits

    from rarezoo.distillation.matching import Distilled

    images, labels = real_images(shapes, "medoid", per_class=1)
    write_distillation(tmp_path, shapes, Distilled(images, labels, 0.1, []), method="a test", facts={})
    with fits.open(tmp_path / "distilled.fits") as units:
        first = units[1].data[0, :, ::-1]
        assert units[1].header["CLASS"] == "round"
    pixels = shapes.pixels(TRAIN)[shapes.labels_of(TRAIN) == 0].numpy()
    assert min(np.abs(first - image).max() for image in pixels) < 0.01
    opened = Distillation.open(tmp_path)
    np.testing.assert_allclose(opened.images[0], first, rtol=1e-6)
    page = (tmp_path / "index.html").read_text()
    assert "medoid" in page
    assert all(name in page for name in RECIPE)


def test_more_images_than_galaxies_to_start_from_are_refused():
    with pytest.raises(ConfigError, match=r"more images of a class than galaxies: per_class=5.*= 1"):
        DistilRun(out="distilled", set=SetSettings(train=2, validation=1, test=1), per_class=5)
