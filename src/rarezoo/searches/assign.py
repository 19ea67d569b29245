"""``rarezoo assign``: new galaxies into the classes of a finished search, or into none of these."""

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import claim, file_sha256
from rarezoo.searches.assigner import Assigner, Assignment, SelfCheck
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.matching import labels_of
from rarezoo.searches.novelty import FAR, MOST_FAR, REACH, Novelty, find_clumps, find_novelty
from rarezoo.searches.result import FITTED, read_members, read_run
from rarezoo.tables import markdown

log = logging.getLogger(__name__)

ASSIGNED_FILE, SUMMARY_FILE = "assigned.parquet", "assign.json"
# Embeddings (their norm apart from them) closer than this are the same galaxy's, embedded twice.
_SAME_GALAXY = 0.05


@dataclass(frozen=True)
class ReferenceSet:
    """What a finished search knows of its n galaxies.

    Attributes:
        ids: (n,) id strings.
        labels: (n,) class of each, −1 for none.
        fitted: its map.
        embeddings: (n, k) as the compressor saw them.
    """

    ids: pa.Array
    labels: Int64[np.ndarray, " n"]
    fitted: FittedMap
    embeddings: Float32[np.ndarray, "n k"]

    @classmethod
    def read(cls, search: Path, store: EmbeddingStore) -> "ReferenceSet":
        """From a search's folder and the store that was searched, shard by shard.

        Raises:
            StoreError: the store does not hold a galaxy that was searched.
        """
        fitted = FittedMap.open(search / FITTED)
        ids = pa.array(fitted.ids, pa.string())
        width = fitted.features(np.empty((0, fitted.width), dtype=np.float32)).shape[1]
        embeddings = np.empty((len(ids), width), dtype=np.float32)
        seen = np.zeros(len(ids), dtype=bool)
        for index in range(store.manifest.shards):
            rows, shard = _rows_in(ids, store.shard(index, [tables.ID, tables.EMBEDDING]))
            embeddings[rows], seen[rows] = fitted.features(tables.matrix(shard, tables.EMBEDDING)), True
        if not seen.all():
            raise StoreError(
                "the store lacks galaxies that were searched", value=store.folder,
                fix="Bring the store back as it was, or search anew.", ids=ids.filter(pa.array(~seen)).to_pylist(),
            )  # fmt: skip
        return cls(ids, labels_of(read_members(search), fitted.ids), fitted, embeddings)

    def rows_of(self, ids: pa.ChunkedArray, embeddings: Float32[np.ndarray, "m k"]) -> Int64[np.ndarray, " m"]:
        """Rows of galaxies that were searched, −1 for the others: the same id and (nearly) the same embedding.

        An id alone would not do: two mock surveys give the same ids to different galaxies.
        """
        rows = pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy().astype(np.int64)
        apart = np.linalg.norm(embeddings - self.embeddings[rows], axis=1)
        near = apart <= _SAME_GALAXY * np.linalg.norm(embeddings, axis=1)
        return np.where((rows >= 0) & near, rows, -1)


def _rows_in(ids: pa.Array, shard: pa.Table) -> tuple[np.ndarray, pa.Table]:
    """The shard's galaxies that have one of these ids, and their rows among them."""
    rows = pc.index_in(shard.column(tables.ID), value_set=ids)
    return rows.drop_null().to_numpy(), shard.filter(pc.is_valid(rows))


@dataclass(frozen=True)
class AssignRun:
    """Places the galaxies of a new store into the classes of a finished search, or into none of them.

    They are compared in the embedding, whitened as the search's compressor does: on the map the searched lie where they
    were fitted and new ones where they are placed, so that nothing could be promised.

    Attributes:
        search: folder of a finished search.
        store: folder of a store under the same checkpoint.
        level: see :mod:`rarezoo.searches.assigner`.
        rows: galaxies at once, which bounds the memory beside that of the searched galaxies.
        out: folder for assigned.parquet and assign.json, in which a killed run goes on; empty writes nothing.
    """

    search: Path | str
    store: Path | str
    level: float = 0.05
    rows: int = 10_000
    out: str = ""

    def run(self) -> str:
        """Place every galaxy; what is to be said of them.

        Raises:
            ConfigError, StoreError, OutputError: see the message.
        """
        if self.rows < 1:
            raise ConfigError("galaxies at once", value=self.rows, fix="Choose 1 or more.")
        searched, store = self._searched, EmbeddingStore.open(self.store)
        _refuse_other_network(searched, store)
        folder = claim(self.out, verb="assign", settings=self._settings(store)) if self.out else None
        if folder and (folder / SUMMARY_FILE).exists():
            log.info("already assigned: %s", folder)
            return str(json.loads((folder / SUMMARY_FILE).read_text())["text"])
        parts = [self._part(store, index, folder) for index in tqdm(range(store.manifest.shards), unit="shard")]
        assigned = pa.concat_tables(parts).replace_schema_metadata(None)
        placement = AssignResult(
            str(self.search), str(self.store), self.level, self._known.labels, assigned, self._assigner.check,
            *self._novelty(store, assigned),
        )  # fmt: skip
        if folder:
            about = {"checkpoint_sha256": store.manifest.checkpoint_sha256, "settings": self._settings(store)}
            tables.write(assigned, folder / ASSIGNED_FILE, tables.ASSIGNED, **about)
            tables.write_json(placement.content(), folder / SUMMARY_FILE)
            for part in folder.glob("part-*.parquet"):
                part.unlink()
        return placement.text()

    @cached_property
    def _searched(self) -> EmbeddingStore:
        """The store that was searched."""
        about = read_run(self.search)
        store = EmbeddingStore.open(about["settings"]["store"])
        changed = [
            name for name in ("survey_sha256", "checkpoint_sha256") if getattr(store.manifest, name) != about[name]
        ]
        if changed:
            raise StoreError(
                f"the store that was searched has changed ({' and '.join(changed)})", value=store.folder,
                fix="Bring it back as it was, or search anew.",
            )  # fmt: skip
        return store

    @cached_property
    def _known(self) -> ReferenceSet:
        return ReferenceSet.read(Path(self.search), self._searched)

    @cached_property
    def _assigner(self) -> Assigner:
        return Assigner(self._known.embeddings, self._known.labels, self.level)

    def _settings(self, store: EmbeddingStore) -> dict[str, Any]:
        return {
            "search": file_sha256(Path(self.search) / "members.parquet"),
            "survey": store.manifest.survey_sha256, "checkpoint": store.manifest.checkpoint_sha256,
            "level": self.level,
        }  # fmt: skip

    def _part(self, store: EmbeddingStore, index: int, folder: Path | None) -> pa.Table:
        """ASSIGNED of one shard, kept at once where there is a folder."""
        path = folder / f"part-{index:05d}.parquet" if folder else None
        if path and path.exists():
            return tables.read(path, tables.ASSIGNED)
        chunks = [
            _assigned_table(ids, self._assigner.assign(positions, rows=rows))
            for ids, positions, rows in self._chunks(store, index)
        ]
        part = pa.concat_tables([_NOBODY, *chunks])
        if path:
            tables.write(part, path, tables.ASSIGNED)
        return part

    def _chunks(
        self, store: EmbeddingStore, index: int, *, only: pa.Array | None = None
    ) -> Iterator[tuple[pa.ChunkedArray, Float32[np.ndarray, "m k"], Int64[np.ndarray, " m"]]]:
        """Of a shard's galaxies (or only some): ids, embeddings as the compressor sees them, rows of the searched."""
        shard = store.shard(index, [tables.ID, tables.EMBEDDING])
        shard = shard if only is None else _rows_in(only, shard)[1]
        for start in range(0, shard.num_rows, self.rows):
            chunk = shard.slice(start, self.rows)
            ids, embeddings = chunk.column(tables.ID), tables.matrix(chunk, tables.EMBEDDING)
            seen = self._known.fitted.features(embeddings, ids=ids.to_pylist())
            yield ids, seen, self._known.rows_of(ids, seen)

    def _novelty(self, store: EmbeddingStore, assigned: pa.Table) -> tuple[Novelty, np.ndarray]:
        """What is far from everything known, and the ids of those among whom clumps were sought."""
        far = _far(assigned)
        found = find_novelty(far.num_rows, galaxies=assigned.num_rows, known=len(self._assigner.known_distances))
        drawn = np.sort(np.random.default_rng(0).permutation(far.num_rows)[:MOST_FAR])
        only = far.column(tables.ID).take(pa.array(drawn)).combine_chunks()
        if not len(only):
            return found, np.empty(0, dtype=object)
        chunks = [chunk for index in range(store.manifest.shards) for chunk in self._chunks(store, index, only=only)]
        names, positions, rows = (np.concatenate([np.asarray(chunk[k]) for chunk in chunks]) for k in range(3))
        together, p_clump = find_clumps(
            positions, self._assigner.reaches(positions, rows=rows, neighbours=REACH),
            known=len(self._known.labels), galaxies=assigned.num_rows * len(only) / far.num_rows,
        )  # fmt: skip
        return Novelty(found.galaxies, found.far, found.expected, found.p_value, together, p_clump), names


def _refuse_other_network(searched: EmbeddingStore, store: EmbeddingStore) -> None:
    ours, theirs = searched.manifest, store.manifest
    if ours.checkpoint_sha256 != theirs.checkpoint_sha256:
        raise StoreError(
            "the store was embedded by another checkpoint than the one that was searched",
            value=f"{theirs.checkpoint} ({theirs.checkpoint_sha256[:12]}), not {ours.checkpoint} "
            f"({ours.checkpoint_sha256[:12]})",
            fix=f"Embed these galaxies with {ours.checkpoint}.",
        )
    if ours.turns != theirs.turns:
        raise StoreError(
            "the store is a mean over another number of turns than the one that was searched",
            value=f"{theirs.turns}, not {ours.turns}", fix=f"Embed these galaxies with turns={ours.turns}.",
        )  # fmt: skip


def _assigned_table(ids: pa.ChunkedArray, assigned: Assignment) -> pa.Table:
    columns = dict(zip(list(tables.ASSIGNED.columns)[1:], assigned, strict=True))
    return tables.check(pa.table({tables.ID: ids, **columns}), tables.ASSIGNED)


_NOBODY = pa.schema(list(tables.ASSIGNED.columns.items())).empty_table()


def _far(assigned: pa.Table) -> pa.Table:
    """The galaxies that are none of these and far from everything known."""
    outside = pc.equal(assigned.column(tables.CLASS_ID), tables.NO_CLASS)
    return assigned.filter(pc.and_(outside, pc.less_equal(assigned.column(tables.P_KNOWN), FAR)))


@dataclass(frozen=True)
class AssignResult:
    """What became of the galaxies of a store.

    Attributes:
        labels: (n,) of the searched galaxies.
        assigned: ASSIGNED table.
        check: what the same rule makes of the searched galaxies.
        news: what is far from everything known.
        far: ids of the galaxies among whom clumps were sought.
    """

    search: str
    store: str
    level: float
    labels: Int64[np.ndarray, " n"]
    assigned: pa.Table
    check: SelfCheck
    news: Novelty
    far: np.ndarray

    def text(self) -> str:
        """For a terminal."""
        classes = np.unique(self.labels[self.labels != tables.NO_CLASS])
        head = ["class", "members", "of them left out, get it back", "new galaxies", "mean probability"]
        about = (
            f"{self.assigned.num_rows:,} galaxies of {self.store} among the {len(classes)} classes of {self.search}, "
            f"at level {self.level:g}"
        )
        rows = [self._cells(int(one)) for one in [*classes, tables.NO_CLASS]]
        return "\n".join([about, markdown(head, rows), self._checked(), self.news.sentence(self.far)])

    def _cells(self, class_id: int) -> list[str]:
        inside = self.assigned.column(tables.CLASS_ID).to_numpy() == class_id
        probabilities = self.assigned.column(tables.PROBABILITY).to_numpy()[inside]
        right, of = self.check.recovered(class_id)
        return [
            "none of these" if class_id == tables.NO_CLASS else str(class_id),
            str(int(np.sum(self.labels == class_id))),
            f"{right} of {of}",
            str(int(inside.sum())),
            f"{probabilities.mean():.2f}" if len(probabilities) else "–",
        ]

    def _checked(self) -> str:
        right, members = self.check.recovered()
        wrong, unassigned = self.check.falsely_assigned
        return (
            f"Of searched galaxies left out in turn, {right:,} of {members:,} members get their class back "
            f"({self.check.misplaced:,} another), and {wrong:,} of {unassigned:,} unassigned are given one "
            f"({wrong / max(unassigned, 1):.3f}; at most {self.level:g} promised)."
        )

    def content(self) -> dict[str, Any]:
        """For assign.json."""
        right, members = self.check.recovered()
        wrong, unassigned = self.check.falsely_assigned
        return {
            "text": self.text(), "search": self.search, "store": self.store, "level": self.level,
            "check": {
                "members": members, "recovered": right, "misplaced": self.check.misplaced, "unassigned": unassigned,
                "falsely_assigned": wrong,
            },
            "novelty": {**asdict(self.news), "appeared": self.news.appeared},
        }  # fmt: skip


def add_assign_verb(verbs: Any) -> None:
    """``rarezoo assign`` for the command line."""
    assign = verbs.add_parser("assign", help="new galaxies into the classes of a search, or into none of these")
    assign.add_argument("search", metavar="SEARCH", help="out= of a search")
    assign.add_argument("store", metavar="STORE", help="embedding store under the same checkpoint")
    assign.add_argument(
        "--level", type=float, default=AssignRun.level, help="share of galaxies of no class that may be given one"
    )
    assign.add_argument("--rows", type=int, default=AssignRun.rows, help="galaxies at once")
    assign.add_argument("--out", default="", help="folder for assigned.parquet and assign.json; empty: none")
    assign.set_defaults(run=_assign)


def _assign(options: argparse.Namespace) -> None:
    print(AssignRun(options.search, options.store, options.level, options.rows, options.out).run())
