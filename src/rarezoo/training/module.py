"""The Lightning module: one network learning votes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import DataError
from rarezoo.settings import setting
from rarezoo.training.loss import OBJECTIVES, SIMILARITIES, VOTES, Losses, Objective, question_losses
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork
from rarezoo.zoo.views import TrainingView

VALIDATION_LOSS = "validation/loss"


@dataclass(kw_only=True)
class TrainSettings:
    """How a network is trained; defaults are zoobot's for EfficientNetB0 (November 2023), where it has them."""

    objective: str = setting("votes", f"what is learnt: {', '.join(OBJECTIVES)} (hybrid = both)")
    similarity: str = setting("vicreg", f"lightly's loss between two views: {', '.join(SIMILARITIES)}")
    similarity_weight: float = setting(1.0, "of that loss beside the votes' in hybrid")
    projector: int = setting(0, "width of a projector between embedding and that loss; 0 = none")
    jitter: float = setting(0.4, "random brightness, colour and noise of its views, 0 to 1; votes alone have none")
    shuffle_votes: bool = setting(
        False, "give every galaxy another's votes: a network that learns nothing, for null tests"
    )
    epochs: int = setting(100, "passes over the training split at most")
    batch_size: int = setting(256, "galaxies per step and process", unit="galaxies")
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW")
    weight_decay: float = setting(0.01, "of weights; norms and biases have none")
    warmup_epochs: float = setting(1.0, "linear rise of the learning rate", unit="epochs")
    final_learning_rate: float = setting(0.01, "end of the cosine, as a share of the peak")
    clip: float = setting(1.0, "largest gradient norm; 0 = none")
    patience: int = setting(10, "epochs without a better validation loss before stopping")
    accumulate: int = setting(1, "batches per optimiser step")
    precision: str = setting("32-true", "Lightning's name: 32-true, bf16-mixed, 16-mixed")
    ema: float = setting(0.0, "decay of the weights' moving average, e.g. 0.999; 0 = off")
    compile: bool = setting(False, "torch.compile the network")
    channels_last: bool = setting(False, "memory format of images and weights; quicker on GPUs")
    freeze_trunk: bool = setting(False, "train only bottleneck and head (a baseline)")
    accelerator: str = setting("auto", "Lightning's name: auto, cpu, gpu")
    devices: int = setting(1, "processes, one per GPU (or on the CPU)")
    nodes: int = setting(1, "machines")
    strategy: str = setting("auto", "Lightning's name: auto, ddp")
    workers: int | None = setting(None, "processes that decode images; 0 = a thread of this one; null = by the machine")
    save_every: int = setting(100, "optimiser steps between resumable states, besides one at each epoch's end")
    dtype: str = setting("float32", "how the checkpoint stores weights: float32 or float16")


class VoteLearner(pl.LightningModule):
    """AdamW, linear warm-up and cosine on the objective."""

    def __init__(
        self,
        network: BottleneckNetwork,
        *,
        tree: QuestionTree,
        settings: TrainSettings,
        encoder: Encoder,
        id_of: Callable[[int], str],
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.tree, self.settings, self.id_of, self.seed = network, tree, settings, id_of, seed
        self.average = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
            if settings.ema
            else None
        )
        if self.average is not None:
            # Several processes would else wait for its gradients, which never come.
            self.average.requires_grad_(False)
        jitter = 0.0 if settings.objective == VOTES else settings.jitter
        self.view = TrainingView(encoder.input_size, zoom=encoder.zoom, jitter=jitter)
        self.objective = Objective(
            settings.objective, tree=tree, similarity=settings.similarity, weight=settings.similarity_weight,
            width=network.width, projector=settings.projector, processes=settings.devices * settings.nodes,
        )  # fmt: skip
        # Kept out of the module tree, or its weights would be saved twice.
        self._forward: list[Callable[[Tensor], Any]] = [torch.compile(network) if settings.compile else network]
        if settings.freeze_trunk:
            network.trunk.requires_grad_(False)

    @property
    def result(self) -> BottleneckNetwork:
        """The network to keep: the moving average where there is one."""
        averaged: Any = self.average.module if self.average is not None else self.network
        return averaged

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one batch (nats per galaxy, plus what the views cost)."""
        if self.settings.freeze_trunk:
            self.network.trunk.eval()
        views = torch.cat([self.view(batch.images) for _ in range(self.objective.views)])
        losses: Losses = self.objective(self._forward[0](self._laid_out(views)), batch.votes, self.network)
        if not torch.isfinite(losses.total):
            raise self._not_finite(batch)
        names = ("loss", "votes", "self_supervised")[: 1 if self.objective.views == 1 else 3]
        for name, value in zip(names, losses, strict=False):
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=len(batch.rows))
        return losses.total

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Draws of views and dropout follow from seed, epoch, step and process: a resumed run is the same run."""
        key = np.random.SeedSequence([self.seed, self.current_epoch, index, self.global_rank])
        torch.manual_seed(int(key.generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        """Move the average along, where there is one."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log the votes' loss, whole and per question (over the galaxies to whom it was put), whatever is trained."""
        losses = question_losses(self.result(self._laid_out(batch.images)).concentrations, batch.votes, self.tree)
        asked = torch.stack([batch.votes[:, part].sum(dim=1) > 0 for part in self.tree.slices], dim=1)
        self._log_validation(VALIDATION_LOSS, losses.sum(dim=1).mean(), len(batch.rows))
        for place, question in enumerate(self.tree.questions):
            galaxies = int(asked[:, place].sum())
            if galaxies:
                self._log_validation(f"{VALIDATION_LOSS}/{question.name}", losses[:, place].sum() / galaxies, galaxies)

    def _log_validation(self, name: str, value: Tensor, galaxies: int) -> None:
        # Batches of unlike size, and on several processes: the mean is over galaxies.
        self.log(name, value, on_step=False, on_epoch=True, batch_size=galaxies, sync_dist=self.trainer.world_size > 1)

    def configure_optimizers(self) -> Any:
        """AdamW without decay on norms and biases; a learning rate for every step."""
        # The network's own, and the projector's where there is one.
        trained = [one for part in (self.network, self.objective) for one in part.parameters() if one.requires_grad]
        groups = [
            {"params": [one for one in trained if one.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.settings.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._share_of_peak)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_peak(self, step: int) -> float:
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warmup = min(self.settings.warmup_epochs * total / max(self.settings.epochs, 1), total - 1)
        return learning_rate_share(step, total=total, warmup=warmup, final=self.settings.final_learning_rate)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.settings.channels_last else images

    def _not_finite(self, batch: Batch) -> DataError:
        ids = [self.id_of(int(row)) for row in batch.rows]
        return DataError(
            f"the loss is not finite in epoch {self.current_epoch}", value=f"step {self.global_step}",
            fix="Lower train.learning_rate or use train.precision=32-true; if it happens at the first step, look at "
            "these galaxies' images and votes.", ids=ids,
        )  # fmt: skip


def learning_rate_share(step: int, *, total: int, warmup: float, final: float) -> float:
    """Share of the peak learning rate at a step: linear rise over ``warmup`` steps, then a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
