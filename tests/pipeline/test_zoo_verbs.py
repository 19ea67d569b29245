"""``rarezoo zoo`` as a user meets it, and what others make of the exports: torch alone, onnxruntime, timm, Zoobot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rarezoo.data.trees import Question, QuestionTree
from rarezoo.zoo.cards import read_card
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.encoders.maxvit_tiny import MaxViTTiny
from rarezoo.zoo.export import export_onnx, export_timm
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline
RELEASED = Path(__file__).parents[2] / "checkpoints"
TREE = QuestionTree(
    "small",
    (
        Question("shape", ("shape_smooth", "shape_disk")),
        Question("bar", ("bar_yes", "bar_no"), asked_after="shape_disk"),
    ),
)
METRIC = {"mae": 0.1, "rmse": 0.1, "mean_rmse": 0.2, "coverage_50": 0.5, "coverage_90": 0.9}
METRICS = [
    {"question": "shape", "galaxies": 30, "loss": 1.0, "mean_loss": 2.0, **METRIC},
    {"question": "bar", "galaxies": 10, "loss": 3.0, "mean_loss": 4.0, **METRIC},
]


def python(*words, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=environment)


@pytest.fixture
def zoo(cli):
    """Give a function that types ``rarezoo zoo`` and returns standard output and standard error."""

    def typed(*words, cwd, expect=0):
        finished = cli("rarezoo", "zoo", *words, cwd=cwd, expect=expect)
        return finished.out, finished.err

    return typed


def saved(folder, encoder, **card):
    torch.manual_seed(0)
    network = build_network(encoder, TREE).eval()
    return Checkpoint.save(folder, network=network, encoder=encoder, tree=TREE, card=card, dtype="float16")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two checkpoints below ``checkpoints``, of which ``worn`` has one byte wrong."""
    home = tmp_path_factory.mktemp("home")
    card = {"metrics": METRICS, "min_votes": 20, "data": {"survey": "mock"}}
    folder = saved(
        home / "checkpoints" / "tiny", EfficientNetB0(input_size=32, bottleneck="8", pool="last"), **card
    ).folder
    worn = shutil.copytree(folder, home / "checkpoints" / "worn") / "weights.safetensors"
    content = bytearray(worn.read_bytes())
    content[len(content) // 2] ^= 1
    worn.write_bytes(content)
    return home


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def expected(home, images):
    """What the checkpoint itself says of the images."""
    with torch.inference_mode():
        return Checkpoint.open(home / "checkpoints" / "tiny").network(images)


def test_list_has_a_row_per_checkpoint_also_for_those_that_come_with_rarezoo(zoo, home):
    out, _ = zoo("list", cwd=home)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    weights = f"{read_card(home / 'checkpoints' / 'tiny')['weights']:,}"
    facts = ["efficientnet_b0", "8", "32", weights, "8.2", "mock", "1.500", "2.500", "GPL-3.0-or-later"]
    assert rows[2:4] == [["tiny", *facts, "checkpoints"], ["worn", *facts, "checkpoints"]]
    released = {row[0]: row[-1] for row in rows[4:]}
    assert released["efficientnet_b0.mock"] == str(RELEASED)


def test_show_prints_the_card(zoo, home):
    assert "| bar | 10 | 3.000 |" in zoo("show", "tiny", cwd=home)[0]


def test_check_says_which_file_of_which_checkpoint_was_changed(zoo, home):
    out, err = zoo("check", "all", cwd=home, expect=2)
    # The checkpoints that come with rarezoo are checked too.
    worn, sound = sorted((line for line in out.splitlines() if line.startswith(("tiny", "worn"))), reverse=True)
    assert sound == "tiny: sound (sha256 of 2 files, golden outputs)"
    assert worn.startswith("worn: a file of the checkpoint is corrupted")
    assert "worn/weights.safetensors" in worn
    assert err.startswith("rarezoo: not sound: worn. ")


ALONE = """
import sys, torch
program = torch.export.load("program/model.pt2").module()
said = program(torch.load("images.pt"))
assert not {"rarezoo", "timm"} & set(sys.modules)
torch.save(said, "said.pt")
"""


def test_the_exported_program_needs_torch_alone(zoo, home, images, expected):
    out, _ = zoo("export", "tiny", "format=program", "out=program", cwd=home)
    assert "golden outputs: off by" in out
    torch.save(images, home / "images.pt")
    done = python("-c", ALONE, cwd=home)
    assert done.returncode == 0, done.stderr
    said = torch.load(home / "said.pt")
    for name, value in expected._asdict().items():
        torch.testing.assert_close(said[name].detach(), value)


def test_onnxruntime_says_the_same_for_any_number_of_images(zoo, home, images, expected):
    zoo("export", "tiny", "format=onnx", "out=onnx", cwd=home)
    session = onnxruntime.InferenceSession(str(home / "onnx" / "model.onnx"))
    for rows in (1, 3):
        said = session.run(["embedding", "concentrations"], {"images": images[:rows].numpy()})
        for output, value in zip(said, expected, strict=True):
            np.testing.assert_allclose(output, value[:rows].numpy(), rtol=1e-4, atol=1e-5)
    metadata = {entry.key: entry.value for entry in onnx.load(home / "onnx" / "model.onnx").metadata_props}
    assert json.loads(metadata["card.json"])["name"] == "tiny"


@pytest.mark.slow
def test_attention_on_another_grid_is_exported_too(tmp_path):
    """MaxViT's attention has a kernel that ONNX cannot express, and its grid must be told to timm."""
    encoder = MaxViTTiny(input_size=64, bottleneck="8", variant="maxvit_rmlp_pico_rw_256")
    checkpoint = saved(tmp_path / "maxvit", encoder)
    for export in (export_onnx, export_timm):
        assert export(checkpoint, folder=tmp_path / export.__name__).error < 1e-4


FINETUNING = """
import lightning, timm, torch
from zoobot.pytorch.training.finetune import FinetuneableZoobotClassifier, FinetuneableZoobotTree
from zoobot.shared.schemas import Schema

name = "local-dir:timm"
schema = Schema({"shape": ["_smooth", "_disk"], "bar": ["_yes", "_no"]}, {"shape": None, "bar": "shape_disk"})
embedding = torch.nn.Sequential(timm.create_model(name, pretrained=True))
models = {
    "tree": FinetuneableZoobotTree(schema=schema, name=name),
    "classifier": FinetuneableZoobotClassifier(num_classes=2, name=name),
    "on the embedding": FinetuneableZoobotClassifier(num_classes=2, encoder=embedding),
}
votes = {"shape_smooth": 3.0, "shape_disk": 4.0, "bar_yes": 3.0, "bar_no": 1.0}
votes = {column: torch.tensor(count) for column, count in votes.items()}
galaxies = [{"image": torch.rand(3, 32, 32), "label": torch.tensor(row % 2), **votes} for row in range(4)]
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
for kind, model in models.items():
    before = [next(part.parameters()).detach().clone() for part in (model.encoder, model.head)]
    trainer = lightning.Trainer(max_steps=1, accelerator="cpu", **quiet)
    trainer.fit(model, torch.utils.data.DataLoader(galaxies, batch_size=4))
    after = [next(part.parameters()).detach() for part in (model.encoder, model.head)]
    moved = all((one != other).any() for one, other in zip(before, after))
    finite = bool(trainer.callback_metrics["finetuning/train_loss"].isfinite())
    print(f"{kind}: {model.encoder_dim} moved={moved} finite={finite}")
"""


@pytest.mark.slow
def test_zoobot_finetunes_what_is_exported_for_timm(zoo, home):
    zoo("export", "tiny", "format=timm", "out=timm", cwd=home)
    done = python("-c", FINETUNING, cwd=home)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "moved=" in line]
    assert lines == [
        "tree: 1280 moved=True finite=True",
        "classifier: 1280 moved=True finite=True",
        "on the embedding: 8 moved=True finite=True",
    ]
