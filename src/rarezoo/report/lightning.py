"""Lightning's metrics to whatever a :class:`Tracker` logs to; apart from it, because a search needs no Lightning."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from rarezoo.report.ledgers import Ledger
from rarezoo.report.record import Training
from rarezoo.track import CALLED, Tracker, went_well
from rarezoo.zoo.cards import is_checkpoint


class TrainingLogger(Logger):
    """Lightning's metrics to a log that begins with the first of them; silent for good once logging has failed."""

    def __init__(self, tracker: Tracker, out: Path, *, run_name: str) -> None:
        super().__init__()
        self.tracker, self.out, self.run_name = tracker, out, run_name
        self._ledger: Ledger | None = None
        self._given_up = False

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run_name

    @property
    def version(self) -> str:
        """Id of the log, empty before it begins."""
        return "" if self._ledger is None else self._ledger.id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one step's metrics."""

        def record() -> None:
            if self._ledger is None:
                self._ledger = self.tracker.opened(self.out, name=self.name)
            self._ledger.log(metrics, step)

        self._try(record)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's settings come from settings.json."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the log of a training that failed; one that went well waits for :meth:`conclude`."""
        if status != "success":
            self._finish(good=False)

    @rank_zero_only
    def conclude(self, checkpoint: Path) -> None:
        """Log what a finished checkpoint tells of itself, if there is one, and end the log."""
        ledger = self._ledger
        if ledger is not None and is_checkpoint(checkpoint):
            self._try(lambda: ledger.conclude(Training.read(checkpoint)))
        self._finish(good=True)

    def _finish(self, *, good: bool) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None and not went_well(
            lambda: ledger.finish(good=good), to=CALLED[self.tracker.mode], quietly=self._given_up
        ):
            self._given_up = True

    def _try(self, record: Callable[[], object]) -> None:
        self._given_up = self._given_up or not went_well(record, to=CALLED[self.tracker.mode])
