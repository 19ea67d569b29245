"""Random networks: images whose mean features in them are those of real galaxies.

A network that was never trained knows nothing of galaxies, but its features say how bright, how large, how coloured and
how structured an image is. In many of them at once an image can hardly agree with a class unless it looks like one.

``method=dm`` matches nothing else (distribution matching; Zhao & Bilen 2023, WACV). ``method=features`` keeps its
images near to galaxies with them (:func:`random_network_loss`).

Shape letters: n images, s side in px, c classes or groups, f features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo.cache import kept_array
from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import GALAXY, augment, generator
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.matching import Distilled
from rarezoo.distillation.networks import convnet
from rarezoo.distillation.optimise import lowered
from rarezoo.distillation.real_images import REAL, start_images
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting

_SAVED = "distributions.pt"
# Random views of each image in a step of random_network_loss.
_VIEWS = 4


@dataclass(kw_only=True)
class DmSettings(Settings):
    """How images are matched in random networks.

    Examples
    --------
    >>> DmSettings(networks=5).networks
    5
    """

    prefix: ClassVar[str] = "dm"

    networks: int = setting(30, "random networks; the class means in each are computed once", ge=1)
    width: int = setting(32, "channels of each block of a network", ge=1)
    depth: int = setting(3, "number of blocks", ge=1)
    steps: int = setting(1000, "steps", ge=1)
    rate: float = setting(0.02, "learning rate (Adam)", gt=0)
    seed: int = setting(0, "seed", ge=0)


def match_distributions(
    galaxies: GalaxySet, settings: DmSettings, *, per_class: int, folder: Path | None = None
) -> Distilled:
    """Distil a set by distribution matching with a fixed pool of random networks.

    Parameters
    ----------
    galaxies
        The set.
    settings
        Settings.
    per_class
        Images of each class.
    folder
        Folder that keeps the class means in the networks and the state, so that the same call continues after it was
        stopped, with the same result.
    """
    labels, count = galaxies.labels_of(TRAIN), len(galaxies.names)
    images, own = start_images(galaxies, per_class=per_class, start=REAL, seed=settings.seed)
    networks = _random_networks(galaxies, settings)
    key = digest({"settings": vars(settings), "per_class": per_class, "galaxies": galaxies.sha256})
    groups = [torch.nonzero(labels == number).flatten() for number in range(count)]
    means = _means(
        networks, galaxies, groups, settings, kept=None if folder is None else folder / f"means-{key[:12]}.npy"
    )
    images.requires_grad_(True)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, step, 19)
        number = int(torch.randint(len(networks), (), generator=random))
        features = networks[number](augment(images, GALAXY, random)).reshape(count, per_class, -1).mean(dim=1)
        distance: Tensor = (features - means[number]).square().sum() / count
        return distance

    curve = lowered(
        [images], loss, steps=settings.steps, rate=settings.rate, every=50,
        title=f"distribution matching ({per_class} per class)", saved=None if folder is None else folder / _SAVED,
        key=key,
    )  # fmt: skip
    return Distilled(images.detach(), own, float("nan"), curve)


def random_network_loss(
    galaxies: GalaxySet, groups: list[Tensor], settings: DmSettings, *, kept: Path | None = None
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return the function that says how far images are from groups of galaxies in a random network.

    Parameters
    ----------
    galaxies
        The set.
    groups
        For each image, the galaxies that it stands for: their places among the training galaxies.
    settings
        Settings; those of the steps are not used.
    kept
        File that keeps the means of the groups in all networks.

    Returns
    -------
    callable
        From images (n, 3, s, s) with the scaling of the set, one for each group, and a generator, which chooses the
        network and the views, to the squared distance of their features from the means of the groups, in units of the
        scatter of these means: an image in the middle of all groups has a loss of 1, apart from its noise.
    """
    networks = _random_networks(galaxies, settings)
    means = _means(networks, galaxies, groups, settings, kept=kept)
    scales = (means - means.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2)).clamp(min=1e-12)

    def loss(images: Tensor, random: torch.Generator) -> Tensor:
        number = int(torch.randint(len(networks), (), generator=random))
        views = augment(images.repeat(_VIEWS, 1, 1, 1), GALAXY, random)
        features = networks[number](views).reshape(_VIEWS, len(images), -1).mean(dim=0)
        distance: Tensor = (features - means[number]).square().sum() / scales[number]
        return distance

    return loss


def _random_networks(galaxies: GalaxySet, settings: DmSettings) -> list[torch.nn.Module]:
    """Return networks without their last layer; each follows from its number."""
    networks: list[torch.nn.Module] = []
    for number in range(settings.networks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed * 1_000_003 + number)
            whole = convnet(
                side=galaxies.settings.side, classes=len(galaxies.names), width=settings.width, depth=settings.depth
            )
        networks.append(whole[:-1].requires_grad_(False))
    return networks


def _means(
    networks: list[torch.nn.Module], galaxies: GalaxySet, groups: list[Tensor], settings: DmSettings, *,
    kept: Path | None,
) -> Float[Tensor, "networks c f"]:  # fmt: skip
    """Return the mean features of groups of training galaxies in each network, each galaxy turned at random."""

    def computed() -> Float[np.ndarray, "networks c f"]:
        real, means = galaxies.scaled(TRAIN), []
        for number, network in enumerate(tqdm(networks, desc="class means in random networks", unit="network")):
            turned = augment(real, GALAXY, generator(settings.seed, number, 17))
            features = torch.cat([network(part) for part in turned.split(256)])
            means.append(torch.stack([features[rows].mean(dim=0) for rows in groups]))
        return torch.stack(means).numpy()

    return torch.from_numpy(kept_array(kept, computed))
