"""Embed a survey with a checkpoint: the only module of this package that needs torch.

Shape letters: b galaxies in the batch, s input side in px, d width of the embedding, a answers of the tree.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, Num, UInt8
from torch import Tensor, nn
from tqdm.auto import tqdm

from rarezoo.data.loaders import Batch, CutoutLoader
from rarezoo.data.survey import Galaxies, Outline, Survey
from rarezoo.data.trees import QuestionTree
from rarezoo.embeddings.parts import LOCKS, lock_if_possible, parts_of_shards, shards_of_part
from rarezoo.embeddings.store import DTYPES, SHARD_ROWS, EmbeddingStore, Manifest
from rarezoo.engines import Engine
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, StoreError
from rarezoo.settings import Settings, refuse_unknown, setting
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.network import Prediction

log = logging.getLogger(__name__)
TURNS = (1, 2, 4, 8)
_QUARTERS = 4
# Images that a network sees at once on a processor: what a few images need stays in its caches.
_AT_ONCE = 16
# Parts into which an engine divides a survey if it is not told how many.
_PARTS = 64
PRECISIONS = ("auto", "float32", "bfloat16")


class Embedded(NamedTuple):
    """Outputs of the network for some rows of the survey.

    Attributes
    ----------
    rows : (b,) int64
    embeddings : (b, d) float32
    fractions : (b, a) float32
        Predicted vote fractions.
    """

    rows: Int64[np.ndarray, " b"]
    embeddings: Float32[np.ndarray, "b d"]
    fractions: Float32[np.ndarray, "b a"]


@dataclass(kw_only=True)
class EmbedRun(Settings):
    """Embed one survey with one checkpoint.

    A killed run continues, shard by shard, when it is run again with the same settings.

    Examples
    --------
    >>> from rarezoo.data.surveys.mock import Mock
    >>> job = EmbedRun(data=Mock(n=200), checkpoint="efficientnet_b0.mock", out="runs/embed")
    >>> store = job.run()  # doctest: +SKIP
    """

    data: Survey
    checkpoint: str = setting(help="checkpoint folder, or its name below checkpoints/")
    out: str = setting("runs/embed", "output folder")
    batch_size: int = setting(256, "galaxies that the network sees at once", unit="galaxies", ge=1)
    workers: int | None = setting(
        None, "processes that decode images; 0 = a thread of this process; null = depends on the machine",
        unit="processes", ge=0,
    )  # fmt: skip
    dtype: str = setting("float32", "type in which embeddings are stored; float16 takes half the space", choices=DTYPES)
    shard_rows: int = setting(
        SHARD_ROWS, "galaxies per file; a killed run loses at most the work of one file", unit="galaxies", ge=1
    )
    turns: int = setting(1, "views averaged: 1; 2 or 4 quarter turns; 8 = these and their mirror images", unit="views")
    precision: str = setting(
        "auto", "arithmetic of the network; auto = bfloat16 on a GPU, else float32", choices=PRECISIONS
    )
    part: str = setting("", "only this part of the shards, such as 3/64: the third of 64; empty: all of them")
    parts: int = setting(0, "number of parts that an engine works on; 0 = up to 64", ge=0)
    engine: Engine = setting(Local, "where the parts run")

    def check(self) -> None:
        """Raise ConfigError for a number of turns or a part that is not possible."""
        if self.turns not in TURNS:
            raise ConfigError("turns", value=self.turns, fix=f"Choose one of: {', '.join(map(str, TURNS))}.")
        shards_of_part(self.part, shards=1)

    def run(self) -> EmbeddingStore:
        """Embed all galaxies that are not yet embedded, or those of one part, and return the store.

        The store is complete when every part is there; its summary says what is missing.

        Raises
        ------
        ConfigError
            A setting does not fit, or a batch does not fit in the memory of the GPU.
        DataError, CheckpointError
            The survey, an image or the checkpoint cannot be used.
        StoreError, OutputError
            The folder holds another store, or cannot be written.
        PartsFailed
            Some parts failed; the others are finished.
        """
        checkpoint, galaxies = Checkpoint.open(self.checkpoint), None
        if self.data.in_partitions:
            outline = self.data.outline()
        else:
            galaxies = self.data.open()
            outline = Outline(len(galaxies), galaxies.sha256)
        settings = self.data.settings()
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if torch.cuda.is_available() else "float32"
        manifest = Manifest(
            survey=settings["option"],
            survey_sha256=outline.sha256,
            survey_settings=settings,
            checkpoint=checkpoint.name,
            checkpoint_sha256=checkpoint.sha256,
            precision=precision,
            turns=self.turns,
            width=checkpoint.width,
            dtype=self.dtype,
            rows=outline.rows,
            shard_rows=self.shard_rows,
            answers=tuple(checkpoint.tree.answers),
        )
        wanted = shards_of_part(self.part, shards=manifest.shards)
        if not wanted:
            log.warning(
                "Part %s has no shard: %d galaxies make %d shards of shard_rows=%d. Choose fewer parts, or lower "
                "shard_rows in the commands of all parts.", self.part, manifest.rows, manifest.shards, self.shard_rows,
            )  # fmt: skip
        store = EmbeddingStore.create(self.out, manifest)
        if galaxies is not None:
            store.refuse_other_images(galaxies, shards=wanted)
        missing = sorted(set(store.missing()) & set(wanted))
        if missing:
            # The same command must make the same parts, whatever is missing, so that their locks are the same.
            whole = parts_of_shards(wanted, self.parts or self._fitting_parts())
            parts = [part for part in whole if set(missing) & set(part.what)]
            task = _EmbedShards(self, store, checkpoint, galaxies)
            self.engine.run(
                task, parts, title="embed", finished=len(whole) - len(parts), gpus=torch.cuda.device_count()
            )
        return store if store.missing() else store.finish()

    def _fitting_parts(self) -> int:
        """Return one part for this process, unless it would hold the catalogue of a survey in partitions in memory."""
        return _PARTS if self.data.in_partitions or not isinstance(self.engine, Local) else 1


@dataclass(frozen=True)
class _EmbedShards:
    """The task of one part: embed those of its shards that are missing."""

    run: EmbedRun
    store: EmbeddingStore
    checkpoint: Checkpoint | None
    galaxies: Galaxies | None

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens them itself.
        return {"run": self.run, "store": self.store, "checkpoint": None, "galaxies": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __call__(self, shards: list[int]) -> None:
        with lock_if_possible(self.store.folder / LOCKS / f"{shards[0]}-{shards[-1]}"):
            missing = [shard for shard in shards if shard in set(self.store.missing(shards))]
            if missing:
                self._write(missing, shards)

    def _write(self, missing: Sequence[int], shards: Sequence[int]) -> None:
        run, store, manifest = self.run, self.store, self.store.manifest
        checkpoint: Checkpoint = self.checkpoint or _kept(
            "checkpoint", manifest.checkpoint_sha256, lambda: Checkpoint.open(run.checkpoint)
        )
        rows = np.concatenate([np.arange(manifest.rows)[manifest.rows_of(shard)] for shard in missing])
        # The last bits of an embedding depend on its batch: batches are those of a run that was never stopped.
        starts = np.unique(rows // run.batch_size) * run.batch_size
        rows = np.concatenate([np.arange(start, min(start + run.batch_size, manifest.rows)) for start in starts])
        if run.data.in_partitions:
            first = int(rows[0])
            galaxies = run.data.open_at(np.arange(first, int(rows[-1]) + 1))
            store.refuse_other_images(galaxies, shards=sorted({*shards} - {*missing}), first=first)
        else:
            first = 0
            galaxies = self.galaxies or _kept("survey", manifest.survey_sha256, run.data.open)
        loader = CutoutLoader(
            galaxies,
            rows - first,
            view=checkpoint.view,
            batch_size=run.batch_size,
            workers=run.workers,
            on_bad_image=run.data.on_bad_image,
        )
        outputs = embedded(loader, checkpoint, precision=manifest.precision, turns=manifest.turns)
        batches = (batch._replace(rows=batch.rows + first) for batch in outputs)
        # A part counts its own galaxies; the whole survey also those that were embedded before.
        total = manifest.rows if len(shards) == manifest.shards else len(rows)
        with tqdm(total=total, initial=total - len(rows), unit=" images", desc="embed") as progress:
            for shard, part in _by_shard(batches, missing, manifest, progress):
                covered = np.arange(manifest.rows)[manifest.rows_of(shard)] - first
                present = part.rows - first
                absent = np.setdiff1d(covered, present, assume_unique=True)
                store.write_shard(
                    shard,
                    ids=list(galaxies.ids[present]),
                    embeddings=part.embeddings,
                    fractions=part.fractions,
                    skipped=list(galaxies.ids[absent]),
                    images=galaxies.images_identity(covered),
                )


# What a worker has opened for its last part, by its hash.
_OPENED: dict[str, tuple[str, Any]] = {}


def _kept(what: str, sha256: str, opened: Callable[[], Any]) -> Any:
    """Return what this process has opened before, or open it; StoreError if it is not what the store was begun with."""
    if _OPENED.get(what, ("",))[0] != sha256:
        found = opened()
        if found.sha256 != sha256:
            raise StoreError(
                f"a worker finds another {what} than the one that the store was begun with", value=found.sha256[:12],
                fix="All machines must see the same files at the same paths.",
            )  # fmt: skip
        _OPENED[what] = (sha256, found)
    return _OPENED[what][1]


def embed(survey: Survey, checkpoint: str | Path | Checkpoint, *, out: str | Path, **settings: Any) -> EmbeddingStore:
    """Embed a survey with a checkpoint and return the store.

    Parameters
    ----------
    survey : Survey
        Galaxies with images.
    checkpoint : str, Path or Checkpoint
        Name of a checkpoint below ``checkpoints/``, its folder, or the opened checkpoint.
    out : str or Path
        Folder of the store. If it holds the same store, that is continued or returned.
    **settings
        Further settings of :class:`EmbedRun`, such as ``batch_size`` and ``dtype``.

    Raises
    ------
    ConfigError
        There is no such setting, or a value is not allowed.

    Examples
    --------
    >>> import rarezoo as rz
    >>> store = rz.embed(rz.Mock(n=200), "efficientnet_b0.mock", out="runs/embed")  # doctest: +SKIP
    """
    known = [field.name for field in fields(EmbedRun) if field.name not in ("data", "checkpoint", "out")]
    refuse_unknown(settings, known, of="an embedding")
    folder = checkpoint.folder if isinstance(checkpoint, Checkpoint) else checkpoint
    return EmbedRun(data=survey, checkpoint=str(folder), out=str(out), **settings).run()


def embedded(loader: Iterable[Batch], checkpoint: Checkpoint, *, precision: str, turns: int = 1) -> Iterator[Embedded]:
    """Yield the network's outputs for each batch, as the mean over a galaxy's turns; on the GPU if there is one.

    Raises
    ------
    ConfigError
        A batch does not fit in the memory of the GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Channels last is faster on processors and GPUs alike, and gives the same outputs up to rounding.
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last).eval()
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    for batch in loader:
        try:
            with torch.inference_mode(), autocast:
                images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
                outputs = [_in_parts(network, view) for view in turned(images, turns=turns)]
        except torch.OutOfMemoryError as problem:
            raise ConfigError("out of GPU memory with batch_size", value=len(batch.rows), fix="Halve it.") from problem
        fractions = _mean([expected_fractions(output.concentrations.float(), checkpoint.tree) for output in outputs])
        yield Embedded(batch.rows.numpy(), _mean([output.embedding.float() for output in outputs]), fractions)


def embed_pixels(
    pixels: UInt8[np.ndarray, "height width 3"], checkpoint: Checkpoint, *, precision: str, turns: int = 1
) -> Float32[np.ndarray, " d"]:
    """Return the embedding of one image, as :class:`EmbedRun` would embed it.

    Parameters
    ----------
    pixels : (height, width, 3) uint8
        An image of any size.
    checkpoint : Checkpoint
        The network.
    precision, turns
        See :class:`EmbedRun`.
    """
    image = checkpoint.view(torch.from_numpy(np.array(pixels, copy=True)).permute(2, 0, 1))
    batch = Batch(torch.zeros(1, dtype=torch.int64), image[None], torch.zeros(1, 0))
    (output,) = embedded([batch], checkpoint, precision=precision, turns=turns)
    return output.embeddings[0]


def _in_parts(network: nn.Module, images: Num[Tensor, "b 3 s s"]) -> Prediction:
    """Run a network on the images of a batch: on a processor a few at a time, whose layers stay in its caches."""
    outputs = [network(part) for part in images.split(len(images) if images.is_cuda else _AT_ONCE)]
    return Prediction(
        torch.cat([output.embedding for output in outputs]), torch.cat([output.concentrations for output in outputs])
    )


def turned(images: Num[Tensor, "b 3 s s"], *, turns: int) -> Iterator[Num[Tensor, "b 3 s s"]]:
    """Yield the images in each of 1, 2, 4 or 8 orientations, the first as they are."""
    for turn in range(turns):
        mirrored = images.flip(3) if turn >= _QUARTERS else images
        yield torch.rot90(mirrored, turn * (_QUARTERS // min(turns, _QUARTERS)), (2, 3)) if turn else images


def _mean(values: list[Tensor]) -> Float32[np.ndarray, "b k"]:
    return torch.stack(values).mean(dim=0).cpu().numpy()


def expected_fractions(concentrations: Float32[Tensor, "b a"], tree: QuestionTree) -> Float32[Tensor, "b a"]:
    """Return the expected vote fraction of each answer among those asked its question: α / Σα over its answers."""
    questions = [concentrations[:, answers] for answers in tree.slices]
    return torch.cat([alphas / alphas.sum(dim=1, keepdim=True) for alphas in questions], dim=1)


def _by_shard(
    batches: Iterator[Embedded], missing: Sequence[int], manifest: Manifest, progress: "tqdm[Any]"
) -> Iterator[tuple[int, Embedded]]:
    """Yield the outputs of each missing shard, from batches in the order of the survey; skipped rows are absent.

    Batches do not end where a shard does, because the last bits of an embedding depend on the size of its batch. They
    may hold rows of shards that are there already, which are left out.
    """
    waiting, parts = deque(missing), [_none_of(manifest)]
    for batch in batches:
        progress.update(len(batch.rows))
        wanted = np.isin(batch.rows // manifest.shard_rows, missing)
        batch = Embedded(*(column[wanted] for column in batch))
        while len(batch.rows):
            last = manifest.rows_of(waiting[0]).stop - 1
            cut = int(np.searchsorted(batch.rows, last, side="right"))
            parts.append(Embedded(*(column[:cut] for column in batch)))
            batch = Embedded(*(column[cut:] for column in batch))
            if len(batch.rows) or parts[-1].rows[-1] == last:
                yield waiting.popleft(), Embedded(*map(np.concatenate, zip(*parts, strict=True)))
                parts = [_none_of(manifest)]
    for shard in waiting:
        yield shard, Embedded(*map(np.concatenate, zip(*parts, strict=True)))
        parts = [_none_of(manifest)]


def _none_of(manifest: Manifest) -> Embedded:
    """Return the outputs for no galaxy."""
    shapes = ((0, manifest.width), (0, len(manifest.answers)))
    return Embedded(np.empty(0, np.int64), *(np.empty(shape, np.float32) for shape in shapes))
