"""Arrange the searches of a multirun by their settings, around the setting in the middle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from rarezoo import tables
from rarezoo.errors import StoreError

CENTRE = "centre"
# Parts of the search whose name is left out, because the name of the setting is clear without it.
_LEFT_OUT = ("compress.", "clusterer.")


@dataclass(frozen=True, eq=False)
class SweptSearch:
    """One finished search of a multirun.

    Attributes
    ----------
    name
        Name of its folder.
    settings
        Values by dotted name, without the seed.
    seed
        Seed of the search.
    labels
        (n,) class of each galaxy, −1 for none.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int
    labels: Int[np.ndarray, " n"]

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " classes"]:
        """Number of galaxies in each class, the largest class first."""
        inside = self.labels[self.labels != tables.NO_CLASS]
        return np.sort(np.unique(inside, return_counts=True)[1])[::-1]

    @property
    def unassigned(self) -> float:
        """Share of the galaxies in no class, 0–1."""
        return float(np.mean(self.labels == tables.NO_CLASS))


@dataclass(frozen=True, eq=False)
class SweptSetting:
    """Searches that differ only in their seed.

    Attributes
    ----------
    name
        Difference from the centre.
    values
        Values of the settings that are varied.
    searches
        The searches, by seed.
    """

    name: str
    values: tuple[str, ...]
    searches: tuple[SweptSearch, ...]


def varied_settings(searches: Sequence[SweptSearch]) -> tuple[str, ...]:
    """Return the dotted names of the settings in which searches differ, sorted."""
    names = sorted({name for search in searches for name in search.settings})
    return tuple(name for name in names if len({str(search.settings.get(name)) for search in searches}) > 1)


def settings_around(searches: Sequence[SweptSearch], *, named: str = "") -> tuple[SweptSetting, ...]:
    """Return the centre, then the other settings, those that differ from it in fewest values first.

    Parameters
    ----------
    searches
        At least one search; of two with the same settings and seed the first is used.
    named
        Name of the search whose setting is the centre. Empty: the setting that differs least from all others, and
        among equal ones, as in a full grid, the one that is nearest to the middle of every setting.

    Raises
    ------
    StoreError
        No search has the name.
    """
    varied = varied_settings(searches)

    def values_of(search: SweptSearch) -> tuple[str, ...]:
        return tuple(str(search.settings.get(name, "–")) for name in varied)

    by_values: dict[tuple[str, ...], dict[int, SweptSearch]] = {}
    for search in searches:
        by_values.setdefault(values_of(search), {}).setdefault(search.seed, search)
    grid = [sorted({values[place] for values in by_values}, key=_size) for place in range(len(varied))]

    def remoteness(values: tuple[str, ...]) -> tuple[int, float]:
        off = [abs(axis.index(value) - (len(axis) - 1) / 2) for axis, value in zip(grid, values, strict=True)]
        return sum(_differences(values, other) for other in by_values), sum(off)

    centre = min(by_values, key=remoteness)
    if named:
        of_name = [search for search in searches if search.name == named]
        if not of_name:
            names = ", ".join(sorted(search.name for search in searches)[:5])
            raise StoreError("no finished search has this name", value=named, fix=f"Name one of: {names} …")
        centre = values_of(of_name[0])
    order = sorted(by_values, key=lambda values: (_differences(values, centre), [*map(_size, values)]))
    return tuple(
        SweptSetting(
            _name(varied, values, centre), values, tuple(search for _, search in sorted(by_values[values].items()))
        )
        for values in order
    )


def _name(varied: Sequence[str], values: Sequence[str], centre: Sequence[str]) -> str:
    """Return the difference of a setting from the centre, such as ``min_samples 5``."""
    changed = []
    for setting, value, middle in zip(varied, values, centre, strict=True):
        for part in _LEFT_OUT:
            setting = setting.removeprefix(part)
        if value != middle:
            changed.append(f"{setting} {value}")
    return ", ".join(changed) or CENTRE


def _differences(values: Sequence[str], other: Sequence[str]) -> int:
    return sum(value != another for value, another in zip(values, other, strict=True))


def _size(value: str) -> tuple[bool, float, str]:
    """Return a key that sorts numbers by size, before words."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
