"""Where results live: run folders that know what they hold, and the EmbeddingStore. No torch.

An EmbeddingStore is a folder:
    manifest.json          what it ties together: survey and checkpoint hashes, dtype, width, rows, shard size
    shard-00000.parquet …  EMBEDDINGS rows, in the survey's order; a shard exists whole or not at all
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import tables
from rarezoo.errors import OutputError, StoreError

SETTINGS_FILE = "settings.json"
MANIFEST_FILE = "manifest.json"


def digest(content: Mapping[str, Any]) -> str:
    """sha256 (hex) of a mapping, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(tables.plain(content), sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path | str) -> str:
    """sha256 (hex) of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def claim(out: Path | str, *, verb: str, settings: Mapping[str, Any]) -> Path:
    """The output folder, claimed for one command with one set of settings, so that the same command can resume in it.

    Raises:
        OutputError: the folder cannot be written, or holds a run with other settings (the message names them).
    """
    out = Path(out)
    wanted = {"verb": verb, "settings": tables.plain(settings)}
    record = out / SETTINGS_FILE
    if record.exists():
        _refuse_other_run(json.loads(record.read_text()), wanted, out=out)
        return out
    if out.exists() and not out.is_dir():
        raise OutputError("the output path is a file", value=out, fix="Choose a folder: out=DIR.")
    tables.write_json(wanted, record)
    return out


def _refuse_other_run(found: Mapping[str, Any], wanted: Mapping[str, Any], *, out: Path) -> None:
    before, now = _flat(found), _flat(wanted)
    changed = [
        f"{key} {before.get(key)} → {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise OutputError(
            f"{out} holds a run with other settings", value="; ".join(changed[:6]),
            fix="Choose another out=DIR, or delete that folder if you no longer need it.",
        )  # fmt: skip


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix: content}
    parts = [_flat(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in content.items()]
    return {key: value for part in parts for key, value in part.items()}


@dataclass(frozen=True)
class Manifest:
    """What a store ties together. Two stores with different survey or checkpoint hashes never mix."""

    survey: str
    survey_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    width: int
    dtype: str
    rows: int
    shard_rows: int
    answers: tuple[str, ...]

    @property
    def shards(self) -> int:
        """Number of shards when the store is whole."""
        return -(-self.rows // self.shard_rows)


class EmbeddingStore:
    """Embeddings (n, D) and predicted fractions of a survey under one checkpoint, in shards that resume.

    Use :meth:`create` to begin or go on writing, :meth:`open` to read a whole store.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path | str, manifest: Manifest) -> "EmbeddingStore":
        """Begin a store, or go on with one begun with the same manifest.

        Raises:
            StoreError: the folder holds a store of another survey, checkpoint, dtype or shard size.
        """
        folder = Path(folder)
        if (folder / MANIFEST_FILE).exists():
            found = _read_manifest(folder)
            changed = [name for name in asdict(manifest) if getattr(found, name) != getattr(manifest, name)]
            if changed:
                raise StoreError(
                    f"{folder} is a store of another run: {', '.join(changed)} differ",
                    value=", ".join(f"{name} {getattr(found, name)}" for name in changed[:2]),
                    fix="Choose another out=DIR; one store holds one survey under one checkpoint.",
                )
        else:
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

    def rows_of(self, shard: int) -> slice:
        """The survey's rows that a shard holds."""
        start = shard * self.manifest.shard_rows
        return slice(start, min(start + self.manifest.shard_rows, self.manifest.rows))

    def write_shard(
        self, shard: int, *, ids: Sequence[str], embeddings: np.ndarray, fractions: np.ndarray
    ) -> Path:
        """Write one shard whole: embeddings (n, D), fractions (n, answers).

        Raises:
            StoreError: rows are not those of the shard, or embeddings have another width.
        """
        expected = self.rows_of(shard)
        if len(ids) != expected.stop - expected.start or embeddings.shape[1] != self.manifest.width:
            raise StoreError("rows do not fit the shard", value=(shard, embeddings.shape), fix="Report this as a bug.")
        columns: dict[str, Any] = {
            tables.ID: pa.array(list(ids), pa.string()),
            tables.EMBEDDING: tables.vectors(embeddings.astype(self.manifest.dtype)),
        }
        for index, answer in enumerate(self.manifest.answers):
            columns[tables.fraction_column(answer)] = pa.array(fractions[:, index].astype(np.float32))
        path = self._path(shard)
        return tables.write(pa.table(columns), path, tables.EMBEDDINGS, checkpoint=self.manifest.checkpoint_sha256)

    def read(self) -> pa.Table:
        """All rows as one EMBEDDINGS table, in the survey's order.

        Raises:
            StoreError: a shard is corrupted, from another checkpoint, or ids are doubled.
        """
        whole = pa.concat_tables(list(self._read_shards()))
        return tables.check(whole.combine_chunks(), tables.EMBEDDINGS, source=str(self.folder))

    def _read_shards(self) -> Iterator[pa.Table]:
        for index in range(self.manifest.shards):
            shard = tables.read(self._path(index), tables.EMBEDDINGS)
            found = tables.provenance(shard).get("checkpoint")
            if found != self.manifest.checkpoint_sha256:
                raise StoreError(
                    "shard from another checkpoint", value=self._path(index),
                    fix="Delete that shard and run the embed command again.",
                )  # fmt: skip
            yield shard

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text())
        return Manifest(**{**content, "answers": tuple(content["answers"])})
    except FileNotFoundError as problem:
        raise StoreError("no embedding store", value=folder, fix="Write one: python embed.py out=DIR …") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreError("unreadable manifest", value=folder / MANIFEST_FILE, fix="Write the store anew.") from problem
