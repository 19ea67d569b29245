"""W&B runs written and read back, and the size of a page with many points."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from made_up import made_up_search, write_report
from PIL import Image

from rarezoo import tables
from rarezoo.report.record import search_record
from rarezoo.track import Tracker
from rarezoo.zoo.cards import identity

pytestmark = pytest.mark.pipeline


def search(galaxies, *, classes, seed=0):
    """A made-up search: a tenth of the galaxies in classes."""
    random = np.random.default_rng(seed)
    labels = np.where(random.random(galaxies) < 0.1, random.integers(0, max(classes, 1), galaxies), -1).astype(np.int32)
    ids = [f"J{row:08d}" for row in range(galaxies)]
    rows = [
        {
            tables.CLASS_ID: class_id, tables.NODE: 2 * galaxies + class_id,
            tables.SIZE: int((labels == class_id).sum()), tables.FRACTION: float((labels == class_id).mean()),
            tables.BIRTH: 1.0, tables.DEATH: 2.0,
            tables.PERSISTENCE: 0.5 + class_id, tables.TOP_ANSWERS: ["bar_strong 0.61 (sample 0.12)"],
            tables.EXEMPLARS: [ids[row] for row in np.flatnonzero(labels == class_id)[:24]], tables.FLAGS: [],
        }
        for class_id in range(classes)
    ]  # fmt: skip
    positions = random.normal(size=(galaxies, 2)).astype(np.float32)
    empty = {name: pa.array([], kind) for name, kind in tables.TREE.columns.items()}
    return {
        "members": pa.table(
            {
                tables.ID: ids,
                tables.CLASS_ID: labels,
                tables.PROBABILITY: random.random(galaxies).astype(np.float32),
                tables.OUTLIER_SCORE: random.random(galaxies).astype(np.float32),
            }
        ),
        "classes": pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        "tree": pa.table(empty),
        "map_2d": pa.table({tables.ID: ids, tables.POSITION: tables.vectors(positions)}),
        "predictions": pa.table({tables.ID: ids, "bar_strong_fraction": random.random(galaxies).astype(np.float32)}),
        "cutouts": lambda wanted: [np.full((32, 32, 3), 90, np.uint8) for _ in wanted],
        "about": {"searched": galaxies, "classes": classes, "unassigned": 0.9, "seconds": {"compress": 1.5}},
    }


def log_search(tracker, out, parts):
    """Log a search as a finished search does it."""
    search = made_up_search(out, **parts)
    tracker.log_search(out, lambda: search_record(search, checkpoint=tracker.checkpoint))


def logged(folder):
    """Every record of a folder's only W&B run, read back by W&B's own tool."""
    (run,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", str(run), "--json"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def history(folder):
    return [record["history"]["item"] for record in logged(folder) if record["type"] == "history"]


def test_two_searches_in_one_process_are_two_whole_runs(tmp_path, capfd):
    for name, classes in (("first", 2), ("second", 3)):
        parts = search(400, classes=classes)
        log_search(Tracker(group="sweep"), tmp_path / name, parts)
    assert capfd.readouterr().out == ""
    for name, classes in (("first", 2), ("second", 3)):
        (item,) = history(tmp_path / name)
        assert item["classes"] == classes
        assert item["seconds/compress"] == 1.5
        assert item["persistence/most"] == 0.5 + classes - 1
        assert item["class_table.nrows"] == classes
        shown = {key.removesuffix(".path") for key in item if key.endswith(".path")}
        assert shown == {"map", "class_table", *(f"mosaics/class-{class_id:03d}" for class_id in range(classes))}
        (files,) = (tmp_path / name).glob("wandb/offline-run-*/files")
        assert all((files / item[f"{key}.path"]).is_file() for key in shown)
        records = logged(tmp_path / name)
        (run,) = [record["run"] for record in records if record["type"] == "run"]
        assert run["run_group"] == "sweep"
        assert run["config"]["update"]["searched"] == 400
        assert records[-1]["type"] == "exit", "the run was finished"
    assert not list((tmp_path / "first" / "wandb").glob("**/*second*"))


CARD = {
    "schema": 1, "name": "b0.v1", "encoder": {"option": "efficientnet_b0"}, "preprocessing": {}, "tree": {},
    "sha256": {"weights.safetensors": "abc"}, "width": 8,
    "metrics": [{"question": "bar", "loss": 1.5, "rmse": 0.2, "well_observed": 40, "coverage_50": 0.4,
                 "coverage_50_interval": [0.3, 0.5], "coverage_90": 0.8, "coverage_90_interval": [0.7, 0.9]}],
}  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """A checkpoint folder without real weights."""
    folder = tmp_path / "checkpoints" / "b0.v1"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(CARD))
    (folder / "weights.safetensors").write_bytes(b"w")
    (folder / "metrics.csv").write_text("epoch,validation/loss\n0,3.0\n1,2.5\n")
    return folder


def artifacts(records):
    return {record["artifact"]["type"]: record["artifact"] for record in records if record["type"] == "artifact"}


def test_the_run_of_a_search_tells_all_of_its_network(tmp_path, trained):
    store, out, parts = tmp_path / "store", tmp_path / "found", search(400, classes=2)
    store.mkdir()
    for name in ("manifest.json", "shard-00000.parquet"):
        (store / name).write_text(name)
    settings = {"settings": {"store": str(store)}, "checkpoint": "b0.v1", "checkpoint_sha256": identity(CARD)}
    log_search(Tracker(checkpoint=str(trained)), out, {**parts, "about": {**parts["about"], **settings}})
    records = logged(out)
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    losses = [item["training/validation/loss"] for item in items if "training/validation/loss" in item]
    assert losses == [3.0, 2.5]
    assert [item["calibration/bar/90%"] for item in items if "calibration/bar/90%" in item] == [0.8]
    assert {key.removesuffix(".path") for key in items[-1] if key.endswith(".path")} == {
        "map", "class_table", "mosaics/class-000", "mosaics/class-001",
    }  # fmt: skip
    linked = artifacts(records)
    for kind, folder in (("checkpoint", trained), ("store", store)):
        references = {entry["ref"] for entry in linked[kind]["manifest"]["contents"]}
        assert references == {path.as_uri() for path in folder.iterdir()}
    assert json.loads(linked["checkpoint"]["metadata"])["sha256"] == CARD["sha256"]
    staged = [Path(entry["local_path"]) for entry in linked["run_table"]["manifest"]["contents"]]
    assert staged
    assert all(file.is_relative_to(out / "wandb") and file.is_file() for file in staged), "sync finds them with the run"
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["config"]["update"]["trained"]["encoder"] == CARD["encoder"]


def test_the_class_table_has_images(tmp_path):
    parts = search(400, classes=2)
    log_search(Tracker(), tmp_path / "found", parts)
    (table,) = (artifact for kind, artifact in artifacts(logged(tmp_path / "found")).items() if kind == "run_table")
    contents = {entry["path"]: Path(entry["local_path"]) for entry in table["manifest"]["contents"]}
    content = json.loads(contents.pop("class_table.table.json").read_text())
    cells = [row[content["columns"].index("galaxies")] for row in content["data"]]
    assert [cell["_type"] for cell in cells] == ["image-file"] * 2
    assert {cell["path"] for cell in cells} <= set(contents)
    with Image.open(contents[cells[0]["path"]]) as mosaic:
        assert mosaic.height == 130


def test_servers_that_do_not_answer_leave_the_search_whole(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    parts = search(400, classes=2)
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        log_search(Tracker(mode="wandb", timeout=2), tmp_path / "found", parts)
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("rarezoo")]
    assert message.startswith("could not log to W&B (")


class Line(pl.LightningModule):
    """The smallest network that learns."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, index):
        loss = (self.weight * batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_two_trainings_in_one_process_are_two_runs(tmp_path, trained):
    for name in ("first", "second"):
        tables.write_json({"verb": "train", "settings": {"seed": len(name)}}, tmp_path / name / "settings.json")
        tracker = Tracker().training_logger(tmp_path / name, name=name)
        loader = torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=2)
        trainer = pl.Trainer(
            logger=tracker, max_epochs=1, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(Line(), loader)
        tracker.conclude(trained, CARD)
    for name in ("first", "second"):
        records = logged(tmp_path / name)
        (linked,) = [artifact for kind, artifact in artifacts(records).items() if kind == "checkpoint"]
        assert (trained / "weights.safetensors").as_uri() in {entry["ref"] for entry in linked["manifest"]["contents"]}
        assert [item["loss/bar"] for item in history(tmp_path / name) if "loss/bar" in item] == [1.5]
        assert records[-1]["exit"].get("exit_code", 0) == 0
        losses = [item["train/loss"] for item in history(tmp_path / name) if "train/loss" in item]
        assert losses == pytest.approx([1.0, 0.64, 0.4096, 0.262144])
        (run,) = [record["run"] for record in logged(tmp_path / name) if record["type"] == "run"]
        assert run["display_name"] == name
        assert run["config"]["update"]["settings"] == {"seed": len(name)}


@pytest.mark.slow
def test_page_of_a_hundred_thousand_galaxies_stays_small(tmp_path):
    index = write_report(tmp_path, **search(100_000, classes=40))
    assert (tmp_path / "assets" / "map.js").stat().st_size < 1.5e6
    assert index.stat().st_size < 3e5
    assert len(list(tmp_path.glob("class-*.html"))) == 40
