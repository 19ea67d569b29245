"""W&B runs written and read back, and the size of a page with many points."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch

from rarezoo import tables
from rarezoo.report.pages import write_report
from rarezoo.report.track import Tracker

pytestmark = pytest.mark.pipeline


def search(galaxies, *, classes, seed=0):
    """A made-up search: a tenth of the galaxies in classes."""
    random = np.random.default_rng(seed)
    labels = np.where(random.random(galaxies) < 0.1, random.integers(0, max(classes, 1), galaxies), -1).astype(np.int32)
    ids = [f"J{row:08d}" for row in range(galaxies)]
    rows = [
        {
            tables.CLASS_ID: one, tables.NODE: 2 * galaxies + one, tables.SIZE: int((labels == one).sum()),
            tables.FRACTION: float((labels == one).mean()), tables.BIRTH: 1.0, tables.DEATH: 2.0,
            tables.PERSISTENCE: 0.5 + one, tables.TOP_ANSWERS: ["bar_strong 0.61 (sample 0.12)"],
            tables.EXEMPLARS: [ids[row] for row in np.flatnonzero(labels == one)[:24]], tables.FLAGS: [],
        }
        for one in range(classes)
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
        found = search(400, classes=classes)
        parts = {key: found[key] for key in ("classes", "members", "map_2d", "cutouts", "about")}
        Tracker(group="sweep").log_search(tmp_path / name, **parts)
    assert capfd.readouterr().out == ""
    for name, classes in (("first", 2), ("second", 3)):
        (item,) = history(tmp_path / name)
        assert item["classes"] == classes
        assert item["seconds/compress"] == 1.5
        assert item["persistence/most"] == 0.5 + classes - 1
        assert item["class_table.nrows"] == classes
        shown = {key.removesuffix(".path") for key in item if key.endswith(".path")}
        assert shown == {"map", "class_table", *(f"mosaics/class-{one:03d}" for one in range(classes))}
        (files,) = (tmp_path / name).glob("wandb/offline-run-*/files")
        assert all((files / item[f"{one}.path"]).is_file() for one in shown)
        records = logged(tmp_path / name)
        (run,) = [record["run"] for record in records if record["type"] == "run"]
        assert run["run_group"] == "sweep"
        assert run["config"]["update"]["searched"] == 400
        assert records[-1]["type"] == "exit", "the run was finished"
    assert not list((tmp_path / "first" / "wandb").glob("**/*second*"))


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


def test_two_trainings_in_one_process_are_two_runs(tmp_path):
    for name in ("first", "second"):
        tables.write_json({"verb": "train", "settings": {"seed": len(name)}}, tmp_path / name / "settings.json")
        tracker = Tracker().lightning_logger(tmp_path / name, name=name)
        loader = torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=2)
        trainer = pl.Trainer(
            logger=tracker, max_epochs=1, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(Line(), loader)
    for name in ("first", "second"):
        losses = [item["train/loss"] for item in history(tmp_path / name) if "train/loss" in item]
        assert losses == pytest.approx([1.0, 0.64, 0.4096, 0.262144])
        (run,) = [record["run"] for record in logged(tmp_path / name) if record["type"] == "run"]
        assert run["display_name"] == name
        assert run["config"]["update"]["settings"] == {"seed": len(name)}


def test_page_of_a_hundred_thousand_galaxies_stays_small(tmp_path):
    index = write_report(tmp_path, **search(100_000, classes=40))
    assert (tmp_path / "assets" / "map.js").stat().st_size < 1.5e6
    assert index.stat().st_size < 3e5
    assert len(list(tmp_path.glob("class-*.html"))) == 40
