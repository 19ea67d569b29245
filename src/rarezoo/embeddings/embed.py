"""Survey × checkpoint → EmbeddingStore.

Shape letters: b galaxies in the batch, s input side in px, d width of the embedding, a answers of the tree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from rarezoo.data.loaders import CutoutLoader
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import QuestionTree
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import ConfigError
from rarezoo.settings import setting
from rarezoo.zoo.checkpoint import Checkpoint

DTYPES = ("float32", "float16")
TURNS = (1, 2, 4, 8)
_QUARTERS = 4
PRECISIONS = ("auto", "float32", "bfloat16")


class Embedded(NamedTuple):
    """What the network says of some rows of the survey."""

    rows: Int64[np.ndarray, " b"]
    embeddings: Float32[np.ndarray, "b d"]
    fractions: Float32[np.ndarray, "b a"]


_NOTHING = Embedded(np.empty(0, np.int64), np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))


@dataclass(kw_only=True)
class EmbedRun:
    """Embed one survey under one checkpoint.

    ``EmbedRun(data=Mock(), checkpoint="efficientnet_b0.v1", out="runs/embed").run()``; a killed run goes on, shard by
    shard, when the same command is given again.
    """

    data: Survey
    checkpoint: str = setting("???", "checkpoint folder, or its name below checkpoints/")
    out: str = setting("runs/embed", "output folder")
    batch_size: int = setting(256, "galaxies that the network sees at once", unit="galaxies")
    workers: int | None = setting(
        None, "processes that decode images; 0 = a thread of this one; null = by the machine", unit="processes"
    )
    dtype: str = setting("float32", "how embeddings are stored: float32, or float16 in half the space")
    shard_rows: int = setting(10_000, "galaxies per file; a killed run loses at most one file's work", unit="galaxies")
    turns: int = setting(1, "views averaged: 1; 2 or 4 quarter turns; 8 = these and their mirror images", unit="views")
    precision: str = setting("auto", "arithmetic: float32, bfloat16, or auto = bfloat16 on a GPU, else float32")

    def run(self) -> EmbeddingStore:
        """Embed what is not yet embedded; the whole store.

        Raises:
            ConfigError, DataError, CheckpointError, StoreError, OutputError: see the message.
        """
        self._refuse()
        checkpoint, galaxies = Checkpoint.open(self.checkpoint), self.data.open()
        store = EmbeddingStore.create(self.out, self._manifest(galaxies, checkpoint))
        self._write_shards(store, galaxies, checkpoint)
        return store.finish()

    def _refuse(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError("unknown dtype", value=self.dtype, fix=f"Choose {' or '.join(DTYPES)}.")
        if self.precision not in PRECISIONS:
            raise ConfigError("unknown precision", value=self.precision, fix=f"Choose one of: {', '.join(PRECISIONS)}.")
        if self.turns not in TURNS:
            raise ConfigError("turns", value=self.turns, fix=f"Choose one of: {', '.join(map(str, TURNS))}.")
        for name, least in (("batch_size", 1), ("shard_rows", 1)):
            if getattr(self, name) < least:
                raise ConfigError(name, value=getattr(self, name), fix=f"Choose {least} or more.")

    def _manifest(self, galaxies: Galaxies, checkpoint: Checkpoint) -> Manifest:
        settings = self.data.settings()
        return Manifest(
            survey=settings["option"],
            survey_sha256=galaxies.sha256,
            survey_settings=settings,
            checkpoint=checkpoint.name,
            checkpoint_sha256=checkpoint.sha256,
            precision=_precision(self.precision),
            turns=self.turns,
            width=checkpoint.width,
            dtype=self.dtype,
            rows=len(galaxies),
            shard_rows=self.shard_rows,
            answers=tuple(checkpoint.tree.answers),
        )

    def _write_shards(self, store: EmbeddingStore, galaxies: Galaxies, checkpoint: Checkpoint) -> None:
        manifest, missing = store.manifest, store.missing()
        if not missing:
            return
        covered = [np.arange(manifest.rows)[manifest.rows_of(shard)] for shard in missing]
        rows = np.concatenate(covered)
        loader = CutoutLoader(
            galaxies,
            rows,
            view=checkpoint.view,
            batch_size=self.batch_size,
            workers=self.workers,
            on_bad_image=self.data.on_bad_image,
        )
        said = embedded(loader, checkpoint, precision=manifest.precision, turns=manifest.turns)
        with tqdm(total=manifest.rows, initial=manifest.rows - len(rows), unit=" images", desc="embed") as progress:
            for shard, wanted, found in zip(missing, covered, _regrouped(said, covered, progress), strict=True):
                absent = np.setdiff1d(wanted, found.rows, assume_unique=True)
                store.write_shard(
                    shard,
                    ids=list(galaxies.ids[found.rows]),
                    embeddings=found.embeddings.reshape(-1, manifest.width),
                    fractions=found.fractions.reshape(-1, len(manifest.answers)),
                    skipped=list(galaxies.ids[absent]),
                )


def embedded(loader: CutoutLoader, checkpoint: Checkpoint, *, precision: str, turns: int = 1) -> Iterator[Embedded]:
    """What the checkpoint's network says of each batch, on the GPU if there is one: the mean over a galaxy's turns.

    Raises:
        ConfigError: a batch does not fit in the GPU's memory.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Channels last is quicker on processors and GPUs alike, and says the same up to rounding.
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last).eval()
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    for batch in loader:
        try:
            with torch.inference_mode(), autocast:
                images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
                said = [network(one) for one in turned(images, turns=turns)]
        except torch.OutOfMemoryError as problem:
            raise ConfigError("out of GPU memory with batch_size", value=len(batch.rows), fix="Halve it.") from problem
        fractions = _mean([expected_fractions(one.concentrations.float(), checkpoint.tree) for one in said])
        yield Embedded(batch.rows.numpy(), _mean([one.embedding.float() for one in said]), fractions)


def turned(images: UInt8[Tensor, "b 3 s s"], *, turns: int) -> Iterator[UInt8[Tensor, "b 3 s s"]]:
    """The images in one of :data:`TURNS` orientations, the first as they are."""
    for turn in range(turns):
        mirrored = images.flip(3) if turn >= _QUARTERS else images
        yield torch.rot90(mirrored, turn * (_QUARTERS // min(turns, _QUARTERS)), (2, 3)) if turn else images


def _mean(values: list[Tensor]) -> Float32[np.ndarray, "b k"]:
    return torch.stack(values).mean(dim=0).cpu().numpy()


def expected_fractions(concentrations: Float32[Tensor, "b a"], tree: QuestionTree) -> Float32[Tensor, "b a"]:
    """The vote fraction expected of each answer among those asked its question: α / Σα over the question's answers."""
    questions = [concentrations[:, answers] for answers in tree.slices]
    return torch.cat([alphas / alphas.sum(dim=1, keepdim=True) for alphas in questions], dim=1)


def _regrouped(batches: Iterator[Embedded], groups: list[np.ndarray], progress: "tqdm[Any]") -> Iterator[Embedded]:
    """Batches, whose rows come in the order of the groups, as one piece per group; skipped rows are absent."""
    held = _NOTHING
    for group in groups:
        while not len(held.rows) or held.rows[-1] < group[-1]:
            batch = next(batches, None)
            if batch is None:
                break
            progress.update(len(batch.rows))
            held = _joined(held, batch) if len(held.rows) else batch
        piece, held = _split(held, at=group[-1])
        yield piece


def _joined(first: Embedded, second: Embedded) -> Embedded:
    return Embedded(*(np.concatenate(columns) for columns in zip(first, second, strict=True)))


def _split(piece: Embedded, *, at: int) -> tuple[Embedded, Embedded]:
    """Rows up to and including one, and the rows after it."""
    cut = int(np.searchsorted(piece.rows, at, side="right"))
    return Embedded(*(column[:cut] for column in piece)), Embedded(*(column[cut:] for column in piece))


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    return "bfloat16" if torch.cuda.is_available() else "float32"
