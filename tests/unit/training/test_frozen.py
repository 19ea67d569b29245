"""Features of a frozen trunk: kept by what they are made from, and trained on with the same result as images."""

import dataclasses

import numpy as np
import pytest
import torch

from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree
from rarezoo.errors import CheckpointError, ConfigError
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun
from rarezoo.training.frozen import frozen_features, invariant_directions
from rarezoo.training.module import TrainSettings, first_groups, learning_rate_shares, optimiser_of
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.unit
TREE = named_tree("gz2")
FROZEN = {"freeze_trunk": True, "view": "turns"}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return Mock(n=60, side=48, seed=3, workers=1, cache=str(tmp_path_factory.mktemp("sky")))


@pytest.fixture(scope="module")
def encoder():
    return EfficientNetB0(input_size=32, bottleneck="8")


def trained(survey, encoder, out, *, dtype="float32", **settings):
    train = TrainSettings(**{"epochs": 2, "batch_size": 16, "workers": 0, "dtype": dtype, **settings})
    run = TrainRun(data=survey, model=encoder, train=train, logger=Tracker(mode="none"), out=str(out), seed=1)
    return run.run()


@pytest.fixture(scope="module")
def start(survey, encoder, tmp_path_factory):
    """A checkpoint after one epoch, from which trainings start."""
    return trained(survey, encoder, tmp_path_factory.mktemp("net") / "start", epochs=1)


def test_training_on_kept_features_equals_training_on_images(survey, encoder, tmp_path):
    images = trained(survey, encoder, tmp_path / "images", **FROZEN)
    features = trained(survey, encoder, tmp_path / "features", turns=8, **FROZEN)
    expected, values = (checkpoint.network.state_dict() for checkpoint in (images, features))
    assert values.keys() == expected.keys()
    for name, value in values.items():
        # Features are kept in half precision.
        torch.testing.assert_close(value, expected[name], rtol=2e-2, atol=2e-3, msg=name)
    assert images.card["metrics"][0]["loss"] == pytest.approx(features.card["metrics"][0]["loss"], rel=1e-2)


def test_the_moving_average_of_a_training_on_features_is_kept(survey, encoder, tmp_path):
    plain = trained(survey, encoder, tmp_path / "plain", turns=2, **FROZEN)
    averaged = trained(survey, encoder, tmp_path / "averaged", turns=2, ema=0.9, **FROZEN)
    assert torch.equal(averaged.network.trunk.conv_stem.weight, plain.network.trunk.conv_stem.weight)
    assert not torch.equal(averaged.network.head.weight, plain.network.head.weight)


def test_features_are_kept_and_computed_again_for_other_weights_views_and_pixels(survey, encoder, tmp_path):
    galaxies = survey.open()
    torch.manual_seed(0)
    network, other = (build_network(encoder, TREE).eval() for _ in range(2))
    rows = np.arange(20)

    def files(net=network, source=galaxies, settings=encoder, turns=2):
        frozen_features(net, source, rows, encoder=settings, turns=turns, cache=tmp_path, workers=0)
        return len(list(tmp_path.glob("*.npy")))

    assert [files(), files()] == [1, 1]
    assert files(net=other) == 2
    assert files(turns=4) == 3
    assert files(settings=dataclasses.replace(encoder, zoom=2.0)) == 4
    assert files(source=dataclasses.replace(survey, seed=4).open()) == 5
    # The same weights with another activation.
    torch.manual_seed(0)
    settings = dataclasses.replace(encoder, activation="relu6")
    assert files(net=build_network(settings, TREE).eval(), settings=settings) == 6


def test_the_first_orientation_is_the_image_itself(survey, encoder, tmp_path):
    torch.manual_seed(0)
    network = build_network(encoder, TREE).eval()
    kept = frozen_features(
        network, survey.open(), np.array([5, 2]), encoder=encoder, turns=8, cache=tmp_path, workers=0
    )
    assert kept.rows.tolist() == [2, 5]
    alone = frozen_features(network, survey.open(), np.array([5]), encoder=encoder, turns=1, cache=tmp_path, workers=0)
    np.testing.assert_allclose(kept.of(np.array([5]))[:, :1], alone.values, rtol=2e-3, atol=1e-3)


def test_invariant_directions_are_those_that_tell_galaxies_apart():
    random = np.random.default_rng(0)
    galaxy, turn = random.normal(size=(400, 1, 6)), random.normal(size=(400, 4, 6))
    features = galaxy * [1, 3, 1, 1, 0.1, 1] + turn * [0.1, 9, 9, 0.1, 9, 9]
    first, second = np.abs(invariant_directions(features, width=2, ridge=0.0))
    assert sorted([int(first.argmax()), int(second.argmax())]) == [0, 3]
    by_variance = np.abs(invariant_directions(features, width=1, ridge=1e6))
    assert by_variance.argmax() == 1


def test_the_bottleneck_starts_as_invariant_directions_and_stays_if_only_the_head_learns(survey, encoder, tmp_path):
    start = {"turns": 4, "bottleneck_start": "invariant", "layer_decay": 0.0, **FROZEN}
    few, more = (trained(survey, encoder, tmp_path / str(n), epochs=n, weight_decay=0.0, **start) for n in (1, 2))
    assert torch.equal(few.network.bottleneck.weight, more.network.bottleneck.weight)
    assert not torch.equal(few.network.head.weight, more.network.head.weight)
    galaxies = survey.open()
    kept = frozen_features(
        few.network, galaxies, galaxies.rows("train"), encoder=encoder, turns=4, cache=tmp_path, workers=0
    )
    flat = torch.from_numpy(kept.values.astype(np.float32)).flatten(0, 1)
    with torch.inference_mode():
        embedding = few.network.from_features(flat).embedding.reshape(len(kept.rows), 4, -1)
    # The second number: the variance of the mean over the turns is the galaxies'.
    assert float(embedding.mean(dim=(0, 1)).abs().max()) < 0.05
    assert float(embedding.mean(dim=1).var(dim=0, correction=0).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turns": 3}, r"train\.turns.*0, 1, 2, 4, 8"),
        ({"turns": 8}, r"frozen trunk.*train\.freeze_trunk=true"),
        ({"turns": 8, "freeze_trunk": True}, r"train\.view=turns"),
        ({"bottleneck_start": "invariant", "freeze_trunk": True, "view": "turns"}, "several orientations"),
    ],
)
def test_settings_of_a_frozen_trunk_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**settings)


def test_invariant_directions_without_a_bottleneck_are_refused(survey, tmp_path):
    with pytest.raises(ConfigError, match=r"no bottleneck.*model\.bottleneck"):
        trained(
            survey, EfficientNetB0(input_size=32, bottleneck="native"), tmp_path, turns=8, bottleneck_start="invariant",
            **FROZEN,
        )  # fmt: skip


def test_the_learning_rate_decays_from_the_head_to_the_stem(encoder):
    network = build_network(dataclasses.replace(encoder, pool="last"), TREE)
    shares = learning_rate_shares(network, 0.5)
    trunk = network.trunk
    expected = {network.bottleneck.weight: 2, trunk.conv_head.weight: 3, trunk.blocks[6][0].conv_dw.weight: 3}
    expected |= {trunk.blocks[0][0].conv_dw.weight: 3 + 6, trunk.conv_stem.weight: 3 + 7}
    for weight, depth in expected.items():
        assert shares[weight] == 0.5 ** (depth - 1)
    assert network.head.weight not in shares
    optimiser, _ = optimiser_of(
        list(network.parameters()), TrainSettings(layer_decay=0.5, warmup_epochs=0), steps=10, shares=shares
    )
    rate = {weight: group["lr"] for group in optimiser.param_groups for weight in group["params"]}
    assert rate[network.head.weight] / rate[trunk.conv_stem.weight] == pytest.approx(2**9)
    assert len(rate) == len(list(network.parameters()))


def test_frozen_stages_keep_weights_and_the_statistics_of_their_norms(survey, encoder, start, tmp_path):
    torch.manual_seed(0)
    trunk = build_network(encoder, TREE).trunk
    assert trunk.conv_stem in first_groups(trunk, 2)
    assert trunk.blocks[1][0].conv_dw not in first_groups(trunk, 2)
    with pytest.raises(ConfigError, match=r"8 groups.*train\.freeze_stages"):
        first_groups(trunk, 9)
    again = dataclasses.replace(encoder, start=str(start.folder))
    tuned = trained(survey, again, tmp_path / "tuned", epochs=1, freeze_stages=3, view="turns")
    before, after = start.network.trunk.state_dict(), tuned.network.trunk.state_dict()
    for name, value in after.items():
        if name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(after["blocks.4.0.conv_dw.weight"], before["blocks.4.0.conv_dw.weight"])


def test_a_start_keeps_its_standardisation(survey, encoder, start, tmp_path):
    begun = dataclasses.replace(encoder, start=str(start.folder))
    again = trained(survey, begun, tmp_path / "again", epochs=1, **FROZEN)
    assert torch.equal(again.network.standardise.mean, start.network.standardise.mean)
    # While the trunk is trained, the standardisation follows its features.
    followed = trained(survey, begun, tmp_path / "followed", epochs=1)
    assert not torch.equal(followed.network.standardise.mean, start.network.standardise.mean)
    with pytest.raises(CheckpointError, match=r"model\.pool=stages"):
        trained(survey, dataclasses.replace(encoder, pool="last", start=str(start.folder)), tmp_path / "no", epochs=1)
