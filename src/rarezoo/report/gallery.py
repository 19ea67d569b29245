"""Mosaics: many cutouts in one image, each with its id at its place."""

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
# Number of galaxies in a gallery: three rows on a laptop.
SHOWN = 24
_QUALITY = 88


@dataclass(frozen=True)
class Thumbnail:
    """A galaxy in a gallery.

    Attributes
    ----------
    id
        Id of the galaxy.
    row
        Its row in the map.
    membership
        Its membership in words; may be empty.
    across, down
        Position of the thumbnail in the image, in per cent as CSS counts background positions.
    """

    id: str
    row: int
    membership: str
    across: float
    down: float


@dataclass(frozen=True)
class Gallery:
    """A section of a page with galaxies and, if there are images, their mosaic.

    Attributes
    ----------
    name
        Short name, part of the file name.
    title
        Heading.
    about
        How these galaxies were chosen.
    thumbnails
        The galaxies, in the order of the mosaic.
    image
        Path of the mosaic relative to the page; None without images.
    wide, high
        Size of the mosaic in thumbnails.
    """

    name: str
    title: str
    about: str
    thumbnails: tuple[Thumbnail, ...]
    image: str | None
    wide: int
    high: int


def mosaic(
    cutouts: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, columns: int = COLUMNS, side: int = SIDE, gap: int = GAP
) -> Image.Image:
    """Draw cutouts as square thumbnails in reading order, with thin black gaps around each.

    Parameters
    ----------
    cutouts
        Images of any size.
    columns
        Largest number of thumbnails in a row.
    side
        Side of a thumbnail, px.
    gap
        Gap between two thumbnails, px.

    Examples
    --------
    >>> mosaic([np.zeros((40, 50, 3), np.uint8)] * 10).size
    (1040, 260)
    """
    wide, high = shape(len(cutouts), columns=columns)
    cell = side + gap
    sheet = Image.new("RGB", (wide * cell, high * cell))
    for index, cutout in enumerate(cutouts):
        place = (index % wide * cell + gap // 2, index // wide * cell + gap // 2)
        sheet.paste(thumbnail(cutout, side=side), place)
    return sheet


def thumbnail(cutout: UInt8[np.ndarray, "height width 3"], *, side: int = SIDE) -> Image.Image:
    """Return the central square of a cutout, resized to ``side`` px."""
    image = Image.fromarray(np.ascontiguousarray(cutout))
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    return image.crop((left, top, left + square, top + square)).resize((side, side), Image.Resampling.LANCZOS)


def padded(sheet: Image.Image, *, side: int) -> Image.Image:
    """Return an image of ``side`` x ``side`` px with the sheet at its top left and black elsewhere."""
    whole = Image.new("RGB", (side, side))
    whole.paste(sheet)
    return whole


def shape(galaxies: int, *, columns: int = COLUMNS) -> tuple[int, int]:
    """Return width and height of a mosaic, in thumbnails.

    >>> shape(10), shape(3)
    ((8, 2), (3, 1))
    """
    wide = max(min(galaxies, columns), 1)
    return wide, max(-(-galaxies // wide), 1)


def place(index: int, galaxies: int, *, columns: int = COLUMNS) -> tuple[float, float]:
    """Return the position of a thumbnail as CSS counts background positions: 0 at one edge, 100 at the other."""
    wide, high = shape(galaxies, columns=columns)
    return 100 * (index % wide) / max(wide - 1, 1), 100 * (index // wide) / max(high - 1, 1)


def save(image: Image.Image, path: Path) -> Path:
    """Write a mosaic as JPEG; the same pixels give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=_QUALITY, optimize=True)
    return path
