"""Colour, size and concentration of a galaxy, measured from its cutout alone: a baseline that embeddings must beat.

The light above the background (median of the cutout's border, per channel) is averaged in rings around the centre, one
pixel wide. The galaxy ends at 1.5 Petrosian radii, or at the inscribed circle. The Petrosian radius is where a ring is
a fifth as bright as the mean inside it (Petrosian 1976, ApJ 209, L1; the fifth and the factor 1.5 are those of
Conselice 2003, ApJS 147, 1). Pixel values are used as they are: on a stretched cutout the numbers compare galaxies, and
are not physical fluxes.

We keep our own measurements instead of those of statmorph or photutils: they need a segmentation of each image and are
not defined for every cutout, while these five numbers are finite for any image, and earlier results rest on them.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from scipy.sparse import csr_array
from tqdm import tqdm

from rarezoo.cache import kept_array
from rarezoo.data.images import ImageSource
from rarezoo.errors import DataError

# In the order of the columns of the table.
COLUMNS = ("colour_red_green", "colour_green_blue", "half_light_radius", "concentration", "brightness")
# Width of the border as a share of the shorter side: enough pixels for a median, and little of the galaxy.
_BORDER = 1 / 32
_PETROSIAN, _EXTENT = 0.2, 1.5
# Shares of the light: half, and the two that define the concentration of Conselice (2003).
_SHARES = (0.5, 0.2, 0.8)
# Grey levels. Light that is too faint for eight bits counts as this much, so that a logarithm is finite. If there is
# no light at all, a faint even sheet of light has a radius and a concentration.
_RESOLVED, _SHEET = 0.1, 1e-6


class _Rings(NamedTuple):
    """The averages over rings for cutouts of one shape; they are made once per shape."""

    means: csr_array  # (rings, pixels); row i averages the pixels of ring i
    areas: Float64[np.ndarray, " rings"]  # px²
    border: Int64[np.ndarray, " frame"]  # pixels


def photometry(
    images: ImageSource,
    rows: Sequence[int] | np.ndarray,
    *,
    cache: Path | None = None,
    skip_unreadable: bool = False,
) -> Float32[np.ndarray, "galaxies 5"]:
    """Measure cutouts; the numbers are finite whatever the cutouts show.

    Parameters
    ----------
    images
        Cutouts by row.
    rows
        Rows of n galaxies.
    cache
        File that keeps the result for the next time. Its name must differ between surveys and between sets of rows.
    skip_unreadable
        Whether unreadable images have NaN instead of ending the measurement.

    Returns
    -------
    numpy.ndarray
        (n, 5) float32, the columns of :data:`COLUMNS`:

        colour_red_green, colour_green_blue
            log10 of the ratio of the fluxes of two channels.
        half_light_radius
            Radius of the circle that holds half of the flux, as a share of half the shorter side of the cutout.
        concentration
            5 log10(r80 / r20), the radii of circles that hold 80 and 20 % of the flux (Conselice 2003, ApJS 147, 1).
        brightness
            log10 of the flux, mean of the channels, over the area of the inscribed circle, in grey levels.

    Raises
    ------
    DataError
        An image is unreadable, and such images are not skipped.
    """

    def measure() -> Float32[np.ndarray, "galaxies 5"]:
        numbers = np.full((len(rows), len(COLUMNS)), np.nan, dtype=np.float32)
        for place, row in enumerate(tqdm(rows, desc="measuring colour and size", unit="galaxy", leave=False)):
            try:
                numbers[place] = measurements(images.cutout(int(row)))
            except DataError:
                if not skip_unreadable:
                    raise
        return numbers

    return kept_array(cache, measure)


def measurements(pixels: UInt8[np.ndarray, "height width 3"]) -> Float64[np.ndarray, " 5"]:
    """Return the five numbers of one cutout; see :func:`photometry`.

    >>> dict(zip(COLUMNS, measurements(np.full((8, 8, 3), 90, dtype=np.uint8)).round(2).tolist()))["concentration"]
    1.51
    """
    rings = _rings(*pixels.shape[:2])
    flat = pixels.reshape(-1, 3)
    # The background is subtracted before averaging, because rounding would otherwise draw rings on an even cutout.
    channels = rings.means @ (flat - np.median(flat[rings.border], axis=0).astype(np.float32))
    light = np.maximum(channels.mean(axis=1), 0) + _SHEET
    areas = rings.areas[: _extent(light, rings.areas)]
    red, green, blue = np.maximum(areas @ channels[: len(areas)] / areas.sum(), _RESOLVED)
    half, inner, outer = _radii(light[: len(areas)] * areas)
    total = (red + green + blue) / 3 * areas.sum() / rings.areas.sum()
    size = half / len(rings.areas)
    return np.array([np.log10(red / green), np.log10(green / blue), size, 5 * np.log10(outer / inner), np.log10(total)])


@lru_cache(maxsize=8)
def _rings(height: int, width: int) -> _Rings:
    rows, columns = np.indices((height, width)).reshape(2, -1)
    short = min(height, width)
    ring = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2).astype(np.int64)
    count = max(1, short // 2)
    inside = np.flatnonzero(ring < count)
    shares = 1 / np.bincount(ring[inside], minlength=count)[ring[inside]]
    means = csr_array((shares.astype(np.float32), (ring[inside], inside)), shape=(count, height * width))
    to_edge = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns))
    border = np.flatnonzero(to_edge < max(1, round(short * _BORDER)))
    return _Rings(means, np.pi * (2 * np.arange(count) + 1), border)


def _extent(light: Float[np.ndarray, " rings"], areas: Float64[np.ndarray, " rings"]) -> int:
    """Return the number of rings that the galaxy fills."""
    within = np.cumsum(light * areas) / np.cumsum(areas)
    faint = np.flatnonzero(light < _PETROSIAN * within)
    return min(len(light), int(np.ceil(_EXTENT * (faint[0] + 1)))) if len(faint) else len(light)


def _radii(fluxes: Float64[np.ndarray, " rings"]) -> Float64[np.ndarray, "3"]:
    """Return the radii in px of the circles that hold half, 20 and 80 % of the flux; a ring is evenly bright."""
    growth = np.concatenate([[0.0], np.cumsum(fluxes)])
    squares = np.arange(len(growth), dtype=np.float64) ** 2
    return np.sqrt(np.interp(np.array(_SHARES) * growth[-1], growth, squares))
