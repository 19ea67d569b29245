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
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
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
# Where the filter that smooths ends, in its widths.
_TRUNCATE = 4.0
# Grey levels that count as light where there is none, so that a quotient is finite.
_FAINT = 0.5


class _Pixels(NamedTuple):
    """Pixels of rings, as indices into a flat cutout, for cutouts of one shape."""

    rings: csr_array  # (rings, pixels); row i adds up the pixels of the ring i in which asymmetry is measured
    areas: Float32[np.ndarray, " rings"]  # px
    border: Int64[np.ndarray, " frame"]
    outside: Int64[np.ndarray, " outside"]
    colours: Int64[np.ndarray, " colours"]
    centroid: Int64[np.ndarray, " centroid"]
    offsets: Float32[np.ndarray, "2 centroid"]  # px from the centre, of each pixel of the centroid
    # The part of the image that is smoothed, and in it the pixels in which clumps are measured.
    smoothed: tuple[slice, slice]
    clumps: Int64[np.ndarray, " clumps"]


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
    known, side = _pixels(height, width), min(height, width)
    values = pixels.reshape(-1, 3).astype(np.float32)
    border = values[known.border]
    background = np.median(border, axis=0)
    light = values @ np.full(3, 1 / 3, dtype=np.float32) - background.mean()
    noise = float(np.median(np.abs(border - background).mean(axis=1))) + _FAINT
    # Turned by 180 degrees, a flat image is reversed.
    turned, strength = np.abs(light - light[::-1]), np.abs(light)
    sums = known.rings @ np.stack([turned, strength], axis=1)
    asymmetry = sums[:, 0] / (sums[:, 1] + noise * known.areas)
    near = light.reshape(height, width)[known.smoothed]
    rough = np.abs(near - gaussian_filter(near, _SMOOTH * side, truncate=_TRUNCATE)).ravel()[known.clumps]
    clumpiness = rough.sum() / (np.abs(near.ravel()[known.clumps]).sum() + noise * len(known.clumps))
    brightest = np.log10(1 + light[known.outside].max(initial=0))
    weights = np.maximum(light[known.centroid], 0)
    offset = np.linalg.norm(known.offsets @ weights) / (weights.sum() + _FAINT) / (side / 2)
    inner = values[known.colours]
    colours = (inner[:, 0] - inner[:, 2]).std(dtype=np.float64) / (strength[known.colours].mean() + 1)
    return np.array([*asymmetry, clumpiness, brightest, offset, colours], dtype=np.float64)


@lru_cache(maxsize=8)
def _pixels(height: int, width: int) -> _Pixels:
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
    rings = np.stack([ring(edges).ravel() for edges in pairwise(_RINGS)]).astype(np.float32)
    clumps, centroid = ring(_CLUMPS), ring(_CENTROID)
    smoothed = _around(clumps, reach=int(_TRUNCATE * _SMOOTH * side + 0.5))
    return _Pixels(
        csr_array(rings), rings.sum(axis=1),
        border=np.flatnonzero(border), outside=np.flatnonzero(ring(_OUTSIDE)), colours=np.flatnonzero(ring(_COLOURS)),
        centroid=np.flatnonzero(centroid), offsets=np.stack([x[centroid], y[centroid]]).astype(np.float32),
        smoothed=smoothed, clumps=np.flatnonzero(clumps[smoothed]),
    )  # fmt: skip


def _around(inside: Bool[np.ndarray, "height width"], *, reach: int) -> tuple[slice, slice]:
    """Return the part of an image that a filter of some reach needs for the pixels inside."""
    ends = [np.flatnonzero(inside.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    rows, columns = (slice(max(0, int(first) - reach), int(last) + reach + 1) for first, last in ends)
    return rows, columns
