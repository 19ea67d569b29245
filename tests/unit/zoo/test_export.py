"""Exports: timm gets the same features and the same pixels, and nothing of others is overwritten."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import CheckpointError, ConfigError, OutputError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.export import export_onnx, export_program, export_timm
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))


def saved(folder, *, bottleneck, dtype):
    encoder = EfficientNetB0(input_size=32, bottleneck=bottleneck, pool="last")
    torch.manual_seed(0)
    network = build_network(encoder, TREE).eval()
    return Checkpoint.save(folder, network=network, encoder=encoder, tree=TREE, card={}, dtype=dtype)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("zoo") / "net.v1", bottleneck="8", dtype="float16")


@pytest.fixture(scope="module")
def timm_folder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "timm"
    export_timm(checkpoint, folder=folder)
    return folder


def said(network, images):
    with torch.inference_mode():
        return network.eval()(images)


def test_timm_gives_the_embedding_and_without_classes_the_native_features(checkpoint, timm_folder):
    images = torch.rand(3, 3, 32, 32)
    whole, trunk = (
        timm.create_model(f"local-dir:{timm_folder}", pretrained=True, **options) for options in ({}, NO_CLASSES)
    )
    torch.testing.assert_close(said(whole, images), said(checkpoint.network, images).embedding)
    torch.testing.assert_close(said(trunk, images), said(checkpoint.network.trunk, images))
    assert said(whole, images).shape == (3, 8)
    assert trunk.num_features == 1280


NO_CLASSES = {"num_classes": 0}


def test_half_precision_stays_half_and_the_licence_goes_along(timm_folder):
    weights = load_file(timm_folder / "model.safetensors")
    assert weights["conv_stem.weight"].dtype == torch.float16
    config = json.loads((timm_folder / "config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "gpl-3.0"
    assert "GPL-3.0-or-later" in (timm_folder / "README.md").read_text()


def test_without_bottleneck_there_is_no_classifier(tmp_path):
    native = saved(tmp_path / "net.native", bottleneck="native", dtype="float32")
    done = export_timm(native, folder=tmp_path / "timm")
    assert done.error < 1e-5
    images = torch.rand(2, 3, 32, 32)
    result = said(timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True), images)
    torch.testing.assert_close(result, said(native.network, images).embedding)


def test_timms_own_preprocessing_is_the_checkpoints_view(checkpoint, timm_folder):
    model = timm.create_model(f"local-dir:{timm_folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    galaxy = Image.fromarray(coarse).resize((90, 90), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(galaxy)).permute(2, 0, 1)
    ours, theirs = checkpoint.view(pixels) / 255, transform(galaxy)
    assert ours.shape == theirs.shape == (3, 32, 32)
    # Two resizers round to whole levels, each in its own way.
    assert (ours - theirs).abs().max() <= 2 / 255


@pytest.mark.parametrize("side", [32, 64, 96, 160, 224, 256, 384])
def test_timm_zooms_by_as_many_pixels_as_the_view(checkpoint, side):
    from rarezoo.zoo.export import _timm_preprocessing

    of_side = dataclasses.replace(checkpoint, encoder=EfficientNetB0(input_size=side))
    zoom = _timm_preprocessing(of_side, {})["crop_pct"]
    assert math.floor(side / zoom) == round(side * 1.2)


def test_the_same_export_again_is_fine_and_anything_else_is_refused(checkpoint, timm_folder, tmp_path):
    export_timm(checkpoint, folder=timm_folder)
    with pytest.raises(OutputError, match=r"holds something else: net\.v1 as timm"):
        export_program(checkpoint, folder=timm_folder)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds something else: thesis\.tex"):
        export_timm(checkpoint, folder=tmp_path)
    with pytest.raises(OutputError, match="the output path is a file"):
        export_timm(checkpoint, folder=tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_export_that_says_something_else_is_refused_and_leaves_nothing(tmp_path):
    copy = saved(tmp_path / "net.v1", bottleneck="8", dtype="float32")
    golden = load_file(copy.folder / "golden.safetensors")
    save_file({**golden, "embedding": golden["embedding"] * 1.01}, copy.folder / "golden.safetensors")
    with pytest.raises(CheckpointError, match=r"the timm export .*: embedding of"):
        export_timm(copy, folder=tmp_path / "out" / "timm")
    assert not list((tmp_path / "out").rglob("*.*"))


def test_onnx_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"not installed: onnxscript\. pip install onnxscript onnxruntime"):
        export_onnx(checkpoint, folder=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
