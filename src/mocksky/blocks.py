"""Files that hold many galaxies in blocks: drawn by several processes, each file whole or absent."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm


class CacheError(OSError):
    """A folder that keeps drawn galaxies cannot be written; ``strerror`` says why and ``filename`` where."""


class DamagedBlockError(ValueError):
    """A file of drawn galaxies is missing or unreadable; the next drawing replaces it once it is deleted.

    Attributes
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        """Return the message."""
        return f"unreadable block of the mock sky: {self.path}"


@dataclass(frozen=True)
class Blocks:
    """Files of one folder that together hold galaxies 0 … n − 1, each file a block of consecutive galaxies.

    Attributes
    ----------
    folder
        Where the files are.
    name
        First part of their names.
    suffix
        Last part of their names, such as ``.npy``.
    galaxies
        Number of galaxies.
    size
        Number of galaxies per file.

    Examples
    --------
    >>> blocks = Blocks(Path("sky"), name="cutouts", suffix=".npy", galaxies=7, size=3)
    >>> [blocks.path(block).name for block in blocks.ranges]
    ['cutouts-00000000-00000003.npy', 'cutouts-00000003-00000006.npy', 'cutouts-00000006-00000007.npy']
    """

    folder: Path
    name: str
    suffix: str
    galaxies: int
    size: int

    @property
    def ranges(self) -> list[range]:
        """Galaxy numbers of each block."""
        starts = range(0, self.galaxies, self.size)
        return [range(start, min(start + self.size, self.galaxies)) for start in starts]

    def path(self, block: range) -> Path:
        """Return the file of a block."""
        return self.folder / f"{self.name}-{block.start:08d}-{block.stop:08d}{self.suffix}"

    def missing(self) -> list[range]:
        """Return the blocks that have no file yet."""
        return [block for block in self.ranges if not self.path(block).exists()]

    def complete(self, draw: Callable[[range, Path], None], *, workers: int, progress: str) -> None:
        """Draw the blocks that are missing, with a progress bar; after a kill the next call draws only the rest.

        Parameters
        ----------
        draw
            Draws a block and writes it to a path; it is sent to other processes.
        workers
            Number of processes; 0 stands for one per core.
        progress
            What the progress bar says.

        Raises
        ------
        CacheError
            The folder cannot be written.
        """
        missing = self.missing()
        processes = min(workers or cpu_count(), max(len(missing), 1))
        finished = Parallel(n_jobs=processes, return_as="generator_unordered")(
            delayed(_write_whole)(draw, block, self.path(block)) for block in missing
        )
        with tqdm(total=sum(map(len, missing)), desc=progress, unit="galaxy", disable=not missing) as bar:
            for galaxies in finished:
                bar.update(galaxies)


def _write_whole(draw: Callable[[range, Path], None], block: range, path: Path) -> int:
    """Draw a block into a temporary file and rename it; return the number of its galaxies."""
    whole_file(lambda temporary: draw(block, temporary), path)
    return len(block)


def whole_file(write: Callable[[Path], object], path: Path) -> None:
    """Write a file that appears as a whole or not at all.

    Parameters
    ----------
    write
        Writes the content to the temporary path that it is called with.
    path
        Where the file appears.

    Raises
    ------
    CacheError
        The folder cannot be written or is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        # Otherwise a power failure could leave an empty file under the name of a whole one.
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise CacheError(problem.errno, problem.strerror or str(problem), str(path)) from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def folder_name(prefix: str, decides: Mapping[str, Any]) -> str:
    """Return a folder's name that differs whenever what decides its content differs.

    >>> folder_name("mock", {"seed": 1}) == folder_name("mock", {"seed": 2})
    False
    """
    content = json.dumps(decides, sort_keys=True).encode()
    return f"{prefix}-{hashlib.sha256(content).hexdigest()[:12]}"
