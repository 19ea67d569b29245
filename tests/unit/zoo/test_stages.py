"""A bottleneck that is fed from several stages: the pooled numbers, and every combination that is refused."""

import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import CheckpointError, ConfigError
from rarezoo.runs import file_sha256
from rarezoo.settings import options
from rarezoo.zoo.cards import CARD
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import encoder_from
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.export import export_timm
from rarezoo.zoo.network import Standardise, build_network
from rarezoo.zoo.stages import pooled_stages

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))
IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def network_of(**settings):
    torch.manual_seed(0)
    network = build_network(EfficientNetB0(**{"input_size": 32, "bottleneck": "8", **settings}), TREE).eval()
    if isinstance(network.standardise, Standardise):
        with torch.no_grad():
            network.standardise.fit(network.features(IMAGES))
    return network


def saved(folder, **settings):
    encoder = EfficientNetB0(**{"input_size": 32, "bottleneck": "8", **settings})
    return Checkpoint.save(folder, network=network_of(**settings), encoder=encoder, tree=TREE, card={})


def test_each_stage_gives_the_means_and_then_the_standard_deviations_of_its_channels():
    maps = [np.random.default_rng(side).normal(size=(2, channels, side, side)) for channels, side in ((3, 4), (5, 2))]
    pooled = pooled_stages([torch.from_numpy(stage) for stage in maps]).numpy()
    expected = [part for stage in maps for part in (stage.mean(axis=(2, 3)), stage.std(axis=(2, 3)))]
    np.testing.assert_allclose(pooled, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_a_constant_map_has_a_finite_gradient():
    stage = torch.ones(1, 2, 4, 4, requires_grad=True)
    pooled_stages([stage]).sum().backward()
    assert stage.grad.isfinite().all()


def test_the_embedding_is_the_bottleneck_of_the_standardised_stages():
    network = network_of(stages=[3, 1])
    maps = network.trunk.forward_intermediates(IMAGES, indices=[1, 3], intermediates_only=True)
    # 1e-8 is added to variances; the maps of random weights vary so little that it matters after standardising.
    deviations = [(stage.var((2, 3), correction=0) + 1e-8).sqrt() for stage in maps]
    features = torch.cat([maps[0].mean((2, 3)), deviations[0], maps[1].mean((2, 3)), deviations[1]], dim=1)
    standard = (features - network.standardise.mean) / network.standardise.deviation
    expected = standard @ network.bottleneck.weight.T + network.bottleneck.bias
    torch.testing.assert_close(network(IMAGES).embedding, expected, rtol=1e-2, atol=1e-2)


def test_a_constant_feature_is_not_blown_up():
    standardise = Standardise(2)
    standardise.fit(torch.tensor([[100.0, 1.0], [100.001, 3.0]]))
    torch.testing.assert_close(standardise.deviation, torch.tensor([1.0, 1.0]))


def batches(*, number, seed=0):
    """Batches of features whose mean is 5 and whose standard deviation is 2."""
    generator = torch.Generator().manual_seed(seed)
    return [5 + 2 * torch.randn(64, 3, generator=generator) for _ in range(number)]


def test_while_a_trunk_is_trained_the_standardisation_follows_its_features():
    standardise = Standardise(3)
    # Before training, the features of random weights are tiny.
    standardise.fit(1e-4 * torch.randn(64, 3, generator=torch.Generator().manual_seed(1)))
    standardise.follows = True
    for batch in batches(number=60):
        output = standardise.train()(batch)
        torch.testing.assert_close(output.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(output.std(dim=0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    later = standardise.eval()(torch.cat(batches(number=20, seed=2)))
    torch.testing.assert_close(later.mean(dim=0), torch.zeros(3), atol=0.15, rtol=0)
    torch.testing.assert_close(later.std(dim=0), torch.ones(3), atol=0.15, rtol=0)


def test_the_standardisation_of_a_frozen_trunk_and_of_a_network_in_use_stays_as_it_is():
    standardise = Standardise(3)
    standardise.fit(batches(number=1)[0])
    before = standardise.mean.clone(), standardise.deviation.clone()
    standardise.train()(10 * batches(number=1)[0])
    standardise.follows = True
    standardise.eval()(10 * batches(number=1)[0])
    standardise.train()(10 * batches(number=1)[0][:1])
    torch.testing.assert_close((standardise.mean, standardise.deviation), before)


@pytest.mark.parametrize("name", options("model"))
def test_weights_that_do_not_reach_the_features_are_frozen(name):
    network = build_network(options("model")[name](input_size=32, bottleneck="8"), TREE)
    network(IMAGES[:2]).concentrations.sum().backward()
    waiting = [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    assert waiting == []


@pytest.mark.parametrize("stages", [[5], [1, 1], [0, 9]])
def test_stages_that_the_architecture_lacks_or_that_come_twice_are_refused(stages):
    with pytest.raises(ConfigError, match=r"stages 0 to 4.*model\.stages"):
        network_of(stages=stages)


def test_a_trunk_without_stages_is_refused():
    class Flat(EfficientNetB0):
        def trunk(self):
            return nn.Flatten()

    with pytest.raises(ConfigError, match=r"no stages.*model\.pool=last"):
        build_network(Flat(input_size=32), TREE)


@pytest.mark.parametrize(("first", "then"), [("last", "stages"), ("stages", "last")])
def test_first_weights_whose_bottleneck_is_fed_from_other_features_are_refused(tmp_path, first, then):
    checkpoint = saved(tmp_path / "net", pool=first)
    with pytest.raises(CheckpointError, match=rf"fed from other features.*model\.pool={first}"):
        network_of(pool=then, start=str(checkpoint.folder))


def test_first_weights_with_other_stages_are_refused(tmp_path):
    checkpoint = saved(tmp_path / "net", stages=[1, 2])
    with pytest.raises(CheckpointError, match="fed from other features"):
        network_of(stages=[1, 2, 3], start=str(checkpoint.folder))


def test_a_checkpoint_opens_again_with_equal_outputs(tmp_path):
    network = network_of(stages=[0, 4], head_width=6, activation="relu6")
    saved(tmp_path / "net", stages=[0, 4], head_width=6, activation="relu6")
    opened = Checkpoint.open(tmp_path / "net")
    assert opened.card["encoder"]["pool"] == "stages"
    assert opened.card["encoder"]["stages"] == [0, 4]
    with torch.inference_mode():
        for expected, value in zip(network(IMAGES), opened.network(IMAGES), strict=True):
            assert torch.equal(expected, value)


def test_a_card_without_a_pool_is_of_the_last_stage(tmp_path):
    checkpoint = saved(tmp_path / "net", pool="last")
    card = json.loads((tmp_path / "net" / CARD).read_text())
    for name in ("pool", "stages", "activation", "head_width"):
        del card["encoder"][name]
    (tmp_path / "net" / CARD).write_text(json.dumps(card))
    opened = Checkpoint.open(tmp_path / "net")
    assert opened.encoder == encoder_from(checkpoint.encoder.settings())
    assert file_sha256(tmp_path / "net" / "weights.safetensors") == card["sha256"]["weights.safetensors"]


def test_timm_gives_the_embedding_with_the_lines_of_the_documentation(tmp_path):
    checkpoint = saved(tmp_path / "net", stages=[1, 4], activation="relu6")
    export_timm(checkpoint, folder=tmp_path / "timm")
    trunk = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    part = safetensors.torch.load_file(tmp_path / "timm" / "bottleneck.safetensors")
    with torch.inference_mode():
        maps = trunk.forward_intermediates(IMAGES, part["stages"].tolist(), intermediates_only=True)
        pooled = [f(m.flatten(2)) for m in maps for f in (lambda x: x.mean(2), lambda x: x.std(2, correction=0))]
        features = (torch.cat(pooled, dim=1) - part["mean"]) / part["deviation"]
        embedding = features @ part["weight"].T + part["bias"]
        torch.testing.assert_close(embedding, checkpoint.network(IMAGES).embedding, rtol=1e-3, atol=1e-3)


def test_a_hidden_layer_of_the_head_leaves_the_embedding_as_it_is():
    linear, hidden = network_of(), network_of(head_width=5)
    with torch.inference_mode():
        assert torch.equal(linear(IMAGES).embedding, hidden(IMAGES).embedding)
    assert [layer.out_features for layer in hidden.head if isinstance(layer, nn.Linear)] == [5, 2]
