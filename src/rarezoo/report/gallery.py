"""Galleries: many cutouts in one image, each with its id at its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Cutouts = Callable[[Sequence[str]], list[np.ndarray]]

# Side of a thumbnail and gap between two, px. On a page a thumbnail is about 100 px wide: sharp on ordinary screens.
SIDE, GAP = 128, 2
COLUMNS = 8
# Galaxies in a gallery: three rows on a laptop.
SHOWN = 24
_QUALITY = 88


@dataclass(frozen=True)
class Thumbnail:
    """One galaxy of a gallery.

    Attributes:
        id: its id.
        row: its row in the map.
        said: of its membership, in words; may be empty.
        across, down: where its thumbnail lies in the image, in per cent of the way, as CSS background positions are.
    """

    id: str
    row: int
    said: str
    across: float
    down: float


@dataclass(frozen=True)
class Gallery:
    """A section of a page: what it shows and, if images are at hand, the mosaic that it shows.

    Attributes:
        name: short, part of the file's name.
        title: heading.
        about: what a reader should know of how these galaxies were chosen.
        thumbnails: the galaxies, in the mosaic's order.
        image: path of the mosaic relative to the page; None without images.
        wide, high: size of the mosaic in thumbnails.
    """

    name: str
    title: str
    about: str
    thumbnails: tuple[Thumbnail, ...]
    image: str | None
    wide: int
    high: int


def mosaic(
    cutouts: Sequence[UInt8[np.ndarray, "height width 3"]], *, columns: int = COLUMNS, side: int = SIDE, gap: int = GAP
) -> Image.Image:
    """Cutouts as square thumbnails in reading order, thin black gaps around each; ``side`` and ``gap`` in px."""
    wide, high = shape(len(cutouts), columns=columns)
    cell = side + gap
    sheet = Image.new("RGB", (wide * cell, high * cell))
    for index, cutout in enumerate(cutouts):
        place = (index % wide * cell + gap // 2, index // wide * cell + gap // 2)
        sheet.paste(thumbnail(cutout, side=side), place)
    return sheet


def thumbnail(cutout: UInt8[np.ndarray, "height width 3"], *, side: int = SIDE) -> Image.Image:
    """A cutout's central square at the size of a thumbnail, px."""
    image = Image.fromarray(np.ascontiguousarray(cutout))
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    return image.crop((left, top, left + square, top + square)).resize((side, side), Image.Resampling.LANCZOS)


def padded(sheet: Image.Image, *, side: int) -> Image.Image:
    """A sheet that is not full, with black to the right and below, px."""
    whole = Image.new("RGB", (side, side))
    whole.paste(sheet)
    return whole


def shape(galaxies: int, *, columns: int = COLUMNS) -> tuple[int, int]:
    """Width and height of a mosaic, in thumbnails."""
    wide = max(min(galaxies, columns), 1)
    return wide, max(-(-galaxies // wide), 1)


def place(index: int, galaxies: int, *, columns: int = COLUMNS) -> tuple[float, float]:
    """Where a thumbnail lies, as CSS counts background positions: 0 at one edge, 100 at the other."""
    wide, high = shape(galaxies, columns=columns)
    return 100 * (index % wide) / max(wide - 1, 1), 100 * (index // wide) / max(high - 1, 1)


def save(image: Image.Image, path: Path) -> Path:
    """Write a mosaic as JPEG; the same pixels give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=_QUALITY, optimize=True)
    return path
