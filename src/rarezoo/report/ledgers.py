"""Logs other than W&B's: CSV files and pictures, or TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from rarezoo import tables
from rarezoo.report import gallery
from rarezoo.report.record import Search, Training

CSV_FOLDER, TENSORBOARD_FOLDER = "log", "tensorboard"


class Ledger(Protocol):
    """An open log of one training."""

    id: str

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """One step's metrics."""

    def conclude(self, training: Training) -> None:
        """What is known of a training once its checkpoint is written."""

    def finish(self, *, good: bool) -> None:
        """Close it; nothing is logged after."""


class CsvLedger:
    """Lightning's CSV files, a folder per start: ``out/log/version_0/metrics.csv``."""

    def __init__(self, out: Path) -> None:
        from pytorch_lightning.loggers import CSVLogger

        self._logger = CSVLogger(out, name=CSV_FOLDER)
        self.id = f"version_{self._logger.version}"

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """One step's metrics."""
        self._logger.log_metrics(dict(metrics), step)
        self._logger.save()

    def conclude(self, training: Training) -> None:
        """scores.csv and calibration.csv beside the curves."""
        _write_training(training, Path(self._logger.log_dir))

    def finish(self, *, good: bool) -> None:
        """Nothing: every row was written when it was logged."""


class TensorBoardLedger:
    """TensorBoard's event files in ``out/tensorboard``."""

    def __init__(self, out: Path) -> None:
        self._writer = _tensorboard(out)
        self.id = TENSORBOARD_FOLDER

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """One step's metrics."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def conclude(self, training: Training) -> None:
        """Scores and calibration as scalars."""
        self.log({**training.scores, **training.coverages}, None)

    def finish(self, *, good: bool) -> None:
        """Write what is still held back."""
        self._writer.close()


def _tensorboard(out: Path) -> Any:
    # Importing it costs seconds, and it may not be installed.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out / TENSORBOARD_FOLDER))


def _write_training(training: Training, folder: Path) -> None:
    scores = pd.DataFrame({"name": list(training.scores), "value": list(training.scores.values())})
    _write(scores, folder / "scores.csv")
    _write(pd.DataFrame(training.calibration), folder / "calibration.csv")


def _write(rows: pd.DataFrame, path: Path) -> None:
    with tables.atomic(path) as temporary:
        rows.to_csv(temporary, index=False)


def write_csv(search: Search, out: Path) -> None:
    """A search as CSV files and pictures in ``out/log``: numbers, classes, map, a mosaic per class, the training."""
    folder = out / CSV_FOLDER
    numbers = pd.DataFrame({"name": list(search.numbers), "value": list(search.numbers.values())})
    _write(numbers, folder / "numbers.csv")
    _write(pd.DataFrame(search.rows), folder / "classes.csv")
    search.map.save(folder / "map.png")
    for mosaic in search.mosaics():
        gallery.save(mosaic.whole, folder / "mosaics" / f"class-{mosaic.class_id:03d}.jpg")
    if search.training is not None:
        _write_training(search.training, folder)
        _write(pd.DataFrame(search.training.curves), folder / "curves.csv")


def write_tensorboard(search: Search, out: Path) -> None:
    """A search as TensorBoard events in ``out/tensorboard``: the same as :func:`write_csv`."""
    writer = _tensorboard(out)
    for name, value in search.numbers.items():
        writer.add_scalar(name, value)
    writer.add_text("classes", pd.DataFrame(search.rows).to_html(index=False))
    writer.add_image("map", np.asarray(search.map), dataformats="HWC")
    for mosaic in search.mosaics():
        name = f"mosaics/class-{mosaic.class_id:03d}"
        writer.add_image(name, np.asarray(mosaic.whole), dataformats="HWC")
        writer.add_text(name, mosaic.caption)
    if search.training is not None:
        for row in search.training.curves:
            for name, value in row.items():
                writer.add_scalar(f"training/{name}", value, int(row.get("epoch", 0)))
        for name, value in {**search.training.scores, **search.training.coverages}.items():
            writer.add_scalar(name, value)
    writer.close()
