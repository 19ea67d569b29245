"""The bottleneck study through its door: a sweep of four small trainings, stopped halfway, gone on with, summarised."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

SIZE = [
    "experiment=bottleneck", "data=mock", "data.n=260", "data.limit=0", "data.side=48", "data.seed=3",
    "model=efficientnet_b0", "model.bottleneck=128,native", "model.input_size=32",
    "train.epochs=1", "train.batch_size=32", "train.workers=0", "out=sweep",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(cli, tiny_survey, tmp_path_factory):
    """A folder with a copy of the tiny survey, in which one seed of the sweep is finished."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_survey.cache, folder / "cache")
    cli("train.py", *SIZE, f"data.cache={folder / 'cache'}", "seed=0", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def outputs(cli, home):
    """What the same sweep says when it goes on to a second seed, whose native job cannot be trained."""
    hindrance = home / "sweep" / "efficientnet_b0.dnative.seed1"
    hindrance.mkdir()
    settings = json.loads((home / "sweep" / "efficientnet_b0.dnative.seed0" / "settings.json").read_text())
    settings |= {"verb": "embed"}
    (hindrance / "settings.json").write_text(json.dumps(settings))
    words = ["train.py", *SIZE, f"data.cache={home / 'cache'}", "seed=0,1"]
    err = cli(*words, cwd=home, expect=2).err
    first = (home / "sweep" / "study.json").read_text() if (home / "sweep" / "study.json").exists() else ""
    (hindrance / "settings.json").unlink()
    return err, first, cli(*words, cwd=home).out


def test_a_finished_seed_is_summarised_and_measured_once(home):
    about = json.loads((home / "sweep" / "study.json").read_text())
    assert set(about["architectures"]) == {"efficientnet_b0"}
    for width in ("128", "native"):
        with np.load(home / "sweep" / f"efficientnet_b0.d{width}.seed0" / "study.npz") as kept:
            assert kept["embeddings"].shape == (260, 128 if width == "128" else 1280)
            assert np.isfinite(kept["losses"]).all()
            assert len(kept["test"]) == len(kept["losses"]) > 10


def test_losses_are_those_of_the_card(home):
    """Re-opened survey, checkpoint and test split: the study judges what the training did."""
    job = home / "sweep" / "efficientnet_b0.d128.seed0"
    card = json.loads((job / "card.json").read_text())
    with np.load(job / "study.npz") as kept:
        for place, row in enumerate(card["metrics"]):
            asked = kept["losses"][:, place] != 0
            assert asked.sum() == row["galaxies"]
            assert kept["losses"][asked, place].mean() == pytest.approx(row["loss"], rel=1e-3)


def test_a_failed_job_is_missing_and_the_rest_goes_on(outputs):
    err, about, _ = outputs
    assert "efficientnet_b0.dnative.seed1 holds a run with other settings" in err
    missing = json.loads(about)["missing"]
    assert [(name["width"], name["seed"], name["reason"]) for name in missing] == [("native", 1, "not trained")]


def test_the_same_command_goes_on_and_ends_with_the_study(home, outputs):
    _, _, out = outputs
    assert "efficientnet_b0: 128 dimensions cost " in out
    assert "2 seeds" in out
    assert "missing: " not in out
    about = json.loads((home / "sweep" / "study.json").read_text())
    narrow, native = about["architectures"]["efficientnet_b0"]["widths"]
    assert (narrow["dimensions"], native["dimensions"], narrow["paired_seeds"]) == (128, 1280, 2)
    assert narrow["measures"]["loss"]["against_native"]["low"] < narrow["measures"]["loss"]["against_native"]["high"]
    assert any(name.startswith("average precision") for name in narrow["measures"])
    for name in ("study.png", "study.webp"):
        with Image.open(home / "sweep" / name) as picture:
            assert picture.width > 1000


def test_jobs_that_are_done_are_not_done_again(cli, home, outputs):
    job = home / "sweep" / "efficientnet_b0.d128.seed0"
    card = json.loads((job / "card.json").read_text())
    log = (job / "run.log").read_text()
    assert log.count("checkpoint: ") == 1
    assert log.count("already trained") == 2
    # By verb, from files alone: the survey's cutouts are gone.
    (home / "cache").rename(home / "gone")
    out = cli("rarezoo", "study", "sweep", cwd=home).out
    (home / "gone").rename(home / "cache")
    assert out == outputs[2]
    assert card["width"] == 128
