"""A sample of a store that is too large for the memory: stratified, so that rare corners are not lost.

Galaxies are divided into strata by predicted answers, by place on the sky and by magnitude. A stratum gets its share of
the sample, but at least a few galaxies. Which galaxies of a stratum are drawn follows from the seed and their ids
alone, so that it depends neither on the order of the galaxies nor on how they are divided into shards.

Shape letters: m galaxies of a shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64, UInt64

from rarezoo import tables
from rarezoo.data.expressions import decide
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.select import Select

# Cells of equal area: in right ascension and in the sine of declination.
_CELLS_RA, _CELLS_DEC = 12, 6
# Share of the sample that may go to galaxies of strata that are too rare for their share, and galaxies per stratum.
_RARE_SHARE, _FEWEST = 0.1, 20
# Magnitudes per stratum.
_STEP = 1.0
# Standard deviations by which more galaxies are kept than are drawn at last.
_SLACK = 6.0


@dataclass(frozen=True)
class Strata:
    """What divides galaxies into strata.

    Attributes
    ----------
    magnitude
        Column of the catalogue; empty: none.
    sky
        Whether the place on the sky counts.
    """

    magnitude: str = ""
    sky: bool = True

    def codes(self, shard: pa.Table, galaxies: Galaxies | None) -> UInt64[np.ndarray, " m"]:
        """Return a number for the stratum of each galaxy.

        Parameters
        ----------
        shard
            (m,) rows with the predicted fractions.
        galaxies
            The same galaxies in the survey; None without one.
        """
        keys: dict[str, np.ndarray] = {}
        for name in shard.column_names:
            if tables.is_fraction_column(name):
                keys[name] = shard.column(name).to_numpy(zero_copy_only=False) >= 0.5
        if galaxies is not None and self.sky:
            ra, dec = (
                galaxies.catalogue.column(name).to_numpy(zero_copy_only=False) for name in (tables.RA, tables.DEC)
            )
            ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
            with np.errstate(invalid="ignore"):
                across = np.floor(np.mod(ra, 360) / 360 * _CELLS_RA)
                up = np.floor((np.sin(np.radians(dec)) + 1) / 2 * _CELLS_DEC).clip(max=_CELLS_DEC - 1)
            keys["sky"] = np.nan_to_num(across * _CELLS_DEC + up, nan=-1)
        if galaxies is not None and self.magnitude:
            values = self._magnitudes(galaxies.catalogue)
            keys["magnitude"] = np.nan_to_num(np.floor(values / _STEP), nan=-999)
        if not keys:
            return np.zeros(shard.num_rows, dtype=np.uint64)
        frame = pd.DataFrame({str(number): column for number, column in enumerate(keys.values())})
        return pd.util.hash_pandas_object(frame, index=False).to_numpy()

    def _magnitudes(self, catalogue: pa.Table) -> Float64[np.ndarray, " m"]:
        if self.magnitude not in catalogue.column_names:
            raise ConfigError(
                "the catalogue has no column of magnitudes", value=f"magnitude={self.magnitude}",
                fix=f"There are: {', '.join(catalogue.column_names[:12])}. Those of a HATS catalogue are read if "
                "data.columns= names them.",
            )  # fmt: skip
        kind = catalogue.schema.field(self.magnitude).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise ConfigError("not a column of numbers", value=f"magnitude={self.magnitude} ({kind})",
                              fix="Choose a column of numbers.")  # fmt: skip
        numbers = catalogue.column(self.magnitude).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(numbers)


@dataclass
class Counts:
    """Galaxies per stratum, added up over shards."""

    strata: dict[int, int] = field(default_factory=dict)
    galaxies: int = 0
    kept: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of other shards."""
        for stratum, count in other.strata.items():
            self.strata[stratum] = self.strata.get(stratum, 0) + count
        self.galaxies += other.galaxies
        self.kept += other.kept

    def allotted(self, size: int) -> dict[int, int]:
        """Return how many galaxies are drawn from each stratum; ``size`` together, or all if there are fewer.

        Each gets its share of the sample, rounded up or down. A stratum whose share is below 20 galaxies gets 20, or
        all that it has, as long as this takes no more than a tenth of the sample.

        Shares are rounded systematically: the strata are laid one after the other on a line, each as long as its share,
        and a galaxy is drawn wherever the line passes half of a whole number. So many strata with a share of less than
        one galaxy get as many galaxies together as they should. Their order on the line, that of their numbers, has
        nothing to do with what they are, because the numbers are hashes.

        Examples
        --------
        >>> Counts({1: 9900, 2: 50, 3: 4}, 9954, 9954).allotted(1000)
        {1: 976, 2: 20, 3: 4}
        >>> singles = Counts({stratum: 1 for stratum in range(10)}, 10, 10)
        >>> list(singles.allotted(4).values())
        [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
        """
        if size >= self.kept:
            return dict(self.strata)
        floor = min(_FEWEST, int(_RARE_SHARE * size / max(len(self.strata), 1)))
        least = {stratum: min(count, floor) for stratum, count in self.strata.items()}
        share = size / self.kept
        rare = {stratum for stratum, count in self.strata.items() if count * share < least[stratum]}
        left = size - sum(least[stratum] for stratum in rare)
        common = sorted(stratum for stratum in self.strata if stratum not in rare)
        passed = np.cumsum([self.strata[stratum] for stratum in common])
        # Whole numbers, so that nothing is lost by rounding: ⌊passed · left / total + ½⌋.
        total = int(passed[-1]) if common else 1
        marks = [(2 * int(count) * left + total) // (2 * total) for count in passed]
        drawn = dict(zip(common, np.diff([0, *marks]).tolist(), strict=True))
        return {stratum: least[stratum] if stratum in rare else drawn[stratum] for stratum in self.strata}


def keys_of(ids: np.ndarray, *, seed: int) -> Float64[np.ndarray, " m"]:
    """Return a number from 0 to 1 for each id, which decides whether the galaxy is drawn."""
    return hashes_of(ids, seed=seed) / 2.0**64


def hashes_of(ids: np.ndarray, *, seed: int = 0) -> UInt64[np.ndarray, " m"]:
    """Return 64 bits for each id: two of 10⁹ different ids share them with a probability of 3 in 100."""
    if not len(ids):
        return np.empty(0, dtype=np.uint64)
    return pd.util.hash_array(np.asarray(ids, dtype=object), hash_key=f"{seed:016d}"[-16:], categorize=False)


def kept_rows(
    select: Select, shard: pa.Table, embeddings: np.ndarray | None, *, folder: Path
) -> Bool[np.ndarray, " m"]:
    """Return which galaxies of a shard pass the cuts, as :meth:`Select.kept` decides it.

    Raises
    ------
    StoreError
        An embedding is not finite, and ``not_finite`` is ``refuse``.
    """
    mask = np.ones(shard.num_rows, dtype=bool)
    for cut in select.drop:
        mask &= ~pc.fill_null(decide(cut, shard), select.nan == "drop").to_numpy(zero_copy_only=False)
    if embeddings is None:
        return mask
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any() and select.not_finite == "refuse":
        raise StoreError(
            "embeddings that are not finite", value=f"{int(bad.sum())} galaxies in {folder}",
            fix="Embed those galaxies again, or search without them: select.not_finite=drop.",
            ids=tables.strings(shard, tables.ID)[bad].tolist(),
        )  # fmt: skip
    return mask & ~bad


def refuse_doubled_ids(files: Sequence[Path], *, parts: int = 16) -> None:
    """Raise StoreError if two galaxies of the store have one id; ``files`` hold the hashes of each part.

    Parameters
    ----------
    files
        ``.npy`` files with 64-bit hashes.
    parts
        Number of passes: each looks at the hashes of one range, which limits the memory to that share of them.
    """
    for part in range(parts):
        low, high = np.uint64(part * (2**64 // parts)), np.uint64((part + 1) * (2**64 // parts) - 1)
        chosen = []
        for number, file in enumerate(files):
            hashes = np.load(file, mmap_mode="r")
            inside = np.asarray(hashes[(hashes >= low) & (hashes <= high)])
            chosen.append(np.column_stack([inside, np.full(len(inside), number, dtype=np.uint64)]))
        both = np.concatenate([np.empty((0, 2), np.uint64), *chosen])
        values, counts = np.unique(both[:, 0], return_counts=True)
        if (counts > 1).any():
            doubled = values[counts > 1]
            where = sorted({int(number) for number in both[np.isin(both[:, 0], doubled), 1]})
            raise StoreError(
                "ids occur more than once in the store", value=f"{len(doubled)} ids, in parts {where[:6]}",
                fix="Keep one row per galaxy, and write the store again.",
            )  # fmt: skip


def drawn_rows(
    codes: np.ndarray, keys: np.ndarray, allotted: Mapping[int, int], counts: Mapping[int, int]
) -> Int64[np.ndarray, " drawn"]:
    """Return the rows of a shard that may be in the sample: a few more than those that are at last.

    Parameters
    ----------
    codes, keys
        (m,) stratum and number of each galaxy.
    allotted, counts
        Galaxies that are drawn from each stratum, and galaxies in it.
    """
    limit = np.empty(len(codes))
    values, where = np.unique(codes, return_inverse=True)
    for number, value in enumerate(values.tolist()):
        wanted, count = allotted.get(value, 0), counts.get(value, 1)
        limit[where == number] = (wanted + _SLACK * np.sqrt(wanted) + _SLACK) / count if wanted else 0.0
    return np.flatnonzero(keys < limit)


def exact_sample(codes: np.ndarray, keys: np.ndarray, allotted: Mapping[int, int]) -> Int64[np.ndarray, " sample"]:
    """Return the rows of the candidates that make the sample: those of the smallest numbers in each stratum."""
    order = np.lexsort((keys, codes))
    values, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    chosen = [
        order[start : start + min(count, allotted.get(value, 0))]
        for value, start, count in zip(values.tolist(), starts, counts, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def fraction_columns(store: EmbeddingStore) -> list[str]:
    """Return the columns of a store that cuts and strata need, besides the ids."""
    return [tables.fraction_column(answer) for answer in store.manifest.answers]
