"""What of a search's result hangs on its settings: searches of the same galaxies, compared.

Shape letters: n galaxies, j searches, s settings, c classes of the centre.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.searches.matching import SAME, ClassOverlap, agreement

CENTRE = "centre"
# Where a setting's name is clear without the part of the search that it belongs to.
_SILENT = ("compress.", "clusterer.")


@dataclass(frozen=True, eq=False)
class Search:
    """One finished search.

    Attributes:
        name: of its folder.
        settings: dotted name → value, without the seed.
        seed: of the search.
        labels: (n,) class of each galaxy, −1 for none.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int
    labels: Int[np.ndarray, " n"]

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " classes"]:
        """Galaxies in each class, the most first."""
        inside = self.labels[self.labels != tables.NO_CLASS]
        return np.sort(np.unique(inside, return_counts=True)[1])[::-1]

    @property
    def unassigned(self) -> float:
        """Share of the galaxies in no class, 0–1."""
        return float(np.mean(self.labels == tables.NO_CLASS))


@dataclass(frozen=True, eq=False)
class Setting:
    """Searches that differ in their seed alone.

    Attributes:
        name: how it differs from the centre.
        values: of the settings that are varied.
        searches: by seed.
    """

    name: str
    values: tuple[str, ...]
    searches: tuple[Search, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Searches of the same galaxies under different settings.

    Attributes:
        searches: one at least; of two with the same settings and seed the first counts.
        missing: name → reason, of those that were not finished.
        named: the search whose setting is the centre; empty: the setting nearest to all others, which is the one in the
            middle where one setting is varied at a time.
    """

    searches: Sequence[Search]
    missing: Mapping[str, str]
    named: str = ""

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """Settings in which the searches differ."""
        names = sorted({name for one in self.searches for name in one.settings})
        return tuple(name for name in names if len({str(one.settings.get(name)) for one in self.searches}) > 1)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The centre, then those that differ from it in fewest settings.

        Raises:
            StoreError: no search has the name that the centre was given.
        """
        found: dict[tuple[str, ...], dict[int, Search]] = {}
        for one in self.searches:
            found.setdefault(self._values(one), {}).setdefault(one.seed, one)
        centre = self._centre(list(found))
        order = sorted(found, key=lambda values: (_differences(values, centre), [*map(_rank, values)]))
        return tuple(
            Setting(self._name(values, centre), values, tuple(one for _, one in sorted(found[values].items())))
            for values in order
        )

    def _values(self, search: Search) -> tuple[str, ...]:
        return tuple(str(search.settings.get(name, "–")) for name in self.varied)

    def _centre(self, known: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        if self.named:
            chosen = [one for one in self.searches if one.name == self.named]
            if not chosen:
                names = ", ".join(sorted(one.name for one in self.searches)[:5])
                raise StoreError("no such finished search", value=self.named, fix=f"Name one of: {names} …")
            return self._values(chosen[0])
        grid = [sorted({values[place] for values in known}, key=_rank) for place in range(len(self.varied))]

        def remoteness(values: tuple[str, ...]) -> tuple[int, float]:
            """Settings in which the others differ from it; in a full grid, where these are equal, from the middle."""
            off = [abs(axis.index(value) - (len(axis) - 1) / 2) for axis, value in zip(grid, values, strict=True)]
            return sum(_differences(values, other) for other in known), sum(off)

        return min(known, key=remoteness)

    def _name(self, values: Sequence[str], centre: Sequence[str]) -> str:
        changed = [
            f"{_short(name)} {value}"
            for name, value, middle in zip(self.varied, values, centre, strict=True)
            if value != middle
        ]
        return ", ".join(changed) or CENTRE

    @property
    def centre(self) -> Search:
        """The search whose classes are followed: the centre's first seed."""
        return self.settings[0].searches[0]

    @property
    def classes(self) -> Int64[np.ndarray, " c"]:
        """Ids of the classes of :attr:`centre`."""
        return np.unique(self.centre.labels[self.centre.labels != tables.NO_CLASS]).astype(np.int64)

    @cached_property
    def table(self) -> pa.Table:
        """SEARCHES: one row per search, with the value of every varied setting; then those that are missing."""
        schema = pa.schema([*tables.SEARCHES.columns.items(), *((name, pa.string()) for name in self.varied)])
        found = [self._row(setting, one) for setting in self.settings for one in setting.searches]
        lost = [{tables.SEARCH: name, tables.MISSING: reason} for name, reason in sorted(self.missing.items())]
        return pa.Table.from_pylist([*found, *lost], schema)

    def _row(self, setting: Setting, search: Search) -> dict[str, Any]:
        return {
            tables.SEARCH: search.name, tables.SETTING: setting.name, tables.SEED: search.seed,
            tables.CLASS_COUNT: len(search.sizes), tables.SIZES: search.sizes.tolist(),
            tables.UNASSIGNED: search.unassigned, **dict(zip(self.varied, setting.values, strict=True)),
        }  # fmt: skip

    @cached_property
    def agreements(self) -> pa.Table:
        """AGREEMENTS: of searches with one seed under every two settings, and with every two seeds under one."""
        pairs = list(self._pairs())
        rows = []
        for (setting, one), (another, other) in tqdm(pairs, desc="comparing", unit="pair", mininterval=1.0):
            names = {
                tables.SEARCH_A: one.name, tables.SEARCH_B: other.name, tables.SETTING_A: setting.name,
                tables.SETTING_B: another.name, tables.SEED_A: one.seed, tables.SEED_B: other.seed,
            }  # fmt: skip
            rows.append({**names, **asdict(agreement(one.labels, other.labels))})
        return pa.Table.from_pylist(rows, pa.schema(list(tables.AGREEMENTS.columns.items())))

    def _pairs(self) -> Iterator[tuple[tuple[Setting, Search], tuple[Setting, Search]]]:
        every = [(setting, one) for setting in self.settings for one in setting.searches]
        for one, other in combinations(every, 2):
            if one[0] is other[0] or one[1].seed == other[1].seed:
                yield one, other

    @cached_property
    def lives(self) -> pa.Table:
        """LIVES: the best Jaccard of every class of the centre's first seed in every other search."""
        rows = [
            {
                tables.CLASS_ID: int(class_id), tables.SEARCH: one.name, tables.SETTING: setting.name,
                tables.SEED: one.seed, tables.JACCARD: float(best),
            }
            for setting in self.settings
            for one in setting.searches
            if one is not self.centre
            for class_id, best in zip(
                self.classes, ClassOverlap.of_labels(self.centre.labels, one.labels).best, strict=True
            )
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, pa.schema(list(tables.LIVES.columns.items())))

    @cached_property
    def co_assignment(self) -> Float64[np.ndarray, "s s"]:
        """Mean co-assignment of every two settings over their common seeds, and on the diagonal between the seeds."""
        place = {setting.name: at for at, setting in enumerate(self.settings)}
        sums, counts = np.zeros((2, len(place), len(place)))
        for row in self.agreements.to_pylist():
            if not np.isnan(row[tables.CO_ASSIGNMENT]):
                at = place[row[tables.SETTING_A]], place[row[tables.SETTING_B]]
                sums[at] += row[tables.CO_ASSIGNMENT]
                counts[at] += 1
        # A pair was met in one order only.
        sums, counts = (np.where(np.eye(len(place)) == 1, one, one + one.T) for one in (sums, counts))
        return _divided(sums, counts)

    @cached_property
    def living(self) -> Float64[np.ndarray, "c s"]:
        """Mean best Jaccard of every class of the centre in the searches of every setting."""
        place = {setting.name: at for at, setting in enumerate(self.settings)}
        line = {int(one): at for at, one in enumerate(self.classes)}
        sums, counts = np.zeros((2, len(line), len(place)))
        for row in self.lives.to_pylist():
            at = line[row[tables.CLASS_ID]], place[row[tables.SETTING]]
            sums[at] += row[tables.JACCARD]
            counts[at] += 1
        return _divided(sums, counts)

    @property
    def lived_through(self) -> Int64[np.ndarray, " c"]:
        """In how many of the other settings a class of the centre is kept: mean best Jaccard ≥ ½."""
        return np.sum(np.nan_to_num(self.living[:, 1:]) >= SAME, axis=1)


def _divided(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _differences(values: Sequence[str], other: Sequence[str]) -> int:
    return sum(one != two for one, two in zip(values, other, strict=True))


def _rank(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _short(name: str) -> str:
    for part in _SILENT:
        name = name.removeprefix(part)
    return name
