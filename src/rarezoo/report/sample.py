"""The galaxies searched, with all that a page says of them, joined by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int32, Int64

from rarezoo import tables
from rarezoo.errors import StoreError


@dataclass(frozen=True)
class Sample:
    """n galaxies, row i the same galaxy in every array.

    Attributes:
        ids: (n,) id strings.
        labels: (n,) class of each galaxy, −1 for none.
        probabilities: (n,) strength of membership, 0–1.
        outlier_scores: (n,) GLOSH, 0–1.
        positions: (n, 2) on the map that is drawn.
        answers: (a,) labels of the predicted answers.
        fractions: (n, a) predicted vote fractions, NaN where unknown.
    """

    ids: np.ndarray
    labels: Int32[np.ndarray, " galaxies"]
    probabilities: Float32[np.ndarray, " galaxies"]
    outlier_scores: Float32[np.ndarray, " galaxies"]
    positions: Float32[np.ndarray, "galaxies 2"]
    answers: tuple[str, ...]
    fractions: Float32[np.ndarray, "galaxies answers"]

    @classmethod
    def joined(cls, members: pa.Table, *, map_2d: pa.Table, predictions: pa.Table) -> "Sample":
        """MEMBERS, MAP and predicted fractions of the same galaxies, in the members' order.

        Raises:
            StoreError: a galaxy is missing from the map or from the predictions; the map is not two-dimensional.
        """
        ids = members.column(tables.ID)
        positions = tables.matrix(rows_of(ids, map_2d, source="the map"), tables.POSITION)
        if positions.shape[1] != 2:
            raise StoreError(
                "only a map of two dimensions can be drawn", value=positions.shape[1], fix="Set drawing.n_components=2."
            )
        predicted = rows_of(ids, predictions, source="the predictions")
        columns = [name for name in predicted.column_names if tables.is_fraction_column(name)]
        fractions = [predicted.column(name).to_numpy().astype(np.float32) for name in columns]
        return cls(
            ids=tables.strings(members, tables.ID),
            labels=members.column(tables.CLASS_ID).to_numpy(),
            probabilities=members.column(tables.PROBABILITY).to_numpy(),
            outlier_scores=members.column(tables.OUTLIER_SCORE).to_numpy(),
            positions=positions.astype(np.float32),
            answers=tuple(str(tables.answer_of(name)) for name in columns),
            fractions=np.stack(fractions, axis=1) if columns else np.empty((len(ids), 0), np.float32),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Sequence[str]) -> Int64[np.ndarray, " galaxies"]:
        """Rows of some galaxies, in the order of their ids given.

        Raises:
            StoreError: one of them is not in the sample.
        """
        rows = np.arange(len(self))
        wanted = pa.chunked_array([pa.array(list(ids), pa.string())])
        known = pa.table({tables.ID: self._names, "row": rows})
        return rows_of(wanted, known, source="the sample").column("row").to_numpy()

    @cached_property
    def _names(self) -> pa.Array:
        return pa.array(self.ids, pa.string())

    def members(self, class_id: int) -> Int64[np.ndarray, " members"]:
        """Rows of a class, by id, so that what is drawn from them does not depend on the table's order."""
        return self._by_id(np.flatnonzero(self.labels == class_id))

    def outskirts(self, class_id: int, *, most: int) -> Int64[np.ndarray, " members"]:
        """Rows of a class's least probable members, the least probable first."""
        rows = self.members(class_id)
        return rows[np.argsort(self.probabilities[rows], kind="stable")[:most]]

    def drawn(self, class_id: int | None, *, most: int, seed: int) -> Int64[np.ndarray, " galaxies"]:
        """Rows of galaxies drawn blindly, from one class or (None) from all that were searched."""
        rows = self._by_id(np.arange(len(self))) if class_id is None else self.members(class_id)
        random = np.random.default_rng([seed, 0 if class_id is None else class_id + 1])
        return random.choice(rows, min(most, len(rows)), replace=False)

    def _by_id(self, rows: np.ndarray) -> np.ndarray:
        return rows[np.argsort(self.ids[rows].astype(str), kind="stable")]


def rows_of(ids: pa.ChunkedArray, table: pa.Table, *, source: str) -> pa.Table:
    """The table's rows of these galaxies, in their order."""
    places = pc.index_in(ids, value_set=table.column(tables.ID))
    if places.null_count:
        missing = ids.filter(pc.is_null(places)).to_pylist()
        raise StoreError(f"galaxies missing from {source}", value=len(missing), fix="Search anew.", ids=missing)
    return table.take(places).combine_chunks()
