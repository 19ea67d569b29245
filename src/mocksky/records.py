"""Positions, truth and votes of the mock sky's galaxies: drawn in blocks by several processes, kept on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from mocksky.blocks import Blocks, DamagedBlockError, folder_name
from mocksky.edition import record_edition
from mocksky.populations import GalaxyModel, galaxy_at, stream
from mocksky.votes import VoteTree, drawn_votes

_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64()}
_TRUTH = pa.schema([(field.name, _TYPES[field.type]) for field in fields(GalaxyModel)])  # type: ignore[index]
# Centre and half-width of the patch of sky in degrees: the middle of the Legacy Surveys' southern cap.
_RA, _DEC, _HALF = 20.0, -5.0, 4.0


def mock_id(row: int) -> str:
    """Return the id of a mock galaxy.

    >>> mock_id(12)
    'mock-0000012'
    """
    return f"mock-{row:07d}"


def position_at(row: int, *, seed: int) -> tuple[float, float]:
    """Return right ascension and declination of a galaxy in degrees, uniform over the patch of sky."""
    across, height = stream(seed, row, "position").uniform(-1, 1, 2)
    low, high = np.sin(np.radians([_DEC - _HALF, _DEC + _HALF]))
    dec = np.degrees(np.arcsin((low + high) / 2 + (high - low) / 2 * height))
    return float(_RA + _HALF * across), float(dec)


@dataclass(frozen=True)
class SkyRecords:
    """Records of galaxies 0 … n − 1 of one sky, kept in a folder of a cache.

    Attributes
    ----------
    cache
        Folder of folders; the records are in the one whose name follows from the settings below and the code.
    galaxies
        Number of galaxies.
    seed
        Seed of the sky.
    rates
        Share of the sky's galaxies in each planted population.
    volunteers
        Number of volunteers who look at a galaxy, on average.
    tree
        The questions that they are asked.
    block
        Galaxies per file.
    """

    cache: Path
    galaxies: int
    seed: int
    rates: Mapping[str, float]
    volunteers: int
    tree: VoteTree
    block: int = 2000

    @property
    def folder(self) -> Path:
        """Where the blocks are: one Parquet file per block."""
        decides = {
            "edition": record_edition(), "seed": self.seed, "rates": dict(self.rates),
            "volunteers": self.volunteers, "answers": list(self.tree.answers),
        }  # fmt: skip
        return self.cache / folder_name("records", decides)

    @property
    def blocks(self) -> Blocks:
        """The files."""
        return Blocks(self.folder, name="records", suffix=".parquet", galaxies=self.galaxies, size=self.block)

    def complete(self, *, workers: int = 0) -> "DrawnRecords":
        """Draw what is missing, and return all records.

        Parameters
        ----------
        workers
            Number of processes; 0 stands for one per core. The records do not depend on it.

        Raises
        ------
        CacheError
            The cache cannot be written.
        DamagedBlockError
            A file has been damaged since it was drawn.
        """
        self.blocks.complete(self._draw, workers=workers, progress="drawing votes and truth")
        return DrawnRecords(pa.concat_tables([_read(self.blocks.path(block)) for block in self.blocks.ranges]))

    def _draw(self, block: range, path: Path) -> None:
        pairs = [galaxy_at(row, seed=self.seed, rates=self.rates) for row in block]
        votes = [
            drawn_votes(pair.host, self.tree, stream(self.seed, row, "votes"), volunteers=self.volunteers)
            for row, pair in zip(block, pairs, strict=True)
        ]
        ra, dec = zip(*(position_at(row, seed=self.seed) for row in block), strict=True)
        truth = pa.Table.from_pylist([asdict(pair.shown) for pair in pairs], schema=_TRUTH)
        columns = {
            "id_str": pa.array([mock_id(row) for row in block]),
            **dict(zip(truth.column_names, truth.columns, strict=True)),
            "ra": pa.array(ra, pa.float64()),
            "dec": pa.array(dec, pa.float64()),
            "votes": pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(votes)), len(votes[0])),
        }
        pq.write_table(pa.table(columns), path, compression="zstd")


def _read(path: Path) -> pa.Table:
    needed = {"id_str", *_TRUTH.names, "ra", "dec", "votes"}
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as problem:
        raise DamagedBlockError(path) from problem
    if not needed <= {*table.column_names}:
        raise DamagedBlockError(path)
    return table


@dataclass(frozen=True)
class DrawnRecords:
    """Finished records of n galaxies.

    Attributes
    ----------
    table
        One row per galaxy: ``id_str``, the fields of :class:`~mocksky.populations.GalaxyModel` that its cutout shows,
        ``ra``, ``dec``, ``votes``.
    """

    table: pa.Table

    @property
    def truth(self) -> pa.Table:
        """Id, population and hidden parameters of what each cutout shows."""
        return self.table.select(["id_str", *_TRUTH.names])

    @property
    def votes(self) -> Float32[np.ndarray, "n answers"]:
        """Number of volunteers who gave each answer."""
        column = self.table.column("votes")
        values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.array(values).reshape(self.table.num_rows, column.type.list_size)
