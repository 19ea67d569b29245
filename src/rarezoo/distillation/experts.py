"""Experts: trainings on real galaxies, of which the weights after each epoch are kept.

    experts.json        the set, the network and the settings
    expert-0000.npy     (epochs + 1, p) float16: the weights of a training, the first row before any step

Shape letters: p weights, b images in a batch.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import AUGMENTATIONS, GALAXY, augment, generator
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.networks import CONVNET, FlatNetwork, flat_network
from rarezoo.errors import ConfigError, OutputError, StoreError, StoreNotFound
from rarezoo.settings import Settings, setting

MANIFEST = "experts.json"
# A disk that is filled to its last byte stops other programs.
_SPARE = 50_000_000
# With fewer steps in an epoch, an expert hardly learns in it, and a student has nothing to catch up.
_FEW_STEPS = 8
log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ExpertSettings(Settings):
    """How many experts are trained, and how.

    Examples
    --------
    >>> ExpertSettings(count=2, width=8).network(side=16, classes=5).size
    1605
    """

    prefix: ClassVar[str] = "experts"

    folder: str = setting("", "folder of experts that are there already; empty: they are trained in out=")
    count: int = setting(10, "number of experts", ge=1)
    epochs: int = setting(20, "epochs of each training", ge=1)
    model: str = setting(CONVNET, "network: convnet, resnet18, or a small architecture of the zoo")
    width: int = setting(32, "convnet: channels of each block", ge=1)
    depth: int = setting(3, "convnet: number of blocks, each of which halves the side", ge=1)
    rate: float = setting(0.01, "learning rate", gt=0)
    momentum: float = setting(0.0, "momentum", ge=0, lt=1)
    batch: int = setting(64, "images in a batch", ge=1)
    augment: str = setting(
        GALAXY, "random changes of the images: turns through 360° and flips, those of the paper, or none",
        choices=AUGMENTATIONS,
    )  # fmt: skip
    seed: int = setting(0, "seed of the weights and batches", ge=0)

    def network(self, *, side: int, classes: int) -> FlatNetwork:
        """Return the network that is trained."""
        return flat_network(self.model, side=side, classes=classes, width=self.width, depth=self.depth)


@dataclass(frozen=True)
class Experts:
    """Trainings on disk.

    Attributes
    ----------
    folder
        Where they are.
    about
        Content of ``experts.json``.
    count
        Number of experts that are used.
    """

    folder: Path
    about: dict[str, Any]
    count: int

    @classmethod
    def open(cls, folder: Path | str, galaxies: GalaxySet, *, count: int) -> "Experts":
        """Open the first experts of a set.

        Raises
        ------
        StoreNotFound
            There are no experts, or some are missing.
        StoreError
            They were trained on another set.
        """
        fix = "Train them first: leave out experts.folder, or name the folder experts/ of a finished run."
        if not (Path(folder) / MANIFEST).is_file():
            raise StoreNotFound("no experts", value=folder, fix=fix)
        about = tables.read_json(Path(folder) / MANIFEST, fix="Train the experts again.")
        if about.get("set") != galaxies.sha256:
            raise StoreError(
                "the experts were trained on another set of galaxies", value=folder,
                fix="Give the same data and set.… settings as for the experts, or train new ones in another folder.",
            )  # fmt: skip
        experts = cls(Path(folder), about, count)
        absent = [number for number in range(count) if not experts.path(number).is_file()]
        if absent:
            raise StoreNotFound(f"{len(absent)} of {count} experts are missing", value=experts.path(absent[0]), fix=fix)
        return experts

    @property
    def epochs(self) -> int:
        """Epochs of each training."""
        return int(self.about["settings"]["epochs"])

    def network(self, galaxies: GalaxySet) -> FlatNetwork:
        """Return their network."""
        names = ("model", "width", "depth")
        return flat_network(
            **{{"model": "name"}.get(name, name): self.about["settings"][name] for name in names},
            side=galaxies.settings.side, classes=len(galaxies.names),
        )  # fmt: skip

    def path(self, number: int) -> Path:
        """Return the file of one expert."""
        return self.folder / f"expert-{number:04d}.npy"

    def weights(self, number: int, epoch: int) -> Float[Tensor, " p"]:
        """Return the weights of an expert after an epoch; 0 is before the first step."""
        states = np.load(self.path(number), mmap_mode="r", allow_pickle=False)
        return torch.from_numpy(states[epoch].astype(np.float32))


def bytes_needed(settings: ExpertSettings, weights: int) -> int:
    """Return the size of the experts on disk, bytes.

    >>> bytes_needed(ExpertSettings(count=100, epochs=50), 594_000)  # the setting of the paper at 128 px
    6058800000
    """
    return settings.count * (settings.epochs + 1) * weights * 2


def train_experts(galaxies: GalaxySet, settings: ExpertSettings, folder: Path, *, device: str = "cpu") -> Experts:
    """Train the experts that are not there yet; the same command continues after it was stopped.

    Raises
    ------
    OutputError
        The disk has too little room, or the folder holds experts of other settings.
    ConfigError
        The weights of a training are not finite.
    """
    network = settings.network(side=galaxies.settings.side, classes=len(galaxies.names))
    # More experts can be added later, so their number is no part of what they are.
    plain = {name: value for name, value in asdict(settings).items() if name not in ("folder", "count")}
    about = {"set": galaxies.sha256, "settings": plain, "weights": network.size, "classes": list(galaxies.names)}
    manifest = folder / MANIFEST
    if manifest.is_file() and tables.read_json(manifest, fix="Choose another folder.") != about:
        raise OutputError(
            "the folder holds experts of other settings or of another set", value=folder,
            fix="Choose another out=DIR, or delete that folder if you no longer need it.",
        )  # fmt: skip
    experts = Experts(folder, about, settings.count)
    there = len(list(folder.glob("expert-*.npy")))
    refuse_full_disk(folder, max(0, settings.count - there) * bytes_needed(settings, network.size) // settings.count)
    missing = [number for number in range(settings.count) if not experts.path(number).is_file()]
    steps = -(-len(galaxies.labels_of(TRAIN)) // settings.batch)
    if missing and steps < _FEW_STEPS:
        log.warning(
            "An epoch of an expert has only %d steps, in which it learns little that images could show. "
            "Lower experts.batch (now %d).", steps, settings.batch,
        )  # fmt: skip
    tables.write_json(about, manifest)
    for number in tqdm(missing, desc="training experts", unit="expert"):
        states = np.stack([state.cpu().numpy() for state in _training(galaxies, settings, network, number, device)])
        if not np.isfinite(states).all():
            raise ConfigError(
                "the weights of an expert are not finite", value=f"expert {number}, experts.rate={settings.rate}",
                fix=f"Lower experts.rate, for example to {settings.rate / 10:g}.",
            )  # fmt: skip
        with tables.atomic(experts.path(number)) as temporary, temporary.open("wb") as file:
            np.save(file, states, allow_pickle=False)
    return experts


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise OutputError if a folder has no room for so many bytes."""
    place = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(place).free
    if needed + _SPARE > free:
        raise OutputError(
            f"the disk is too small: the experts need {needed / 1e9:,.1f} GB", value=f"{free / 1e9:,.1f} GB free",
            fix="Lower experts.count, experts.epochs, experts.width or set.side, or choose out= on another disk.",
        )  # fmt: skip


def _training(
    galaxies: GalaxySet, settings: ExpertSettings, network: FlatNetwork, number: int, device: str
) -> Iterator[Float[Tensor, " p"]]:
    """Yield the weights of one training in half precision, before it and after each epoch."""
    images, labels = galaxies.scaled(TRAIN).to(device), galaxies.labels_of(TRAIN).to(device)
    weights = network.start(seed=settings.seed * 1_000_003 + number).to(device)
    yield weights.half()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator(settings.seed, number, epoch))
        parts = order.split(settings.batch)

        def batch(step: int, parts: Any = parts, epoch: int = epoch) -> tuple[Tensor, Tensor]:
            random = generator(settings.seed, number, epoch, step)
            return augment(images[parts[step]], settings.augment, random), labels[parts[step]]

        weights = network.descend(
            weights, batch, steps=len(parts), rate=lambda step: settings.rate, momentum=settings.momentum
        )
        yield weights.half()
