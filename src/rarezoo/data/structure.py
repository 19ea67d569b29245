"""The structure of a galaxy, measured from its cutout: asymmetry, clumps and company, which merging galaxies have.

Asymmetry and clumpiness follow Conselice (2003, ApJS 147, 1), without a segmentation of the image: they are measured in
rings around the centre of the cutout, so that the numbers are finite for every image. Light is the mean of the channels
above the median of the border. Radii are shares of half the shorter side.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from rarezoo.cache import kept_array
from rarezoo.data.images import ImageSource
from rarezoo.errors import DataError

# Edges of the rings in which asymmetry is measured.
_RINGS = (0.0, 0.2, 0.4, 0.65, 1.0)
COLUMNS = (
    *(f"asymmetry_{number}" for number in range(1, len(_RINGS))),
    "clumpiness", "brightest_outside", "centroid_offset", "colour_scatter",
)  # fmt: skip
# Width of the border from which the background is taken, as a share of the shorter side.
_BORDER = 1 / 32
# Rings in which clumps, companions, the centroid and colours are measured, as pairs of radii.
_CLUMPS, _OUTSIDE, _CENTROID, _COLOURS = (0.08, 0.5), (0.38, 0.9), (0.0, 0.65), (0.0, 0.38)
# Width of the smooth image that clumps stand out from, as a share of the shorter side (Conselice: 0.3 Petrosian radii).
_SMOOTH = 3 / 160
# Grey levels that count as light where there is none, so that a quotient is finite.
_FAINT = 0.5


class _Masks(NamedTuple):
    """Pixels of rings, for cutouts of one shape."""

    rings: tuple[Bool[np.ndarray, "height width"], ...]
    clumps: Bool[np.ndarray, "height width"]
    outside: Bool[np.ndarray, "height width"]
    centroid: Bool[np.ndarray, "height width"]
    colours: Bool[np.ndarray, "height width"]
    border: Bool[np.ndarray, "height width"]
    x: Float64[np.ndarray, "height width"]
    y: Float64[np.ndarray, "height width"]


def structure(
    images: ImageSource,
    rows: Sequence[int] | np.ndarray,
    *,
    cache: Path | None = None,
    skip_unreadable: bool = False,
) -> Float32[np.ndarray, "galaxies 8"]:
    """Measure the structure of cutouts; the numbers are finite whatever the cutouts show.

    Parameters
    ----------
    images
        Cutouts by row.
    rows
        Rows of the galaxies.
    cache
        File in which the result is kept.
    skip_unreadable
        Give NaN for an image that cannot be read, instead of an error.

    Returns
    -------
    numpy.ndarray
        Columns are those of :data:`COLUMNS`.

    Raises
    ------
    DataError
        An image cannot be read.
    """

    def measured(row: int) -> Float64[np.ndarray, " 8"]:
        try:
            return measurements(images.cutout(int(row)))
        except DataError:
            if not skip_unreadable:
                raise
            return np.full(len(COLUMNS), np.nan)

    def measure() -> Float32[np.ndarray, "galaxies 8"]:
        progress = tqdm(rows, desc="measuring structure", unit="galaxy", leave=False)
        return np.array([measured(row) for row in progress], dtype=np.float32).reshape(len(rows), len(COLUMNS))

    return kept_array(cache, measure)


def measurements(pixels: UInt8[np.ndarray, "height width 3"]) -> Float64[np.ndarray, " 8"]:
    """Return the numbers of one cutout; see :data:`COLUMNS`.

    Examples
    --------
    A galaxy that is the same when it is turned by 180° has no asymmetry; with a companion it has:

    >>> y, x = np.indices((64, 64)) - 31.5
    >>> galaxy = 200 * np.exp(-np.hypot(x, y) / 6)
    >>> companion = 150 * np.exp(-np.hypot(x - 16, y) / 3)
    >>> alone, pair = (np.dstack([light] * 3).astype(np.uint8) for light in (galaxy, galaxy + companion))
    >>> bool(measurements(alone)[2] < 0.01 < 0.2 < measurements(pair)[2])
    True
    """
    height, width, _ = pixels.shape
    masks = _masks(height, width)
    values = pixels.astype(np.float64)
    border = values[masks.border]
    background = np.median(border, axis=0)
    values = values - background
    light = values.mean(axis=2)
    noise = float(np.median(np.abs(border - background).mean(axis=1))) + _FAINT
    turned = np.abs(light - light[::-1, ::-1])
    asymmetry = [float(turned[ring].sum() / (np.abs(light[ring]).sum() + noise * ring.sum())) for ring in masks.rings]
    rough = np.abs(light - gaussian_filter(light, _SMOOTH * min(height, width)))
    clumpiness = float(rough[masks.clumps].sum() / (np.abs(light[masks.clumps]).sum() + noise * masks.clumps.sum()))
    brightest = float(np.log10(1 + np.maximum(light[masks.outside], 0).max(initial=0)))
    weights = np.maximum(light, 0) * masks.centroid
    total = weights.sum() + _FAINT
    offset = float(
        np.hypot((weights * masks.x).sum() / total, (weights * masks.y).sum() / total) / (min(height, width) / 2)
    )
    difference = values[:, :, 0] - values[:, :, 2]
    colours = float(difference[masks.colours].std() / (np.abs(light[masks.colours]).mean() + 1))
    return np.array([*asymmetry, clumpiness, brightest, offset, colours])


@lru_cache(maxsize=8)
def _masks(height: int, width: int) -> _Masks:
    y, x = np.indices((height, width), dtype=np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    side = min(height, width)
    radius = np.hypot(x, y) / (side / 2)

    def ring(edges: tuple[float, float]) -> Bool[np.ndarray, "height width"]:
        inside = (radius >= edges[0]) & (radius < edges[1])
        # A cutout of a few pixels may have a ring without any; then its nearest pixel stands for it.
        return inside if inside.any() else radius == radius[radius >= edges[0]].min(initial=radius.max())

    frame = max(1, round(_BORDER * side))
    border = np.ones((height, width), dtype=bool)
    border[frame : height - frame, frame : width - frame] = False
    rings = tuple(ring(edges) for edges in pairwise(_RINGS))
    return _Masks(rings, ring(_CLUMPS), ring(_OUTSIDE), ring(_CENTROID), ring(_COLOURS), border, x, y)
