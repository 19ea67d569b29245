"""The recipes of the released networks: all are composed, and both rungs and MaxViT-Tiny make two steps."""

import json
import shutil
from pathlib import Path

import hydra
import numpy as np
import pytest

from rarezoo import cli as apps
from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import open_survey
from rarezoo.embeddings.embed import embedded
from rarezoo.studies.measurement import measured
from rarezoo.zoo.checkpoint import Checkpoint

pytestmark = pytest.mark.pipeline
RECIPES = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "experiment").glob("release_*.yaml"))
SMALL = [
    "model.input_size=32", "model.bottleneck=8", "model.head_width=8", "train.epochs=1", "train.galaxies=32",
    "train.batch_size=16", "train.accelerator=cpu", "train.precision=32-true", "train.workers=0",
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_is_composed_and_its_settings_fit_each_other(name, monkeypatch):
    monkeypatch.setenv("RAREZOO_LITE0", "weights.pth")
    apps.register()
    with hydra.initialize_config_dir(str(apps.conf_dir().resolve()), version_base="1.3"):
        config = hydra.compose("train", overrides=[f"experiment={name}"])
    assert config.model.input_size >= 128
    assert config.model.zoom == 1
    assert config.model.pool == "stages"
    assert config.train.view == "turns"
    assert config.train.dtype == "float16"
    # Only the network for everyday use is trained on what is odd.
    left_out = list(config.data.get("leave_out", ["mock"]))
    assert bool(left_out) == (config.tag != "gz2_all")


@pytest.fixture(scope="module")
def first_rung(made_once, tiny_survey, cli):
    def train(folder):
        words = [*tiny_survey.words, *SMALL, "model.start=none", "train.cache=kept", f"out={folder}"]
        cli("train.py", "experiment=release_efficientnet_b0_gz2_gpu", *words, cwd=folder.parent)

    return made_once("first_rung", train)


def test_the_first_rung_keeps_the_trunk_and_the_second_trains_it_on(first_rung, tiny_survey, cli, tmp_path):
    start = Checkpoint.open(first_rung)
    assert start.card["training"]["bottleneck_start"] == "invariant"
    assert (first_rung.parent / "kept").is_dir()
    # In half precision the small steps of the stem would be rounded away.
    words = [
        *tiny_survey.words,
        *SMALL,
        "train.dtype=float32",
        f"model.start={first_rung}",
        f"out={tmp_path / 'tuned'}",
    ]
    cli("train.py", "experiment=release_efficientnet_b0_gz2_gpu_tuned", *words, cwd=tmp_path)
    tuned = Checkpoint.open(tmp_path / "tuned")
    moved = {
        name: float((value.detach() - start.network.state_dict()[name]).abs().mean())
        for name, value in tuned.network.named_parameters()
    }
    assert 0 < moved["trunk.conv_stem.weight"] < moved["head.0.weight"]
    steps = (tmp_path / "tuned" / "metrics.csv").read_text().splitlines()[-1].split(",")[1]
    assert int(steps) == 2


def test_the_bottleneck_study_measures_a_frozen_network_over_its_orientations(first_rung, tmp_path):
    job = tmp_path / "sweep" / "job"
    shutil.copytree(first_rung, job)
    measurement = measured(job)
    checkpoint = Checkpoint.open(job)
    galaxies = open_survey(json.loads((job / "settings.json").read_text())["settings"]["data"], folder=job).open()
    loader = CutoutLoader(galaxies, np.arange(len(galaxies)), view=checkpoint.view, batch_size=64, workers=0)
    batches = list(embedded(loader, checkpoint, precision="float32", turns=checkpoint.card["training"]["turns"]))
    assert checkpoint.card["training"]["turns"] > 1
    assert measurement.ids.tolist() == galaxies.ids.tolist()
    expected = np.concatenate([batch.embeddings for batch in batches])
    # The features are kept in half precision.
    np.testing.assert_allclose(measurement.embeddings, expected, atol=0.02 * expected.std())
    assert np.isfinite(measurement.losses).all()
    # Jobs of one study share the features of the trunk.
    kept = list((tmp_path / "sweep" / ".study").rglob("*.npy"))
    assert kept
    (job / "study.npz").unlink()
    times = [file.stat().st_mtime_ns for file in kept]
    measured(job)
    assert [file.stat().st_mtime_ns for file in kept] == times


def test_maxvit_is_trained_by_its_recipe(tiny_survey, cli, tmp_path):
    words = [*tiny_survey.words, *SMALL, "model.start=none", "out=net"]
    cli("train.py", "experiment=release_maxvit_tiny_gz2_gpu", *words, cwd=tmp_path)
    card = json.loads((tmp_path / "net" / "card.json").read_text())
    assert (card["encoder"]["architecture"], card["encoder"]["pool"]) == ("maxvit_tiny", "stages")
    assert card["dtype"] == "float16"
