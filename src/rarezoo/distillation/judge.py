"""How good distilled images are: fresh networks are trained on them and tried on galaxies that nothing has seen.

Every contestant, a distilled set as well as real galaxies, goes through the same protocol: the learning rate is chosen
on the validation galaxies, then several fresh networks are trained, and the test galaxies are looked at once.

Shape letters: n images, s side in px, c classes, t test galaxies, r trainings.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rarezoo.data.splits import TEST, VALIDATION
from rarezoo.distillation.augmentation import GALAXY, NONE
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.matching import trained_on
from rarezoo.distillation.networks import CONVNET, FlatNetwork, flat_network
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval


@dataclass(kw_only=True)
class JudgeSettings(Settings):
    """How contestants are judged.

    Examples
    --------
    >>> JudgeSettings(networks=2).rates
    [0.01, 0.001, 0.0001]
    """

    prefix: ClassVar[str] = "judge"

    networks: int = setting(5, "fresh networks that are trained on each contestant", ge=1)
    steps: int = setting(300, "steps of each training", ge=2)
    rates: list[float] = setting(
        [1e-2, 1e-3, 1e-4],
        "learning rates from which one is chosen for each contestant on the validation galaxies",
        gt=0,
    )
    model: str = setting(CONVNET, "network: convnet, resnet18, or an architecture of the zoo")
    width: int = setting(32, "convnet: channels of each block", ge=1)
    depth: int = setting(3, "convnet: number of blocks", ge=1)
    draws: int = setting(2000, "bootstrap draws of the intervals", ge=100)
    seed: int = setting(100, "seed of the fresh networks", ge=0)

    def network(self, galaxies: GalaxySet) -> FlatNetwork:
        """Return the network that is trained."""
        return flat_network(
            self.model, side=galaxies.settings.side, classes=len(galaxies.names), width=self.width, depth=self.depth
        )


@dataclass(frozen=True)
class Verdict:
    """What fresh networks made of a contestant.

    Attributes
    ----------
    right
        (r, t) whether each training gave the right class to each test galaxy.
    rate
        The learning rate that was chosen.
    validation
        Accuracy on the validation galaxies at each rate.
    """

    right: Bool[np.ndarray, "r t"]
    rate: float
    validation: dict[float, float]

    @property
    def accuracy(self) -> float:
        """Mean accuracy, 0–1."""
        return float(self.right.mean())


def judge(
    contestants: list[tuple[Tensor, Tensor]], galaxies: GalaxySet, settings: JudgeSettings, *, augmented: bool = True
) -> Verdict:
    """Judge one or several draws of a contestant.

    Parameters
    ----------
    contestants
        Images (n, 3, s, s) with the scaling of the set, and class numbers (n,) or probabilities (n, c). Several draws
        share the learning rate, which is chosen on the first, and the networks are divided among them, at least one
        for each.
    galaxies
        The set.
    settings
        Settings.
    augmented
        Whether images are turned and mirrored in training.
    """
    network = settings.network(galaxies)
    kind = GALAXY if augmented else NONE

    def trained(draw: int, rate: float, seed: int) -> Tensor:
        images, labels = contestants[draw]
        return trained_on(network, images, labels, rate=rate, steps=settings.steps, kind=kind, seed=seed)

    seen, known = galaxies.scaled(VALIDATION), galaxies.labels_of(VALIDATION)
    validation = {}
    for rate in settings.rates:
        predicted = network.predict(trained(0, rate, settings.seed - 1), seen)
        validation[float(rate)] = float((predicted == known).float().mean())
    best = max(validation, key=lambda rate: validation[rate])
    trainings = max(settings.networks, len(contestants))
    weights = [trained(number % len(contestants), best, settings.seed + number) for number in range(trainings)]
    hidden, truth = galaxies.scaled(TEST), galaxies.labels_of(TEST)
    right = np.stack([(network.predict(part, hidden) == truth).numpy() for part in weights])
    return Verdict(right, best, validation)


def accuracy_interval(right: Bool[np.ndarray, "r t"], *, draws: int, seed: int = 0) -> Interval:
    """Return the mean accuracy with its 95 % interval from a bootstrap over test galaxies and trainings."""
    return _bootstrap(right.astype(float), np.zeros((1, right.shape[1])), draws=draws, seed=seed)


def paired_difference(
    first: Bool[np.ndarray, "r t"], second: Bool[np.ndarray, "q t"], *, draws: int, seed: int = 0
) -> Interval:
    """Return the difference of two mean accuracies with its 95 % interval.

    The bootstrap draws test galaxies, the same for both, and trainings of each.

    Examples
    --------
    >>> right = np.array([[True, True, False, True]] * 3)
    >>> paired_difference(right, ~right, draws=200).value
    0.5
    """
    return _bootstrap(first.astype(float), second.astype(float), draws=draws, seed=seed)


def _bootstrap(first: Float[np.ndarray, "r t"], second: Float[np.ndarray, "q t"], *, draws: int, seed: int) -> Interval:
    random = np.random.default_rng(seed)
    values = np.empty(draws)
    for draw in range(draws):
        columns = random.integers(0, first.shape[1], first.shape[1])
        means = [
            part[random.integers(0, len(part), len(part))].mean(axis=0)[columns].mean() for part in (first, second)
        ]
        values[draw] = means[0] - means[1]
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def soft_labels(
    network: FlatNetwork, weights: list[Float[Tensor, " p"]], images: Float[Tensor, "n 3 s s"]
) -> Float[Tensor, "n c"]:
    """Return the mean probabilities that experts give to images, for a training with soft labels."""
    with torch.no_grad():
        return torch.stack([torch.softmax(network(part, images), dim=1) for part in weights]).mean(dim=0)


def spokes(images: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, " n"]:
    """Return the share of the azimuthal power of images in orders 4 and more: high for a star of spokes.

    Light is sampled on circles around the centre; the mean of each circle does not count.
    """
    from scipy.ndimage import map_coordinates

    side = images.shape[-1]
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radii = np.linspace(0.15, 0.45, 8) * side
    rows = (side - 1) / 2 + radii[:, None] * np.sin(angles)
    columns = (side - 1) / 2 + radii[:, None] * np.cos(angles)
    shares = []
    for image in images:
        circles = map_coordinates(image, [rows, columns], order=1)
        power = np.abs(np.fft.rfft(circles, axis=1)) ** 2
        shares.append(power[:, 4:].sum() / max(float(power[:, 1:].sum()), 1e-12))
    return np.array(shares)
