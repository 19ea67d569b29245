"""Mock surveys only: what the classes are made of, since it is known what was planted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rarezoo import tables
from rarezoo.report.sample import Sample, rows_of
from rarezoo.searches import recovery


@dataclass(frozen=True)
class Share:
    """A population's part in a class: so many members, their share of the class and of the population (0–1)."""

    population: str
    size: int
    purity: float
    completeness: float


@dataclass(frozen=True)
class Planted:
    """What became of a planted population; ``class_id`` is the class that holds most of it, −1 for none."""

    population: str
    size: int
    class_id: int
    purity: float
    completeness: float
    found: bool


def planted(sample: Sample, *, truth: pa.Table) -> list[Planted]:
    """Every planted population, by name."""
    members = pa.table({tables.ID: sample.ids, tables.CLASS_ID: sample.labels})
    return [
        Planted(
            population=row[tables.POPULATION],
            size=row[tables.SIZE],
            class_id=row[recovery.BEST_CLASS],
            purity=row[recovery.PURITY],
            completeness=row[recovery.COMPLETENESS],
            found=row[recovery.FOUND],
        )
        for row in recovery.recovery(members, truth).to_pylist()
    ]


def shares(sample: Sample, *, truth: pa.Table, classes: Sequence[int]) -> dict[int, tuple[Share, ...]]:
    """For each class the populations in it, the commonest first.

    Raises:
        StoreError: a galaxy is missing from the truth.
    """
    known = rows_of(pa.chunked_array([pa.array(sample.ids, pa.string())]), truth, source="the truth")
    populations = tables.strings(known, tables.POPULATION)
    everywhere = Counter(populations)
    return {one: _shares(Counter(populations[sample.members(one)]), everywhere) for one in classes}


def _shares(inside: Counter[str], everywhere: Counter[str]) -> tuple[Share, ...]:
    return tuple(
        Share(name, count, count / inside.total(), count / everywhere[name])
        for name, count in sorted(inside.items(), key=lambda item: (-item[1], item[0]))
    )
