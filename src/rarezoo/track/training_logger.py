"""The logger that Lightning's Trainer is given; a module of its own because a search needs no Lightning."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from rarezoo.track.records import TrainingRecord
from rarezoo.track.writers import LogWriter


class TrainingLogger(Logger):
    """Lightning's metrics, written to a log that begins with the first of them.

    After the first failure nothing more is logged, and the training continues.

    Parameters
    ----------
    run_name
        Name of the run.
    open_writer
        Opens the log.
    attempt
        Calls a function and returns whether it succeeded, see :meth:`rarezoo.track.Tracker.attempt`.
    """

    def __init__(self, run_name: str, open_writer: Callable[[], LogWriter], attempt: Callable[..., bool]) -> None:
        super().__init__()
        self._name, self._open_writer, self._attempt = run_name, open_writer, attempt
        self._writer: LogWriter | None = None
        self._given_up = False

    @property
    def name(self) -> str:
        """Name of the run."""
        return self._name

    @property
    def version(self) -> str:
        """Id of the log; empty before it begins."""
        return "" if self._writer is None else self._writer.id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of one step."""

        def write() -> None:
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.log(metrics, step)

        self._given_up = self._given_up or not self._attempt(write)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings of the run come from settings.json."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the log of a training that failed; a training that succeeded ends it by :meth:`conclude`."""
        if status != "success":
            self._close(good=False)

    @rank_zero_only
    def conclude(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Log the scores of a finished checkpoint and end the log.

        Parameters
        ----------
        folder
            The checkpoint folder.
        card
            The content of its ``card.json``. If it is empty, no scores are logged.
        """
        writer = self._writer
        if writer is not None and card:
            record = TrainingRecord(Path(folder), card)
            self._given_up = self._given_up or not self._attempt(lambda: writer.log_training(record))
        self._close(good=True)

    def _close(self, *, good: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not self._attempt(lambda: writer.close(good=good), warn=not self._given_up):
            self._given_up = True
