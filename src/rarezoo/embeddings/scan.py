"""Nearest neighbours of a few galaxies among those of a store of any size: an exact scan, shard by shard.

Directions are compared from the mean embedding, as :class:`~rarezoo.embeddings.neighbours.NeighbourIndex` does it in
memory. The first pass adds up the mean, the second keeps the best of each part; nothing is written.

Shape letters: q galaxies that are asked for, d width, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from rarezoo import tables
from rarezoo.embeddings.neighbours import unit_vectors
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine, Part
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, StoreError

_PARTS = 64


class _Sum(NamedTuple):
    """Sum of the finite embeddings of some shards, their number, and the embeddings that are asked for."""

    total: Float64[np.ndarray, " d"]
    galaxies: int
    asked: dict[str, np.ndarray]


@dataclass(frozen=True)
class _AddUp:
    store: EmbeddingStore
    wanted: tuple[str, ...]

    def __call__(self, shards: list[int]) -> _Sum:
        total, count = np.zeros(self.store.manifest.width), 0
        asked: dict[str, np.ndarray] = {}
        for index in shards:
            shard = self.store.shard(index, [tables.ID, tables.EMBEDDING])
            vectors = tables.matrix(shard, tables.EMBEDDING).astype(np.float32)
            finite = np.isfinite(vectors).all(axis=1)
            total, count = total + vectors[finite].sum(axis=0, dtype=np.float64), count + int(finite.sum())
            ids = tables.strings(shard, tables.ID)
            asked |= {str(ids[row]): vectors[row] for row in np.flatnonzero(np.isin(ids, self.wanted))}
        return _Sum(total, count, asked)


@dataclass(frozen=True)
class _Nearest:
    store: EmbeddingStore
    wanted: tuple[str, ...]
    directions: Float32[np.ndarray, "q d"]
    mean: Float32[np.ndarray, " d"]
    k: int

    def __call__(self, shards: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and distances, (q, up to k) each."""
        found = []
        for index in shards:
            shard = self.store.shard(index, [tables.ID, tables.EMBEDDING])
            if not shard.num_rows:
                continue
            ids = tables.strings(shard, tables.ID)
            vectors = tables.matrix(shard, tables.EMBEDDING).astype(np.float32)
            finite: np.ndarray = np.asarray(np.isfinite(vectors).all(axis=1))
            units = np.where(
                finite[:, None], unit_vectors(np.where(finite[:, None], vectors, self.mean), mean=self.mean), 0
            )
            products = self.directions @ units.T
            products[:, ~finite] = -np.inf
            products[np.asarray(self.wanted, dtype=object)[:, None] == ids[None, :]] = -np.inf
            # A few more than k, because products are rounded and the distances decide.
            best = np.argsort(-products, axis=1, kind="stable")[:, : self.k + 8]
            distances = np.linalg.norm(units[best].astype(np.float64) - self.directions[:, None], axis=2)
            distances = np.where(np.isneginf(np.take_along_axis(products, best, axis=1)), np.inf, distances)
            found.append((ids[best], distances))
        return _merged(found, self.k, len(self.wanted))


def nearest_in_parts(
    store: EmbeddingStore, ids: str | Sequence[str], k: int = 10, *, engine: Engine | None = None
) -> pd.DataFrame:
    """Find the most similar galaxies as :meth:`EmbeddingStore.neighbours`, without holding the store in memory.

    Parameters
    ----------
    store
        A store of any size.
    ids
        Galaxies to ask for.
    k
        Number of neighbours of each, without the galaxy itself.
    engine
        Where the parts are scanned; by default in this process.

    Returns
    -------
    pandas.DataFrame
        ``id_str``, ``rank``, ``neighbour`` and ``similarity``, as :meth:`EmbeddingStore.neighbours`.

    Raises
    ------
    StoreError
        The store lacks some of the galaxies, or has too few finite embeddings.
    ConfigError
        k is less than 1.
    """
    wanted = (ids,) if isinstance(ids, str) else tuple(ids)
    if k < 1:
        raise ConfigError("k, the number of neighbours", value=k, fix="Choose 1 or more.")
    engine = engine or Local()
    shards = store.manifest.shards
    parts = [
        Part(f"shards {group[0]} to {group[-1]}", group.tolist())
        for group in np.array_split(np.arange(shards), min(_PARTS, shards))
    ]
    sums: list[_Sum] = engine.run(_AddUp(store, wanted), parts, title="mean")
    asked: dict[str, np.ndarray] = {}
    for part in sums:
        asked |= part.asked
    absent = [galaxy for galaxy in wanted if galaxy not in asked]
    if absent:
        raise StoreError(f"{store.folder} lacks galaxies that are needed", value=f"{len(absent)} of {len(wanted)}",
                         fix="Use ids of this store.", ids=absent)  # fmt: skip
    count = sum(part.galaxies for part in sums)
    mean = (sum((part.total for part in sums), np.zeros(store.manifest.width)) / max(count, 1)).astype(np.float32)
    directions = unit_vectors(np.array([asked[galaxy] for galaxy in wanted]), mean=mean)
    task = _Nearest(store, wanted, directions, mean, k)
    names, distances = _merged(engine.run(task, parts, title="scan"), k, len(wanted))
    if names.shape[1] < k or not np.isfinite(distances).all():
        raise StoreError(f"too few galaxies with a finite embedding for {k} neighbours", value=count,
                         fix="Choose a smaller k, or embed the galaxies again.")  # fmt: skip
    return pd.DataFrame({
        tables.ID: np.repeat(np.asarray(wanted, dtype=object), k),
        "rank": np.tile(np.arange(1, k + 1), len(wanted)),
        "neighbour": names.ravel(),
        "similarity": 1 - distances.ravel() ** 2 / 2,
    })  # fmt: skip


def _merged(found: Sequence[tuple[np.ndarray, np.ndarray]], k: int, asked: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of several lists of neighbours; equal distances in the order of the store."""
    if not found:
        return np.empty((asked, 0), dtype=object), np.empty((asked, 0))
    names, distances = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(names, order, axis=1), np.take_along_axis(distances, order, axis=1)
