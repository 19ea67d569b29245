"""The training step: one network that learns by an objective, as a Lightning module."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rarezoo.data.loaders import Batch
from rarezoo.data.trees import QuestionTree
from rarezoo.embeddings.embed import TURNS
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import Settings, setting
from rarezoo.training.epoch_losses import EpochLosses
from rarezoo.training.objective import LOSS, Objective
from rarezoo.zoo.encoder import Encoder
from rarezoo.zoo.network import BottleneckNetwork
from rarezoo.zoo.views import OrientationOfFeatures, TrainingView, TurnedView

VALIDATION_LOSS = f"validation/{LOSS}"
ALL_VISIBLE = -1
_EPOCH_LOSSES = "epoch_losses"
VIEWS = ("zoobot", "turns")


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
    galaxies: int = setting(
        0,
        "galaxies of the training split that are used, those with most votes first, and a fifth of that of the "
        "validation split; 0 = all",
        unit="galaxies", ge=0,
    )  # fmt: skip
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
    freeze_trunk: bool = setting(False, "train only bottleneck and head")
    freeze_stages: int = setting(
        0,
        "number of the trunk's first groups of layers that stay as they are, the stem being the first; -2 = all but "
        "the last two",
    )
    mixup: float = setting(
        0.0,
        "each view is mixed with that of another galaxy, and so are their targets: both parameters of the Beta "
        "distribution of the shares, e.g. 0.2; 0 = no mixing (Zhang et al. 2018)",
        ge=0,
    )
    layer_decay: float = setting(
        1.0,
        "factor on the learning rate from the head to the bottleneck, from there to the trunk's last stage, and from "
        "each stage to the one before it; 0 = only the head learns",
        ge=0, le=1,
    )  # fmt: skip
    view: str = setting(
        "zoobot",
        "random view of a galaxy in a step: zoobot also shifts, shears, zooms and erases; turns only turns by quarters "
        "and mirrors, which erases nothing",
        choices=VIEWS,
    )
    turns: int = setting(
        0,
        "orientations of each galaxy whose features of the frozen trunk are computed once and trained on; 0 = images "
        "are read in every epoch",
        unit="views", ge=0,
    )  # fmt: skip
    cache: str = setting("", "folder that keeps these features for other trainings; empty = deleted with the training")
    bottleneck_start: str = setting(
        "random",
        "initial weights of the bottleneck: random, or the directions of the features that tell galaxies apart and are "
        "the same in all orientations, which needs train.turns",
        choices=("random", "invariant"),
    )
    ridge: float = setting(
        0.3, "for bottleneck_start=invariant: 0 counts only the invariance, more also counts the variance", ge=0
    )
    head_start: str = setting(
        "random",
        "initial weights of the head's last layer: random, or fitted to the features of the training split before "
        "anything else learns",
        choices=("random", "fitted"),
    )
    head_strength: float = setting(
        0.05, "for head_start=fitted: how far the weights may grow, as C of a logistic regression", gt=0
    )
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
        """Refuse a training without any process, and settings of a frozen trunk without one."""
        if self.turns not in (0, *TURNS):
            raise ConfigError(
                "train.turns", value=self.turns, fix=f"Choose one of: {', '.join(map(str, (0, *TURNS)))}."
            )
        if self.turns and not (self.freeze_trunk and self.view == "turns"):
            raise ConfigError(
                "features are computed once only for a frozen trunk and for views that turn and mirror",
                value=f"train.turns={self.turns}",
                fix="Set train.freeze_trunk=true train.view=turns, or train.turns=0.",
            )  # fmt: skip
        if self.bottleneck_start != "random" and self.turns < 2:
            raise ConfigError(
                "invariant directions need several orientations", value=f"train.turns={self.turns}",
                fix="Set train.turns=8 train.freeze_trunk=true train.view=turns, or train.bottleneck_start=random.",
            )  # fmt: skip
        if self.devices == 0:
            raise ConfigError(
                "train.devices must not be 0", value=0, fix="Choose 1 or more, or -1 for all visible GPUs."
            )


class Learner(pl.LightningModule):
    """A network that learns by an objective: AdamW, a linear warm-up, then a cosine.

    Parameters
    ----------
    network
        The network, with its initial weights.
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
        self.view: Callable[[Tensor], Tensor] = TrainingView(
            encoder.input_size, zoom=encoder.zoom, jitter=objective.view_jitter
        )
        if settings.view == "turns":
            self.view = OrientationOfFeatures() if settings.turns else TurnedView(jitter=objective.view_jitter)
        self.extra_modules = objective.modules(width=network.width, processes=processes)
        # In a list, because the module tree would save the weights of the network a second time.
        self._compiled: list[Callable[[Tensor], Any]] = [torch.compile(network) if settings.compile else network]
        if settings.freeze_trunk:
            network.trunk.requires_grad_(False)
        self._frozen_stages = first_groups(network.trunk, settings.freeze_stages)
        for module in self._frozen_stages:
            module.requires_grad_(False)

    @property
    def result(self) -> BottleneckNetwork:
        """The network to keep: the moving average if there is one."""
        averaged: Any = self.average.module if self.average is not None else self.network
        return averaged

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of one batch."""
        if self.settings.freeze_trunk:
            self.network.trunk.eval()
        for module in self._frozen_stages:
            module.eval()
        views = torch.cat([self.view(batch.images) for _ in range(self.objective.views)])
        targets = batch.votes
        if self.settings.mixup:
            views, targets = mixed(views, targets, self.settings.mixup)
        prediction = self._compiled[0](self._memory_format(views))
        losses = self.objective.losses(
            prediction, targets, tree=self.tree, network=self.network, modules=self.extra_modules
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
        images = batch.images[:, 0] if self.settings.turns else batch.images
        prediction = self.result(self._memory_format(images))
        # Batches differ in size, and there may be several processes: the mean is over galaxies.
        together = self.trainer.world_size > 1
        for name, (value, galaxies) in self.objective.validation(prediction, batch.votes, tree=self.tree).items():
            self.log(f"validation/{name}", value, on_step=False, on_epoch=True, batch_size=galaxies, sync_dist=together)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its learning rate at every step."""
        parameters = [*self.network.parameters(), *self.extra_modules.parameters()]
        optimiser, schedule = optimiser_of(
            parameters, self.settings, steps=int(self.trainer.estimated_stepping_batches),
            shares=learning_rate_shares(self.network, self.settings.layer_decay),
        )  # fmt: skip
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _memory_format(self, images: Tensor) -> Tensor:
        spatial = self.settings.channels_last and images.ndim == 4
        return images.contiguous(memory_format=torch.channels_last) if spatial else images


def mixed(
    views: Float[Tensor, "b ..."], targets: Float[Tensor, "b a"], strength: float
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b a"]]:
    """Return views and targets, each mixed with those of another galaxy of the batch (mixup, arXiv:1710.09412).

    Parameters
    ----------
    views
        Views of b galaxies, in [0, 1], or features.
    targets
        Their targets.
    strength
        Both parameters of the Beta distribution from which one share for the whole batch is drawn.
    """
    share = float(torch.distributions.Beta(strength, strength).sample())
    other = torch.randperm(len(views)).to(views.device)
    return torch.lerp(views[other], views, share), torch.lerp(targets[other], targets, share)


def optimiser_of(
    parameters: Sequence[nn.Parameter],
    settings: TrainSettings,
    *,
    steps: int,
    shares: Mapping[nn.Parameter, float] | None = None,
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
    shares
        Share of the learning rate that a parameter has, where it is not 1.
    """
    shares = shares or {}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = []
    for share in sorted({shares.get(parameter, 1.0) for parameter in trained}, reverse=True):
        same = [parameter for parameter in trained if shares.get(parameter, 1.0) == share]
        groups += [
            {"params": [weight for weight in same if weight.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [weight for weight in same if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        for group in groups[-2:]:
            group["lr"] = share * settings.learning_rate
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
    steps = max(steps, 1)
    warmup = min(settings.warmup_epochs * steps / max(settings.epochs, 1), steps - 1)
    # One closed formula, because torch's chain of LinearLR and CosineAnnealingLR takes whole steps of warm-up only.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: learning_rate_share(step, total=steps, warmup=warmup, final=settings.final_learning_rate),
    )
    return optimiser, schedule


def learning_rate_shares(network: BottleneckNetwork, decay: float) -> dict[nn.Parameter, float]:
    """Return the share of the learning rate of all weights but the head's: ``decay`` to the power of their depth.

    The bottleneck has depth 1, the last group of layers of the trunk has depth 2, and each group before it one more.

    Parameters
    ----------
    network
        The network. Its trunk is a model of timm, which knows its groups of layers, or else counts as one group.
    decay
        Factor from each group to the one before it; 1 gives no shares.
    """
    if decay == 1:
        return {}
    group_of = _groups(network.trunk)
    last = max(group_of.values(), default=0)
    shares = {weight: decay for weight in network.bottleneck.parameters()}
    for name, weight in network.trunk.named_parameters():
        shares[weight] = decay ** (2 + last - group_of[name])
    return shares


def first_groups(trunk: nn.Module, groups: int) -> list[nn.Module]:
    """Return the modules of the first groups of layers of a trunk that hold weights themselves.

    Raises
    ------
    ConfigError
        The trunk has no more groups than that.

    Below 0, ``groups`` is the number of last groups that learn.
    """
    if not groups:
        return []
    group_of = _groups(trunk)
    if groups < 0:
        groups = max(max(group_of.values(), default=0) + 1 + groups, 0)
    if groups > max(group_of.values(), default=0):
        raise ConfigError(
            f"the trunk has {max(group_of.values(), default=0) + 1} groups of layers",
            value=f"train.freeze_stages={groups}",
            fix="Freeze fewer of them, or all with train.freeze_trunk=true.",
        )  # fmt: skip
    frozen = {name.rpartition(".")[0] for name, group in group_of.items() if group < groups}
    return [module for name, module in trunk.named_modules() if name in frozen]


def _groups(trunk: nn.Module) -> dict[str, int]:
    """Return the number of the group of layers of each weight, from the stem on, as timm groups them."""
    if not hasattr(trunk, "group_matcher"):
        return {name: 0 for name, _ in trunk.named_parameters()}
    matcher: Any = trunk.group_matcher
    return dict(group_parameters(trunk, matcher(coarse=True), reverse=True))


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
