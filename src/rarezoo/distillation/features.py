"""Distillation without experts: images whose features are those of a class, in a frozen encoder of the zoo.

The image of a class is made so that its embedding is the mean of the class (``match=centre``), or so that a random
linear classifier has the same gradient on the images as on real galaxies (``match=gradients``; Cazenavette et al. 2025,
NeurIPS). It starts as a galaxy, the medoid of its class, and changes by the sum of a pyramid of resolutions behind a
sigmoid, so that coarse structure comes first.

An encoder alone can be satisfied by patterns that no galaxy has, and from which no other network learns. Two things
hold the image near to galaxies: its mean features in random networks must be those of its class, too
(:mod:`rarezoo.distillation.random_networks`), and a prior keeps each pixel within the scatter of the real galaxies.

Shape letters: n images, s side in px, c classes, d dimensions of the embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from rarezoo.cache import kept_array
from rarezoo.data.splits import TRAIN
from rarezoo.distillation.augmentation import GALAXY, augment, generator
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.matching import Distilled
from rarezoo.distillation.optimise import lowered
from rarezoo.distillation.random_networks import DmSettings, random_network_loss
from rarezoo.distillation.real_images import MEAN, MEDOID, medoid
from rarezoo.errors import ConfigError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting
from rarezoo.zoo.checkpoint import Checkpoint

CENTRE, GRADIENTS = "centre", "gradients"
_SAVED = "features.pt"
# From images in [0, 1] and a generator to a loss that is added to that of the encoder.
Companion = Callable[[Tensor, torch.Generator], Tensor]


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
        0.1, "weight of the squared distance of the pixels from the start, in units of the scatter of the class",
        ge=0,
    )  # fmt: skip
    start: str = setting(
        MEDOID, "what an image is at the start: the medoid of its class, or the mean", choices=(MEDOID, MEAN)
    )
    networks: int = setting(
        20, "random networks in which an image must have the mean features of its class, too; 0: none, and then other "
        "networks learn nothing from the images", ge=0,
    )  # fmt: skip
    weight: float = setting(0.1, "weight of the encoder beside the random networks", gt=0)
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
    companion: Companion | None = None,
    finest: int = 0,
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
        Images at which they start, and the scatter of the real pixels of each class, in [0, 1].
    settings
        Settings.
    samples
        For ``match=gradients``: embeddings of real galaxies, their classes, and the class of each image.
    companion
        What else the images must be, such as near to galaxies in random networks; see :func:`companion_of`.
    finest
        Side of the finest level of the pyramid, px; 0: that of the images. Finer details stay those of the start.
    saved
        File that keeps the state, so that the same call continues.

    Returns
    -------
    tuple
        Images (n, 3, s, s) in [0, 1], and the losses on the way.
    """
    pyramid = Pyramid(start, settings.levels(finest or start.shape[-1]))
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
        if companion is not None:
            distance = settings.weight * distance + companion(images, random)
        return distance + settings.prior * ((images - start) / scatter).square().mean()

    key = digest(
        {
            "settings": vars(settings), "encoder": encoder.sha256, "centres": centres.numpy().round(4).tolist(),
            "start": start.mean(dim=(1, 2, 3)).numpy().round(5).tolist(),
            "levels": [part.shape[-1] for part in pyramid.parts], "companion": companion is not None,
        }
    )  # fmt: skip
    curve = lowered(
        pyramid.parts, loss, steps=settings.steps, rate=settings.rate, every=10, title="matching features", saved=saved,
        key=key,
    )  # fmt: skip
    return pyramid.images().detach(), curve


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


def companion_of(
    galaxies: GalaxySet, groups: list[Tensor], settings: FeatureSettings, *, folder: Path | None = None
) -> Companion | None:
    """Return the loss that random networks add for one image of each group; None with ``networks=0``.

    Parameters
    ----------
    galaxies
        The set. Random networks see images of its side.
    groups
        Places of the galaxies of each group among the training galaxies.
    settings
        Settings.
    folder
        Folder that keeps the means of the groups in the networks.
    """
    if not settings.networks:
        return None
    own = DmSettings(networks=settings.networks, seed=settings.seed)
    about = {"settings": vars(own), "galaxies": galaxies.sha256, "groups": [rows.tolist() for rows in groups]}
    kept = None if folder is None else folder / f"means-{digest(about)[:12]}.npy"
    loss = random_network_loss(galaxies, groups, own, kept=kept)
    return lambda images, random: loss(_at_side(images, galaxies), random)


def finest_level(galaxies: GalaxySet, settings: FeatureSettings, side: int) -> int:
    """Return the side of the finest level, px: nothing is drawn that is finer than what the random networks see."""
    return min(galaxies.settings.side, side) if settings.networks else side


def distil_features(
    galaxies: GalaxySet, settings: FeatureSettings, *, per_class: int, folder: Path | None = None
) -> Distilled:
    """Distil a set in the features of a frozen encoder; with several images of a class, one for each k-means group."""
    encoder = FrozenEncoder.open(settings.checkpoint)
    side = settings.side or encoder.side
    pixels, labels = galaxies.pixels(TRAIN, side=side), galaxies.labels_of(TRAIN)
    kept = None if folder is None else folder / "embeddings.npy"
    real = torch.from_numpy(kept_array(kept, lambda: encoder.embedded(pixels).numpy()))
    spread = real.std(dim=0)
    groups = []
    for number in range(len(galaxies.names)):
        members = torch.nonzero(labels == number).flatten()
        groups += [members[part] for part in _groups(real[members], per_class, seed=settings.seed)]
    means, scatter = means_and_scatter([pixels[rows].float() / 255 for rows in groups])
    medoids = [medoid(real / spread.clamp(min=1e-3 * float(spread.max())), rows) for rows in groups]
    start = pixels[medoids].float() / 255 if settings.start == MEDOID else means
    own = torch.arange(len(galaxies.names)).repeat_interleave(per_class)
    images, curve = match_features(
        encoder, torch.stack([real[rows].mean(dim=0) for rows in groups]), real.mean(dim=0), spread, start, scatter,
        settings, samples=(real, labels, own), companion=companion_of(galaxies, groups, settings, folder=folder),
        finest=finest_level(galaxies, settings, side), saved=None if folder is None else folder / _SAVED,
    )  # fmt: skip
    return Distilled(_at_side(images, galaxies), own, float("nan"), curve)


def means_and_scatter(groups: list[Float[Tensor, "_m 3 s s"]]) -> tuple[Tensor, Tensor]:
    """Return the mean of each group of images in [0, 1], and the scatter of its pixels, at least four grey levels."""
    means = torch.stack([images.mean(dim=0) for images in groups])
    scatter = torch.stack([images.std(dim=0, correction=0) for images in groups])
    return means, scatter.clamp(min=4 / 255)


def _groups(points: Float[Tensor, "m d"], count: int, *, seed: int) -> list[Int64[Tensor, " k"]]:
    """Return the places of the points of each k-means group; of all points with one group."""
    if count == 1:
        return [torch.arange(len(points))]
    from sklearn.cluster import KMeans

    groups = torch.from_numpy(KMeans(count, n_init=3, random_state=seed).fit(points.numpy()).labels_)
    return [torch.nonzero(groups == number).flatten() for number in range(count)]


def _at_side(images: Float[Tensor, "n 3 s s"], galaxies: GalaxySet) -> Float[Tensor, "n 3 q q"]:
    """Return images in [0, 1] of any side with the side q and the scaling of a set."""
    side, (centre, spread) = galaxies.settings.side, galaxies.scaling
    size = (side, side)
    fitting = images if images.shape[-1] == side else functional.interpolate(
        images, size, mode="bilinear", antialias=True, align_corners=False
    )  # fmt: skip
    return (fitting * 255 - centre) / spread
