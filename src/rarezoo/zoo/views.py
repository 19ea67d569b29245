"""The part of a cutout that the network sees, as Zoobot defines it. Pixels are divided by 255 and not normalised.

A view has two steps. The processes that decode images resize each cutout to a common side, still as uint8. The random
part works on whole batches, on the device that trains. ``timm.data.create_transform`` is not used, because it would
normalise by the mean of ImageNet, which is wrong for Zoobot's encoders. The random views are written here and not taken
from kornia, because one resampling does everything and the draws must be the same on every device.

Shape letters: b galaxies in the batch, h and w sides of a cutout, s the network's input side, all in px.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torchvision.transforms import v2

# galaxy_datasets.transforms, default_view_config and minimal_view_config: inference zooms by 1.2, training by 1.2-1.4.
ZOOM = 1.2
_FURTHER = 1.4 / 1.2
_DEGREES, _TRANSLATE, _SHEAR = 90.0, 0.1, (0.0, 20.0)
_ERASINGS, _ERASED_SHARE, _ERASED_RATIO = 5, (0.002, 0.007), (0.5, 2.0)
# Largest standard deviation of the noise that a jitter of 1 adds, as a share of the pixels' range.
_NOISE = 0.05


def inference_view(input_size: int, *, zoom: float = ZOOM) -> v2.Compose:
    """Return the transform from a uint8 cutout (3, h, w) of any size to its central 1/zoom, uint8 (3, s, s)."""
    return v2.Compose([_Square(), _resized(round(input_size * zoom)), v2.CenterCrop(input_size)])


def training_cutout(input_size: int, *, zoom: float = ZOOM) -> v2.Compose:
    """Return the transform from a uint8 cutout (3, h, w) to the size at which :class:`TrainingView` samples it."""
    return v2.Compose([_Square(), _resized(round(input_size * zoom * (1 + _FURTHER) / 2))])


@dataclass(frozen=True)
class TrainingView:
    """Random rotation, flip, shift, zoom and shear of a batch in one resampling, then small erased rectangles.

    Attributes
    ----------
    input_size
        Side of the network's input (px).
    zoom
        Smallest zoom. The largest is 1.17 times that, as Zoobot's 1.2 to 1.4.
    jitter
        Strength of random brightness, colour, saturation and noise, 0 (none) to 1. Self-supervised training needs it,
        so that it does not take these properties for those of the galaxy.

    Examples
    --------
    >>> TrainingView(input_size=64)(torch.zeros(5, 3, 83, 83, dtype=torch.uint8)).shape
    torch.Size([5, 3, 64, 64])
    """

    input_size: int
    zoom: float = ZOOM
    jitter: float = 0.0

    def __call__(self, cutouts: Num[Tensor, "b 3 w w"]) -> Float[Tensor, "b 3 s s"]:
        """Return a new view of each cutout, in [0, 1]; random numbers come from the global generators of torch."""
        pixels = cutouts.float() / 255
        shape = [len(pixels), 3, self.input_size, self.input_size]
        grid = torch.nn.functional.affine_grid(
            _affine(len(pixels), zoom=self.zoom).to(pixels.device), shape, align_corners=False
        )
        seen = torch.nn.functional.grid_sample(pixels, grid, align_corners=False)
        return _erased(_jittered(seen, self.jitter) if self.jitter else seen)


@dataclass(frozen=True)
class TurnedView:
    """Each image of a batch in one of eight orientations at random: quarter turns and their mirror images.

    No pixel is lost, so nothing of a galaxy, its companions or an artifact is erased.

    Attributes
    ----------
    jitter
        As that of :class:`TrainingView`.

    Examples
    --------
    >>> TurnedView()(torch.zeros(5, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([5, 3, 64, 64])
    """

    jitter: float = 0.0

    def __call__(self, cutouts: Num[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """Return the turned images in [0, 1]; random numbers come from the global generator of torch."""
        turns = torch.randint(0, 8, (len(cutouts),))
        turned = torch.stack([
            torch.rot90(image.flip(2) if turn >= 4 else image, turn, (1, 2))
            for image, turn in zip(cutouts.float() / 255, turns.tolist(), strict=True)
        ])  # fmt: skip
        return _jittered(turned, self.jitter) if self.jitter else turned


class OrientationOfFeatures:
    """The features of each galaxy of a batch in one of the orientations in which they were computed, at random.

    Examples
    --------
    >>> OrientationOfFeatures()(torch.zeros(5, 8, 7)).shape
    torch.Size([5, 7])
    """

    def __call__(self, features: Float[Tensor, "b o f"]) -> Float[Tensor, "b f"]:
        """Return the features; random numbers come from the global generator of torch."""
        turns = torch.randint(0, features.shape[1], (len(features),))
        return features[torch.arange(len(features)), turns.to(features.device)]


def _affine(galaxies: int, *, zoom: float) -> Float[Tensor, "b 2 3"]:
    """Return the affine maps of the views: rotation × shears × flips / zoom, and a shift."""
    angle = _uniform(galaxies, -math.radians(_DEGREES), math.radians(_DEGREES))
    along, across = (torch.tan(_uniform(galaxies, *map(math.radians, _SHEAR))) for _ in range(2))
    sheared = torch.stack([torch.ones(galaxies), along, across, 1 + along * across], dim=1).reshape(-1, 2, 2)
    turned = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], dim=1)
    flips = torch.randint(0, 2, (galaxies, 1, 2)) * 2.0 - 1
    zooms = _uniform(galaxies, zoom, zoom * _FURTHER)[:, None, None]
    # In grid_sample's units the side is 2.
    shift = _uniform(2 * galaxies, -2 * _TRANSLATE, 2 * _TRANSLATE).reshape(galaxies, 2, 1)
    return torch.cat([turned.reshape(-1, 2, 2) @ sheared * flips, shift], dim=2) / zooms


def _jittered(images: Float[Tensor, "b 3 s s"], strength: float) -> Float[Tensor, "b 3 s s"]:
    """Multiply brightness (of the image) and colour (of each channel), change saturation, and add noise."""
    galaxies = len(images)
    bright = torch.exp(_uniform(galaxies, -strength, strength))[:, None]
    colour = torch.exp(_uniform(3 * galaxies, -0.3 * strength, 0.3 * strength).reshape(galaxies, 3))
    saturation = _uniform(galaxies, 1 - strength, 1 + strength)
    noise = _uniform(galaxies, 0, _NOISE * strength)
    gain, vivid, grain = (
        draws.reshape(galaxies, -1, 1, 1).to(images.device) for draws in (bright * colour, saturation, noise)
    )
    grey = images.mean(dim=1, keepdim=True)
    return torch.clamp(torch.lerp(grey, images, vivid) * gain + torch.randn_like(images) * grain, 0, 1)


def _erased(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    """Set five small rectangles of each image to zero."""
    galaxies, side = len(images), images.shape[-1]
    draws = galaxies * _ERASINGS
    ratio = torch.exp(_uniform(draws, *map(math.log, _ERASED_RATIO)))
    area = _uniform(draws, *_ERASED_SHARE)
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()]) / 2
    centre = torch.rand(2, draws)
    axis = (torch.arange(side) + 0.5) / side
    rows, columns = ((axis - at[:, None]).abs() < reach[:, None] for at, reach in zip(centre, half, strict=True))
    shape = (galaxies, _ERASINGS, side)
    hidden = torch.einsum("ger,gec->grc", rows.reshape(shape).float(), columns.reshape(shape).float()) > 0
    return images.masked_fill(hidden[:, None].to(images.device), 0)


def _uniform(draws: int, low: float, high: float) -> Float[Tensor, " draws"]:
    return torch.rand(draws) * (high - low) + low


class _Square(torch.nn.Module):
    """Cut out the central square of an oblong image, so that galaxies keep their shape."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        side = min(image.shape[-2:])
        return image if image.shape[-2] == image.shape[-1] else v2.functional.center_crop(image, [side, side])


def _resized(side: int) -> v2.Resize:
    return v2.Resize((side, side), antialias=True)
