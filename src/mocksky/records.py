"""Places, truth and votes of the mock sky's galaxies: drawn in blocks by several processes, kept on disk."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from mocksky.populations import GalaxyModel, galaxy_at, stream
from mocksky.rendering import edition, mock_id
from mocksky.votes import drawn_votes
from rarezoo import tables
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import StoreError
from rarezoo.runs import digest

_BLOCK = 2000
_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64()}
_SHOWN = pa.schema([(field.name, _TYPES[field.type]) for field in fields(GalaxyModel)])  # type: ignore[index]
# Centre and half-width of the patch of sky, degrees: the middle of the Legacy Surveys' southern cap.
_RA, _DEC, _HALF = 20.0, -5.0, 4.0


@dataclass(frozen=True)
class Records:
    """Records to be drawn and kept: galaxies 0 … n − 1 of one sky.

    Attributes:
        folder: where the blocks lie, one Parquet file per 2,000 galaxies.
        galaxies: how many.
        seed: of the sky.
        rates: share of the sky's galaxies in each planted population.
        volunteers: who look at a galaxy, on average.
        tree: the questions that they are asked.
    """

    folder: Path
    galaxies: int
    seed: int
    rates: Mapping[str, float]
    volunteers: int
    tree: QuestionTree

    @classmethod
    def under(
        cls, parent: Path, *, galaxies: int, seed: int, rates: Mapping[str, float], volunteers: int, tree: QuestionTree
    ) -> "Records":
        """Records in a folder of the cache that is named by what decides them."""
        decides = {
            "edition": edition(), "votes": _votes_edition(), "seed": seed, "rates": dict(rates),
            "volunteers": volunteers, "answers": list(tree.answers),
        }  # fmt: skip
        return cls(parent / f"records-{digest(decides)[:12]}", galaxies, seed, rates, volunteers, tree)

    @property
    def blocks(self) -> list[range]:
        """Rows of each block."""
        starts = range(0, self.galaxies, _BLOCK)
        return [range(start, min(start + _BLOCK, self.galaxies)) for start in starts]

    def path(self, block: range) -> Path:
        """File of a block."""
        return self.folder / f"records-{block.start:08d}-{block.stop:08d}.parquet"

    def complete(self, *, workers: int) -> "Drawn":
        """Draw what is missing, with a progress bar; each block is written whole, so what was killed goes on.

        Args:
            workers: processes; 0 = one per core.

        Raises:
            OutputError: the cache cannot be written.
            StoreError: a block has been damaged since.
        """
        missing = [block for block in self.blocks if not self.path(block).exists()]
        processes = min(workers or cpu_count(), max(len(missing), 1))
        drawn = Parallel(n_jobs=processes, return_as="generator_unordered")(
            delayed(_drawn_block)(self, block) for block in missing
        )
        left = sum(map(len, missing))
        with tqdm(total=left, desc="mock votes and truth", unit="galaxy", disable=len(missing) < 2) as bar:
            for count in drawn:
                bar.update(count)
        return Drawn(pa.concat_tables([self._read(block) for block in self.blocks]))

    def _read(self, block: range) -> pa.Table:
        try:
            return tables.read(self.path(block), tables.RECORDS)
        except StoreError as problem:
            fix = "Delete it; the next run draws it again."
            raise StoreError(problem.what, value=problem.value, fix=fix) from problem


@dataclass(frozen=True)
class Drawn:
    """Finished records of n galaxies.

    Attributes:
        table: a row per galaxy.
    """

    table: pa.Table

    @property
    def truth(self) -> pa.Table:
        """Population and hidden parameters of what each cutout shows."""
        shown = self.table.select([tables.ID, *_SHOWN.names])
        return tables.check(shown.replace_schema_metadata(None), tables.TRUTH, source="mock truth")

    @property
    def votes(self) -> Float32[np.ndarray, "n answers"]:
        """How many volunteers gave each answer."""
        return tables.matrix(self.table, tables.GIVEN_VOTES).copy()


@cache
def _votes_edition() -> str:
    """Hash of the code that draws votes and places: records by other code are other records."""
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in ("records", "votes")]
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _drawn_block(records: Records, block: range) -> int:
    """Draw and keep one block; returns how many galaxies it holds."""
    pairs = [galaxy_at(row, seed=records.seed, rates=records.rates) for row in block]
    ra, dec = np.array([_place(records.seed, row) for row in block]).T
    given = np.stack([_votes(records, pair.host, row) for row, pair in zip(block, pairs, strict=True)])
    shown = pa.Table.from_pylist([asdict(pair.shown) for pair in pairs], schema=_SHOWN)
    columns = {
        tables.ID: [mock_id(row) for row in block],
        **dict(zip(shown.column_names, shown.columns, strict=True)),
        tables.RA: np.ascontiguousarray(ra),
        tables.DEC: np.ascontiguousarray(dec),
        tables.GIVEN_VOTES: tables.vectors(given),
    }
    tables.write(pa.table(columns), records.path(block), tables.RECORDS)
    return len(block)


def _votes(records: Records, host: GalaxyModel, row: int) -> Float32[np.ndarray, " answers"]:
    return drawn_votes(host, records.tree, stream(records.seed, row, "votes"), volunteers=records.volunteers)


def _place(seed: int, row: int) -> Float64[np.ndarray, "2"]:
    """Right ascension and declination, degrees, uniform over the patch of sky."""
    across, height = stream(seed, row, "position").uniform(-1, 1, 2)
    low, high = np.sin(np.radians([_DEC - _HALF, _DEC + _HALF]))
    return np.array([_RA + _HALF * across, np.degrees(np.arcsin((low + high) / 2 + (high - low) / 2 * height))])
