"""Features from several stages of a trunk: the mean and the standard deviation of each of their channels.

Inner stages still know what the last one no longer needs for ImageNet: texture, small companions, rings, artifacts.

Shape letters: b galaxies in the batch, s input side in px, n features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Added to variances, so that the standard deviation of a constant map has a finite gradient.
_TINY = 1e-8


def pooled_stages(maps: Sequence[Float[Tensor, "b _c _h _w"]]) -> Float[Tensor, "b n"]:
    """Return the means of all channels of a stage, then their standard deviations, stage after stage.

    Examples
    --------
    >>> pooled_stages([torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[5.0]]]])]).round()
    tensor([[2., 1., 5., 0.]])
    """
    parts = []
    for stage in maps:
        # In float32 also under autocast: the variance is a small difference of large numbers.
        flat = stage.float().flatten(2)
        mean = flat.mean(dim=2)
        variance = (flat - mean[:, :, None]).square().mean(dim=2)
        parts += [mean, (variance + _TINY).sqrt()]
    return torch.cat(parts, dim=1)


def stage_maps(
    trunk: Any, pixels: Float[Tensor, "b 3 s s"], stages: Sequence[int]
) -> list[Float[Tensor, "b _c _h _w"]]:
    """Return the outputs of some stages of a model of timm, as timm numbers them from 0."""
    return list(trunk.forward_intermediates(pixels, indices=list(stages), output_fmt="NCHW", intermediates_only=True))
