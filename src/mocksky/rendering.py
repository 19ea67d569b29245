"""Cutouts of the mock sky: drawn in blocks by several processes, kept on disk, read back by row."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from mocksky.arms import on_sky
from mocksky.artifacts import spoiled
from mocksky.populations import GalaxyModel, galaxy_at, stream
from mocksky.profiles import Scene, add_companion, add_galaxy, add_neighbours, picture_of, with_noise
from rarezoo.data.images import ImageSource
from rarezoo.errors import DataError
from rarezoo.runs import digest
from rarezoo.tables import atomic


def cutout_of(galaxy: GalaxyModel, rng: np.random.Generator, *, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The picture of one galaxy: light, PSF, artifact, noise, colours."""
    finer = -(-_FINE_SIDE // side)
    scene = Scene(side=side * finer, field=galaxy.field, seeing=galaxy.seeing)
    if galaxy.companion:
        add_companion(scene, galaxy, rng)
    else:
        x, y = _centre(galaxy, rng)
        add_galaxy(scene, galaxy, rng, x=x, y=y)
    add_neighbours(scene, galaxy, rng)
    scale = galaxy.field / side
    light = scene.light().reshape(3, side, finer, side, finer).mean(axis=(2, 4))
    return picture_of(with_noise(spoiled(light, galaxy, rng, scale=scale), rng, scale=scale))


def _centre(galaxy: GalaxyModel, rng: np.random.Generator) -> tuple[float, float]:
    """Where the galaxy's centre lies, arcsec: in the middle, but for a fragment of a big one."""
    if not galaxy.fragment:
        return 0.0, 0.0
    angle, away = rng.uniform(0, 2 * np.pi), galaxy.fragment * galaxy.radius
    x, y = on_sky(
        np.array(away * np.cos(angle)), np.array(away * np.sin(angle)),
        inclination=galaxy.inclination, position_angle=galaxy.position_angle,
    )  # fmt: skip
    return float(x), float(y)


_BLOCK = 500
# Coarser pixels would undersample the PSF, which GalSim pays for with huge transforms: draw finer, then average.
_FINE_SIDE = 64
# The modules that decide a cutout's pixels.
_PAINTERS = ("arms", "artifacts", "populations", "profiles", "rendering")


@dataclass(frozen=True)
class Rendering:
    """Cutouts to be drawn and kept: galaxies 0 … n − 1 of one sky.

    Attributes:
        folder: where the blocks lie, one .npy file of uint8 (galaxies, side, side, 3) per 500 galaxies.
        galaxies: how many.
        side: cutout's side, pixels.
        seed: of the sky.
        rates: share of the sky's galaxies in each planted population.
    """

    folder: Path
    galaxies: int
    side: int
    seed: int
    rates: Mapping[str, float]

    @classmethod
    def under(cls, parent: Path, *, galaxies: int, side: int, seed: int, rates: Mapping[str, float]) -> "Rendering":
        """A rendering in a folder of the cache that is named by what decides its pixels."""
        name = digest({"edition": edition(), "side": side, "seed": seed, "rates": dict(rates)})[:12]
        return cls(parent / f"mock-{name}", galaxies, side, seed, rates)

    @property
    def blocks(self) -> list[range]:
        """Rows of each block."""
        starts = range(0, self.galaxies, _BLOCK)
        return [range(start, min(start + _BLOCK, self.galaxies)) for start in starts]

    def path(self, block: range) -> Path:
        """File of a block."""
        return self.folder / f"cutouts-{block.start:08d}-{block.stop:08d}.npy"

    def missing(self) -> list[range]:
        """Blocks not yet drawn."""
        return [block for block in self.blocks if not self.path(block).exists()]

    def complete(self, *, workers: int) -> "MockCutouts":
        """Draw what is missing, with a progress bar; each block is written whole, so a killed rendering resumes.

        Args:
            workers: processes; 0 = one per core.

        Raises:
            OutputError: the cache cannot be written.
        """
        missing = self.missing()
        processes = min(workers or cpu_count(), max(len(missing), 1))
        drawn = Parallel(n_jobs=processes, return_as="generator_unordered")(
            delayed(_drawn_block)(self, block) for block in missing
        )
        left = sum(map(len, missing))
        with tqdm(total=left, desc="rendering the mock sky", unit="galaxy", disable=not missing) as bar:
            for count in drawn:
                bar.update(count)
        return MockCutouts(self)


@cache
def edition() -> str:
    """Hash of the code that draws: a rendering by other code is another rendering."""
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _PAINTERS]
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _drawn_block(rendering: Rendering, block: range) -> int:
    """Draw and keep one block; returns how many galaxies it holds."""
    cutouts = np.stack([_cutout_at(rendering, row) for row in block])
    with atomic(rendering.path(block)) as temporary, temporary.open("wb") as stream_:
        np.save(stream_, cutouts)
    return len(block)


def _cutout_at(rendering: Rendering, row: int) -> UInt8[np.ndarray, "side side 3"]:
    pair = galaxy_at(row, seed=rendering.seed, rates=rendering.rates)
    return cutout_of(pair.shown, stream(rendering.seed, row, "pixels"), side=rendering.side)


class MockCutouts(ImageSource):
    """Cutouts of a finished rendering, read from disk as they are asked for."""

    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering

    def cutout(self, row: int) -> UInt8[np.ndarray, "side side 3"]:
        """One galaxy's pixels.

        Raises:
            DataError: its block has been deleted or damaged since.
        """
        block = self.rendering.blocks[row // _BLOCK]
        path = self.rendering.path(block)
        try:
            return np.array(_opened(path)[row - block.start])
        except (OSError, ValueError, IndexError) as problem:
            raise DataError(
                "unreadable block of mock cutouts", value=path, fix="Delete it; the next run draws it again.",
                ids=[mock_id(row)],
            ) from problem  # fmt: skip


@lru_cache(maxsize=512)
def _opened(path: Path) -> np.ndarray:
    """A block's cutouts, mapped rather than read; once per process."""
    return np.load(path, mmap_mode="r")


def mock_id(row: int) -> str:
    """Id of a mock galaxy."""
    return f"mock-{row:07d}"
