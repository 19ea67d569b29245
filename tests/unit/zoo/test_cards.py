"""Checkpoint folders: what comes out is what went in, or a message."""

import json

import pytest
import torch

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import CheckpointError
from rarezoo.zoo.cards import annotate, checkpoints, find_checkpoint
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))
ENCODER = EfficientNetB0(input_size=32, bottleneck="8")


@pytest.fixture(scope="module", params=["float32", "float16"])
def saved(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    network = build_network(ENCODER, TREE).eval()
    row = {
        "question": "shape", "galaxies": 9, "loss": 1.0, "loss_interval": [0.9, 1.1], "mean_loss": 2.0,
        "mean_gain": 1.0, "mean_gain_interval": [0.8, 1.2], "well_observed": 8, "rmse": 0.1, "mean_rmse": 0.2,
        "mae": 0.1, "coverage_50": 0.5, "coverage_90": None,
    }  # fmt: skip
    card = {"metrics": [row], "min_votes": 20, "data": {"survey": "mock"}}
    checkpoint = Checkpoint.save(
        root / "net.v1", network=network, encoder=ENCODER, tree=TREE, card=card, dtype=request.param
    )
    return checkpoint.folder, network, request.param


@pytest.fixture
def copy(saved, tmp_path):
    import shutil

    return shutil.copytree(saved[0], tmp_path / "net.v1")


def test_opens_by_name_and_by_folder_and_gives_the_same_outputs(saved):
    folder, network, dtype = saved
    for opened in (Checkpoint.open("net.v1", root=folder.parent), Checkpoint.open(folder)):
        assert (opened.name, opened.width, opened.tree, opened.encoder.input_size) == ("net.v1", 8, TREE, 32)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        ours, theirs = network(images), opened.network(images)
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    torch.testing.assert_close(theirs.embedding, ours.embedding, rtol=tolerance, atol=tolerance)
    assert [path.name for path in checkpoints(folder.parent)] == ["net.v1"]


def test_half_precision_halves_the_file(saved):
    folder, _, dtype = saved
    size = (folder / "weights.safetensors").stat().st_size
    assert size < 9.5e6 if dtype == "float16" else 15e6 < size < 18e6


def test_model_card_tells_metrics_and_a_missing_one_is_a_dash(saved):
    text = (saved[0] / "README.md").read_text()
    assert "| shape | 9 | 1.000 (0.900 … 1.100) | 2.000 | 1.000 (0.800 … 1.200) | 0.100 | 0.200 | 0.100 |" in text
    assert "| shape | 8 | 0.50 | – |" in text


def test_what_people_found_out_goes_on_the_card_and_changes_nothing_else(copy):
    before = Checkpoint.open(copy)
    annotate(copy, known_failures=["Stars beside the galaxy are taken for arms."])
    assert "- Stars beside the galaxy are taken for arms." in (copy / "README.md").read_text()
    assert "Nobody has looked" not in (copy / "README.md").read_text()
    assert Checkpoint.open(copy).sha256 == before.sha256


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
def test_changed_and_missing_files_are_refused(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="corrupted"):
        Checkpoint.open(copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        Checkpoint.open(copy)


def edit_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def test_weights_that_say_something_else_fail_their_golden_outputs(copy):
    from safetensors.torch import load_file, save_file

    from rarezoo.runs import file_sha256

    weights = load_file(copy / "weights.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1
    save_file(weights, copy / "weights.safetensors")
    golden = file_sha256(copy / "golden.safetensors")
    edit_card(
        copy, sha256={"weights.safetensors": file_sha256(copy / "weights.safetensors"), "golden.safetensors": golden}
    )
    with pytest.raises(CheckpointError, match="golden outputs are not reproduced here: concentrations"):
        Checkpoint.open(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "newer rarezoo"),
        ({"encoder": {"architecture": "efficientnet_b0", "input_size": 64, "bottleneck": "16"}}, "do not fit"),
        ({"encoder": {}}, "do not fit"),
    ],
)
def test_cards_that_do_not_fit_are_refused(copy, changes, message):
    edit_card(copy, **changes)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(copy)


def test_unreadable_card_and_no_checkpoint(copy, tmp_path):
    (copy / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match="unreadable card"):
        Checkpoint.open(copy)
    with pytest.raises(CheckpointError, match=r"no checkpoint: absent.*net\.v1"):
        Checkpoint.open("absent", root=tmp_path)


def test_a_checkpoint_that_comes_with_rarezoo_is_found_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("efficientnet_b0.mock").is_dir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint("efficientnet_b0.mock", root=tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    network = build_network(ENCODER, TREE)
    torch.nn.init.constant_(network.head.weight, float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        Checkpoint.save(tmp_path / "bad", network=network, encoder=ENCODER, tree=TREE, card={})
    assert not (tmp_path / "bad" / "card.json").exists()


def test_a_card_that_names_a_file_elsewhere_is_refused(copy):
    card = json.loads((copy / "card.json").read_text())
    for name in ("../net.v1/weights.safetensors", str(copy / "weights.safetensors")):
        changed = {**card, "sha256": {**card["sha256"], name: "0" * 64}}
        (copy / "card.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match="outside the folder"):
            Checkpoint.open(copy)
