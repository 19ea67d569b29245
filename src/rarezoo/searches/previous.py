"""Class ids that live on: a class that is that of an earlier search has its id, and no id is ever given twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.searches.matching import ClassOverlap

# Key in the provenance of a CLASSES table.
FREE = "free_class_id"


@dataclass(frozen=True)
class Lineage:
    """The ids that the classes of a search go by after an earlier one.

    Attributes:
        ids: number of the class in this search → its id.
        free: smallest id that neither this search nor those before it have given.
        evolution: MATCHES of the earlier search's classes with these, under their ids.
    """

    ids: Mapping[int, int]
    free: int
    evolution: pa.Table

    def renamed(self, table: pa.Table) -> pa.Table:
        """A table with a class column, its classes under their ids; −1 stays."""
        return renamed(table, self.ids)


@dataclass(frozen=True)
class PreviousSearch:
    """A finished search whose class ids live on.

    Attributes:
        members: MEMBERS table.
        free: smallest id that neither it nor those before it have given.
    """

    members: pa.Table
    free: int

    @classmethod
    def read(cls, folder: Path | str) -> "PreviousSearch":
        """From the folder of the search.

        Raises:
            StoreError: its tables are not there.
        """
        members = tables.read(Path(folder) / "members.parquet", tables.MEMBERS)
        classes = tables.read(Path(folder) / "classes.parquet", tables.CLASSES)
        beyond = max(classes.column(tables.CLASS_ID).to_pylist(), default=-1) + 1
        return cls(members, int(tables.provenance(classes).get(FREE, beyond)))

    def refuse_strangers(self, ids: np.ndarray) -> None:
        """Raise StoreError unless one of these galaxies was searched then."""
        if not np.isin(ids.astype(str), tables.strings(self.members, tables.ID).astype(str)).any():
            raise StoreError(
                "the previous search has no galaxy in common with this one", value=f"{len(ids)} galaxies",
                fix="Give a search of the same survey as previous=.",
            )  # fmt: skip

    def lineage(self, members: pa.Table) -> Lineage:
        """Ids for the classes of a later search: those of the classes that they are, or ids never given before.

        Args:
            members: MEMBERS table of the later search.
        """
        counterparts = ClassOverlap.of_members(self.members, members).counterparts
        ids, free = dict[int, int](), self.free
        for one in sorted(set(members.column(tables.CLASS_ID).to_pylist()) - {tables.NO_CLASS}):
            ids[one] = counterparts.get(one, free)
            free += one not in counterparts
        return Lineage(ids, free, ClassOverlap.of_members(self.members, renamed(members, ids)).matches())


def renamed(table: pa.Table, ids: Mapping[int, int]) -> pa.Table:
    """A table with a class column under other class ids; −1 stays."""
    place = table.column_names.index(tables.CLASS_ID)
    found = [ids.get(one, tables.NO_CLASS) for one in table.column(tables.CLASS_ID).to_pylist()]
    return table.set_column(place, tables.CLASS_ID, pa.array(found, pa.int32()))
