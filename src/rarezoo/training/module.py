"""The training step: one network that learns by an objective, as a Lightning module."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import Settings, setting
from rarezoo.training.epoch_losses import EpochLosses
from rarezoo.training.objective import LOSS, Objective
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork
from rarezoo.zoo.views import TrainingView

VALIDATION_LOSS = f"validation/{LOSS}"
ALL_VISIBLE = -1
_EPOCH_LOSSES = "epoch_losses"


@dataclass(kw_only=True)
class TrainSettings(Settings):
    """How a network is trained.

    Where Zoobot has a value, the default is that of its training script for EfficientNetB0 (November 2023).

    Examples
    --------
    >>> TrainSettings(epochs=10, learning_rate=3e-4).batch_size
    256
    >>> TrainSettings(epochs=0)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: train.epochs must be at least 1: 0. Choose a value that is at least 1.
    """

    prefix: ClassVar[str] = "train"

    shuffle_votes: bool = setting(
        False, "give every galaxy the votes of another: a network that learns nothing, for null tests"
    )
    epochs: int = setting(100, "largest number of passes over the training split", ge=1)
    batch_size: int = setting(256, "galaxies per step and process", unit="galaxies", ge=1)
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW", ge=0)
    weight_decay: float = setting(0.01, "decay of weights; norms and biases have none", ge=0)
    warmup_epochs: float = setting(1.0, "linear rise of the learning rate at the start", unit="epochs", ge=0)
    final_learning_rate: float = setting(0.01, "learning rate at the end, as a share of the peak", ge=0)
    clip: float = setting(1.0, "largest gradient norm; 0 = unlimited", ge=0)
    patience: int = setting(10, "epochs without a better validation loss before training stops", ge=0)
    accumulate: int = setting(1, "batches per optimiser step", ge=1)
    precision: str = setting("32-true", "Lightning's name", choices=("32-true", "bf16-mixed", "16-mixed"))
    ema: float = setting(0.0, "decay of the moving average of the weights, e.g. 0.999; 0 = no average", ge=0, lt=1)
    compile: bool = setting(False, "compile the network with torch.compile")
    channels_last: bool = setting(False, "memory format of images and weights; faster on GPUs")
    freeze_trunk: bool = setting(False, "train only bottleneck and head (a baseline)")
    accelerator: str = setting("auto", "Lightning's name: auto, cpu, gpu")
    devices: int = setting(1, "processes, one per GPU or on the CPU; -1 = all visible GPUs", ge=ALL_VISIBLE)
    nodes: int = setting(1, "machines", ge=1)
    strategy: str = setting("auto", "Lightning's name: auto, ddp")
    workers: int | None = setting(
        None, "processes that decode images; 0 = a thread of this process, null = chosen by the machine", ge=0
    )
    save_every: int = setting(
        100, "optimiser steps between states from which training can resume, besides one at the end of each epoch", ge=1
    )
    dtype: str = setting("float32", "how the checkpoint stores weights", choices=("float32", "float16"))

    def check(self) -> None:
        """Refuse a training without any process."""
        if self.devices == 0:
            raise ConfigError(
                "train.devices must not be 0", value=0, fix="Choose 1 or more, or -1 for all visible GPUs."
            )


class Learner(pl.LightningModule):
    """A network that learns by an objective: AdamW, a linear warm-up, then a cosine.

    Parameters
    ----------
    network
        The network, with its first weights.
    objective
        What it learns.
    tree
        Question tree of the targets.
    settings
        How it is trained.
    encoder
        Settings of the architecture; they decide the training views.
    id_of
        Id of a row of the survey, for messages.
    seed
        Seed of the views and of dropout.
    processes
        Number of processes that train together.
    """

    def __init__(
        self,
        network: BottleneckNetwork,
        *,
        objective: Objective,
        tree: QuestionTree,
        settings: TrainSettings,
        encoder: Encoder,
        id_of: Callable[[int], str],
        seed: int,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.network, self.objective, self.tree, self.settings = network, objective, tree, settings
        self.id_of, self.seed = id_of, seed
        self.epoch_losses = EpochLosses()
        self.average: AveragedModel | None = None
        if settings.ema:
            self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
            # Otherwise several processes would wait for its gradients, which never come.
            self.average.requires_grad_(False)
        self.view = TrainingView(encoder.input_size, zoom=encoder.zoom, jitter=objective.view_jitter)
        self.extra_modules = objective.modules(width=network.width, processes=processes)
        # In a list, because the module tree would save the weights of the network a second time.
        self._compiled: list[Callable[[Tensor], Any]] = [torch.compile(network) if settings.compile else network]
        if settings.freeze_trunk:
            network.trunk.requires_grad_(False)

    @property
    def result(self) -> BottleneckNetwork:
        """The network to keep: the moving average if there is one."""
        averaged: Any = self.average.module if self.average is not None else self.network
        return averaged

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of one batch."""
        if self.settings.freeze_trunk:
            self.network.trunk.eval()
        views = torch.cat([self.view(batch.images) for _ in range(self.objective.views)])
        prediction = self._compiled[0](self._memory_format(views))
        losses = self.objective.losses(
            prediction, batch.votes, tree=self.tree, network=self.network, modules=self.extra_modules
        )
        if not torch.isfinite(losses[LOSS]):
            raise DataError(
                f"the loss is not finite in epoch {self.current_epoch}", value=f"step {self.global_step}",
                fix="Lower train.learning_rate or use train.precision=32-true. If it happens at the first step, look "
                "at the images and votes of these galaxies.", ids=[self.id_of(int(row)) for row in batch.rows],
            )  # fmt: skip
        logged = self.epoch_losses.added(losses, galaxies=len(batch.rows), epoch=self.current_epoch)
        for name, (value, galaxies) in logged.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=galaxies)
        return losses[LOSS]

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Seed views and dropout by seed, epoch, step and process, so that a resumed run is the same run."""
        key = np.random.SeedSequence([self.seed, self.current_epoch, index, self.global_rank])
        torch.manual_seed(int(key.generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        """Update the moving average if there is one."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses of the epoch up to now in the state."""
        checkpoint[_EPOCH_LOSSES] = self.epoch_losses.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from :meth:`on_save_checkpoint`; a state of an earlier rarezoo has no losses."""
        if _EPOCH_LOSSES in checkpoint:
            self.epoch_losses.load_state_dict(checkpoint[_EPOCH_LOSSES])

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log what the objective watches."""
        prediction = self.result(self._memory_format(batch.images))
        # Batches differ in size, and there may be several processes: the mean is over galaxies.
        together = self.trainer.world_size > 1
        for name, (value, galaxies) in self.objective.validation(prediction, batch.votes, tree=self.tree).items():
            self.log(f"validation/{name}", value, on_step=False, on_epoch=True, batch_size=galaxies, sync_dist=together)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its learning rate at every step."""
        parameters = [*self.network.parameters(), *self.extra_modules.parameters()]
        optimiser, schedule = optimiser_of(
            parameters, self.settings, steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _memory_format(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.settings.channels_last else images


def optimiser_of(
    parameters: Sequence[nn.Parameter], settings: TrainSettings, *, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return AdamW, without decay on norms and biases, and the curve of its learning rate.

    Parameters
    ----------
    parameters
        Parameters of the network and of the objective's modules; those that need no gradient are left out.
    settings
        How the network is trained.
    steps
        Number of optimiser steps of the whole training.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
    steps = max(steps, 1)
    warmup = min(settings.warmup_epochs * steps / max(settings.epochs, 1), steps - 1)
    # One closed formula, because torch's chain of LinearLR and CosineAnnealingLR takes whole steps of warm-up only.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: learning_rate_share(step, total=steps, warmup=warmup, final=settings.final_learning_rate),
    )
    return optimiser, schedule


def learning_rate_share(step: int, *, total: int, warmup: float, final: float) -> float:
    """Return the share of the peak learning rate at a step.

    It rises linearly over ``warmup`` steps and then falls along a cosine to ``final`` at step ``total``.

    Examples
    --------
    >>> [round(learning_rate_share(step, total=4, warmup=1, final=0), 2) for step in range(5)]
    [0.5, 1.0, 0.75, 0.25, 0.0]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
