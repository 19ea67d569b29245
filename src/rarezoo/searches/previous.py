"""Keep class ids over a chain of searches: a class that a previous search found keeps its id, and no id is reused."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.runs import digest, fingerprint
from rarezoo.searches.matching import ClassOverlap
from rarezoo.searches.result import FREE, Search


@dataclass(frozen=True)
class Lineage:
    """Class ids of a search that follows a previous one.

    Attributes
    ----------
    ids
        Id of each class, by its number in this search.
    free
        Smallest id that neither this search nor those before it have used.
    evolution
        MATCHES table of the previous classes with these, under the new ids.
    """

    ids: Mapping[int, int]
    free: int
    evolution: pa.Table

    def renamed(self, table: pa.Table) -> pa.Table:
        """Return a table with a class column under the new ids; −1 stays."""
        return renamed(table, self.ids)


@dataclass(frozen=True)
class PreviousSearch:
    """A finished search whose class ids are kept.

    Attributes
    ----------
    members
        MEMBERS table.
    free
        Smallest id that neither this search nor those before it have used.

    Examples
    --------
    >>> members = pa.table({"id_str": ["a", "b", "c", "d"], "class_id": pa.array([3, 3, -1, -1], pa.int32())})
    >>> later = members.set_column(1, "class_id", pa.array([0, 0, 1, 1], pa.int32()))
    >>> PreviousSearch(members, free=4).lineage(later).ids
    {0: 3, 1: 4}
    """

    members: pa.Table
    free: int

    @property
    def sha256(self) -> str:
        """Hash of the galaxies with their classes, and of the ids that are used."""
        classes = self.members.column(tables.CLASS_ID).to_numpy()
        return digest({"members": fingerprint(classes, ids=tables.strings(self.members, tables.ID)), "free": self.free})

    @classmethod
    def read(cls, folder: Path | str) -> "PreviousSearch":
        """Read the folder of a finished search.

        Raises
        ------
        StoreError
            The folder holds no finished search.
        """
        search = Search.open(folder)
        classes = search.table("classes")
        unused = max(classes.column(tables.CLASS_ID).to_pylist(), default=tables.NO_CLASS) + 1
        return cls(search.table("members"), int(tables.provenance(classes).get(FREE, unused)))

    def require_common_galaxies(self, ids: np.ndarray) -> None:
        """Raise StoreError unless at least one of these galaxies was searched; warn if most were not."""
        before = tables.strings(self.members, tables.ID).astype(str)
        common = int(np.isin(ids.astype(str), before).sum())
        tables.report_matched(common, {"this search": len(ids), "the previous search": len(before)})
        if not common:
            raise StoreError(
                "the previous search has no galaxy in common with this search",
                value=f"{len(ids)} galaxies",
                fix="Set previous= to a search of the same survey.",
            )

    def lineage(self, members: pa.Table) -> Lineage:
        """Return class ids for a later search: the id of the previous class that a class is, or an unused id.

        Parameters
        ----------
        members
            MEMBERS table of the later search.
        """
        counterparts = ClassOverlap.of_members(self.members, members).counterparts
        ids, free = dict[int, int](), self.free
        for class_id in sorted(set(members.column(tables.CLASS_ID).to_pylist()) - {tables.NO_CLASS}):
            ids[class_id] = counterparts.get(class_id, free)
            free += class_id not in counterparts
        return Lineage(ids, free, ClassOverlap.of_members(self.members, renamed(members, ids)).matches())


def renamed(table: pa.Table, ids: Mapping[int, int]) -> pa.Table:
    """Return a table with a class column under other class ids; −1 stays."""
    place = table.column_names.index(tables.CLASS_ID)
    class_ids = [ids.get(class_id, tables.NO_CLASS) for class_id in table.column(tables.CLASS_ID).to_pylist()]
    return table.set_column(place, tables.CLASS_ID, pa.array(class_ids, pa.int32()))
