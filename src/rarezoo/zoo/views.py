"""What the network sees of a cutout: Zoobot's views, in torchvision v2. Pixels / 255 and nothing else.

``timm.data.create_transform`` would normalise by ImageNet's mean and be silently wrong for Zoobot's encoders.
"""

import torch
from torchvision.transforms import InterpolationMode, v2

# Zoobot's inference view zooms by 1.2, its training view by 1.2-1.4.
_ZOOM = 1.2
_TRAINING_ZOOM = (1.2, 1.4)
_DEGREES, _TRANSLATE, _SHEAR = 90, 0.1, (0, 20)
_ERASINGS, _ERASED_SHARE = 5, (0.002, 0.01)


def inference_view(input_size: int) -> v2.Compose:
    """uint8 (3, H, W) of any size → float (3, S, S) in [0, 1]: the central 1/1.2 of the cutout."""
    return v2.Compose([_Square(), _resized(round(input_size * _ZOOM)), v2.CenterCrop(input_size), _UNIT])


def training_view(input_size: int) -> v2.Compose:
    """The same with random rotation, shift, zoom, shear, flips and small erasings.

    The cutout is brought to 1.3 times the input size first: the affine step's cost falls with the square of the side.
    """
    working = round(input_size * sum(_TRAINING_ZOOM) / 2)
    affine = v2.RandomAffine(
        _DEGREES,
        translate=(_TRANSLATE, _TRANSLATE),
        # Relative to the working size, which has the mean zoom already.
        scale=(_TRAINING_ZOOM[0] * input_size / working, _TRAINING_ZOOM[1] * input_size / working),
        shear=_SHEAR,
        interpolation=InterpolationMode.BILINEAR,
    )
    erasings = [v2.RandomErasing(p=0.5, scale=_ERASED_SHARE, ratio=(0.5, 2.0)) for _ in range(_ERASINGS)]
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    return v2.Compose([_Square(), _resized(working), affine, v2.CenterCrop(input_size), *flips, *erasings, _UNIT])


class _Square(torch.nn.Module):
    """The central square of an oblong cutout, so that galaxies keep their shape."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        side = min(image.shape[-2:])
        return image if image.shape[-2] == image.shape[-1] else v2.functional.center_crop(image, [side, side])


def _resized(side: int) -> v2.Resize:
    return v2.Resize((side, side), antialias=True)


_UNIT = v2.ToDtype(torch.float32, scale=True)
