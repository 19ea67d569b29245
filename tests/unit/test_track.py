"""Logging: refused settings, nothing where nothing is wanted, and failures that stop nothing. No W&B run is started."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.report import palette
from rarezoo.report.track import Tracker, map_picture

pytestmark = pytest.mark.unit

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
    with pytest.raises(ConfigError, match=r"logger.mode: online.*offline, wandb, none"):
        Tracker(mode="online")


def test_none_logs_nothing(tmp_path, broken):
    Tracker(mode="none").log_search(tmp_path, **SEARCH)
    assert Tracker(mode="none").lightning_logger(tmp_path, name="x") is None
    assert not broken
    assert not list(tmp_path.iterdir())


def test_failing_search_log_stops_nothing_and_warns_once(tmp_path, broken, caplog):
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        Tracker().log_search(tmp_path, **SEARCH)
    assert len(broken) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "not logged to W&B (no space left on device); everything else is whole"
    ]


def test_failing_training_log_stops_nothing_and_warns_once(tmp_path, broken, caplog):
    logger = Tracker().lightning_logger(tmp_path, name="x")
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
    logger = Tracker().lightning_logger(tmp_path, name="x")
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        for step in range(4):
            logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("failed")
    assert [one["loss"] for one in Run.logged] == [0.0, 1.0]
    assert Run.finished == [1]
    assert len(caplog.records) == 1


def test_training_run_begins_with_its_first_metric(tmp_path, broken):
    logger = Tracker().lightning_logger(tmp_path, name="x")
    logger.finalize("success")
    assert not broken
    assert (logger.name, logger.version) == ("x", "")


@pytest.mark.parametrize(("mode", "wanted"), [("offline", "offline"), ("wandb", None)])
def test_settings_reach_wandb(tmp_path, monkeypatch, broken, mode, wanted):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    Tracker(mode=mode, project="p", entity="e", group="g").log_search(tmp_path / "found", **SEARCH)
    (asked,) = broken
    assert {key: asked[key] for key in ("project", "entity", "group", "name", "mode")} == {
        "project": "p", "entity": "e", "group": "g", "name": "found", "mode": wanted,
    }  # fmt: skip
    assert asked["dir"] == str(tmp_path / "found")
    assert asked["reinit"] == "create_new"
    assert asked["config"] == {"searched": 3}


def test_no_key_is_told_and_never_asked_for(tmp_path, monkeypatch, broken, caplog):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        Tracker(mode="wandb").log_search(tmp_path, **SEARCH)
    assert not broken
    assert "logger=offline" in caplog.text


def test_map_picture_shows_each_galaxy_in_its_colour():
    positions = np.array([[0, 0], [1, 1], [0.5, 0]], dtype=np.float32)
    picture = map_picture(positions, labels=np.array([-1, 0, 1], dtype=np.int32))
    colours = [tuple(bytes.fromhex(palette.LIGHT[one][1:])) for one in (0, 1)]
    assert {colour for _, colour in picture.getcolors()} == {(255, 255, 255), (200, 200, 200), *colours}
    places = [np.argwhere((np.asarray(picture) == colour).all(axis=2)).mean(axis=0) for colour in colours]
    assert places[0][0] < 10, "the galaxy highest on the map is highest in the picture"
    assert places[1][0] > picture.height - 10


def test_map_picture_of_one_place():
    picture = map_picture(np.zeros((4, 2), np.float32), labels=np.full(4, -1, np.int32))
    assert (np.asarray(picture) == 200).all(axis=2).sum() == 1
