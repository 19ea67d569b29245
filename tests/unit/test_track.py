"""Logging: refused settings, nothing where nothing is wanted, and failures that stop nothing. No W&B run is started."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from made_up import made_up_search
from PIL import Image

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.report import palette
from rarezoo.report.record import map_picture, search_record, training_behind
from rarezoo.track import Tracker, TrainingRecord
from rarezoo.zoo.cards import identity

pytestmark = pytest.mark.unit

NO_TREE = pa.Table.from_pylist([], pa.schema(list(tables.TREE.columns.items())))
IDS = ["a", "b", "c"]
SEARCH = {
    "classes": pa.Table.from_pylist([], pa.schema(list(tables.CLASSES.columns.items()))),
    "members": pa.table(
        {
            tables.ID: IDS,
            tables.CLASS_ID: pa.array([-1] * 3, pa.int32()),
            tables.PROBABILITY: np.zeros(3, "f4"),
            tables.OUTLIER_SCORE: np.zeros(3, "f4"),
        }
    ),
    "map_2d": pa.table({tables.ID: IDS, tables.POSITION: tables.vectors(np.eye(3, 2, dtype="f4"))}),
    "cutouts": None,
    "about": {"searched": 3},
}


def log_search(tracker, out, parts):
    """Log a search as a finished search does it."""
    search = made_up_search(out, tree=NO_TREE, predictions=parts["members"].select([tables.ID]), **parts)
    images = parts["cutouts"] is not None
    tracker.log_search(out, lambda: search_record(search, images=images, checkpoint=tracker.checkpoint))


@pytest.fixture
def broken(monkeypatch):
    """A W&B whose every run fails to start; the list of attempts."""
    import wandb

    attempts = []

    def fail(**settings):
        attempts.append(settings)
        raise OSError("no space left on device")

    monkeypatch.setattr(wandb, "init", fail)
    return attempts


def test_unknown_mode_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r"logger.mode.*online.*offline.*wandb.*csv.*tensorboard.*none"):
        Tracker(mode="online")


def test_settings_need_neither_wandb_nor_torch():
    code = "import sys, rarezoo.track; print(*{'wandb', 'torch', 'pytorch_lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_none_logs_nothing(tmp_path, broken):
    Tracker(mode="none").log_search(tmp_path, lambda: pytest.fail("no record is needed"))
    assert Tracker(mode="none").training_logger(tmp_path, name="x") is None
    assert not broken
    assert not list(tmp_path.iterdir())


def test_failing_search_log_stops_nothing_and_warns_once(tmp_path, broken, caplog):
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        log_search(Tracker(), tmp_path, SEARCH)
    assert len(broken) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "could not log to W&B (no space left on device); the results are complete"
    ]


def test_failing_training_log_stops_nothing_and_warns_once(tmp_path, broken, caplog):
    logger = Tracker().training_logger(tmp_path, name="x")
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        for step in range(3):
            logger.log_metrics({"loss": 1.0}, step)
        logger.finalize("success")
    assert len(broken) == 1
    assert len(caplog.records) == 1


def test_log_that_fails_half_way_is_given_up_but_finished(tmp_path, monkeypatch, caplog):
    import wandb

    class Run:
        id, logged, finished = "r", [], []

        def log(self, values):
            self.logged.append(values)
            if len(self.logged) == 2:
                raise OSError("disk full")

        def finish(self, exit_code=0):
            self.finished.append(exit_code)

    monkeypatch.setattr(wandb, "init", lambda **settings: Run())
    logger = Tracker().training_logger(tmp_path, name="x")
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        for step in range(4):
            logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("failed")
    assert [metrics["loss"] for metrics in Run.logged] == [0.0, 1.0]
    assert Run.finished == [1]
    assert len(caplog.records) == 1


def test_training_run_begins_with_its_first_metric(tmp_path, broken):
    logger = Tracker().training_logger(tmp_path, name="x")
    logger.finalize("success")
    assert not broken
    assert (logger.name, logger.version) == ("x", "")


class Whole:
    """A W&B run that takes everything."""

    id = "r"

    def log(self, values):
        pass

    def log_artifact(self, artifact):
        pass

    def finish(self, exit_code=0):
        pass


@pytest.mark.parametrize("job", ["search", "training"])
def test_a_disk_that_fills_up_is_reported_once(tmp_path, monkeypatch, caplog, job):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **settings: Whole())
    room = [True, False]

    def write_bytes(path, content):
        if not room.pop(0):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        if job == "search":
            log_search(Tracker(), tmp_path, SEARCH)
        else:
            logger = Tracker().training_logger(tmp_path, name="x")
            logger.log_metrics({"loss": 1.0}, 0)
            logger.finalize("success")
            logger.conclude(tmp_path, {})
    assert not room
    (message,) = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in message


def test_a_run_that_left_no_file_is_reported(tmp_path, monkeypatch, caplog):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **settings: Whole())
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        log_search(Tracker(), tmp_path, SEARCH)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "holds no file of the run r" in message


def test_a_folder_that_takes_no_log_is_reported(tmp_path, broken, caplog):
    (tmp_path / "wandb").write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        log_search(Tracker(), tmp_path, SEARCH)
    assert not broken, "W&B would write to another folder without a word"
    assert "File exists" in caplog.text


CARD = {
    "schema": 1, "name": "b0.v1", "encoder": {"option": "efficientnet_b0"}, "preprocessing": {}, "tree": {},
    "sha256": {},
    "metrics": [
        {"question": "bar", "loss": 1.5, "rmse": 0.2, "well_observed": 40, "coverage_50": 0.4, "coverage_90": 0.8,
         "coverage_50_interval": [0.3, 0.5], "coverage_90_interval": None},
        {"question": "odd", "loss": 0.5, "rmse": None, "well_observed": 0, "coverage_50": None, "coverage_90": None},
    ],
}  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """A checkpoint folder without weights."""
    folder = tmp_path / "b0.v1"
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps(CARD))
    (folder / "metrics.csv").write_text("epoch,validation/loss,train/votes\n0,3.0,\n1,2.5,2.0\n")
    return folder


def test_what_a_checkpoint_tells_of_its_training(trained):
    record = TrainingRecord(trained, CARD)
    assert record.epochs == [
        {"epoch": 0, "validation/loss": 3.0},
        {"epoch": 1, "validation/loss": 2.5, "train/votes": 2.0},
    ]
    assert record.scores == {"loss/bar": 1.5, "rmse/bar": 0.2, "loss/odd": 0.5}
    assert record.coverages == {"calibration/bar/50%": 0.4, "calibration/bar/90%": 0.8}
    assert record.calibration[0] == {
        "question": "bar", "galaxies": 40, "expected": 0.5, "found": 0.4, "low": 0.3, "high": 0.5,
    }  # fmt: skip
    assert (record.calibration[1]["low"], record.calibration[1]["expected"]) == (None, 0.9)


def test_only_the_network_of_the_store_is_behind_a_search(trained, tmp_path):
    about = {"checkpoint_sha256": identity(CARD)}
    assert training_behind(about, places=[tmp_path / "gone", trained]).name == "b0.v1"
    assert training_behind({"checkpoint_sha256": "another"}, places=[trained]) is None
    (trained / "card.json").write_text("{")
    assert training_behind(about, places=[trained]) is None


CLASS = {
    tables.CLASS_ID: 0, tables.NODE: 7, tables.SIZE: 2, tables.FRACTION: 2 / 3, tables.BIRTH: 1.0, tables.DEATH: 2.0,
    tables.PERSISTENCE: 0.7, tables.TOP_ANSWERS: ["bar 0.9", "odd 0.1"], tables.FLAGS: [], tables.EXEMPLARS: ["a", "b"],
}  # fmt: skip
FOUND = {
    **SEARCH,
    "classes": pa.Table.from_pylist([CLASS], pa.schema(list(tables.CLASSES.columns.items()))),
    "cutouts": lambda ids: [np.full((16, 16, 3), 90, np.uint8) for _ in ids],
    "about": {"searched": 3, "classes": 1, "checkpoint_sha256": identity(CARD), "seconds": {"draw": 2.0}},
}


def test_a_search_as_csv(tmp_path, trained, broken):
    log_search(Tracker(mode="csv", checkpoint=str(trained)), tmp_path / "found", FOUND)
    folder = tmp_path / "found" / "log"
    numbers = dict(pd.read_csv(folder / "numbers.csv").to_numpy().tolist())
    assert numbers == {"searched": 3, "classes": 1, "seconds/draw": 2, "persistence/most": 0.7}
    (row,) = pd.read_csv(folder / "classes.csv").to_dict("records")
    assert (row[tables.SIZE], row[tables.TOP_ANSWERS]) == (2, "bar 0.9; odd 0.1")
    for name, size in (("map.png", (900, 900)), ("mosaics/class-000.jpg", (260, 130))):
        with Image.open(folder / name) as picture:
            assert picture.size == size
    assert pd.read_csv(folder / "curves.csv")["validation/loss"].tolist() == [3.0, 2.5]
    assert pd.read_csv(folder / "calibration.csv")["found"].tolist() == [0.4, 0.8]
    assert not broken


def test_classes_and_mosaics_are_logged_in_the_order_of_their_ranks(tmp_path, trained, board):
    rows = [
        {**CLASS, tables.CLASS_ID: number, tables.RANK: rank, tables.GRADE: grade}
        for number, rank, grade in ((0, 3, "candidate"), (1, 1, "significant and stable"), (2, 2, "significant"))
    ]
    grades = {"significant and stable": 1, "significant": 1, "candidate": 1}
    classes = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
    found = {**FOUND, "classes": classes, "about": {**FOUND["about"], "grades": grades}}
    log_search(Tracker(mode="csv"), tmp_path / "found", found)
    logged = pd.read_csv(tmp_path / "found" / "log" / "classes.csv")
    assert logged[tables.CLASS_ID].tolist() == [1, 2, 0]
    assert logged[tables.GRADE].tolist() == list(grades)
    numbers = dict(pd.read_csv(tmp_path / "found" / "log" / "numbers.csv").to_numpy().tolist())
    assert numbers["grades/significant_and_stable"] == numbers["grades/candidate"] == 1
    log_search(Tracker(mode="tensorboard"), tmp_path / "again", found)
    assert [words[1] for words in board if words[0] == "add_image"] == [
        "map", "mosaics/class-001", "mosaics/class-002", "mosaics/class-000",
    ]  # fmt: skip
    captions = [words[2] for words in board if words[0] == "add_text" and words[1].startswith("mosaics")]
    assert [caption.split("; ")[0] for caption in captions] == list(grades)


def test_a_training_as_csv(tmp_path, trained):
    for start in range(2):
        logger = Tracker(mode="csv").training_logger(tmp_path, name="x")
        for step in range(2):
            logger.log_metrics({"loss": 5.0 - start - step}, step)
        assert logger.version == f"version_{start}"
        logger.finalize("success")
        logger.conclude(trained, CARD)
        assert pd.read_csv(tmp_path / "log" / f"version_{start}" / "metrics.csv")["loss"].tolist() == [
            5 - start,
            4 - start,
        ]
    assert set(pd.read_csv(tmp_path / "log" / "version_1" / "scores.csv")["name"]) == {
        "loss/bar",
        "rmse/bar",
        "loss/odd",
    }


@pytest.fixture
def board(monkeypatch):
    """TensorBoard's writer, replaced by the list of what it was told."""
    calls = []

    class SummaryWriter:
        def __init__(self, folder):
            calls.append(("open", folder))

        def __getattr__(self, verb):
            return lambda *words, **named: calls.append((verb, *words))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    monkeypatch.setattr("rarezoo.track.tracker.find_spec", lambda name: object())
    return calls


def test_a_search_in_tensorboard(tmp_path, trained, board):
    log_search(Tracker(mode="tensorboard", checkpoint=str(trained)), tmp_path, FOUND)
    assert board[0] == ("open", str(tmp_path / "tensorboard"))
    assert [words[1] for words in board if words[0] == "add_image"] == ["map", "mosaics/class-000"]
    assert ("add_scalar", "classes", 1, None) in board
    assert ("add_scalar", "training/validation/loss", 2.5, 1) in board
    assert ("add_scalar", "calibration/bar/90%", 0.8, None) in board
    assert board[-1] == ("close",)


def test_a_training_in_tensorboard(tmp_path, trained, board):
    logger = Tracker(mode="tensorboard").training_logger(tmp_path, name="x")
    logger.log_metrics({"loss": 1.0}, 7)
    logger.conclude(trained, CARD)
    assert ("add_scalar", "loss", 1.0, 7) in board
    assert ("add_scalar", "loss/odd", 0.5, None) in board
    assert board[-1] == ("close",)


def test_tensorboard_that_is_not_installed_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("rarezoo.track.tracker.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=tensorboard.*pip install tensorboard.*logger=csv"):
        Tracker(mode="tensorboard")


@pytest.mark.parametrize(("mode", "wanted"), [("offline", "offline"), ("wandb", None)])
def test_settings_reach_wandb(tmp_path, monkeypatch, broken, mode, wanted):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    log_search(Tracker(mode=mode, project="p", entity="e", group="g"), tmp_path / "found", SEARCH)
    (asked,) = broken
    assert {key: asked[key] for key in ("project", "entity", "group", "name", "mode")} == {
        "project": "p", "entity": "e", "group": "g", "name": "found", "mode": wanted,
    }  # fmt: skip
    assert asked["dir"] == str(tmp_path / "found")
    assert asked["reinit"] == "create_new"
    assert asked["config"]["searched"] == 3


def test_a_missing_key_is_reported_and_never_asked_for(tmp_path, monkeypatch, broken, caplog):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        log_search(Tracker(mode="wandb"), tmp_path, SEARCH)
    assert not broken
    assert "logger=offline" in caplog.text


def test_map_picture_shows_each_galaxy_in_its_colour():
    positions = np.array([[0, 0], [1, 1], [0.5, 0]], dtype=np.float32)
    picture = map_picture(positions, labels=np.array([-1, 0, 1], dtype=np.int32))
    colours = [tuple(bytes.fromhex(palette.LIGHT[class_id][1:])) for class_id in (0, 1)]
    assert {colour for _, colour in picture.getcolors()} == {(255, 255, 255), (200, 200, 200), *colours}
    places = [np.argwhere((np.asarray(picture) == colour).all(axis=2)).mean(axis=0) for colour in colours]
    assert places[0][0] < 10, "the galaxy highest on the map is highest in the picture"
    assert places[1][0] > picture.height - 10


def test_map_picture_of_one_place():
    picture = map_picture(np.zeros((4, 2), np.float32), labels=np.full(4, -1, np.int32))
    assert (np.asarray(picture) == 200).all(axis=2).sum() == 1
