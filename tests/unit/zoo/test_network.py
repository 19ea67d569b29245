"""Every architecture, without being told: shapes, widths, starts, and what it refuses."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from rarezoo.data.trees import named_tree
from rarezoo.errors import CheckpointError, ConfigError
from rarezoo.settings import options
from rarezoo.zoo.encoder import Encoder, encoder_from, local_weights
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.encoders.maxvit_tiny import MaxViTTiny
from rarezoo.zoo.network import BottleneckNetwork, build_network, trunk_sha256
from rarezoo.zoo.views import TrainingView, inference_view, training_cutout

pytestmark = pytest.mark.unit
TREE = named_tree("gz2")


@pytest.mark.parametrize("name", options("model"))
def test_every_architecture_conforms(name):
    encoder = options("model")[name](input_size=32, bottleneck="16")
    network = build_network(encoder, TREE).eval()
    with torch.inference_mode():
        embedding, concentrations = network(torch.rand(2, 3, 32, 32))
    assert embedding.shape == (2, 16)
    assert concentrations.shape == (2, len(TREE.answers))
    assert concentrations.min() >= 1
    assert concentrations.max() <= 101
    assert encoder.architecture == name
    assert encoder_from(encoder.settings()) == encoder


@pytest.mark.parametrize(("kind", "native"), [(EfficientNetB0, 1280), (MaxViTTiny, 512)])
def test_native_width_is_measured(kind, native):
    network = build_network(kind(input_size=32, bottleneck="native", pool="last"), TREE)
    assert network.width == native
    assert isinstance(network.bottleneck, nn.Identity)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": 300}, "multiple of 32.*Use 288"),
        ({"input_size": 0}, r"model\.input_size.*at least 32"),
        ({"bottleneck": "wide"}, "word native"),
        ({"bottleneck": "0"}, "word native"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_network(EfficientNetB0(**{"input_size": 32, **settings}), TREE)


class Dot(nn.Module):
    """A trunk of one weight matrix."""

    def __init__(self, width):
        super().__init__()
        self.dot = nn.Linear(3, width)

    def forward(self, images):
        return self.dot(images.mean(dim=(2, 3)))


class DotEncoder(EfficientNetB0):
    """EfficientNetB0's settings around a trunk that costs nothing."""

    def trunk(self):
        return Dot(5)


def test_start_from_a_folder_with_a_trunks_weights(tmp_path):
    donor = Dot(5)
    save_file({f"encoder.{name}": value for name, value in donor.state_dict().items()}, tmp_path / "model.safetensors")
    network = build_network(DotEncoder(input_size=32, pool="last", start=str(tmp_path)), TREE)
    assert torch.equal(network.trunk.dot.weight, donor.dot.weight)


def test_start_from_a_whole_network_takes_what_fits(tmp_path):
    donor = BottleneckNetwork(Dot(5), native=5, width=128, answers=7, dropout=0)
    torch.save(donor.state_dict(), tmp_path / "best.pt")
    network = build_network(DotEncoder(input_size=32, pool="last", start=str(tmp_path / "best.pt")), TREE)
    assert torch.equal(network.bottleneck.weight, donor.bottleneck.weight)
    assert network.head.out_features == len(TREE.answers)


def test_start_from_another_architecture_is_refused(tmp_path):
    save_file(Dot(6).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="another architecture"):
        build_network(DotEncoder(input_size=32, pool="last", start=str(tmp_path)), TREE)


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_missing_or_broken_start_is_refused(tmp_path, content):
    file = tmp_path / "weights.safetensors"
    if content:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="no weights" if content is None else "unreadable weights"):
        build_network(DotEncoder(input_size=32, pool="last", start=str(file)), TREE)


@pytest.mark.parametrize("content", [[torch.zeros(2)], "text", {"state_dict": 5}, {"epoch": 3}, {"state_dict": {}}])
def test_a_file_of_torch_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"no weights in this file: .*net\.pt"):
        local_weights(tmp_path / "net.pt")


@pytest.mark.parametrize("content", [b"", b"id_str,ra\n1,2\n", b"\x89PNG\r\n", b"\x80\x04K\x01."])
def test_other_files_are_no_weights_and_the_message_does_not_advise_to_run_them(tmp_path, content):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"unreadable weights \(.+\): .*net.pt") as refused:
        local_weights(tmp_path / "net.pt")
    assert "weights_only" not in str(refused.value)


def test_an_empty_name_of_first_weights_is_not_the_working_folder(tmp_path, monkeypatch):
    save_file(Dot(6).state_dict(), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights: model\.start="):
        local_weights(Path(""))


@pytest.mark.parametrize(
    ("start", "named"), [("zoobot", "mwalmsley/zoobot-encoder-efficientnet_b0"), ("imagenet", "timm/")]
)
def test_offline_the_message_says_what_to_download_and_where_to_put_it(monkeypatch, start, named):
    def no_network(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(CheckpointError, match="hf download") as caught:
        EfficientNetB0(start=start).start_weights()
    assert named in str(caught.value)
    assert "model.start=DIR" in str(caught.value)


def test_zoobot_start_of_the_other_maxvit_is_refused():
    with pytest.raises(ConfigError, match="Zoobot publishes no encoder"):
        MaxViTTiny(start="zoobot").start_weights()
    published = MaxViTTiny(variant="maxvit_rmlp_tiny_rw_256", input_size=32, bottleneck="8")
    assert published.zoobot_hub_name == "hf_hub:mwalmsley/zoobot-encoder-maxvit_rmlp_tiny_rw_224"
    assert published.timm_architecture in timm.list_models()


@pytest.mark.parametrize("shape", [(3, 40, 40), (3, 160, 160), (3, 50, 90)])
@pytest.mark.parametrize(("view", "side"), [(inference_view, 64), (training_cutout, 83)])
def test_cutouts_of_any_size_come_to_one_side_and_stay_bytes(view, side, shape):
    seen = view(64)(torch.randint(0, 256, shape, dtype=torch.uint8))
    assert seen.shape == (3, side, side)
    assert seen.dtype == torch.uint8
    assert seen.max() > 128


def test_inference_view_is_the_central_part():
    image = torch.zeros(3, 120, 120, dtype=torch.uint8)
    image[:, 10:110, 10:110] = 255  # the central 1/1.2 of 120 px is 100 px
    assert (inference_view(96)(image)[:, 2:-2, 2:-2] == 255).all()


def lite_names():
    """EfficientNet-Lite0's names in its PyTorch port → timm's for EfficientNetB0, spelt out stage by stage."""
    names = {"_conv_stem.weight": "conv_stem.weight", "_conv_head.weight": "conv_head.weight"}
    norms = {"_bn0": "bn1", "_bn1": "bn2"}
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for block in range(blocks):
            theirs, ours = f"_blocks.{number}.", f"blocks.{stage}.{block}."
            number += 1
            if stage == 0:
                names |= {f"{theirs}_depthwise_conv.weight": f"{ours}conv_dw.weight"}
                names |= {f"{theirs}_project_conv.weight": f"{ours}conv_pw.weight"}
                norms |= {f"{theirs}_bn1": f"{ours}bn1", f"{theirs}_bn2": f"{ours}bn2"}
                continue
            convolutions = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
            names |= {
                f"{theirs}{convolution}.weight": f"{ours}{other}.weight" for convolution, other in convolutions.items()
            }
            norms |= {f"{theirs}_bn{place}": f"{ours}bn{place + 1}" for place in range(3)}
    parts = ("weight", "bias", "running_mean", "running_var")
    return names | {f"{norm}.{part}": f"{other}.{part}" for norm, other in norms.items() for part in parts}


def test_efficientnet_lite_is_carried_exactly_and_its_gates_can_learn(tmp_path):
    """The original: timm's EfficientNet-Lite0 with the port's epsilon, on pixels less 127, over 128."""
    torch.manual_seed(1)
    original = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    for name, value in original.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    for norm in original.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 1e-3
    published = original.state_dict()
    torch.save({theirs: published[ours] for theirs, ours in lite_names().items()}, tmp_path / "lite0.pth")
    encoder = EfficientNetB0(input_size=64, bottleneck="8", activation="relu6", start=str(tmp_path / "lite0.pth"))
    started = build_network(encoder, TREE).trunk.eval()
    # The border is padded with black here and with grey there: black everywhere is the same for both.
    images = torch.rand(2, 3, 64, 64) * 255
    black = original.conv_stem.padding[0]
    with torch.no_grad():
        first = nn.functional.pad((images - 127) / 128, [black] * 4, value=-127 / 128)
        original.conv_stem.padding = (0, 0)
        expected = original(first)
    torch.testing.assert_close(started(images / 255), expected, rtol=1e-3, atol=1e-4)
    started(images / 255).sum().backward()
    assert all(float(block.se.conv_expand.weight.grad.abs().sum()) > 0 for block in started.blocks[1])
    # Trainings with other seeds share the features of the frozen trunk.
    torch.manual_seed(2)
    again = build_network(encoder, TREE)
    torch.manual_seed(3)
    assert trunk_sha256(build_network(encoder, TREE)) == trunk_sha256(again)


def test_a_lite_file_that_lacks_more_is_refused(tmp_path):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "lite0.pth")
    with pytest.raises(CheckpointError, match="of another architecture"):
        build_network(EfficientNetB0(input_size=32, start=str(tmp_path / "lite0.pth")), TREE)


def test_the_zoom_says_how_much_of_the_cutout_is_seen():
    image = torch.zeros(3, 120, 120, dtype=torch.uint8)
    image[:, 30:90, 30:90] = 255
    assert (inference_view(96, zoom=2)(image)[:, 2:-2, 2:-2] == 255).all()
    assert TrainingView(96, zoom=2)(training_cutout(96, zoom=2)(image)[None].expand(50, 3, -1, -1)).mean() > 0.8
    with pytest.raises(ConfigError, match=r"model\.zoom must be at least 1: 0\.5"):
        EfficientNetB0(input_size=32, zoom=0.5).trunk()


def test_bytes_and_unit_floats_are_the_same_to_the_network():
    network = build_network(EfficientNetB0(input_size=32, bottleneck="8"), TREE).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        for ours, theirs in zip(network(pixels), network(pixels / 255), strict=True):
            torch.testing.assert_close(ours, theirs)


def ring(galaxies=300, side=83):
    """A ring of radius 0.3 of the side, the same in every cutout."""
    axis = (torch.arange(side) + 0.5) / side - 0.5
    radius = torch.hypot(axis[:, None], axis[None, :])
    return (255 * torch.exp(-(((radius - 0.3) / 0.02) ** 2))).to(torch.uint8).expand(galaxies, 3, side, side)


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_training_views_are_unit_floats_that_differ_and_follow_from_the_seed(jitter):
    view = TrainingView(64, jitter=jitter)
    torch.manual_seed(3)
    first = view(ring(6))
    assert first.shape == (6, 3, 64, 64)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert 0.5 < first.max() <= 1
    assert len({image.sum().item() for image in first}) == 6
    torch.manual_seed(3)
    torch.testing.assert_close(view(ring(6)), first, rtol=0, atol=0)


def test_training_views_zoom_shift_and_erase_as_zoobot_does():
    torch.manual_seed(0)
    seen = TrainingView(64)(ring())[:, 0]
    light = seen.flatten(1)
    axis = (torch.arange(64) + 0.5) / 64 - 0.5
    x, y = (
        (seen * grid).flatten(1).sum(dim=1) / light.sum(dim=1) for grid in (axis[None, None, :], axis[None, :, None])
    )
    # Shifts are uniform in ± 0.1 of the side; what leaves the frame and what is erased pulls a little.
    for centre in (x, y):
        assert centre.abs().max() < 0.16
        assert 0.04 < centre.std() < 0.075

    plain = TrainingView(64)(torch.full((300, 3, 83, 83), 255, dtype=torch.uint8))[:, 0, 16:48, 16:48]
    # Five erasings of 0.2-0.7 % of the view: 2.25 % of it on average.
    assert 0.017 < (plain == 0).float().mean() < 0.028


def test_encoder_is_abstract():
    with pytest.raises(TypeError):
        Encoder()
