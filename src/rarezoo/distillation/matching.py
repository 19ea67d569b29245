"""Trajectory matching: images on which a student learns in a few steps what an expert learnt in an epoch.

The loss is that of Cazenavette et al. (2022, CVPR), ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², where θ_N are the weights
after N steps on the images, from the weights θ*_t of an expert. Guan et al. (arXiv 2311.17967) apply it to galaxies.

Its gradient is computed by the adjoint method. The forward pass keeps the weights before every step. The backward pass
goes from the last step to the first, computes each step again and differentiates it alone. The result is that of the
unrolled graph, and the memory does not grow with the number of steps, apart from the weights.

Shape letters: n images, s side in px, c classes, p weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import AUGMENTATIONS, GALAXY, augment, generator
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.experts import Experts
from rarezoo.distillation.networks import FlatNetwork
from rarezoo.distillation.real_images import REAL, STARTS, start_images
from rarezoo.distillation.schedules import MTT, SCHEDULES, STM, Schedule, SelfAdaptive, Uniform, Widening
from rarezoo.errors import ConfigError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting

_SAVED = "matching.pt"


@dataclass(kw_only=True)
class MatchingSettings(Settings):
    """How images are matched to the trainings of experts.

    Examples
    --------
    >>> MatchingSettings(schedule="mtt", target_epochs=2).schedule
    'mtt'
    """

    prefix: ClassVar[str] = "matching"

    schedule: str = setting(STM, "how start epochs are chosen: stm, mtt or widening", choices=SCHEDULES)
    iterations: int = setting(1000, "most iterations", ge=1)
    steps: int = setting(20, "steps of the student in each iteration", ge=1)
    batch: int = setting(0, "images in a step of the student; 0: all", ge=0)
    image_rate: float = setting(10.0, "learning rate of the images", gt=0)
    momentum: float = setting(0.5, "momentum of images and of the student's rate", ge=0, lt=1)
    student_rate: float = setting(0.01, "learning rate of the student at the start", gt=0)
    rate_rate: float = setting(0.01, "learning rate of the logarithm of the student's rate; 0: it stays", ge=0)
    start: str = setting(
        REAL, "what the images are at the start: real galaxies, medoids, class means, or noise", choices=STARTS
    )
    augment: str = setting(GALAXY, "random changes of the images in each step of the student", choices=AUGMENTATIONS)
    target_epochs: int = setting(1, "epochs of the expert that a student must catch up; stm: 1", ge=1)
    last_start: int = setting(10, "last epoch that a student may start from", ge=0)
    first_cap: int = setting(
        1, "schedule=stm: number of epochs in the pool of starts at the beginning; many images of each class teach the "
        "easy things from the first iteration on, and need later epochs", ge=1,
    )  # fmt: skip
    widen: int = setting(500, "schedule=widening: iterations until the last start epoch is reached", ge=1)
    falling: float = setting(
        5.0, "schedule=stm: the cap rises if the correlation of the probes is below −this × σ", gt=0
    )
    rising: float = setting(3.0, "schedule=stm: the cap rises if the correlation is above this × σ", gt=0)
    patience: int = setting(1000, "schedule=stm: iterations at one cap after which the images are finished", ge=10)
    check_every: int = setting(100, "iterations after which the images are tried on the real training images", ge=1)
    stop_after: int = setting(0, "tries without a better result after which it stops; 0: never", ge=0)
    check_steps: int = setting(200, "steps of the training of a try", ge=1)
    seed: int = setting(0, "seed", ge=0)

    def chosen_schedule(self, epochs: int) -> Schedule:
        """Return the schedule for experts of so many epochs.

        Raises
        ------
        ConfigError
            The experts are too short.
        """
        last = min(self.last_start, epochs - self.target_epochs)
        if last < 0:
            raise ConfigError(
                "the experts are shorter than what a student must catch up", value=f"{epochs} epochs",
                fix="Lower matching.target_epochs, or train longer experts.",
            )  # fmt: skip
        if self.schedule == MTT:
            return Uniform(last)
        if self.schedule == STM:
            return SelfAdaptive(
                last, falling=self.falling, rising=self.rising, patience=self.patience,
                cap=min(self.first_cap, max(last, 1)),
            )  # fmt: skip
        return Widening(last, self.widen)


class Match(NamedTuple):
    """The loss of a student and its gradients.

    Attributes
    ----------
    loss
        Normalised squared distance of the student from the expert.
    images
        (n, 3, s, s) gradient with respect to the images.
    log_rate
        Gradient with respect to the logarithm of the student's rate.
    """

    loss: float
    images: Float[Tensor, "n 3 s s"]
    log_rate: float


Batch = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def student_batches(labels: Tensor, *, batch: int, kind: str, seeds: tuple[int, ...]) -> Batch:
    """Return the function from all images and the number of a step to the images and labels of the step.

    Parameters
    ----------
    labels
        (n,) class numbers, or (n, c) probabilities.
    batch
        Images in a step; 0: all. Otherwise each pass through the images is shuffled.
    kind
        Random changes; see :func:`rarezoo.distillation.augmentation.augment`.
    seeds
        Numbers from which, with the number of the step, its draws follow: the same step can be computed again.
    """

    def batches(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if not batch or batch >= len(images):
            return augment(images, kind, generator(*seeds, step)), labels
        passes = -(-len(images) // batch)
        order = torch.randperm(len(images), generator=generator(*seeds, step // passes, 7))
        rows = order[(step % passes) * batch : (step % passes + 1) * batch]
        return augment(images[rows], kind, generator(*seeds, step)), labels[rows]

    return batches


def student_loss(
    network: FlatNetwork,
    images: Float[Tensor, "n 3 s s"],
    batches: Batch,
    *,
    start: Float[Tensor, " p"],
    target: Float[Tensor, " p"],
    log_rate: float,
    steps: int,
    gradients: bool = True,
) -> Match:
    """Train a student on images and compare its weights with those of an expert.

    Parameters
    ----------
    network
        The network of student and expert.
    images
        The images.
    batches
        From images and the number of a step to those of the step, with labels; see :func:`student_batches`.
    start, target
        Weights of the expert at the start of the student, and at its end.
    log_rate
        Natural logarithm of the student's learning rate.
    steps
        Number of steps.
    gradients
        Whether the gradients are computed; otherwise they are empty and 0.

    Raises
    ------
    FloatingPointError
        A step or the loss is not finite; the message has the number of the step.
    """
    rate = float(np.exp(log_rate))
    weights, kept = start, []
    for step in range(steps):
        kept.append(weights)
        point = weights.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(network.loss(point, *batches(images.detach(), step)), point)
        weights = weights - rate * slope
        if not torch.isfinite(weights).all():
            raise FloatingPointError(f"step {step + 1} of the student")
    scale = float((start - target).square().sum())
    loss = float((weights - target).square().sum()) / scale
    if not np.isfinite(loss):
        raise FloatingPointError("the distance from the expert")
    if not gradients:
        return Match(loss, torch.empty(0), 0.0)
    adjoint = 2 * (weights - target) / scale
    of_images, of_rate = torch.zeros_like(images), 0.0
    for step in reversed(range(steps)):
        point = kept.pop().detach().requires_grad_(True)
        seen = images.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(network.loss(point, *batches(seen, step)), point, create_graph=True)
        along = (slope * adjoint).sum()
        to_images, to_weights = torch.autograd.grad(along, (seen, point))
        of_images -= rate * to_images
        of_rate -= float(along.detach())
        adjoint = adjoint - rate * to_weights
    return Match(loss, of_images, of_rate * rate)


def trained_on(
    network: FlatNetwork, images: Tensor, labels: Tensor, *, rate: float, steps: int, kind: str, seed: int,
    momentum: float = 0.9, decay: float = 5e-4,
) -> Float[Tensor, " p"]:  # fmt: skip
    """Return the weights of a fresh network that was trained on images, all in one batch.

    The learning rate falls to a tenth after half of the steps (the protocol of Guan et al., arXiv 2311.17967).
    """

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return augment(images, kind, generator(seed, step, 11)), labels

    fresh = network.start(seed=seed).to(images.device)
    return network.descend(
        fresh, batch, steps=steps, rate=lambda step: rate * (1.0 if step < steps / 2 else 0.1), momentum=momentum,
        decay=decay,
    )  # fmt: skip


@dataclass
class _State:
    """Everything that an iteration changes."""

    iteration: int
    images: Tensor
    moving: Tensor
    log_rate: float
    rate_moving: float
    best: Tensor
    best_rate: float
    best_accuracy: float
    worse: int
    curve: list[dict[str, float]]
    schedule: dict[str, Any]


class Distilled(NamedTuple):
    """Distilled images.

    Attributes
    ----------
    images
        (n, 3, s, s) with the scaling of the set.
    labels
        (n,) class numbers.
    rate
        Learning rate that the student learnt; NaN if the method has none.
    curve
        What was measured on the way, a dictionary for each row.
    """

    images: Float[Tensor, "n 3 s s"]
    labels: Int64[Tensor, " n"]
    rate: float
    curve: list[dict[str, float]]


def match_trajectories(
    galaxies: GalaxySet, experts: Experts, settings: MatchingSettings, *, per_class: int, folder: Path,
    save_every: int = 25, device: str = "cpu",
) -> Distilled:  # fmt: skip
    """Distil a set by trajectory matching; the same call continues after it was stopped, with the same result.

    The images that train the best network for the real training images are returned; the test images are not read.

    Parameters
    ----------
    galaxies
        The set.
    experts
        Trainings on it.
    settings
        Settings.
    per_class
        Images of each class.
    folder
        Folder that keeps the state.
    save_every
        Iterations between two saved states.
    device
        Where it is computed.

    Raises
    ------
    ConfigError
        A loss is not a number; the message says in which iteration and step, and what to lower.
    """
    network = experts.network(galaxies)
    schedule = settings.chosen_schedule(experts.epochs)
    first, labels = start_images(galaxies, per_class=per_class, start=settings.start, seed=settings.seed)
    first, labels = first.to(device), labels.to(device)
    key = digest({"settings": vars(settings), "experts": experts.about, "count": experts.count, "per_class": per_class})
    kept = restored_state(folder / _SAVED, key, device)
    state = _State(**kept) if kept else _State(
        0, first, torch.zeros_like(first), float(np.log(settings.student_rate)), 0.0, first.clone(),
        settings.student_rate, -1.0, 0, [], {},
    )  # fmt: skip
    if state.schedule:
        schedule.restore(state.schedule)
    if not state.curve:
        # What matching starts from may teach more than what it makes of it.
        _check(state, network, galaxies, settings, labels)
    progress = tqdm(
        range(state.iteration, settings.iterations), desc=f"matching ({settings.schedule}, {per_class} per class)",
        initial=state.iteration, total=settings.iterations, unit="iteration",
    )  # fmt: skip
    for iteration in progress:
        if schedule.finished or (settings.stop_after and state.worse >= settings.stop_after):
            break
        loss, probe = _iterate(state, network, experts, schedule, settings, labels)
        state.iteration, state.schedule = iteration + 1, schedule.state()
        if (iteration + 1) % settings.check_every == 0 or iteration + 1 == settings.iterations:
            _check(state, network, galaxies, settings, labels, loss=loss, probe=probe, cap=getattr(schedule, "cap", -1))
            progress.set_postfix(loss=f"{loss:.3f}", best=f"{state.best_accuracy:.3f}")
        if (iteration + 1) % save_every == 0 or iteration + 1 == settings.iterations:
            save_state(folder / _SAVED, key, vars(state))
    return Distilled(state.best.cpu(), labels.cpu(), state.best_rate, state.curve)


def _iterate(
    state: _State, network: FlatNetwork, experts: Experts, schedule: Schedule, settings: MatchingSettings,
    labels: Tensor,
) -> tuple[float, float]:  # fmt: skip
    """Take one step of the images and of the student's rate; return the loss and that of the probe."""
    iteration = state.iteration
    random = generator(settings.seed, iteration, 5)
    number = int(torch.randint(experts.count, (), generator=random))
    batches = student_batches(labels, batch=settings.batch, kind=settings.augment, seeds=(settings.seed, iteration))

    def student(epoch: int, *, gradients: bool) -> Match:
        start, target = (
            experts.weights(number, at).to(labels.device) for at in (epoch, epoch + settings.target_epochs)
        )
        return student_loss(
            network, state.images, batches, start=start, target=target, log_rate=state.log_rate, steps=settings.steps,
            gradients=gradients,
        )  # fmt: skip

    try:
        found = student(schedule.start(iteration, random), gradients=True)
        probed = schedule.probed
        probe = float("nan") if probed is None else student(probed, gradients=False).loss
    except FloatingPointError as problem:
        raise ConfigError(
            f"the loss of matching is not a number ({problem})", value=f"iteration {iteration + 1}",
            fix=f"Lower matching.student_rate (now {np.exp(state.log_rate):.3g}), matching.image_rate "
            f"(now {settings.image_rate:g}) or matching.rate_rate (now {settings.rate_rate:g}), in this order.",
        ) from problem  # fmt: skip
    if probed is not None:
        schedule.observe(probe)
    state.moving = settings.momentum * state.moving + found.images
    state.images = state.images - settings.image_rate * schedule.rate * state.moving
    state.rate_moving = settings.momentum * state.rate_moving + found.log_rate
    state.log_rate -= settings.rate_rate * state.rate_moving
    return found.loss, probe


def _check(
    state: _State, network: FlatNetwork, galaxies: GalaxySet, settings: MatchingSettings, labels: Tensor, *,
    loss: float = float("nan"), probe: float = float("nan"), cap: int = -1,
) -> None:  # fmt: skip
    """Train a fresh network on the images, try it on the real training images, and keep the best images."""
    rate = float(np.exp(state.log_rate))
    weights = trained_on(
        network, state.images, labels, rate=rate, steps=settings.check_steps, kind=settings.augment,
        seed=settings.seed + 1000, momentum=0.9,
    )  # fmt: skip
    real, known = galaxies.scaled(TRAIN).to(labels.device), galaxies.labels_of(TRAIN).to(labels.device)
    right = network.predict(weights, real) == known
    accuracy = float(right.float().mean())
    better = accuracy > state.best_accuracy
    if better:
        state.best, state.best_rate, state.best_accuracy = state.images.clone(), rate, accuracy
    state.worse = 0 if better else state.worse + 1
    state.curve.append(
        {"iteration": state.iteration, "loss": loss, "probe": probe, "cap": cap, "student_rate": rate,
         "train_accuracy": accuracy}
    )  # fmt: skip


def save_state(path: Path, key: str, content: dict[str, Any]) -> None:
    """Write the state of a matching with the key of what is matched."""
    with tables.atomic(path) as temporary:
        torch.save({"key": key, **content}, temporary)


def restored_state(path: Path, key: str, device: str = "cpu") -> dict[str, Any] | None:
    """Return the saved state of the same matching; None if there is none."""
    if not path.is_file():
        return None
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    return content if content.pop("key") == key else None
