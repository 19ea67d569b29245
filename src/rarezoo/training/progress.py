"""Callbacks of a training: states from which it can resume, the curves, and a progress bar.

Lightning's own callbacks are not used, for these reasons: its ModelCheckpoint also saves between the last batch of an
epoch and the validation, and a training that resumes from there skips the validation; its CSVLogger repeats rows after
a resumed epoch; its progress bar counts batches and not galaxies.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from tqdm.auto import tqdm

from rarezoo.tables import atomic, settle
from rarezoo.training.module import VALIDATION_LOSS, Learner

log = logging.getLogger(__name__)


class States(Checkpoint):
    """Keep the best network and the last state; the process can be killed at any moment without damage to them.

    As a Checkpoint callback it runs after all others, so that their state is saved as it is then. Lightning resumes
    within an epoch or at its end. A training that resumed from between the last batch and the end of the epoch would
    lack the validation, so no state is saved there. The state of the training split's loader is part of Lightning's
    state.

    Parameters
    ----------
    folder
        Where ``last.ckpt`` (the state) and ``best.pt`` (weights of the best network) are kept.
    every
        Number of optimiser steps between states.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.last, self.best, self.every = folder / "last.ckpt", folder / "best.pt", every
        self.best_loss = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """Save the state after every ``every`` steps, when no gradients wait for the next step."""
        stepped = (index + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Save the state after early stopping has seen the epoch."""
        self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Save the network if it is the best one up to now."""
        loss = float(trainer.callback_metrics[VALIDATION_LOSS])
        if loss < self.best_loss:
            self.best_loss = loss
            if trainer.is_global_zero:
                with atomic(self.best) as temporary:
                    torch.save(learner.result.state_dict(), temporary)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the state and replace the previous one."""
        temporary = self.last.with_name(".last.partial")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            settle(temporary, self.last)

    def readable(self) -> bool:
        """Return whether there is a state to resume from.

        A state or network that a power failure has damaged is reported, and the training begins again: it ends with
        the same weights.
        """
        if not self.last.is_file():
            return False
        for file in (self.last, *([self.best] if self.best.exists() else [])):
            try:
                torch.load(file, map_location="cpu", weights_only=True)
            except Exception as problem:  # zipfile, pickle, torch and the system raise errors of their own
                log.warning("%s is damaged (%s); the training begins again", file, type(problem).__name__)
                return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the best validation loss up to now."""
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.best_loss = state["best_loss"]


class Curves(pl.Callback):
    """Write metrics.csv: one row per epoch, complete after every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Add the row of the epoch; it replaces a row of the same epoch from before an interruption."""
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        new = {"epoch": trainer.current_epoch, "step": trainer.global_step, "learning_rate": learning_rate, **values}
        self.rows = [row for row in self.rows if row["epoch"] != new["epoch"]] + [new]
        if trainer.is_global_zero:
            with atomic(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows up to now."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.rows = state["rows"]


class EpochBar(pl.Callback):
    """Show one line for each epoch: its number, galaxies per second and the last losses."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, learner: Learner) -> None:  # type: ignore[override]
        """Begin the line of the epoch."""
        if trainer.is_global_zero:
            batches: Any = trainer.train_dataloader
            size = len(batches) * learner.settings.batch_size * trainer.world_size
            label = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar = tqdm(total=size, desc=label, unit="galaxy", file=sys.stderr, mininterval=1.0)

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """Count the galaxies of the batch."""
        if self.bar is not None:
            self.bar.update(len(batch.rows) * trainer.world_size)

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """End the line with the losses of the epoch."""
        if self.bar is not None:
            metrics = trainer.callback_metrics
            names = ("train/loss", "train/self_supervised", VALIDATION_LOSS)
            self.bar.set_postfix({name: f"{float(metrics[name]):.4f}" for name in names if name in metrics})
            self.bar.close()
            self.bar = None
