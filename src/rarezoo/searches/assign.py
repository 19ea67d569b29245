"""Assign the galaxies of another embedding store to the classes of a finished search: ``rarezoo assign``.

The rule and its guarantees are in :mod:`rarezoo.searches.assigner`, the test for a new population in
:mod:`rarezoo.searches.novelty`.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import claim
from rarezoo.searches.assigner import Assigner, Assignment, SelfCheck
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.novelty import FAR, MOST_FAR, REACH, Novelty, find_clumps, find_novelty
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)

ASSIGNED_FILE, SUMMARY_FILE = "assigned.parquet", "assign.json"
# Two embeddings of one id are of the same galaxy if their distance is at most this share of their length.
_SAME_GALAXY = 0.05


@dataclass(kw_only=True)
class AssignRun(Settings):
    """Assign the galaxies of an embedding store to the classes of a finished search, or to none of them.

    Galaxies are compared in the embedding, whitened as by the search's compressor. The map is not used: new
    galaxies are placed on it in another way than the searched ones, so a guarantee would not hold there.

    Examples
    --------
    >>> AssignRun(search="runs/search", store="runs/more/store", level=2.0)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: level must be at most 1: 2.0. Choose a value that is more than 0, at most 1.
    """

    search: str = setting(help="folder of a finished search", positional=True)
    store: str = setting(help="folder of an embedding store that was made with the same checkpoint", positional=True)
    level: float = setting(
        0.05, "expected share of galaxies of no class that are wrongly assigned to a class", gt=0, le=1
    )
    rows: int = setting(10_000, "galaxies that are assigned at a time, which limits the memory", unit="galaxies", ge=1)
    out: str = setting(
        "", f"folder for {ASSIGNED_FILE} and {SUMMARY_FILE}, in which an interrupted run is continued; empty: no files"
    )

    def run(self) -> "AssignResult":
        """Assign every galaxy of the store, and write the result if there is an output folder.

        Raises
        ------
        ConfigError
            The level cannot be guaranteed with so few unassigned galaxies.
        StoreError
            There is no finished search or no store, or they were made with different networks.
        OutputError
            The folder cannot be written, or holds a run with other settings.
        """
        search, store = Search.open(self.search), EmbeddingStore.open(self.store)
        if search.settings.get("features"):
            raise ConfigError(
                "the search has columns of a catalogue, and galaxies of another store cannot be placed in its space",
                value=search.settings["features"].get("option"), fix="Assign with a search of images: features=image.",
            )  # fmt: skip
        _require_same_network(search.store, store)
        about = {"search": search.identity, "store": store.identity}
        folder = None
        if self.out:
            folder = claim(self.out, verb="assign", settings={"level": self.level}, inputs=lambda: about)
        if folder and (folder / SUMMARY_FILE).exists():
            try:
                finished = AssignResult.open(folder)
                log.info("already assigned: %s", folder)
                return finished
            except StoreError as problem:
                log.warning("the galaxies are assigned again: %s", problem)
        reference = ReferenceSet.read(search)
        assigner = Assigner(reference.embeddings, reference.labels, self.level)
        shards = tqdm(range(store.manifest.shards), unit="shard")
        parts = [self._part(reference, assigner, store, index, folder) for index in shards]
        assigned = pa.concat_tables(parts).replace_schema_metadata(None)
        novelty, far = self._novelty(reference, assigner, store, assigned)
        content = {
            "text": _text(str(self.search), str(self.store), self.level, assigner, assigned, novelty.sentence(far)),
            "search": str(self.search),
            "store": str(self.store),
            "level": self.level,
            "check": _check_content(assigner.check),
            "novelty": {**asdict(novelty), "appeared": novelty.appeared},
        }
        if folder:
            sources = {"checkpoint_sha256": store.manifest.checkpoint_sha256, "level": self.level, "inputs": about}
            tables.write(assigned, folder / ASSIGNED_FILE, tables.ASSIGNED, **sources)
            tables.write_json(content, folder / SUMMARY_FILE)
            for part in folder.glob("part-*.parquet"):
                part.unlink()
        return AssignResult(assigned, content)

    def _part(
        self, reference: "ReferenceSet", assigner: Assigner, store: EmbeddingStore, index: int, folder: Path | None
    ) -> pa.Table:
        """Return the ASSIGNED table of one shard; with a folder it is read from there, or written at once."""
        path = folder / f"part-{index:05d}.parquet" if folder else None
        if path and path.exists():
            try:
                return tables.read(path, tables.ASSIGNED)
            except StoreError as problem:
                log.warning("these galaxies are assigned again: %s", problem)
        part = pa.concat_tables(
            [
                _empty(tables.ASSIGNED),
                *(
                    assigned_table(ids, assigner.assign(positions, rows=rows))
                    for ids, positions, rows in reference.batches(store, index, size=self.rows)
                ),
            ]
        )
        if path:
            tables.write(part, path, tables.ASSIGNED)
        return part

    def _novelty(
        self, reference: "ReferenceSet", assigner: Assigner, store: EmbeddingStore, assigned: pa.Table
    ) -> tuple[Novelty, np.ndarray]:
        """Return the tests for a new population, and the ids of the far galaxies in which clumps were sought."""
        outside = pc.equal(assigned.column(tables.CLASS_ID), tables.NO_CLASS)
        far = assigned.filter(pc.and_(outside, pc.less_equal(assigned.column(tables.P_KNOWN), FAR)))
        novelty = find_novelty(far.num_rows, galaxies=assigned.num_rows, known=len(assigner.known_distances))
        drawn = np.sort(np.random.default_rng(0).permutation(far.num_rows)[:MOST_FAR])
        only = far.column(tables.ID).take(pa.array(drawn)).combine_chunks()
        if not len(only):
            return novelty, np.empty(0, dtype=object)
        batches = [
            batch
            for index in range(store.manifest.shards)
            for batch in reference.batches(store, index, size=self.rows, only=only)
        ]
        names, positions, rows = (np.concatenate([np.asarray(batch[part]) for batch in batches]) for part in range(3))
        clumps, p_clump = find_clumps(
            positions,
            assigner.reaches(positions, rows=rows, neighbours=REACH),
            known=len(reference.labels),
            galaxies=assigned.num_rows * len(only) / far.num_rows,
        )
        return Novelty(novelty.galaxies, novelty.far, novelty.expected, novelty.p_value, clumps, p_clump), names


@dataclass(frozen=True)
class AssignResult:
    """Galaxies of a store with the classes that they are assigned to.

    Attributes
    ----------
    table
        ASSIGNED table, one row per galaxy.
    about
        Content of assign.json: the text for a terminal, how many members got their class back, and whether a new
        population has appeared.
    """

    table: pa.Table
    about: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> "AssignResult":
        """Read the result that a run has written.

        Raises
        ------
        StoreError
            The folder lacks a file of a finished run.
        """
        try:
            about = tables.read_json(Path(folder) / SUMMARY_FILE, fix="Assign again.")
        except StoreError as problem:
            raise StoreError(
                "no finished assignment", value=folder, fix="Run rarezoo assign SEARCH STORE out=DIR first."
            ) from problem
        return cls(tables.read(Path(folder) / ASSIGNED_FILE, tables.ASSIGNED), about)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per galaxy: id, class, probability, nearest class and p-values."""
        return self.table.to_pandas()

    def summary(self) -> str:
        """Return the text for a terminal."""
        return str(self.about["text"])


@dataclass(frozen=True)
class ReferenceSet:
    """The n galaxies of a finished search, with their classes, as a reference for other galaxies.

    Attributes
    ----------
    ids
        (n,) ids.
    labels
        (n,) class of each, −1 for none.
    fitted
        Map of the search.
    embeddings
        (n, k) embeddings as the compressor of the search sees them.
    """

    ids: pa.Array
    labels: Int64[np.ndarray, " n"]
    fitted: FittedMap
    embeddings: Float32[np.ndarray, "n k"]

    @classmethod
    def read(cls, search: Search) -> "ReferenceSet":
        """Read the galaxies of a search and their embeddings, shard by shard.

        Raises
        ------
        StoreError
            The store lacks a galaxy that was searched.
        """
        fitted, store = search.fitted, search.store
        ids = pa.array(fitted.ids, pa.string())
        width = fitted.features(np.empty((0, fitted.width), dtype=np.float32)).shape[1]
        embeddings = np.empty((len(ids), width), dtype=np.float32)
        seen = np.zeros(len(ids), dtype=bool)
        for index in range(store.manifest.shards):
            shard = _only(store.shard(index, [tables.ID, tables.EMBEDDING]), ids)
            rows = pc.index_in(shard.column(tables.ID), value_set=ids).to_numpy()
            embeddings[rows], seen[rows] = fitted.features(tables.matrix(shard, tables.EMBEDDING)), True
        if not seen.all():
            raise StoreError(
                "the store lacks galaxies that were searched",
                value=store.folder,
                fix="Bring the store back as it was, or search again.",
                ids=ids.filter(pa.array(~seen)).to_pylist(),
            )
        rows = tables.rows_of(ids, search.table("members"), source="the search")
        return cls(ids, search.labels.astype(np.int64)[rows], fitted, embeddings)

    def rows_of(self, ids: pa.ChunkedArray, embeddings: Float32[np.ndarray, "m k"]) -> Int64[np.ndarray, " m"]:
        """Return the rows of galaxies that were searched, −1 for the others.

        A galaxy was searched if its id was, with nearly the same embedding. The id alone is not enough: two mock
        surveys give the same ids to different galaxies.
        """
        rows = pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy().astype(np.int64)
        distances = np.linalg.norm(embeddings - self.embeddings[rows], axis=1)
        same = distances <= _SAME_GALAXY * np.linalg.norm(embeddings, axis=1)
        return np.where((rows >= 0) & same, rows, -1)

    def batches(
        self, store: EmbeddingStore, index: int, *, size: int, only: pa.Array | None = None
    ) -> Iterator[tuple[pa.ChunkedArray, Float32[np.ndarray, "m k"], Int64[np.ndarray, " m"]]]:
        """Read a shard of another store in batches of m galaxies.

        Parameters
        ----------
        store
            Store with embeddings from the same network.
        index
            Number of the shard.
        size
            Most galaxies in a batch.
        only
            Ids of the galaxies that are wanted; None for all.

        Yields
        ------
        ids : pyarrow.ChunkedArray
            Ids of the galaxies.
        embeddings : numpy.ndarray
            (m, k) embeddings as the compressor of the search sees them.
        rows : numpy.ndarray
            (m,) row of each among the searched galaxies, −1 if it was not searched.
        """
        shard = store.shard(index, [tables.ID, tables.EMBEDDING])
        shard = shard if only is None else _only(shard, only)
        for start in range(0, shard.num_rows, size):
            batch = shard.slice(start, size)
            ids, embeddings = batch.column(tables.ID), tables.matrix(batch, tables.EMBEDDING)
            features = self.fitted.features(embeddings, ids=ids.to_pylist())
            yield ids, features, self.rows_of(ids, features)


def _only(table: pa.Table, ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table.column(tables.ID), value_set=ids))


def _empty(kind: tables.Kind) -> pa.Table:
    return pa.schema(list(kind.columns.items())).empty_table()


def _require_same_network(searched: EmbeddingStore, store: EmbeddingStore) -> None:
    """Raise StoreError unless both stores were embedded in the same way."""
    wanted, present = searched.manifest, store.manifest
    if wanted.checkpoint_sha256 != present.checkpoint_sha256:
        raise StoreError(
            "the store was embedded with another checkpoint than the one that was searched",
            value=f"{present.checkpoint} ({present.checkpoint_sha256[:12]}) instead of {wanted.checkpoint} "
            f"({wanted.checkpoint_sha256[:12]})",
            fix=f"Embed these galaxies with {wanted.checkpoint}.",
        )
    if wanted.turns != present.turns:
        raise StoreError(
            "the embeddings are means over another number of turned images than in the store that was searched",
            value=f"turns={present.turns} instead of {wanted.turns}",
            fix=f"Embed these galaxies with turns={wanted.turns}.",
        )


def assigned_table(ids: pa.ChunkedArray, assignment: Assignment) -> pa.Table:
    """Return the ASSIGNED table of some galaxies."""
    columns = dict(zip(list(tables.ASSIGNED.columns)[1:], assignment, strict=True))
    return tables.check(pa.table({tables.ID: ids, **columns}), tables.ASSIGNED)


def _check_content(check: SelfCheck) -> dict[str, int]:
    recovered, members = check.recovered()
    wrong, unassigned = check.falsely_assigned
    return {
        "members": members,
        "recovered": recovered,
        "misplaced": check.misplaced,
        "unassigned": unassigned,
        "falsely_assigned": wrong,
    }


def _text(search: str, store: str, level: float, assigner: Assigner, assigned: pa.Table, news: str) -> str:
    """Return the text for a terminal: a table of the classes, the check, and whether a new population appeared."""
    labels, check = assigner.labels, assigner.check
    class_ids = assigned.column(tables.CLASS_ID).to_numpy()
    probabilities = assigned.column(tables.PROBABILITY).to_numpy()
    classes = np.unique(labels[labels != tables.NO_CLASS])
    rows = []
    for class_id in [*classes.tolist(), tables.NO_CLASS]:
        inside, (recovered, members) = class_ids == class_id, check.recovered(class_id)
        rows.append(
            [
                "none" if class_id == tables.NO_CLASS else str(class_id),
                str(int(np.sum(labels == class_id))),
                f"{recovered} of {members}",
                str(int(inside.sum())),
                f"{probabilities[inside].mean():.2f}" if inside.any() else "–",
            ]
        )
    head = ["class", "members", "left out and recovered", "new galaxies", "mean probability"]
    recovered, members = check.recovered()
    wrong, unassigned = check.falsely_assigned
    return "\n".join(
        [
            f"{assigned.num_rows:,} galaxies of {store}, assigned to the {len(classes)} classes of {search} at level "
            f"{level:g}",
            tables.markdown(head, rows),
            f"Check with searched galaxies that are left out in turn: {recovered:,} of {members:,} members get their "
            f"class back ({check.misplaced:,} get another one), and {wrong:,} of {unassigned:,} unassigned galaxies "
            f"get a class ({wrong / max(unassigned, 1):.3f}; at most {level:g} is guaranteed).",
            news,
        ]
    )
