"""The galaxies among which somebody looks for others: those of an embedding store, or those that a search has searched.

Shape letters: n galaxies of the store, in its order.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int

from rarezoo import tables
from rarezoo.data.expressions import columns_of
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import MANIFEST_FILE, EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError, StoreError, StoreNotFound
from rarezoo.explore.space import Space, space_of
from rarezoo.searches.result import RUN_FILE, Search

log = logging.getLogger(__name__)
# Ids that are as near to an unknown one as this (rapidfuzz's ratio, 0 to 100) are suggested; so many at most.
_NEAR, _SUGGESTED = 70, 3


@dataclass(frozen=True, eq=False)
class Pool:
    """The galaxies of a store, or of a search, that can be compared and ranked.

    Attributes
    ----------
    store : EmbeddingStore
        Their embeddings.
    search : Search, optional
        Only the galaxies that it has searched count; None: all galaxies of the store.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = EmbeddingStore.from_array(["a", "b"], np.eye(2, dtype=np.float32), out=mkdtemp(), name="net")
    >>> pool = Pool(store)
    >>> pool.rows_of(["b"]), pool.inside.sum()
    (array([1]), np.int64(2))
    """

    store: EmbeddingStore
    search: Search | None = None
    _spaces: dict[tuple[str, ...], Space] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, source: "EmbeddingStore | Search | Pool | Path | str") -> "Pool":
        """Return the galaxies of a store, of a search, or of the folder of either; a pool is returned as it is.

        Raises
        ------
        StoreNotFound
            The folder holds neither a store nor a finished search.
        """
        if isinstance(source, Pool):
            return source
        if isinstance(source, EmbeddingStore):
            return cls(source)
        if isinstance(source, Search):
            return cls(source.store, source)
        folder = Path(source)
        if (folder / RUN_FILE).exists():
            search = Search.open(folder)
            return cls(search.store, search)
        if (folder / MANIFEST_FILE).exists():
            return cls(EmbeddingStore.open(folder))
        raise StoreNotFound(
            "neither a finished search nor an embedding store", value=folder,
            fix="Give the out=DIR of python cluster.py or of python embed.py.",
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Folder of the search, or of the store if there is no search."""
        return self.store.folder if self.search is None else self.search.folder

    def space(self, beside: Sequence[str]) -> Space:
        """Return what the galaxies are compared by, see :func:`~rarezoo.explore.space.space_of`; it is made once."""
        key = tuple(beside)
        if key not in self._spaces:
            self._spaces[key] = space_of(self, key)
        return self._spaces[key]

    # --- which galaxies

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """Ids of the n galaxies of the store."""
        return self.store.read([tables.ID]).column(tables.ID)

    def names(self, rows: Int[np.ndarray, " m"]) -> list[str]:
        """Return the ids of some rows."""
        return list(self.ids.take(pa.array(rows, pa.int64())).to_pylist())

    def has(self, galaxy: str) -> bool:
        """Return whether a text is the id of a galaxy of the survey, with or without an embedding."""
        return pc.index(self.ids, pa.scalar(galaxy, pa.string())).as_py() >= 0 or galaxy in self._skipped

    def embedded(self, ids: Sequence[str]) -> list[str]:
        """Return those ids whose galaxies have a finite embedding, in their order."""
        places = pc.index_in(pa.array(list(ids), pa.string()), value_set=self.ids).to_pylist()
        finite = self.store.index.finite
        return [galaxy for galaxy, row in zip(ids, places, strict=True) if row is not None and finite[row]]

    def rows_of(self, ids: Sequence[str]) -> Int[np.ndarray, " m"]:
        """Return the rows of galaxies in the store.

        Raises
        ------
        ConfigError
            The store has no such galaxy; the message names ids that are spelled alike, or says that the galaxy was
            skipped when the survey was embedded.
        """
        places = pc.index_in(pa.array(list(ids), pa.string()), value_set=self.ids)
        if places.null_count:
            unknown = [galaxy for galaxy, place in zip(ids, places.to_pylist(), strict=True) if place is None]
            self._refuse(unknown)
        return np.asarray(places.to_numpy(zero_copy_only=False), dtype=np.int64)

    def _refuse(self, unknown: Sequence[str]) -> None:
        skipped = [galaxy for galaxy in unknown if galaxy in self._skipped]
        if skipped:
            raise ConfigError(
                "a galaxy that has no embedding, because its image could not be read when the survey was embedded",
                value=skipped[0], fix="Choose another galaxy, or repair its image and embed the survey again.",
            )  # fmt: skip
        from rapidfuzz import process

        near = process.extract(unknown[0], self.ids.to_pylist(), limit=_SUGGESTED, score_cutoff=_NEAR)
        suggestion = f"Did you mean {' or '.join(galaxy for galaxy, _, _ in near)}?" if near else ""
        some = ", ".join(self.names(np.arange(min(_SUGGESTED, len(self.ids)))))
        raise ConfigError(
            f"no galaxy of {self.folder} has this id", value=unknown[0],
            fix=suggestion or f"Ids are such as {some}. A position, a link to a map or an image file would do as well.",
        )  # fmt: skip

    @cached_property
    def _skipped(self) -> frozenset[str]:
        return frozenset(self.store.skipped())

    @cached_property
    def inside(self) -> Bool[np.ndarray, " n"]:
        """Which galaxies of the store can be found: those searched, if their embedding is finite."""
        inside = self.store.index.finite.copy()
        if self.search is not None:
            searched = np.zeros(len(inside), dtype=bool)
            searched[self._searched_rows] = True
            inside &= searched
        return inside

    @cached_property
    def _searched_rows(self) -> Int[np.ndarray, " m"]:
        """Row in the store of each galaxy of the search, in the order of its members table."""
        assert self.search is not None
        ids = self.search.table("members").column(tables.ID)
        return tables.rows_of(ids, pa.table({tables.ID: self.ids}), source="the store")

    def search_class(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the class in the search of some rows, −1 for a galaxy in no class or that was not searched."""
        assert self.search is not None
        classes = np.full(len(self.ids), tables.NO_CLASS, dtype=np.int32)
        classes[self._searched_rows] = self.search.labels
        return classes[rows]

    # --- the survey

    @cached_property
    def galaxies(self) -> Galaxies | None:
        """The survey with catalogue and images; None, with the reason in the log, if it cannot be opened."""
        source = self.store if self.search is None else self.search
        if not source.has_survey:
            return None
        try:
            return self.store.galaxies() if self.search is None else self.search.survey()
        except RarezooError as problem:
            log.warning("the survey is not used: %s", problem)
            return None

    @cached_property
    def catalogue_rows(self) -> Int[np.ndarray, " n"]:
        """Row of each galaxy in the catalogue of the survey."""
        if self.galaxies is None:
            raise StoreError("no survey", value=self.store.folder, fix="Bring the survey back to where it was.")
        return tables.rows_of(self.ids, self.galaxies.catalogue, source="the survey")

    @cached_property
    def positions(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]] | None:
        """Right ascension and declination of each galaxy, degrees; NaN if unknown, None if none is known."""
        if self.galaxies is None:
            return None
        ra, dec = (
            self.galaxies.catalogue.column(name).to_numpy()[self.catalogue_rows] for name in (tables.RA, tables.DEC)
        )
        return (ra, dec) if (np.isfinite(ra) & np.isfinite(dec)).any() else None

    # --- columns

    @property
    def column_names(self) -> list[str]:
        """Names of all columns that filters can use: of the catalogue, of the search, and predicted fractions."""
        catalogue = [] if self.galaxies is None else self.galaxies.catalogue.column_names
        members = [] if self.search is None else self.search.table("members").column_names
        fractions = [tables.fraction_column(answer) for answer in self.answers]
        return list(dict.fromkeys([tables.ID, *members, *fractions, *catalogue]))

    def table_for(self, expression: str, *, called: str) -> pa.Table:
        """Return a table of n rows with the columns that an expression uses.

        Raises
        ------
        ConfigError
            The expression cannot be read, or names an unknown column.
        """
        columns = {name: self._column(name) for name in columns_of(expression, self.column_names, called=called)}
        return pa.table(columns or {tables.ID: self.ids})

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """Answers whose fractions are predicted."""
        if self._judged is None:
            return self.store.manifest.answers
        return tuple(answer for name in self._judged.column_names if (answer := tables.answer_of(name)) is not None)

    def predicted_answers(self) -> pa.Table:
        """Return the predicted fraction of each answer, a column per answer; null where it is not known."""
        names = [tables.fraction_column(answer) for answer in self.answers]
        return pa.table({name: self._column(name) for name in names})

    @cached_property
    def _judged(self) -> pa.Table | None:
        """Predicted fractions of the galaxies searched, if the search took them from another store."""
        if self.search is None or not self.search.settings.get("select", {}).get("fractions_from"):
            return None
        return self.search.predictions

    def _column(self, name: str) -> pa.ChunkedArray | pa.Array:
        if name == tables.ID:
            return self.ids
        if self.search is not None and name in self.search.table("members").column_names:
            return self._of_all(self.search.table("members").column(name))
        if tables.answer_of(name) in self.answers:
            if self._judged is not None:
                return self._of_all(self._judged.column(name))
            return self.store.read([name]).column(name)
        assert self.galaxies is not None
        return self.galaxies.catalogue.column(name).take(pa.array(self.catalogue_rows))

    def _of_all(self, searched: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a column of the galaxies searched as one of all galaxies of the store, null for the others."""
        places = np.full(len(self.ids), -1)
        places[self._searched_rows] = np.arange(len(searched))
        return searched.take(pa.array(places, mask=places < 0))
