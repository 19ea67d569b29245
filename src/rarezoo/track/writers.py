"""The three kinds of logs: W&B runs, CSV files with pictures, and TensorBoard events.

Lightning's own loggers write the metrics of a training as CSV. W&B and TensorBoard are written directly: Lightning's
loggers for them know neither the mosaics and tables of a search, nor the references to folders, nor a run whose writer
failed.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from PIL import Image

from rarezoo import tables
from rarezoo.escapes import markdown
from rarezoo.track.records import SearchRecord, TrainingRecord

CSV_FOLDER, TENSORBOARD_FOLDER = "log", "tensorboard"
# Number of bytes that are written and removed again to find out whether there is room.
_ROOM = 1 << 16
_STAGING = "WANDB_DATA_DIR"
# Longest name of an artifact that W&B takes.
_LONGEST_ARTIFACT = 128


@runtime_checkable
class LogWriter(Protocol):
    """An open log of one training or one search."""

    id: str

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Write the metrics of one training step."""

    def log_training(self, training: TrainingRecord) -> None:
        """Write scores and calibration of a training that has ended."""

    def log_search(self, search: SearchRecord) -> None:
        """Write a search."""

    def log_pictures(self, pictures: Mapping[str, Path]) -> None:
        """Write picture files by name."""

    def close(self, *, good: bool) -> None:
        """Close the log; ``good`` says whether the run succeeded."""


class CsvWriter:
    """CSV files and pictures in ``out/log``; a training has a folder per start, as ``out/log/version_0``."""

    id = CSV_FOLDER

    def __init__(self, out: Path) -> None:
        self._out, self._folder = out, out / CSV_FOLDER
        self._metrics: Any = None

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Write the metrics of one training step by Lightning's CSV logger."""
        if self._metrics is None:
            from pytorch_lightning.loggers import CSVLogger

            self._metrics = CSVLogger(self._out, name=CSV_FOLDER)
            self._folder, self.id = Path(self._metrics.log_dir), f"version_{self._metrics.version}"
        self._metrics.log_metrics(dict(metrics), step)
        self._metrics.save()

    def log_training(self, training: TrainingRecord) -> None:
        """Write ``scores.csv`` and ``calibration.csv``."""
        self._write("scores", _named_values(training.scores))
        self._write("calibration", pd.DataFrame(training.calibration))

    def log_search(self, search: SearchRecord) -> None:
        """Write numbers, classes, map, a mosaic per class, and the training with its curves."""
        self._write("numbers", _named_values(search.numbers))
        self._write("classes", pd.DataFrame(search.rows))
        search.map.save(self._folder / "map.png")
        for mosaic in search.mosaics:
            path = self._folder / "mosaics" / f"class-{mosaic.class_id:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            mosaic.image.save(path, quality=88, optimize=True)
        if search.training is not None:
            self.log_training(search.training)
            self._write("curves", pd.DataFrame(search.training.epochs))

    def log_pictures(self, pictures: Mapping[str, Path]) -> None:
        """Copy the pictures to ``pictures/``."""
        (self._folder / "pictures").mkdir(parents=True, exist_ok=True)
        for name, path in pictures.items():
            shutil.copyfile(path, self._folder / "pictures" / f"{name}{path.suffix}")

    def close(self, *, good: bool) -> None:
        """Do nothing: every row was written when it was logged."""

    def _write(self, name: str, rows: pd.DataFrame) -> None:
        with tables.atomic(self._folder / f"{name}.csv") as temporary:
            rows.to_csv(temporary, index=False)


class TensorBoardWriter:
    """TensorBoard's event files in ``out/tensorboard``."""

    id = TENSORBOARD_FOLDER

    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(out / TENSORBOARD_FOLDER))

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Write metrics as scalars."""
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def log_training(self, training: TrainingRecord) -> None:
        """Write scores and calibration as scalars."""
        self.log({**training.scores, **training.coverages}, None)

    def log_search(self, search: SearchRecord) -> None:
        """Write numbers, classes, map, a mosaic per class, and the training with its curves."""
        self.log(search.numbers, None)
        self._events.add_text("classes", pd.DataFrame(search.rows).to_html(index=False))
        self._events.add_image("map", np.asarray(search.map), dataformats="HWC")
        for mosaic in search.mosaics:
            name = f"mosaics/class-{mosaic.class_id:03d}"
            self._events.add_image(name, np.asarray(mosaic.image), dataformats="HWC")
            # TensorBoard shows texts as Markdown.
            self._events.add_text(name, markdown(mosaic.caption))
        if search.training is not None:
            for row in search.training.epochs:
                self.log({f"training/{name}": value for name, value in row.items()}, int(row.get("epoch", 0)))
            self.log_training(search.training)

    def log_pictures(self, pictures: Mapping[str, Path]) -> None:
        """Write the pictures as images."""
        for name, path in pictures.items():
            with Image.open(path) as picture:
                self._events.add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def close(self, *, good: bool) -> None:
        """Write events that are still in memory."""
        self._events.close()


class WandbWriter:
    """A W&B run with its files in ``out/wandb``."""

    def __init__(self, run: Any, out: Path) -> None:
        self._run, self._out = run, out
        self.id = str(run.id)

    def log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Write the metrics of one training step."""
        self._run.log({**metrics, "trainer/global_step": step})

    def log_training(self, training: TrainingRecord) -> None:
        """Write scores and calibration on the test split, and a reference to the checkpoint."""
        import wandb

        with self._staged():
            values: dict[str, Any] = {**training.scores, **training.coverages}
            if rows := training.calibration:
                values["calibration_table"] = wandb.Table(
                    columns=list(rows[0]), data=[list(row.values()) for row in rows]
                )
            if values:
                self._run.log(values)
            self._refer(training.folder, "checkpoint", training.name, {"sha256": training.card.get("sha256")})

    def log_search(self, search: SearchRecord) -> None:
        """Write numbers, map, mosaics, a table of classes with pictures, the training and references to folders."""
        import wandb

        with self._staged():
            if search.training is not None:
                self._run.define_metric("training/epoch")
                self._run.define_metric("training/*", step_metric="training/epoch")
                for row in search.training.epochs:
                    self._run.log({f"training/{name}": value for name, value in row.items()})
                self.log_training(search.training)
            if search.store is not None:
                self._refer(search.store, "store", f"{search.store.name}-store", search.about)
            values: dict[str, Any] = {**search.numbers, "map": wandb.Image(search.map)}
            exemplars: dict[Any, wandb.Image] = {}
            for mosaic in search.mosaics:
                values[f"mosaics/class-{mosaic.class_id:03d}"] = wandb.Image(
                    mosaic.image, caption=mosaic.caption, file_type="jpg"
                )
                exemplars[mosaic.class_id] = wandb.Image(mosaic.row, file_type="jpg")
            names = search.classes.column_names
            classes = wandb.Table(columns=[*names, "galaxies"] if exemplars else names)
            for row in search.rows:
                classes.add_data(*row.values(), *([exemplars[row[tables.CLASS_ID]]] if exemplars else []))
            self._run.log({**values, "class_table": classes})

    def log_pictures(self, pictures: Mapping[str, Path]) -> None:
        """Write the pictures as media of the run."""
        import wandb

        with self._staged():
            self._run.log({f"pictures/{name}": wandb.Image(str(path)) for name, path in pictures.items()})

    def close(self, *, good: bool) -> None:
        """End the run.

        Raises
        ------
        OSError
            The run is not on disk, or is not complete there. W&B itself does not report that.
        """
        self._run.finish(exit_code=0 if good else 1)
        folder = self._out / "wandb"
        check_room(folder)
        if not any(folder.glob(f"*/run-{self._run.id}.wandb")):
            raise FileNotFoundError(f"{folder} holds no file of the run {self._run.id}")

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Keep the files of tables with the run; W&B copies them to a folder of its own, where ``wandb sync`` looks."""
        before = os.environ.get(_STAGING)
        os.environ[_STAGING] = str((self._out / "wandb" / "staged").resolve())
        try:
            yield
        finally:
            os.environ.pop(_STAGING)
            if before is not None:
                os.environ[_STAGING] = before

    def _refer(self, folder: Path, kind: str, name: str, metadata: Mapping[str, Any]) -> None:
        """Log a reference to the files of a folder as an artifact; nothing is copied."""
        import wandb

        fitting = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:_LONGEST_ARTIFACT]
        artifact = wandb.Artifact(fitting, kind, metadata=tables.plain(metadata))
        for path in sorted(entry for entry in folder.iterdir() if entry.is_file()):
            # Checksums would read the whole store; the metadata holds the important ones.
            artifact.add_reference(path.resolve().as_uri(), name=path.name, checksum=False)
        self._run.log_artifact(artifact)


def check_room(folder: Path) -> None:
    """Raise OSError if nothing more can be written into a folder."""
    folder.mkdir(exist_ok=True)
    probe = folder / f".room-{os.getpid()}"
    try:
        probe.write_bytes(bytes(_ROOM))
    finally:
        probe.unlink(missing_ok=True)


def _named_values(values: Mapping[str, int | float]) -> pd.DataFrame:
    return pd.DataFrame({"name": list(values), "value": list(values.values())})
