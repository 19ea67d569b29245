"""What happens around the steps: states to resume from, the curves, a progress bar."""

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from tqdm import tqdm

from rarezoo.data.loaders import CutoutLoader
from rarezoo.tables import atomic
from rarezoo.training.module import VALIDATION_LOSS, VoteLearner


class States(Checkpoint):
    """Keeps the best network and the last state; a kill at any moment leaves both whole.

    Being a Checkpoint callback it runs after all others, so that their state is saved as it is. Lightning goes on from
    within an epoch or from its very end; what went on from between the last batch and the epoch's end would lack the
    validation, so no state is saved there.
    """

    def __init__(self, folder: Path, *, every: int, loader: CutoutLoader) -> None:
        self.last, self.best, self.every = folder / "last.ckpt", folder / "best.pt", every
        self.loader = loader
        self.best_loss = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """Save the state every so many steps, right after a step: no gradients are waiting for the next."""
        stepped = (index + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Save the state, which early stopping has seen the epoch in."""
        self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Save the network if it is the best yet."""
        loss = float(trainer.callback_metrics[VALIDATION_LOSS])
        if loss < self.best_loss:
            self.best_loss = loss
            if trainer.is_global_zero:
                with atomic(self.best) as temporary:
                    torch.save(learner.result.state_dict(), temporary)

    def _save(self, trainer: pl.Trainer) -> None:
        temporary = self.last.with_name(".last.partial")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.last)

    def state_dict(self) -> dict[str, Any]:
        """The best validation loss so far, and where in the epoch the training is."""
        return {"best_loss": self.best_loss, "loader": self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from them."""
        self.best_loss = state["best_loss"]
        self.loader.load_state_dict(state["loader"])


class Curves(pl.Callback):
    """metrics.csv: a row per epoch, whole after every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Add the epoch's row."""
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "learning_rate": learning_rate, **values}
        self.rows = [one for one in self.rows if one["epoch"] != row["epoch"]] + [row]
        if trainer.is_global_zero:
            with atomic(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from them."""
        self.rows = state["rows"]


class Bar(pl.Callback):
    """One line on standard error: epoch, galaxies per second, the last losses."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, learner: VoteLearner) -> None:  # type: ignore[override]
        """A bar for the epoch."""
        if trainer.is_global_zero:
            size = len(trainer.train_dataloader) * learner.settings.batch_size * trainer.world_size  # type: ignore[arg-type]
            label = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar = tqdm(total=size, desc=label, unit="galaxy", file=sys.stderr, mininterval=1.0)

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """Move the bar along."""
        if self.bar is not None:
            self.bar.update(len(batch.rows) * trainer.world_size)

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Close it with the epoch's losses."""
        if self.bar is not None:
            found = trainer.callback_metrics
            losses = {
                key: f"{float(found[key]):.4f}"
                for key in ("train/loss", "train/self_supervised", VALIDATION_LOSS)
                if key in found
            }
            self.bar.set_postfix(losses)
            self.bar.close()
            self.bar = None
