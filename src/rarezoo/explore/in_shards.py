"""Similar galaxies and rankings of a survey of any size: its shards are scanned by an engine, the best are merged.

The answers are those of :mod:`rarezoo.explore.similar` and :mod:`rarezoo.explore.session`, which hold ids, positions
and features of every galaxy in memory. Here only the best are: they become a small store, whose positions and images
say which of them are left out.

Galaxies are compared by the embedding alone, because what is measured from images would have to be measured in all of
them first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from rarezoo import tables
from rarezoo.data.surveys.selected import Selected, write_selected
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.scan import Best, Whole, best_of, sum_of, vectors_at, whole_of
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.explore.features import PHOTOMETRY, STRUCTURE, Standard
from rarezoo.explore.pool import Pool
from rarezoo.explore.ranker import Model
from rarezoo.explore.ranking import RankingSettings, ranking_table
from rarezoo.explore.scores import (
    AUTO,
    Direction,
    Scores,
    background_rows,
    cosine_direction,
    is_probe,
    probe_direction,
    whitening_of,
)
from rarezoo.explore.similar import APART, SHOWN, Query, SimilarGalaxies, ranked
from rarezoo.searches.large import LARGE_FILE, present_rows, whole_store
from rarezoo.searches.result import Search

# Further galaxies that are fetched, because some of the best are left out as copies.
_FURTHER = 64


def store_of(source: Search | EmbeddingStore) -> EmbeddingStore:
    """Return the store that is scanned: of a search out of core the whole one, not only what is shown.

    Raises
    ------
    ConfigError
        It is a search in the memory, which may have searched some of its store only.
    """
    if isinstance(source, EmbeddingStore):
        return source
    if not (source.folder / LARGE_FILE).exists():
        raise ConfigError(
            "engine= looks through a store, or through all galaxies of a search out of core", value=source.folder,
            fix="Leave engine= out, or give the folder of the store.",
        )  # fmt: skip
    return whole_store(source)


# ── similar galaxies ────────────────────────────────────────────────────────────────────────────────────────────────


def similar_in_shards(
    store: EmbeddingStore,
    examples: Sequence[str],
    k: int | None = None,
    *,
    engine: Engine,
    folder: Path,
    against: Sequence[str] = (),
    by: str = AUTO,
    apart: float = APART,
    identical: bool = True,
    seed: int = 0,
) -> SimilarGalaxies:
    """Find the galaxies of a store that are most alike to some of its galaxies.

    Parameters
    ----------
    store : EmbeddingStore
        A store of any size.
    examples, against : sequences of str
        Ids of examples and of counter-examples.
    k : int, optional
        Number of galaxies; 24 by default.
    engine : Engine
        Where the shards are scanned.
    folder : Path
        Folder for the small store of what was found. It must stay as long as the result is used.
    by, apart, identical, seed
        See :func:`~rarezoo.explore.similar.similar`.

    Raises
    ------
    ConfigError
        The store lacks an example, or k is too large.
    """
    asked = [*examples, *against]
    whole = whole_of(store, asked, engine=engine)
    _refuse_unknown(store, whole, examples, against)
    others = int(whole.finite.sum()) - len(set(asked))
    k = min(SHOWN, others) if k is None else k
    if not 1 <= k <= others:
        raise ConfigError("k, the number of galaxies", value=k, fix=f"Choose 1 to {others}.")
    direction = _direction(store, whole, examples, against, by=by, seed=seed, engine=engine)
    about = whole._replace(finite=whole.finite[:0], rows={}, vectors={})
    rows_asked = [whole.rows[galaxy] for galaxy in asked]
    count = k + _FURTHER
    while True:
        best = best_of(store, whole, _Alike(about, direction), count, engine=engine, without=rows_asked)
        result = _without_copies(
            store, whole, best, Scores(best.scores, direction.way), examples, against, min(k, len(best.rows)),
            folder=folder / str(count), apart=apart, identical=identical,
        )  # fmt: skip
        if len(result.rows) == k or len(best.rows) < count:
            return replace(result, searched=int(whole.finite.sum()))
        count *= 4


@dataclass(frozen=True)
class _Alike:
    """How alike galaxies are to the examples, from their embeddings."""

    whole: Whole
    direction: Direction

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(self.direction.scores(NeighbourIndex.of(self.whole.seen(vectors))).values)


def _direction(
    store: EmbeddingStore, whole: Whole, examples: Sequence[str], against: Sequence[str], *, by: str, seed: int,
    engine: Engine,
) -> Direction:  # fmt: skip
    """Return what galaxies are compared with, as :func:`~rarezoo.explore.scores.scores_of` makes it in memory."""

    def centred(vectors: np.ndarray) -> np.ndarray:
        seen = whole.seen(vectors)
        return seen.directions * seen.lengths[:, None]

    width = store.manifest.width
    of_examples, of_counter = (
        centred(np.array([whole.vectors[galaxy] for galaxy in ids]).reshape(len(ids), width))
        for ids in (examples, against)
    )
    if not is_probe(by, against=len(against)):
        return cosine_direction(of_examples)
    drawn = background_rows(whole.finite, seed=seed)
    background = centred(vectors_at(store, whole, drawn, engine=engine))
    return probe_direction(of_examples, of_counter, whitening_of(background))


def _without_copies(
    store: EmbeddingStore, whole: Whole, best: Best, scores: Scores, examples: Sequence[str], against: Sequence[str],
    k: int, *, folder: Path, apart: float, identical: bool,
) -> SimilarGalaxies:  # fmt: skip
    """Leave out what is near an example or a copy, among the best alone."""
    asked = [*examples, *against]
    ids = [*asked, *best.ids.tolist()]
    rows = np.concatenate([[whole.rows[galaxy] for galaxy in asked], best.rows]).astype(np.int64)
    vectors = np.concatenate([[whole.vectors[galaxy] for galaxy in asked], best.vectors])
    small = _small_store(store, whole, ids, rows, vectors, folder)
    at = {str(galaxy): row for row, galaxy in enumerate(small.ids)}
    order = np.array([at[galaxy] for galaxy in ids])
    back = np.argsort(order)
    # Copies are recognised as seen from the mean of the whole survey, not of these few galaxies.
    small.index = NeighbourIndex.of(whole.seen(vectors[back]))
    values = np.concatenate([np.full(len(asked), -np.inf), scores.values])[back]
    query = Query(rows=order[: len(examples)], against=order[len(examples) : len(asked)])
    return ranked(Pool(small), query, k, scores=Scores(values, scores.way), apart=apart, identical=identical)


def _small_store(
    store: EmbeddingStore, whole: Whole, ids: list[str], rows: np.ndarray, vectors: np.ndarray, folder: Path
) -> EmbeddingStore:
    """Write a store of some galaxies, which knows where their positions and images are."""
    survey = None
    if store.has_survey:
        shards = np.searchsorted(whole.starts, rows, side="right") - 1
        in_survey = np.empty(len(rows), dtype=np.int64)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            present = present_rows(store, int(shard), store.shard(int(shard), [tables.ID]))
            in_survey[here] = present[rows[here] - whole.starts[shard]]
        listed = write_selected(folder / "selected.parquet", pa.array(ids, pa.string()), in_survey)
        survey = Selected(str(listed), survey=store.survey().settings(), on_bad_image="skip")
    about = store.manifest
    return EmbeddingStore.from_array(
        ids, vectors, out=folder / "store", name=about.checkpoint, survey=survey,
        network_sha256=about.checkpoint_sha256,
    )  # fmt: skip


def _refuse_unknown(store: EmbeddingStore, whole: Whole, examples: Sequence[str], against: Sequence[str]) -> None:
    asked = [*examples, *against]
    absent = [galaxy for galaxy in asked if galaxy not in whole.rows]
    if absent:
        raise ConfigError(f"no galaxy of {store.folder} has this id", value=absent[0],
                          fix="With engine= examples are ids of galaxies that have an embedding.")  # fmt: skip
    both = sorted(set(examples) & set(against))
    if both:
        raise ConfigError("a galaxy is an example and a counter-example", value=both[0],
                          fix="Leave it out of id= or of against=.")  # fmt: skip
    unusable = [galaxy for galaxy in asked if not np.isfinite(whole.vectors[galaxy]).all()]
    if unusable:
        raise ConfigError("the embedding of this galaxy is not finite", value=unusable[0],
                          fix="Choose another galaxy, or embed the survey again.")  # fmt: skip


# ── rankings ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RankedShards:
    """A ranking of a store of any size.

    Attributes
    ----------
    table : pyarrow.Table
        RANKING table of the first galaxies.
    known : frozenset of str
        Those of the rated galaxies that the store has.
    galaxies : int
        Number of galaxies of the store.
    left_out : tuple of str
        What was to stand beside the embedding and does not, with the reasons.
    """

    table: pa.Table
    known: frozenset[str]
    galaxies: int
    left_out: tuple[str, ...]


def rank_in_shards(
    store: EmbeddingStore, interest: Mapping[str, float], settings: RankingSettings, *, first: int, engine: Engine,
    judged: Sequence[str] = (),
) -> RankedShards:  # fmt: skip
    """Rank all galaxies of a store by some ratings, and return the first.

    Parameters
    ----------
    store : EmbeddingStore
        A store of any size.
    interest : mapping from ids to interest
        Interest of the rated galaxies, 0 to 1.
    settings : RankingSettings
        How galaxies are ranked.
    first : int
        Number of galaxies in the table.
    engine : Engine
        Where the shards are scanned.
    judged : sequence of str
        Further ids, of which it is said whether the store has them.

    Raises
    ------
    ConfigError
        The settings ask for what cannot be scanned shard by shard.
    StoreError
        Embeddings are not finite.
    DataError
        The store has none of the rated galaxies.
    """
    left_out = _refuse_unscannable(settings)
    whole = whole_of(store, sorted({*interest, *judged}), engine=engine)
    bad = int((~whole.finite).sum())
    if bad:
        raise StoreError(
            "embeddings that are not finite cannot be ranked", value=f"{bad} of {len(whole.finite)} galaxies",
            fix="Embed these galaxies again.",
        )  # fmt: skip
    rated = {galaxy: value for galaxy, value in interest.items() if galaxy in whole.rows}
    if not rated:
        raise DataError("the store has none of the rated galaxies", value=store.folder,
                        fix="Rate galaxies of this survey, or name their database: labels=.")  # fmt: skip
    standard = Standard.of(whole.mean, whole.spread)
    features = standard(np.array([whole.vectors[galaxy] for galaxy in rated]))
    distance = _typical_distance(store, standard, engine=engine)
    model = settings.ranker.fit(features, np.array(list(rated.values())), distance=distance, seed=settings.seed)
    best = best_of(store, whole, _Interest(standard, model), min(first, len(whole.finite)), engine=engine)
    # The table names for each galaxy the nearest rated one, so that these are among the rows it is made from.
    further = [galaxy for galaxy in rated if galaxy not in set(best.ids.tolist())]
    ids = np.array([*best.ids, *further], dtype=object)
    shown = np.concatenate([standard(best.vectors), features[[list(rated).index(galaxy) for galaxy in further]]])
    table = ranking_table(ids, model.predict(shown), rated=rated, features=shown, first=None)
    kept = pa.array(np.flatnonzero(np.isin(table.column(tables.ID).to_numpy(zero_copy_only=False), best.ids)))
    return RankedShards(table.take(kept), frozenset(whole.rows), len(whole.finite), left_out)


@dataclass(frozen=True)
class _Interest:
    """What a model expects of galaxies, from their embeddings."""

    standard: Standard
    model: Model

    def __call__(self, vectors: np.ndarray) -> Float[np.ndarray, " m"]:
        return np.asarray(self.model.predict(self.standard(vectors)).mean)


def _refuse_unscannable(settings: RankingSettings) -> tuple[str, ...]:
    """Return what is left out of ``beside``; raise ConfigError if a ranking shard by shard is not possible."""
    columns = [name for name in settings.beside if name not in (PHOTOMETRY, STRUCTURE)]
    if columns or settings.components or not settings.embedding:
        raise ConfigError(
            "with engine= galaxies are ranked by the embedding alone",
            value=f"beside={','.join(columns)} components={settings.components} "
            f"embedding={str(settings.embedding).lower()}",
            fix="Leave these settings out, or leave engine= out.",
        )  # fmt: skip
    return tuple(f"{name} (it is not measured with engine=)" for name in settings.beside)


def _typical_distance(store: EmbeddingStore, standard: Standard, *, engine: Engine) -> float:
    """Return the root of twice the summed variance, as :attr:`~rarezoo.explore.features.Features.distance` does."""
    total = sum_of(store, _Squares(standard), engine=engine)
    galaxies, squares, mean = total[0], total[1], total[2:] / max(total[0], 1)
    return math.sqrt(2 * max(squares / max(galaxies, 1) - float(mean @ mean), 0))


@dataclass(frozen=True)
class _Squares:
    """Number of galaxies, sum of squares, and sum of each feature."""

    standard: Standard

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        features = self.standard(vectors)
        return np.concatenate([[len(features), np.vdot(features, features)], features.sum(axis=0, dtype=np.float64)])
