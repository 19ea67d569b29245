"""A training as a notebook starts it: its result, its resumption, and an objective that is defined in a test."""

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

import rarezoo as rz
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import CheckpointError, ConfigError, DataError, OutputError
from rarezoo.settings import option, setting
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun, TrainSettings
from rarezoo.training.objective import Objective
from rarezoo.training.objectives.hybrid import Hybrid
from rarezoo.training.objectives.votes import Votes
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0

pytestmark = pytest.mark.unit
GALAXIES = 40
MODEL = EfficientNetB0(input_size=32, bottleneck="4")
QUICK = {"epochs": 1, "batch_size": 16, "workers": 0, "accelerator": "cpu"}


@option("objective", "brightness")
@dataclass(kw_only=True)
class Brightness(Objective):
    """Learn whether a galaxy is bright, from a target that is no vote."""

    def prepare(self, galaxies):
        bright = np.array([galaxies.images.cutout(row).mean() > 127 for row in range(len(galaxies))])
        tree = QuestionTree("own", (Question("brightness", ("brightness_low", "brightness_high")),))
        return replace(galaxies, tree=tree, votes=np.stack([~bright, bright], axis=1).astype(np.float32))

    def losses(self, prediction, targets, *, tree, network, modules):
        shares = prediction.concentrations / prediction.concentrations.sum(dim=1, keepdim=True)
        return {"loss": -(targets * shares.log()).sum(dim=1).mean()}

    def validation(self, prediction, targets, *, tree):
        right = (prediction.concentrations.argmax(dim=1) == targets.argmax(dim=1)).float().mean()
        return {"loss": (1 - right, len(targets)), "accuracy": (right, len(targets))}

    def measure(self, network, galaxies, *, rows, test, cache):
        return {"accuracy on the test split": 1.0, "test rows": len(rows["test"])}


@option("objective", "labels_of_a_file")
@dataclass(kw_only=True)
class Labels(Brightness):
    """Learn labels of a file."""

    file: str = setting(help="file with 0 or 1 for each galaxy")

    def prepare(self, galaxies):
        labels = np.loadtxt(self.file)
        return replace(super().prepare(galaxies), votes=np.stack([1 - labels, labels], axis=1).astype(np.float32))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a survey of grey cutouts and their votes, which no test changes."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "cut").mkdir()
    lines = ["id_str,smooth-or-featured_smooth,smooth-or-featured_featured-or-disk,smooth-or-featured_artifact"]
    for row in range(GALAXIES):
        level = 5 + 6 * row
        noise = np.random.default_rng(row).integers(0, 9, (32, 32, 3))
        Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(folder / "cut" / f"g{row:02d}.png")
        lines.append(f"g{row:02d},{row},{GALAXIES - row},1")
    (folder / "galaxies.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def home(images, tmp_path, monkeypatch):
    """A working folder with a copy of it."""
    shutil.copytree(images, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def survey():
    return Catalogue(table="galaxies.csv", images="cut", votes="desi", group_duplicates=False)


def test_running_twice_returns_at_once_also_with_relative_paths(home):
    run = TrainRun(
        data=survey(), model=MODEL, train=TrainSettings(**QUICK), logger=Tracker(mode="none"), out="checkpoints/net"
    )
    first = run.run()
    written = (first.folder / "weights.safetensors").stat().st_mtime_ns
    again = run.run()
    assert isinstance(again, Checkpoint)
    assert (first.name, again.name, again.sha256) == ("net", "net", first.sha256)
    assert (again.folder / "weights.safetensors").stat().st_mtime_ns == written
    assert Checkpoint.open("net").tree == first.tree
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(first.network(images).embedding, again.network(images).embedding)


def test_unreadable_images_are_skipped_through_the_whole_training(home):
    for row in (3, 14, 25):
        (home / "cut" / f"g{row:02d}.png").write_bytes(b"damaged")
    (home / "cut" / "g31.png").unlink()
    checkpoint = TrainRun(
        data=replace(survey(), on_bad_image="skip", group_duplicates=True), model=MODEL,
        train=TrainSettings(**QUICK), logger=Tracker(mode="none"), out="checkpoints/net",
    ).run()  # fmt: skip
    assert checkpoint.card["data"]["skipped unreadable images"] == 4


def test_one_call_trains_with_names_or_objects_and_refuses_what_does_not_exist(home):
    checkpoint = rz.train(survey(), MODEL, out="net", objective="votes", **QUICK)
    assert checkpoint.card["training"]["objective"] == "votes"
    assert not (home / "net" / "wandb").exists()
    assert "<table>" in checkpoint._repr_html_()
    with pytest.raises(ConfigError, match=r"epoch.*epochs"):
        rz.train(survey(), MODEL, out="net", epoch=3)
    with pytest.raises(ConfigError, match=r"input_size.*belongs to model: write model=EfficientNetB0\(input_size=…\)"):
        rz.train(survey(), MODEL, out="net", input_size=64)
    with pytest.raises(ConfigError, match=r"weight.*belongs to objective: write objective=Hybrid\(weight=…\)"):
        rz.train(survey(), MODEL, out="net", objective="hybrid", weight=2.0)
    with pytest.raises(ConfigError, match=r"resnet.*efficientnet_b0"):
        rz.train(survey(), "resnet", out="net")
    with pytest.raises(OutputError, match="objective"):
        rz.train(survey(), MODEL, out="net", objective="hybrid", **QUICK)


def test_an_objective_of_ones_own_decides_targets_loss_and_metrics(home):
    checkpoint = rz.train(survey(), MODEL, out="net", objective="brightness", **QUICK)
    assert checkpoint.tree.answers == ("brightness_low", "brightness_high")
    assert checkpoint.card["training"]["objective"] == "brightness"
    assert checkpoint.card["accuracy on the test split"] == 1.0
    assert checkpoint.card["data"]["test galaxies"] == checkpoint.card["test rows"]
    assert "metrics" not in checkpoint.card
    curves = (home / "net" / "metrics.csv").read_text()
    assert "validation/accuracy" in curves.splitlines()[0]
    assert "brightness" in (home / "net" / "README.md").read_text()


def test_a_training_does_not_go_on_with_other_labels_of_its_objective(home):
    labels = np.arange(GALAXIES) % 2
    np.savetxt("labels.txt", labels)
    first = rz.train(survey(), MODEL, out="net", objective=Labels(file="labels.txt"), **QUICK)
    np.savetxt("labels.txt", 1 - labels)
    with pytest.raises(OutputError, match=r"other inputs: targets of the objective.values \w+ → \w+\."):
        rz.train(survey(), MODEL, out="net", objective=Labels(file="labels.txt"), **QUICK)
    np.savetxt("labels.txt", labels, fmt="%d")
    again = rz.train(survey(), MODEL, out="net", objective=Labels(file="labels.txt"), **QUICK)
    assert again.card == first.card


FROZEN = {"freeze_trunk": True, "view": "turns", "turns": 2}


@pytest.mark.parametrize(
    ("split", "readable", "settings"),
    [
        ("train", 1, {}),
        ("train", 1, {**FROZEN, "bottleneck_start": "invariant"}),
        ("validation", 0, {}),
        ("validation", 0, FROZEN),
    ],
)
def test_a_split_of_which_too_few_images_can_be_read_is_named(home, split, readable, settings):
    for row in survey().open().rows(split)[readable:]:
        (home / "cut" / f"g{row:02d}.png").write_bytes(b"damaged")
    skipping = replace(survey(), on_bad_image="skip")
    with pytest.raises(DataError, match=rf"too few images of the {split} split .*: \d+ are unreadable \[galaxies g"):
        rz.train(skipping, MODEL, out="net", **QUICK, **settings)


def test_a_training_ends_without_numbers_if_no_image_of_the_test_split_can_be_read(home):
    for row in survey().open().rows("test"):
        (home / "cut" / f"g{row:02d}.png").write_bytes(b"damaged")
    checkpoint = rz.train(replace(survey(), on_bad_image="skip"), MODEL, out="net", **QUICK)
    assert checkpoint.card["metrics"] == []
    assert checkpoint.card["data"]["skipped unreadable images"] == len(survey().open().rows("test"))


@pytest.mark.parametrize("objective", ["votes", "hybrid", "self_supervised"])
def test_a_training_ends_if_one_galaxy_is_left_over_in_every_split(home, objective):
    galaxies = survey().open()
    sizes = [len(galaxies.rows(split)) for split in ("train", "validation", "test")]
    batch = next(size for size in range(2, GALAXIES) if sizes[0] % size == 1)
    checkpoint = rz.train(survey(), MODEL, out="net", objective=objective, **{**QUICK, "batch_size": batch})
    assert checkpoint.card["data"]["train galaxies"] == sizes[0]
    for split, size in zip(("validation", "test"), sizes[1:], strict=True):
        assert checkpoint.card["data"][f"{split} galaxies"] == size


@pytest.mark.parametrize("objective", ["votes", "hybrid"])
def test_batches_of_one_galaxy_are_refused_where_nothing_can_be_learnt_from_them(home, objective):
    with pytest.raises(ConfigError, match=r"several galaxies in a batch.*train.batch_size=2"):
        rz.train(survey(), MODEL, out="net", objective=objective, **{**QUICK, "batch_size": 1})


TWO_EPOCHS = {**QUICK, "epochs": 2}


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    """A folder with a training that was stopped before its checkpoint was saved, and the same one that was not."""

    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    folder = shutil.copytree(images, tmp_path_factory.mktemp("stopped"), dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        rz.train(survey(), MODEL, out="whole", **TWO_EPOCHS)
        patched.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            rz.train(survey(), MODEL, out="net", **TWO_EPOCHS)
    return folder


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize("name", ["last.ckpt", "best.pt"])
def test_a_state_that_a_power_failure_has_cut_off_begins_the_training_again(home, stopped, caplog, name, kept):
    shutil.copytree(stopped, home, dirs_exist_ok=True)
    state = home / "net" / ".training" / name
    state.write_bytes(state.read_bytes()[: int(kept * state.stat().st_size)])
    again = rz.train(survey(), MODEL, out="net", **TWO_EPOCHS)
    assert again.card["sha256"] == Checkpoint.open("whole", root=".").card["sha256"]
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors", "golden.safetensors"])
def test_a_damaged_checkpoint_says_what_to_delete_to_train_again(home, stopped, name):
    shutil.copytree(stopped / "whole", home / "net")
    (home / "net" / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="delete net and train again"):
        rz.train(survey(), MODEL, out="net", **TWO_EPOCHS)


def test_a_frozen_trunk_cannot_learn_the_likeness_of_views():
    with pytest.raises(ConfigError, match=r"frozen trunk.*objective=hybrid"):
        TrainRun(data=survey(), model=MODEL, train=TrainSettings(freeze_trunk=True), objective=Hybrid(), out="net")
    TrainRun(data=survey(), model=MODEL, train=TrainSettings(freeze_trunk=True), objective=Votes(), out="net")
