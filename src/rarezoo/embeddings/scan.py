"""Galaxies of a store of any size that score best, without holding it in memory: the shards are scanned by an engine.

One scan adds up what a survey is as a whole: the mean embedding, its spread, and where the galaxies are that are asked
for. A second one gives every galaxy a score and keeps the best of each part. Nothing is written. The answers are those
of :class:`~rarezoo.embeddings.neighbours.NeighbourIndex`, which compares directions from the mean embedding too.

Shape letters: n galaxies of the store, q galaxies that are asked for, d width, k galaxies of a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64

from rarezoo import tables
from rarezoo.embeddings.neighbours import Centred, seen_from
from rarezoo.embeddings.parts import parts_of_shards
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, StoreError

_PARTS = 64
# Further candidates whose distances are computed in double precision, because products are rounded.
_CANDIDATES = 8


class Whole(NamedTuple):
    """What a store is as a whole.

    Attributes
    ----------
    mean, spread : (d,) float64
        Mean of the finite embeddings, and their standard deviation along each axis.
    finite : (n,) bool
        Which embeddings are finite.
    starts : (shards,) int64
        Row of the store at which each shard begins.
    rows : dict of str to int
        Rows in the store of the galaxies that were asked for; those that it lacks are not among them.
    vectors : dict of str to (d,) float32
        Their embeddings.
    """

    mean: Float64[np.ndarray, " d"]
    spread: Float64[np.ndarray, " d"]
    finite: Bool[np.ndarray, " n"]
    starts: Int64[np.ndarray, " shards"]
    rows: dict[str, int]
    vectors: dict[str, np.ndarray]

    def seen(self, vectors: Float[np.ndarray, "m d"]) -> Centred:
        """Return vectors as seen from the mean."""
        spread = np.where(self.spread > 0, self.spread, 1)
        return seen_from(vectors, mean=self.mean.astype(np.float32), spread=spread.astype(np.float32))


class Best(NamedTuple):
    """Galaxies with the highest scores, the best first; of equal scores the first in the store.

    Attributes
    ----------
    rows : (k,) int64
        Their rows in the store.
    ids : (k,) array of text
    scores : (k,) floats
    vectors : (k, d) float32
        Their embeddings.
    """

    rows: Int64[np.ndarray, " k"]
    ids: np.ndarray
    scores: Float[np.ndarray, " k"]
    vectors: Float32[np.ndarray, "k d"]


Score = Callable[[np.ndarray], np.ndarray]


def whole_of(store: EmbeddingStore, asked: Sequence[str] = (), *, engine: Engine) -> Whole:
    """Add up what a store is as a whole, and find the galaxies that are asked for.

    Raises
    ------
    PartsFailed, StoreError
        See the message.
    """
    sums: list[_Sum] = _scan(store, _AddUp(store, frozenset(asked)), engine, title="add up")
    counts = np.array([total.galaxies for total in sums])
    used = [total for total, count in zip(sums, counts, strict=True) if count]
    mean = sum((total.mean * total.galaxies for total in used), np.zeros(store.manifest.width)) / max(counts.sum(), 1)
    # Of each part about its own mean, and of that mean about the mean of all.
    squares = sum(
        (total.squares + total.galaxies * np.square(total.mean - mean) for total in used),
        np.zeros(store.manifest.width),
    )
    lengths = np.concatenate([total.lengths for total in sums])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    places = {galaxy: place for total in sums for galaxy, place in total.places.items()}
    return Whole(
        mean, np.sqrt(squares / max(counts.sum(), 1)), np.concatenate([total.finite for total in sums]), starts,
        {galaxy: int(starts[shard] + row) for galaxy, (shard, row, _) in places.items()},
        {galaxy: vector for galaxy, (_, _, vector) in places.items()},
    )  # fmt: skip


def vectors_at(
    store: EmbeddingStore, whole: Whole, rows: Int64[np.ndarray, " m"], *, engine: Engine
) -> Float32[np.ndarray, "m d"]:
    """Return the embeddings of some rows of a store, in the order of the rows."""
    order = np.argsort(rows, kind="stable")
    parts: list[np.ndarray] = _scan(store, _Take(store, whole.starts, rows[order]), engine, title="read")
    vectors = np.empty((len(rows), store.manifest.width), dtype=np.float32)
    vectors[order] = np.concatenate(parts)
    return vectors


def best_of(
    store: EmbeddingStore, whole: Whole, score: Score, k: int, *, engine: Engine, without: Sequence[int] = ()
) -> Best:
    """Return the k galaxies of a store that score best, fewer if fewer have a score.

    Parameters
    ----------
    store, whole
        The store, and what :func:`whole_of` says of it.
    score
        A function that can be pickled. It returns a score for each of some embeddings (m, d), NaN for one without.
    k
        Number of galaxies.
    engine
        Where the shards are scanned.
    without
        Rows that are left out.
    """
    task = _ScoreShards(store, whole.starts, score, k, frozenset(map(int, without)))
    return _merged(_scan(store, task, engine, title="scan"), k)


def sum_of(store: EmbeddingStore, measure: Callable[[np.ndarray], np.ndarray], *, engine: Engine) -> np.ndarray:
    """Return the sum over all shards of what a function gives for the embeddings (m, d) of each."""
    sums: list[np.ndarray] = _scan(store, _Measure(store, measure), engine, title="add up")
    return np.asarray(sum(sums))


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
    whole = whole_of(store, wanted, engine=engine)
    absent = [galaxy for galaxy in wanted if galaxy not in whole.rows]
    if absent:
        raise StoreError(f"{store.folder} lacks galaxies that are needed", value=f"{len(absent)} of {len(wanted)}",
                         fix="Use ids of this store.", ids=absent)  # fmt: skip
    asked = whole.seen(np.array([whole.vectors[galaxy] for galaxy in wanted])).directions
    # Workers need no list of all galaxies.
    about = whole._replace(finite=whole.finite[:0], rows={}, vectors={})
    task = _Nearest(store, about, np.array([whole.rows[galaxy] for galaxy in wanted]), asked, k)
    found: list[list[Best]] = _scan(store, task, engine, title="scan")
    nearest = [_merged(of_one, k, smallest=True) for of_one in zip(*found, strict=True)]
    if any(len(one.rows) < k for one in nearest):
        raise StoreError(
            f"too few galaxies with a finite embedding for {k} neighbours", value=int(whole.finite.sum()),
            fix="Choose a smaller k, or embed the galaxies again.",
        )  # fmt: skip
    return pd.DataFrame({
        tables.ID: np.repeat(np.asarray(wanted, dtype=object), k),
        "rank": np.tile(np.arange(1, k + 1), len(wanted)),
        "neighbour": np.concatenate([np.empty(0, dtype=object), *(one.ids for one in nearest)]),
        "similarity": 1 - np.concatenate([np.empty(0), *(one.scores for one in nearest)]) ** 2 / 2,
    })  # fmt: skip


# ── what workers do ─────────────────────────────────────────────────────────────────────────────────────────────────


def _scan(store: EmbeddingStore, task: Callable[[list[int]], Any], engine: Engine, *, title: str) -> list[Any]:
    """Run a task on all shards of a store, divided into parts; return what it gives for each part, in their order."""
    return engine.run(task, parts_of_shards(range(store.manifest.shards), _PARTS), title=title)


class _Sum(NamedTuple):
    """Moments of some shards, and the galaxies in them that are asked for: shard, row in it, and embedding."""

    galaxies: int
    mean: np.ndarray
    squares: np.ndarray
    finite: np.ndarray
    lengths: list[int]
    places: dict[str, tuple[int, int, np.ndarray]]


@dataclass(frozen=True)
class _AddUp:
    store: EmbeddingStore
    asked: frozenset[str]

    def __call__(self, shards: list[int]) -> _Sum:
        width = self.store.manifest.width
        total = _Sum(0, np.zeros(width), np.zeros(width), np.empty(0, dtype=bool), [], {})
        for index in shards:
            ids, vectors = _read(self.store, index)
            finite = np.isfinite(vectors).all(axis=1)
            known = vectors[finite].astype(np.float64)
            count = total.galaxies + len(known)
            own = known.mean(axis=0) if len(known) else np.zeros(width)
            mean = (total.mean * total.galaxies + own * len(known)) / max(count, 1)
            squares = total.squares + np.square(known - own).sum(axis=0)
            squares += total.galaxies * np.square(total.mean - mean) + len(known) * np.square(own - mean)
            asked = np.flatnonzero(np.isin(ids, list(self.asked))) if self.asked else np.empty(0, np.int64)
            places = {str(ids[row]): (index, int(row), vectors[row]) for row in asked}
            total = _Sum(
                count, mean, squares, np.concatenate([total.finite, finite]), [*total.lengths, len(ids)],
                {**total.places, **places},
            )  # fmt: skip
        return total


@dataclass(frozen=True)
class _Take:
    store: EmbeddingStore
    starts: np.ndarray
    rows: np.ndarray  # in rising order

    def __call__(self, shards: list[int]) -> np.ndarray:
        taken = [np.empty((0, self.store.manifest.width), dtype=np.float32)]
        ends = np.append(self.starts[1:], np.inf)
        for index in shards:
            here = self.rows[(self.rows >= self.starts[index]) & (self.rows < ends[index])]
            if len(here):
                taken.append(_read(self.store, index)[1][here - self.starts[index]])
        return np.concatenate(taken)


@dataclass(frozen=True)
class _Measure:
    store: EmbeddingStore
    measure: Callable[[np.ndarray], np.ndarray]

    def __call__(self, shards: list[int]) -> np.ndarray:
        return np.asarray(sum(self.measure(_read(self.store, index)[1]) for index in shards))


@dataclass(frozen=True)
class _ScoreShards:
    store: EmbeddingStore
    starts: np.ndarray
    score: Score
    k: int
    without: frozenset[int]

    def __call__(self, shards: list[int]) -> Best:
        best = [_none(self.store.manifest.width)]
        for index in shards:
            ids, vectors = _read(self.store, index)
            if not len(ids):
                continue
            rows = self.starts[index] + np.arange(len(ids))
            scores = np.asarray(self.score(vectors))
            known = np.flatnonzero(~np.isnan(scores) & ~np.isin(rows, list(self.without)))
            best = [_merged([*best, Best(rows[known], ids[known], scores[known], vectors[known])], self.k)]
        return best[0]


@dataclass(frozen=True)
class _Nearest:
    """The nearest galaxies of each of q galaxies; the score is the distance, and the smallest is the best."""

    store: EmbeddingStore
    whole: Whole
    asked: np.ndarray
    directions: Float32[np.ndarray, "q d"]
    k: int

    def __call__(self, shards: list[int]) -> list[Best]:
        found = [_none(self.store.manifest.width)] * len(self.asked)
        for index in shards:
            ids, vectors = _read(self.store, index)
            if not len(ids):
                continue
            rows, seen = self.whole.starts[index] + np.arange(len(ids)), self.whole.seen(vectors)
            products = self.directions @ seen.directions.T
            products[:, ~np.isfinite(seen.lengths)] = -np.inf
            products[self.asked[:, None] == rows] = -np.inf
            order = np.argsort(-products, axis=1, kind="stable")[:, : self.k + _CANDIDATES]
            for number, places in enumerate(order):
                near = places[np.isfinite(products[number, places])]
                apart = seen.directions[near].astype(np.float64) - self.directions[number]
                # Whoever has no direction is at right angles to everyone.
                somewhere = seen.directions[near].any(axis=1) & self.directions[number].any()
                distances = np.where(somewhere, np.linalg.norm(apart, axis=1), np.sqrt(2))
                new = Best(rows[near], ids[near], distances, vectors[near])
                found[number] = _merged([found[number], new], self.k, smallest=True)
        return found


def _read(store: EmbeddingStore, index: int) -> tuple[np.ndarray, Float32[np.ndarray, "m d"]]:
    """Return the ids and embeddings of a shard."""
    shard = store.shard(index, [tables.ID, tables.EMBEDDING])
    return tables.strings(shard, tables.ID), tables.matrix(shard, tables.EMBEDDING).astype(np.float32)


def _none(width: int) -> Best:
    return Best(np.empty(0, np.int64), np.empty(0, dtype=object), np.empty(0), np.empty((0, width), np.float32))


def _merged(parts: Sequence[Best], k: int, *, smallest: bool = False) -> Best:
    """Return the best of several lists."""
    rows, ids, scores, vectors = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((rows, scores if smallest else -scores))[:k]
    return Best(rows[order], ids[order], scores[order], vectors[order])
