"""The settings of a log, and the functions that log a search or a training."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.runs import SETTINGS_FILE
from rarezoo.settings import Settings, setting
from rarezoo.track.records import SearchRecord
from rarezoo.track.writers import CsvWriter, LogWriter, TensorBoardWriter, WandbWriter, check_room

if TYPE_CHECKING:
    from rarezoo.track.training_logger import TrainingLogger

log = logging.getLogger(__name__)

OFFLINE, WANDB, CSV, TENSORBOARD, NONE = "offline", "wandb", "csv", "tensorboard", "none"
_MODES = (OFFLINE, WANDB, CSV, TENSORBOARD, NONE)
_NAMES = {OFFLINE: "W&B", WANDB: "W&B", CSV: "CSV", TENSORBOARD: "TensorBoard"}


@dataclass
class Tracker(Settings):
    """Where a training or a search is logged, besides the files that it always writes.

    Attributes
    ----------
    mode
        ``offline`` writes W&B files that ``wandb sync`` can send later, ``wandb`` sends them at once, ``csv`` and
        ``tensorboard`` write files of those kinds, ``none`` logs nothing. All files go below the run's own folder.
    project, entity, group
        W&B project, user or team, and group of runs.
    checkpoint
        Folder of the checkpoint that made the embeddings of a search. None: the folder of that name in
        ``checkpoints/``. Its learning curves and scores become part of the log of the search.
    timeout
        Longest wait for the W&B servers, seconds. Data that was not sent by then stays on disk for ``wandb sync``.

    Examples
    --------
    >>> Tracker(mode="none").training_logger("runs/train", name="train") is None
    True
    """

    prefix: ClassVar[str] = "logger"

    mode: str = setting(
        OFFLINE,
        "where runs are logged: W&B files in out= (offline), W&B itself (wandb), other files in out=, or nowhere",
        choices=_MODES,
    )
    project: str = setting("rarezoo", "W&B project")
    entity: str | None = setting(None, "W&B user or team; none: your default")
    group: str | None = setting(None, "W&B group, which keeps the runs of a sweep together")
    checkpoint: str | None = setting(
        None, "checkpoint folder whose training is part of a search's log; none: the folder in checkpoints/"
    )
    timeout: int = setting(60, "longest wait for the W&B servers; the rest stays on disk", unit="s", ge=1)

    def check(self) -> None:
        """Raise ConfigError if TensorBoard is chosen and not installed."""
        if self.mode == TENSORBOARD and find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard is not installed", value="logger=tensorboard",
                fix="Run pip install tensorboard, or choose logger=csv.",
            )  # fmt: skip

    def log_search(self, out: Path | str, make_record: Callable[[], SearchRecord]) -> None:
        """Log a finished search: its numbers, classes, map and mosaics, and the training of its network.

        A failure, also one in ``make_record``, is logged as a warning and does not stop the search.

        Parameters
        ----------
        out
            Folder of the search. All files of the log go below it.
        make_record
            Makes the record. It is only called if something is to be logged.
        """
        if self.mode == NONE:
            return

        def send() -> None:
            record = make_record()
            writer = self.open_writer(Path(out), name=record.name, job="cluster", config=record.config)
            try:
                writer.log_search(record)
            finally:
                writer.close(good=True)

        self.attempt(send)

    def log_pictures(
        self,
        out: Path | str,
        *,
        name: str,
        job: str,
        config: Mapping[str, Any],
        pictures: Mapping[str, Path],
        rows: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """Log pictures of a finished run, and numbers that were measured on the way.

        A failure is logged as a warning and does not stop the run.

        Parameters
        ----------
        out
            Folder of the run. All files of the log go below it.
        name, job
            Name and kind of the run.
        config
            Settings of the run.
        pictures
            Picture files by name.
        rows
            Numbers by name, a dictionary for each step.
        """
        if self.mode == NONE:
            return

        def send() -> None:
            writer = self.open_writer(Path(out), name=name, job=job, config=config)
            try:
                for row in rows:
                    writer.log(row, int(row.get("iteration", 0)))
                writer.log_pictures(pictures)
            finally:
                writer.close(good=True)

        self.attempt(send)

    def training_logger(self, out: Path | str, *, name: str) -> "TrainingLogger | None":
        """Make a logger for Lightning's Trainer.

        Its log begins with the first metric and ends with the training, so a second training is a second run.

        Parameters
        ----------
        out
            Folder of the training. All files of the log go below it. Its ``settings.json`` becomes the config of a W&B
            run.
        name
            Name of the run.

        Returns
        -------
        TrainingLogger or None
            None if nothing is to be logged.
        """
        if self.mode == NONE:
            return None
        from rarezoo.track.training_logger import TrainingLogger

        settings = Path(out) / SETTINGS_FILE
        return TrainingLogger(
            name,
            lambda: self.open_writer(
                Path(out), name=name, job="train",
                config=json.loads(settings.read_text()) if settings.is_file() else {},
            ),
            self.attempt,
        )  # fmt: skip

    def open_writer(self, out: Path, *, name: str, job: str, config: Mapping[str, Any]) -> LogWriter:
        """Open a new log in the folder ``out``. W&B never asks at the terminal for a key.

        Raises
        ------
        ConfigError
            The log is to be sent to W&B, and this machine has no key.
        OSError
            The folder cannot be written.
        """
        if self.mode == CSV:
            return CsvWriter(out)
        if self.mode == TENSORBOARD:
            return TensorBoardWriter(out)
        import wandb

        if self.mode == WANDB and not wandb.login(prompt=False):
            raise ConfigError("no W&B key", value="logger=wandb", fix="Run wandb login, or choose logger=offline.")
        out.mkdir(parents=True, exist_ok=True)
        # W&B would silently use a temporary folder instead.
        check_room(out / "wandb")
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True,
            init_timeout=self.timeout, finish_timeout=self.timeout,
        )  # fmt: skip
        run = wandb.init(
            project=self.project, entity=self.entity, group=self.group, name=name, job_type=job, dir=str(out),
            config=tables.plain(config), mode="offline" if self.mode == OFFLINE else None, reinit="create_new",
            settings=quiet,
        )  # fmt: skip
        return WandbWriter(run, out)

    def attempt(self, write: Callable[[], object], *, warn: bool = True) -> bool:
        """Call ``write`` and return whether it succeeded; log a warning with the reason if it did not."""
        try:
            write()
        except Exception as problem:
            if warn:
                log.warning("could not log to %s (%s); the results are complete", _NAMES[self.mode], problem)
            return False
        return True
