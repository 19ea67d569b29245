"""Colour, size and concentration of a galaxy, measured from its cutout alone: what any learnt embedding must beat.

The light above the background (median of the cutout's border, per channel) is averaged in rings about the centre, one
pixel wide. The galaxy ends at 1.5 Petrosian radii, where the ring is a fifth as bright as the mean inside it (Petrosian
1976, ApJ 209, L1; the fifth and the 1.5 are those of Conselice 2003, ApJS 147, 1), or at the inscribed circle. Pixels
are taken as they are: on a stretched cutout the numbers compare galaxies, they are not physical fluxes.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.sparse import csr_array
from tqdm import tqdm

from rarezoo.data.images import ImageSource
from rarezoo.tables import atomic

# In the order of the table's columns.
COLUMNS = ("colour_red_green", "colour_green_blue", "half_light_radius", "concentration", "brightness")
# Share of the shorter side: a border this wide holds enough pixels for a median and little of the galaxy.
_BORDER = 1 / 32
_PETROSIAN, _EXTENT = 0.2, 1.5
# Shares of the light: half, and the two between which Conselice (2003) takes the concentration.
_SHARES = (0.5, 0.2, 0.8)
# Grey levels. Fainter light than eight bits resolve counts as this much, so that a logarithm is finite; where there
# is no light at all, a faint even sheet of it has a radius and a concentration.
_RESOLVED, _SHEET = 0.1, 1e-6


class _Rings(NamedTuple):
    """How the pixels of cutouts of one shape are averaged: made once per shape."""

    means: csr_array  # (rings, pixels): a row averages the pixels of a ring
    areas: Float64[np.ndarray, " rings"]  # px²
    border: Int64[np.ndarray, " frame"]  # pixels


def photometry(
    images: ImageSource, rows: Sequence[int] | np.ndarray, *, cache: Path | None = None
) -> Float32[np.ndarray, "galaxies 5"]:
    """Photometry (n, 5) of some cutouts, finite whatever they show; its columns are :data:`COLUMNS`.

    colour_red_green, colour_green_blue: log10 of the ratio of the fluxes of two channels.
    half_light_radius: of the circle that holds half of the flux, as a share of half the cutout's shorter side.
    concentration: 5 log10(r80 / r20), circles that hold 80 and 20 % of the flux (Conselice 2003, ApJS 147, 1).
    brightness: log10 of the flux, mean of the channels, over the area of the inscribed circle, in grey levels.

    Args:
        images: cutouts by row.
        rows: which.
        cache: file that keeps them for the next time; its name must tell the survey and the rows.

    Raises:
        DataError: an image is unreadable.
    """
    if cache is not None and cache.exists():
        return np.asarray(np.load(cache))
    progress = tqdm(rows, desc="measuring colour and size", unit="galaxy", leave=False)
    measured = np.array([measurements(images.cutout(int(row))) for row in progress], dtype=np.float32)
    measured = measured.reshape(-1, len(COLUMNS))
    if cache is not None:
        with atomic(cache) as temporary, temporary.open("wb") as stream:
            np.save(stream, measured)
    return measured


def measurements(pixels: UInt8[np.ndarray, "height width 3"]) -> Float64[np.ndarray, " 5"]:
    """One cutout's photometry: see :func:`photometry`."""
    rings = _rings(*pixels.shape[:2])
    flat = pixels.reshape(-1, 3)
    # Subtracted before averaging: rounding would else draw rings on an even cutout.
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


def _extent(light: Float64[np.ndarray, " rings"], areas: Float64[np.ndarray, " rings"]) -> int:
    """How many rings the galaxy fills."""
    within = np.cumsum(light * areas) / np.cumsum(areas)
    faint = np.flatnonzero(light < _PETROSIAN * within)
    return min(len(light), int(np.ceil(_EXTENT * (faint[0] + 1)))) if len(faint) else len(light)


def _radii(fluxes: Float64[np.ndarray, " rings"]) -> Float64[np.ndarray, "3"]:
    """Radii, in px, of the circles that hold half, 20 and 80 % of the flux; a ring is evenly bright."""
    growth = np.concatenate([[0.0], np.cumsum(fluxes)])
    squares = np.arange(len(growth), dtype=np.float64) ** 2
    return np.sqrt(np.interp(np.array(_SHARES) * growth[-1], growth, squares))
