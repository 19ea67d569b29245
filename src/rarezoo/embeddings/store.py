"""Where results live: run folders that know what they hold, and the EmbeddingStore. No torch.

An EmbeddingStore is a folder:
    manifest.json          what it ties together: survey and checkpoint hashes, dtype, width, rows, shard size
    shard-00000.parquet …  EMBEDDINGS rows, in the survey's order; a shard exists whole or not at all
    skipped.csv            ids of the galaxies whose images could not be read, if there are any
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rarezoo import tables
from rarezoo.errors import OutputError, StoreError
from rarezoo.runs import SETTINGS_FILE

log = logging.getLogger(__name__)
MANIFEST_FILE = "manifest.json"
SKIPPED_FILE = "skipped.csv"
# What a shard must share with its store.
_TIED = ("survey_sha256", "checkpoint_sha256")


@dataclass(frozen=True)
class Manifest:
    """What a store ties together. Two stores with different survey or checkpoint hashes never mix.

    Attributes:
        survey: the survey's option name.
        survey_sha256: hash of its galaxies.
        survey_settings: ``option`` and settings, from which the survey can be opened again.
        checkpoint: name of the checkpoint.
        checkpoint_sha256: hash of its card.
        precision: of the network's arithmetic, ``float32`` or ``bfloat16``.
        width: D of the embeddings.
        dtype: in which they are stored, ``float32`` or ``float16``.
        rows: galaxies in the survey.
        shard_rows: galaxies per shard, fewer in the last.
        answers: whose predicted fractions are stored.
        turns: orientations of each galaxy over which its row is a mean.
    """

    survey: str
    survey_sha256: str
    survey_settings: dict[str, Any]
    checkpoint: str
    checkpoint_sha256: str
    precision: str
    width: int
    dtype: str
    rows: int
    shard_rows: int
    answers: tuple[str, ...]
    turns: int = 1

    @property
    def shards(self) -> int:
        """Number of shards when the store is whole."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> slice:
        """The survey's rows that a shard covers."""
        start = shard * self.shard_rows
        return slice(start, min(start + self.shard_rows, self.rows))


class EmbeddingStore:
    """Embeddings (n, D) and predicted fractions of a survey under one checkpoint, in shards that resume.

    Use :meth:`create` to begin or go on writing, :meth:`open` to read a whole store. Galaxies are in the survey's
    order; those whose image could not be read, and was to be skipped, are absent and listed by :meth:`skipped`.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path | str, manifest: Manifest) -> "EmbeddingStore":
        """Begin a store, or go on with one of the same survey, checkpoint and format.

        Raises:
            StoreError: the folder holds a store of another survey or checkpoint, or with other settings.
            OutputError: the folder cannot be written, or holds another command's run.
        """
        folder = Path(folder)
        if (folder / SETTINGS_FILE).exists():
            raise OutputError("the folder holds another command's run", value=folder, fix="Choose another out=DIR.")
        if folder.exists() and not folder.is_dir():
            raise OutputError("the output path is a file", value=folder, fix="Choose a folder: out=DIR.")
        if (folder / MANIFEST_FILE).exists():
            _refuse_other_store(_read_manifest(folder), manifest, folder=folder)
        tables.write_json(asdict(manifest), folder / MANIFEST_FILE)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path | str) -> "EmbeddingStore":
        """Open a whole store.

        Raises:
            StoreError: no store there, or shards are missing.
        """
        folder = Path(folder)
        store = cls(folder, _read_manifest(folder))
        missing = store.missing()
        if missing:
            raise StoreError(
                f"store {folder} is not whole", value=f"{len(missing)} of {store.manifest.shards} shards missing",
                fix="Run the embed command that began it again: it goes on where it stopped.",
            )  # fmt: skip
        return store

    def missing(self) -> list[int]:
        """Indices of the shards not yet written."""
        return [index for index in range(self.manifest.shards) if not self._path(index).exists()]

    def write_shard(
        self,
        shard: int,
        *,
        ids: Sequence[str],
        embeddings: np.ndarray,
        fractions: np.ndarray,
        skipped: Sequence[str] = (),
    ) -> Path:
        """Write one shard, whole or not at all.

        Args:
            shard: index.
            ids: (m,) galaxies embedded, in the survey's order.
            embeddings: (m, D).
            fractions: (m, answers), predicted.
            skipped: the shard's other galaxies, whose images could not be read.

        Raises:
            StoreError: embeddings that the store's dtype cannot hold.
            OutputError: the folder cannot be written or is full.
        """
        covered = self.manifest.rows_of(shard)
        if len(ids) + len(skipped) != covered.stop - covered.start or embeddings.shape[1] != self.manifest.width:
            raise ValueError(f"shard {shard} covers {covered}: got {len(ids)} + {len(skipped)} rows")
        columns: dict[str, Any] = {
            tables.ID: pa.array(list(ids), pa.string()),
            tables.EMBEDDING: tables.vectors(self._stored(embeddings, ids=ids)),
        }
        for index, answer in enumerate(self.manifest.answers):
            columns[tables.fraction_column(answer)] = pa.array(fractions[:, index].astype(np.float32))
        hashes = {key: getattr(self.manifest, key) for key in _TIED}
        return tables.write(pa.table(columns), self._path(shard), tables.EMBEDDINGS, **hashes, skipped=list(skipped))

    def _stored(self, embeddings: np.ndarray, *, ids: Sequence[str]) -> np.ndarray:
        with np.errstate(over="ignore"):
            stored = embeddings.astype(self.manifest.dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            raise StoreError(
                f"embeddings that {self.manifest.dtype} cannot hold", value=f"{len(bad)} galaxies",
                fix="Use dtype=float32 and precision=float32; if that fails too, the checkpoint is broken.",
                ids=[ids[int(row)] for row in bad],
            )  # fmt: skip
        return stored

    def finish(self) -> "EmbeddingStore":
        """The store, once whole: lists what was skipped in skipped.csv and clears what a killed run left behind.

        Raises:
            StoreError: shards are missing, or every galaxy was skipped.
        """
        store = EmbeddingStore.open(self.folder)
        skipped = store.skipped()
        if len(skipped) == self.manifest.rows:
            raise StoreError(
                "no image of the survey could be read", value=f"{len(skipped)} skipped",
                fix="Check where the survey's images are; data.on_bad_image=stop tells what is wrong with the first.",
            )  # fmt: skip
        if skipped:
            log.warning("%d galaxies skipped, listed in %s", len(skipped), self.folder / SKIPPED_FILE)
            with tables.atomic(self.folder / SKIPPED_FILE) as temporary:
                temporary.write_text("\n".join([tables.ID, *skipped]) + "\n")
        for partial in self.folder.glob(".shard-*.partial"):
            partial.unlink(missing_ok=True)
        return store

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one EMBEDDINGS table in the survey's order, in one chunk per shard.

        Args:
            columns: only these (a survey of millions may not fit in memory with its embeddings); None reads all.

        Raises:
            StoreError: a shard is corrupted, from another survey or checkpoint, or ids are doubled.
        """
        whole = pa.concat_tables(self._shards(columns))
        kind = tables.EMBEDDINGS if columns is None else tables.EMBEDDINGS.narrowed(columns)
        return tables.check(whole, kind, source=str(self.folder))

    def ids(self) -> np.ndarray:
        """Object array (n,) of id strings; reads nothing else."""
        return tables.strings(self.read([tables.ID]), tables.ID)

    def embeddings(self) -> np.ndarray:
        """Embeddings (n, D) in the stored dtype, aligned with :meth:`ids`; never holds a second copy of them."""
        galaxies = sum(pq.read_metadata(self._path(index)).num_rows for index in range(self.manifest.shards))
        whole, filled = np.empty((galaxies, self.manifest.width), dtype=self.manifest.dtype), 0
        for shard in self._shards([tables.EMBEDDING]):
            whole[filled : filled + shard.num_rows] = tables.matrix(shard, tables.EMBEDDING)
            filled += shard.num_rows
        return whole

    def skipped(self) -> list[str]:
        """Ids of the galaxies that have no embedding because their images could not be read."""
        return [galaxy for shard in self._shards([]) for galaxy in tables.provenance(shard)["skipped"]]

    def shard(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one shard, as :meth:`read` gives those of all.

        Raises:
            StoreError: the shard is corrupted, or from another survey or checkpoint.
        """
        shard = tables.read(self._path(index), tables.EMBEDDINGS, columns=columns)
        found = tables.provenance(shard)
        other = [name for name in _TIED if found.get(name) != getattr(self.manifest, name)]
        if other:
            raise StoreError(
                f"shard from another {' and '.join(name.removesuffix('_sha256') for name in other)}",
                value=self._path(index), fix="Delete that shard and run the embed command again.",
            )  # fmt: skip
        return shard

    def _shards(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        return (self.shard(index, columns) for index in range(self.manifest.shards))

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"


def _refuse_other_store(found: Manifest, wanted: Manifest, *, folder: Path) -> None:
    # What the survey is, its hash says; its settings may also name where it lies and what a bad image does.
    names = [one.name for one in fields(Manifest) if one.name != "survey_settings"]
    changed = [name for name in names if getattr(found, name) != getattr(wanted, name)]
    if changed:
        raise StoreError(
            f"{folder} is a store of another run: {', '.join(changed)} differ",
            value="; ".join(f"{name} {getattr(found, name)} → {getattr(wanted, name)}" for name in changed[:3]),
            fix="Choose another out=DIR; one store holds one survey under one checkpoint.",
        )


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text())
        return Manifest(**{**content, "answers": tuple(content["answers"])})
    except FileNotFoundError as problem:
        raise StoreError("no embedding store", value=folder, fix="Write one: python embed.py out=DIR …") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreError("unreadable manifest", value=folder / MANIFEST_FILE, fix="Write the store anew.") from problem
