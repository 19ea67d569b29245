"""Distillation without experts: images whose features are those of a class.

``features``
    In a frozen encoder of the zoo. The image of a class is made so that its embedding is the mean of the class
    (``match=centre``), or so that a random linear classifier has the same gradient on the images as on real galaxies
    (``match=gradients``; Cazenavette et al. 2025, NeurIPS). The image starts as the mean image of its class, and
    changes by the sum of a pyramid of resolutions behind a sigmoid, so that coarse structure comes first. A prior keeps
    each pixel within the scatter of the real galaxies: without it, images leave the range of galaxies (a direction in
    an embedding can be followed without end), and no other network makes anything of them.
``dm``
    In random networks: the mean features of the images are those of the galaxies (Zhao & Bilen 2023, WACV).

Shape letters: n images, s side in px, c classes, d dimensions of the features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import GALAXY, augment, generator
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.matching import Distilled, restored_state, save_state
from rarezoo.distillation.networks import convnet
from rarezoo.distillation.real_images import REAL, start_images
from rarezoo.errors import ConfigError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting
from rarezoo.zoo.checkpoint import Checkpoint

CENTRE, GRADIENTS = "centre", "gradients"
_SAVED, _DM_SAVED = "features.pt", "distributions.pt"


@dataclass(kw_only=True)
class FeatureSettings(Settings):
    """How images are matched in the features of a frozen encoder.

    Examples
    --------
    >>> FeatureSettings(steps=100).levels(64)
    [1, 2, 4, 8, 16, 32, 64]
    """

    prefix: ClassVar[str] = "features"

    checkpoint: str = setting("", "checkpoint that is the frozen encoder; for a prototype: empty = that of the store")
    match: str = setting(
        CENTRE, "what is matched: class means, or gradients of linear classifiers", choices=(CENTRE, GRADIENTS)
    )
    steps: int = setting(300, "steps", ge=1)
    views: int = setting(3, "random views of each image in a step", ge=1)
    noise: float = setting(0.03, "noise that is added to each view, as a share of the range of pixels", ge=0)
    prior: float = setting(
        0.1, "weight of the squared distance of the pixels from the class mean, in units of the scatter of the class",
        ge=0,
    )  # fmt: skip
    rate: float = setting(0.02, "learning rate (Adam)", gt=0)
    side: int = setting(0, "side of the images; 0: the input of the encoder", unit="px", ge=0)
    seed: int = setting(0, "seed", ge=0)

    def levels(self, side: int) -> list[int]:
        """Return the sides of the pyramid, px."""
        return [size for size in (2**power for power in range(12)) if size < side] + [side]


class FrozenEncoder:
    """The embedding of a checkpoint as a function of pixels that can be differentiated.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name, self.side, self.zoom = checkpoint.name, checkpoint.encoder.input_size, checkpoint.encoder.zoom
        self.sha256, self._network = checkpoint.sha256, checkpoint.network.eval()
        for weight in self._network.parameters():
            weight.requires_grad_(False)

    @classmethod
    def open(cls, name: str) -> "FrozenEncoder":
        """Open a checkpoint by its name or folder.

        Raises
        ------
        ConfigError
            No name is given.
        CheckpointError
            See :meth:`rarezoo.zoo.checkpoint.Checkpoint.open`.
        """
        if not name:
            raise ConfigError(
                "no encoder", value="features.checkpoint=", fix="Name a checkpoint; rarezoo zoo list shows them all."
            )
        return cls(Checkpoint.open(name))

    def __call__(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Return the embeddings of images in [0, 1] of the side of the encoder."""
        embedding: Tensor = self._network(pixels).embedding
        return embedding

    def embedded(self, pixels: UInt8[Tensor, "n 3 s s"], *, batch: int = 64) -> Float[Tensor, "n d"]:
        """Return the embeddings of many images without gradients."""
        with torch.no_grad():
            parts = tqdm(pixels.split(batch), desc="embedding", unit="batch", leave=False)
            return torch.cat([self(part.float() / 255) for part in parts])


class Pyramid:
    """Images as sums of levels of growing resolution behind a sigmoid.

    Parameters
    ----------
    start
        (n, 3, s, s) images in [0, 1] at which they start.
    levels
        Sides of the levels, px.
    """

    def __init__(self, start: Float[Tensor, "n 3 s s"], levels: list[int]) -> None:
        self.side = start.shape[-1]
        self.base = torch.logit(start.clamp(0.004, 0.996))
        self.parts = [torch.zeros(len(start), 3, size, size, requires_grad=True) for size in levels]

    def images(self) -> Float[Tensor, "n 3 s s"]:
        """Return the images in [0, 1]."""
        total = self.base
        for part in self.parts:
            size = (self.side, self.side)
            total = total + (
                part if part.shape[-1] == self.side else functional.interpolate(part, size, mode="bilinear")
            )
        return torch.sigmoid(total)


def match_features(
    encoder: FrozenEncoder,
    centres: Float[Tensor, "n d"],
    middle: Float[Tensor, " d"],
    spread: Float[Tensor, " d"],
    start: Float[Tensor, "n 3 s s"],
    scatter: Float[Tensor, "n 3 s s"],
    settings: FeatureSettings,
    *,
    samples: tuple[Float[Tensor, "m d"], Int64[Tensor, " m"], Int64[Tensor, " n"]] | None = None,
    saved: Path | None = None,
) -> tuple[Float[Tensor, "n 3 s s"], list[dict[str, float]]]:
    """Make images whose embeddings lie in given places.

    Parameters
    ----------
    encoder
        The frozen encoder.
    centres
        Where each image should lie.
    middle, spread
        Mean and standard deviation of the embeddings of all galaxies; places are measured from the mean, in units of
        the standard deviations.
    start, scatter
        Images at which they start, such as class means, and the scatter of the real pixels around them, in [0, 1].
    settings
        Settings.
    samples
        For ``match=gradients``: embeddings of real galaxies, their classes, and the class of each image.
    saved
        File that keeps the state, so that the same call continues.

    Returns
    -------
    tuple
        Images (n, 3, s, s) in [0, 1], and the losses on the way.
    """
    pyramid = Pyramid(start, settings.levels(start.shape[-1]))
    # A dimension that is the same for all galaxies must not decide.
    spread = spread.clamp(min=1e-3 * float(spread.max()))
    wanted = (centres - middle) / spread
    norm = wanted.square().sum(dim=1).clamp(min=1e-6).repeat(settings.views)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, step, 13)
        images = pyramid.images()
        views = augment(images.repeat(settings.views, 1, 1, 1), GALAXY, random)
        views = views + settings.noise * torch.randn(views.shape, generator=random)
        features = (encoder(views) - middle) / spread
        if settings.match == CENTRE or samples is None:
            distance = ((features - wanted.repeat(settings.views, 1)).square().sum(dim=1) / norm).mean()
        else:
            distance = _gradient_distance(features, samples, middle, spread, settings, random)
        return distance + settings.prior * ((images - start) / scatter).square().mean()

    key = digest({"settings": vars(settings), "encoder": encoder.sha256, "centres": centres.numpy().round(4).tolist()})
    curve = _lowered(
        pyramid.parts, loss, steps=settings.steps, rate=settings.rate, every=10, title="matching features", saved=saved,
        key=key,
    )  # fmt: skip
    return pyramid.images().detach(), curve


def _lowered(
    tensors: list[Tensor], loss: Callable[[int], Tensor], *, steps: int, rate: float, every: int, title: str,
    saved: Path | None, key: str,
) -> list[dict[str, float]]:  # fmt: skip
    """Lower a loss of tensors by Adam and return the losses on the way; with a file, the same call continues."""
    adam = torch.optim.Adam(tensors, lr=rate)
    first = 0
    curve: list[dict[str, float]] = []
    kept = None if saved is None else restored_state(saved, key)
    if kept:
        first, curve = kept["step"], kept["curve"]
        adam.load_state_dict(kept["adam"])
        with torch.no_grad():
            for tensor, value in zip(tensors, kept["tensors"], strict=True):
                tensor.copy_(value)
    for step in tqdm(range(first, steps), desc=title, initial=first, total=steps):
        found = loss(step)
        adam.zero_grad()
        found.backward()
        adam.step()
        last = step + 1 == steps
        if step % every == 0 or last:
            curve.append({"iteration": step + 1, "loss": float(found.detach())})
        if saved is not None and ((step + 1) % 50 == 0 or last):
            plain = [tensor.detach() for tensor in tensors]
            save_state(saved, key, {"step": step + 1, "curve": curve, "adam": adam.state_dict(), "tensors": plain})
    return curve


def _gradient_distance(
    features: Tensor, samples: tuple[Tensor, Tensor, Tensor], middle: Tensor, spread: Tensor, settings: FeatureSettings,
    random: torch.Generator,
) -> Tensor:  # fmt: skip
    """Return 1 − cosine of the gradients of a random linear classifier on real galaxies and on the images."""
    real, labels, own = samples
    rows = torch.randint(len(real), (min(len(real), 512),), generator=random)
    classes = int(labels.max()) + 1
    weights = torch.randn(features.shape[1], classes, generator=random) / features.shape[1] ** 0.5

    def gradient(points: Tensor, of: Tensor) -> Tensor:
        error = torch.softmax(points @ weights, dim=1) - functional.one_hot(of, classes)
        return (points.T @ error / len(points)).reshape(-1)

    target = gradient((real[rows] - middle) / spread, labels[rows])
    return 1 - functional.cosine_similarity(gradient(features, own.repeat(settings.views)), target, dim=0)


def distil_features(
    galaxies: GalaxySet, settings: FeatureSettings, *, per_class: int, folder: Path | None = None
) -> Distilled:
    """Distil a set in the features of a frozen encoder; with several images of a class, one for each k-means group."""
    encoder = FrozenEncoder.open(settings.checkpoint)
    side = settings.side or encoder.side
    pixels, labels = galaxies.pixels(TRAIN, side=side), galaxies.labels_of(TRAIN)
    kept = None if folder is None else folder / "embeddings.npy"
    real = _kept(kept, lambda: encoder.embedded(pixels).numpy())
    classes = range(len(galaxies.names))
    centres, groups = [], []
    for number in classes:
        places, inside = _centres(real[labels == number], per_class, seed=settings.seed)
        centres.append(places)
        groups += [pixels[labels == number][part].float() / 255 for part in inside]
    start, scatter = means_and_scatter(groups)
    own = torch.arange(len(galaxies.names)).repeat_interleave(per_class)
    images, curve = match_features(
        encoder, torch.cat(centres), real.mean(dim=0), real.std(dim=0), start, scatter, settings,
        samples=(real, labels, own), saved=None if folder is None else folder / _SAVED,
    )  # fmt: skip
    return Distilled(_at_side(images, galaxies), own, float("nan"), curve)


def _kept(path: Path | None, make: Any) -> Tensor:
    from rarezoo.cache import kept_array

    return torch.from_numpy(np.asarray(kept_array(path, make)))


def means_and_scatter(groups: list[Float[Tensor, "m 3 s s"]]) -> tuple[Tensor, Tensor]:
    """Return the mean of each group of images in [0, 1], and the scatter of its pixels, at least four grey levels."""
    means = torch.stack([images.mean(dim=0) for images in groups])
    scatter = torch.stack([images.std(dim=0, correction=0) for images in groups])
    return means, scatter.clamp(min=4 / 255)


def _centres(points: Float[Tensor, "m d"], count: int, *, seed: int) -> tuple[Float[Tensor, "count d"], list[Tensor]]:
    """Return the mean of points, or the means of k-means groups, and the places of the points of each group."""
    if count == 1:
        return points.mean(dim=0, keepdim=True), [torch.arange(len(points))]
    from sklearn.cluster import KMeans

    groups = torch.from_numpy(KMeans(count, n_init=3, random_state=seed).fit(points.numpy()).labels_)
    inside = [torch.nonzero(groups == number).flatten() for number in range(count)]
    return torch.stack([points[part].mean(dim=0) for part in inside]), inside


def _at_side(images: Float[Tensor, "n 3 s s"], galaxies: GalaxySet) -> Float[Tensor, "n 3 s s"]:
    """Return images in [0, 1] of any side with the side and the scaling of a set."""
    side, (centre, spread) = galaxies.settings.side, galaxies.scaling
    size = (side, side)
    fitting = images if images.shape[-1] == side else functional.interpolate(
        images, size, mode="bilinear", antialias=True, align_corners=False
    )  # fmt: skip
    return (fitting * 255 - centre) / spread


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
    real, labels = galaxies.scaled(TRAIN), galaxies.labels_of(TRAIN)
    count = len(galaxies.names)
    images, own = start_images(galaxies, per_class=per_class, start=REAL, seed=settings.seed)
    networks = [_random_network(galaxies, settings, number) for number in range(settings.networks)]

    def class_means() -> Float[np.ndarray, "networks c d"]:
        means = []
        for number, network in enumerate(tqdm(networks, desc="class means in random networks", unit="network")):
            turned = augment(real, GALAXY, generator(settings.seed, number, 17))
            features = torch.cat([network(part) for part in turned.split(256)])
            means.append(torch.stack([features[labels == k].mean(dim=0) for k in range(count)]))
        return torch.stack(means).numpy()

    key = digest({"settings": vars(settings), "per_class": per_class, "galaxies": galaxies.sha256})
    means = _kept(None if folder is None else folder / f"means-{key[:12]}.npy", class_means)
    images.requires_grad_(True)

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, step, 19)
        number = int(torch.randint(len(networks), (), generator=random))
        features = networks[number](augment(images, GALAXY, random)).reshape(count, per_class, -1).mean(dim=1)
        distance: Tensor = (features - means[number]).square().sum() / count
        return distance

    curve = _lowered(
        [images], loss, steps=settings.steps, rate=settings.rate, every=50,
        title=f"distribution matching ({per_class} per class)", saved=None if folder is None else folder / _DM_SAVED,
        key=key,
    )  # fmt: skip
    return Distilled(images.detach(), own, float("nan"), curve)


def _random_network(galaxies: GalaxySet, settings: DmSettings, number: int) -> torch.nn.Module:
    """Return the features of a random network that follows from its number."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed * 1_000_003 + number)
        network = convnet(
            side=galaxies.settings.side, classes=len(galaxies.names), width=settings.width, depth=settings.depth
        )[:-1]
    return network.requires_grad_(False)
