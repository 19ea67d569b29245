"""The mock sky at a glance: a contact sheet with a row per population, and how quickly it is drawn."""

import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mocksky.populations import BLENDS, ORDINARY, PLANTED, galaxy_at, ordinary_galaxy, planted_galaxy, stream
from mocksky.rendering import cutout_of
from rarezoo.tables import atomic

_ORDINARY_ROWS = 3
_GAP, _MARGIN = 2, 150
_PAPER, _INK = 16, 225
# Left of the rows: what each shows.
_TITLES = {name: name.replace("_", " ") for name in (ORDINARY, *PLANTED, *BLENDS)}


def sheet_rows(ordinary: int = _ORDINARY_ROWS) -> list[str]:
    """Populations from top to bottom: some rows of ordinary galaxies, then one per planted population."""
    return [ORDINARY] * ordinary + list(PLANTED)


def contact_sheet(
    *, rows: list[str] | None = None, columns: int = 11, side: int = 96, seed: int = 0
) -> UInt8[np.ndarray, "height width 3"]:
    """Random galaxies, a row per population, with its name at the left.

    Args:
        rows: populations from top to bottom; None = :func:`sheet_rows`.
        columns: galaxies per row.
        side: cutout's side, pixels.
        seed: of the sky; the same seed gives the same sheet.
    """
    from PIL import Image, ImageDraw

    rows = sheet_rows() if rows is None else rows
    step = side + _GAP
    sheet = Image.new("RGB", (_MARGIN + columns * step, len(rows) * step), (_PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    for row, population in enumerate(rows):
        draw.text((8, row * step + side // 2 - 6), _TITLES[population], fill=(_INK,) * 3)
        for column in range(columns):
            picture = Image.fromarray(_example(population, seed=seed, index=row * columns + column, side=side))
            sheet.paste(picture, (_MARGIN + column * step, row * step))
    return np.asarray(sheet)


def _example(population: str, *, seed: int, index: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    rng = stream(seed, index, "truth")
    galaxy = ordinary_galaxy(rng) if population == ORDINARY else planted_galaxy(rng, population).shown
    return cutout_of(galaxy, stream(seed, index, "pixels"), side=side)


def write_contact_sheet(path: Path | str, *, seed: int = 0) -> Path:
    """Write the contact sheet as WebP (noise makes a PNG of it five times as large); returns its path.

    Raises:
        OutputError: the folder cannot be written.
    """
    from PIL import Image

    sheet = Image.fromarray(contact_sheet(seed=seed))
    with atomic(Path(path)) as temporary:
        sheet.save(temporary, format="WEBP", quality=85)
    return Path(path)


def mock_throughput(*, galaxies: int = 200, side: int = 96) -> float:
    """Galaxies drawn per second by one process, at the default mix of populations."""
    rates = dict.fromkeys(PLANTED, 0.016)
    for index in range(8):  # GalSim prepares its profiles once
        _drawn(index, side=side, rates=rates)
    start = time.perf_counter()
    for index in range(galaxies):
        _drawn(index, side=side, rates=rates)
    return galaxies / (time.perf_counter() - start)


def _drawn(index: int, *, side: int, rates: dict[str, float]) -> UInt8[np.ndarray, "side side 3"]:
    return cutout_of(galaxy_at(index, seed=0, rates=rates).shown, stream(0, index, "pixels"), side=side)
