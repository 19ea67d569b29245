"""Random changes of images that keep their class and can be differentiated.

``galaxy`` turns an image by any angle, because a galaxy has no upper side, and never changes colours, because colour is
physics. ``paper`` is the augmentation of Zhao & Bilen (2021, ICML) with which Guan et al. (arXiv 2311.17967) distilled
galaxies: one of six changes in each step, with turns of 15 degrees at most. One image must then stand for all
directions of an edge-on galaxy, and becomes a star of spokes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

GALAXY, PAPER, NONE = "galaxy", "paper", "none"
AUGMENTATIONS = (GALAXY, PAPER, NONE)
# The strengths of Zhao & Bilen: largest turn in degrees, ratio of scales, share of the side that is shifted or hidden.
_TURN, _SCALE, _SHIFT, _CUTOUT = 15.0, 1.2, 0.125, 0.5
_CHANGES = ("colour", "crop", "cutout", "flip", "scale", "rotate")


def generator(*seeds: int) -> torch.Generator:
    """Return a generator for one step; equal numbers give equal draws."""
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_003 + seed + 0x9E3779B9) % (2**63 - 25)
    return torch.Generator().manual_seed(mixed)


def augment(images: Float[Tensor, "b 3 s s"], kind: str, random: torch.Generator) -> Float[Tensor, "b 3 s s"]:
    """Return changed images; each has draws of its own.

    Parameters
    ----------
    images
        Images in any units.
    kind
        ``galaxy``, ``paper`` or ``none``.
    random
        Generator on the processor, whatever the device of the images.

    Examples
    --------
    >>> augment(torch.ones(2, 3, 8, 8), "galaxy", generator(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    if kind == NONE:
        return images
    if kind == GALAXY:
        angle = _uniform(images, random) * 2 * math.pi
        flip = (_uniform(images, random) < 0.5) * 2.0 - 1
        # What comes from outside is the mirrored sky of the image itself.
        return _resampled(images, angle, torch.stack([flip, torch.ones_like(flip)], dim=1), padding="reflection")
    change = _CHANGES[int(torch.randint(len(_CHANGES), (), generator=random))]
    return _PAPER[change](images, random)


def _uniform(images: Tensor, random: torch.Generator) -> Float[Tensor, " b"]:
    return torch.rand(len(images), generator=random).to(images)


def _resampled(images: Tensor, angle: Tensor, scale: Tensor, *, padding: str) -> Tensor:
    """Turn images by angles (b,) after they were scaled by (b, 2), a negative scale being a mirror."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(-1, 2, 2) * scale[:, None, :]
    affine = torch.cat([turn, torch.zeros_like(turn[:, :, :1])], dim=2)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _colour(images: Tensor, random: torch.Generator) -> Tensor:
    bright, vivid, contrast = (_uniform(images, random).reshape(-1, 1, 1, 1) for _ in range(3))
    images = images + (bright - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * vivid) + grey
    centre = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - centre) * (contrast + 0.5) + centre


def _crop(images: Tensor, random: torch.Generator) -> Tensor:
    reach = int(images.shape[-1] * _SHIFT + 0.5)
    shift = (_uniform(images, random), _uniform(images, random))
    across, down = ((2 * part - 1) * 2 * reach / images.shape[-1] for part in shift)
    same = torch.eye(2).to(images).expand(len(images), 2, 2)
    affine = torch.cat([same, torch.stack([across, down], dim=1)[:, :, None]], dim=2)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _cutout(images: Tensor, random: torch.Generator) -> Tensor:
    axis = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
    rows, columns = ((axis - _uniform(images, random)[:, None]).abs() < _CUTOUT / 2 for _ in range(2))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _flip(images: Tensor, random: torch.Generator) -> Tensor:
    return torch.where((_uniform(images, random) < 0.5).reshape(-1, 1, 1, 1), images.flip(3), images)


def _scale(images: Tensor, random: torch.Generator) -> Tensor:
    sides = torch.stack([_uniform(images, random), _uniform(images, random)], dim=1)
    scale = sides * (_SCALE - 1 / _SCALE) + 1 / _SCALE
    return _resampled(images, torch.zeros_like(scale[:, 0]), scale, padding="zeros")


def _rotate(images: Tensor, random: torch.Generator) -> Tensor:
    angle = (_uniform(images, random) - 0.5) * 2 * math.radians(_TURN)
    return _resampled(images, angle, torch.ones(len(images), 2, device=images.device), padding="zeros")


_PAPER = {"colour": _colour, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate}
