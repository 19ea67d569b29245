"""Cutouts of the mock sky: drawn in blocks by several processes, kept on disk, read back one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mocksky.blocks import Blocks, DamagedBlockError, folder_name
from mocksky.edition import picture_edition
from mocksky.populations import galaxy_at, stream
from mocksky.rendering import cutout_of


@dataclass(frozen=True)
class SkyCutouts:
    """Cutouts of galaxies 0 … n − 1 of one sky, kept in a folder of a cache.

    Attributes
    ----------
    cache
        Folder of folders; the cutouts are in the one whose name follows from the settings below and the code.
    galaxies
        Number of galaxies.
    side
        Side of a cutout in pixels.
    seed
        Seed of the sky.
    rates
        Share of the sky's galaxies in each planted population.
    block
        Galaxies per file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cutouts = SkyCutouts(Path(folder), galaxies=2, side=16, seed=0, rates={"shells": 0.5}).complete(workers=1)
    ...     cutouts.cutout(1).shape
    (16, 16, 3)
    """

    cache: Path
    galaxies: int
    side: int
    seed: int
    rates: Mapping[str, float]
    block: int = 500

    @property
    def folder(self) -> Path:
        """Where the blocks are: one .npy file of uint8 (galaxies, side, side, 3) per block."""
        decides = {"edition": picture_edition(), "side": self.side, "seed": self.seed, "rates": dict(self.rates)}
        return self.cache / folder_name("mock", decides)

    @property
    def blocks(self) -> Blocks:
        """The files."""
        return Blocks(self.folder, name="cutouts", suffix=".npy", galaxies=self.galaxies, size=self.block)

    def complete(self, *, workers: int = 0) -> "SkyCutouts":
        """Draw what is missing, and return the same cutouts.

        Parameters
        ----------
        workers
            Number of processes; 0 stands for one per core. The pictures do not depend on it.

        Raises
        ------
        CacheError
            The cache cannot be written.
        """
        self.blocks.complete(self._draw, workers=workers, progress="drawing the mock sky")
        return self

    def _draw(self, block: range, path: Path) -> None:
        models = [galaxy_at(row, seed=self.seed, rates=self.rates).shown for row in block]
        pictures = [
            cutout_of(model, stream(self.seed, row, "pixels"), side=self.side)
            for row, model in zip(block, models, strict=True)
        ]
        with path.open("wb") as file:
            np.save(file, np.stack(pictures))

    def cutout(self, row: int) -> UInt8[np.ndarray, "side side 3"]:
        """Return the picture of one galaxy.

        Raises
        ------
        DamagedBlockError
            Its file has been deleted or damaged since it was drawn.
        """
        start = row - row % self.block
        path = self.blocks.path(range(start, min(start + self.block, self.galaxies)))
        try:
            return np.array(_mapped(path)[row - start])
        except (OSError, ValueError, IndexError) as problem:
            raise DamagedBlockError(path) from problem


@lru_cache(maxsize=512)
def _mapped(path: Path) -> np.ndarray:
    """Map the file of a block into memory, once per process."""
    return np.load(path, mmap_mode="r")
