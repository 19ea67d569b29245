"""Filters before a ranking: an expression over columns, classes of a search, and a cone on the sky."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from rarezoo import tables
from rarezoo.data.expressions import decide
from rarezoo.errors import ConfigError
from rarezoo.explore.places import distance_text, read_position, separations
from rarezoo.explore.pool import Pool


class FilterResult(NamedTuple):
    """What one filter keeps, whatever the other filters keep.

    Attributes
    ----------
    filter : str
        The filter as it was given.
    kept : int
        Galaxies that it keeps.
    undecided : int
        Galaxies that it leaves out because a value of theirs is unknown.
    """

    filter: str
    kept: int
    undecided: int

    def __str__(self) -> str:
        unknown = f" ({self.undecided:,} left out because a value is unknown)" if self.undecided else ""
        return f"{self.filter} keeps {self.kept:,}{unknown}"


class Filtered(NamedTuple):
    """Which of n galaxies pass every filter.

    Attributes
    ----------
    mask : (n,) array of bool
        True for a galaxy that can be found and passes.
    results : tuple of FilterResult
        One per filter.
    """

    mask: Bool[np.ndarray, " n"]
    results: tuple[FilterResult, ...]


@dataclass(frozen=True)
class Filters:
    """Which galaxies a ranking may show.

    Attributes
    ----------
    where : str
        Condition on catalogue columns, predicted fractions and, of a search, the columns of its members table, in the
        language of :func:`rarezoo.data.expressions.decide`. A galaxy for which it is undecided is left out.
    classes : int or sequence of int
        Ids of classes of the search, −1 for the galaxies in no class; empty: all galaxies.
    cone : str or sequence of float
        Position and radius in arcsec, such as ``185.7 15.8 600``; empty: the whole sky.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from rarezoo.embeddings.store import EmbeddingStore
    >>> store = EmbeddingStore.from_array(
    ...     ["a", "b"], np.eye(2, dtype=np.float32), fractions={"bar_yes": [0.9, 0.1]}, out=mkdtemp()
    ... )
    >>> filtered = Filters(where="bar_yes_fraction > 0.5").of(Pool(store))
    >>> filtered.mask.tolist(), str(filtered.results[0])
    ([True, False], 'bar_yes_fraction > 0.5 keeps 1')
    """

    where: str = ""
    classes: int | Sequence[int] = ()
    cone: str | Sequence[float] = ""

    def of(self, pool: Pool) -> Filtered:
        """Apply the filters.

        Raises
        ------
        ConfigError
            A filter cannot be read, needs what the survey does not have, or no galaxy is left.
        """
        mask, results = pool.inside.copy(), []
        for text, passes in self._each(pool):
            known = pc.is_valid(passes).to_numpy(zero_copy_only=False)
            true = pc.fill_null(passes, False).to_numpy(zero_copy_only=False)
            results.append(FilterResult(text, int((true & pool.inside).sum()), int((~known & pool.inside).sum())))
            mask &= true
        if not mask.any():
            fix = "Loosen a filter." if results else "Embed the galaxies again."
            tally = "; ".join(map(str, results)) or "none has a finite embedding"
            raise ConfigError(f"none of {int(pool.inside.sum()):,} galaxies passes the filters", value=tally, fix=fix)
        return Filtered(mask, tuple(results))

    def _each(self, pool: Pool) -> list[tuple[str, pa.BooleanArray]]:
        """Return each filter as text, and for every galaxy true, false or null."""
        each = []
        if self.where.strip():
            table = pool.table_for(self.where, called="filter")
            each.append((self.where.strip(), decide(self.where, table, called="filter")))
        classes = [self.classes] if isinstance(self.classes, int) else list(self.classes)
        if classes:
            each.append((f"classes {', '.join(map(str, classes))}", _in_classes(pool, classes)))
        cone = self.cone.strip() if isinstance(self.cone, str) else " ".join(map(str, self.cone))
        if cone:
            each.append((f"cone {cone}", _in_cone(pool, cone)))
        return each


def _in_classes(pool: Pool, classes: Sequence[int]) -> pa.BooleanArray:
    if pool.search is None:
        raise ConfigError(
            "classes are those of a search, and this is an embedding store", value=pool.folder,
            fix="Give the folder of a search, or leave classes= out.",
        )  # fmt: skip
    known = pool.search.table("classes").column(tables.CLASS_ID).to_pylist()
    unknown = [class_id for class_id in classes if class_id not in (*known, tables.NO_CLASS)]
    if unknown:
        listed = ", ".join(map(str, known)) or "none"
        raise ConfigError(f"{pool.folder} has no class", value=unknown[0], fix=f"Its classes are: {listed}.")
    condition = " or ".join(f"{tables.CLASS_ID} == {class_id}" for class_id in classes)
    return decide(condition, pool.table_for(condition, called="filter"), called="filter")


def _in_cone(pool: Pool, cone: str) -> pa.BooleanArray:
    grammar = "Give a position and a radius in arcsec: cone='185.7 15.8 600'."
    words = cone.replace(",", " ").split()
    try:
        radius = float(words[-1]) if words else np.nan
    except ValueError:
        radius = np.nan
    centre = read_position(" ".join(words[:-1])) if len(words) > 2 else None
    if centre is None or not 0 < radius < np.inf:
        raise ConfigError("unreadable cone", value=cone, fix=grammar)
    if pool.positions is None:
        raise ConfigError("the positions of the galaxies are not known", value=f"cone={cone}", fix="Leave cone= out.")
    distances = separations(*pool.positions, centre)
    inside = pa.array(distances <= radius, mask=~np.isfinite(distances))
    if not pc.any(inside).as_py():
        raise ConfigError(
            f"no galaxy of the survey is within {distance_text(radius)} of this position", value=str(centre),
            fix=f"The nearest is {distance_text(float(np.nanmin(distances)))} away.",
        )  # fmt: skip
    return inside
