"""The mock sky at a glance: a contact sheet with a row per population, and how fast galaxies are drawn."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mocksky.blocks import whole_file
from mocksky.populations import BLENDS, ORDINARY, PLANTED, galaxy_at, ordinary_galaxy, planted_galaxy, stream
from mocksky.rendering import cutout_of

_GAP, _MARGIN = 2, 150
_PAPER, _INK = 16, 225
# The text at the left of each row.
_TITLES = {name: name.replace("_", " ") for name in (ORDINARY, *PLANTED, *BLENDS)}


def sheet_rows(ordinary: int = 3) -> list[str]:
    """Return the populations from top to bottom: rows of ordinary galaxies, then one row per planted population."""
    return [ORDINARY] * ordinary + list(PLANTED)


def contact_sheet(
    *, rows: Sequence[str] | None = None, columns: int = 11, side: int = 96, seed: int = 0
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw random galaxies, a row per population, with the population's name at the left.

    Parameters
    ----------
    rows
        Populations from top to bottom; None stands for :func:`sheet_rows`.
    columns
        Galaxies per row.
    side
        Side of a cutout in pixels.
    seed
        Seed of the sky; the same seed gives the same sheet.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    from PIL import Image, ImageDraw

    rows = sheet_rows() if rows is None else rows
    step = side + _GAP
    sheet = Image.new("RGB", (_MARGIN + columns * step, len(rows) * step), (_PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    for row, population in enumerate(rows):
        draw.text((8, row * step + side // 2 - 6), _TITLES[population], fill=(_INK,) * 3)
        for column in range(columns):
            index = row * columns + column
            truth = stream(seed, index, "truth")
            galaxy = ordinary_galaxy(truth) if population == ORDINARY else planted_galaxy(truth, population).shown
            picture = Image.fromarray(cutout_of(galaxy, stream(seed, index, "pixels"), side=side))
            sheet.paste(picture, (_MARGIN + column * step, row * step))
    return np.asarray(sheet)


def write_contact_sheet(path: Path | str, *, seed: int = 0, rows: Sequence[str] | None = None) -> Path:
    """Write the contact sheet as WebP, because noise makes a PNG of it five times as large; return its path.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    from PIL import Image

    sheet = Image.fromarray(contact_sheet(seed=seed, rows=rows))
    whole_file(lambda temporary: sheet.save(temporary, format="WEBP", quality=85), Path(path))
    return Path(path)


def mock_throughput(*, galaxies: int = 200, side: int = 96) -> float:
    """Return how many galaxies one process draws per second, at the default mix of populations."""
    rates = dict.fromkeys(PLANTED, 0.016)
    start = time.perf_counter()
    for index in range(-8, galaxies):
        if index == 0:  # GalSim has prepared its profiles by now
            start = time.perf_counter()
        number = index % galaxies
        cutout_of(galaxy_at(number, seed=0, rates=rates).shown, stream(0, number, "pixels"), side=side)
    return galaxies / (time.perf_counter() - start)
