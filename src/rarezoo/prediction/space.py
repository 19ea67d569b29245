"""What a probe works on: the embedding of a store, shard by shard, with photometry and structure beside it.

Only what stands beside the embedding, a few numbers for each galaxy, is in memory for a whole survey.

Shape letters: n galaxies, d features, m chosen galaxies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import RarezooError, StoreError
from rarezoo.explore.features import FARTHEST, PHOTOMETRY, STRUCTURE, default_cache, features_of

AUTO = "auto"
# Seconds after which a progress bar is shown.
_SILENT = 5


@dataclass(frozen=True)
class Space:
    """Standardised features of the galaxies of a store.

    Attributes
    ----------
    store : EmbeddingStore
    mean, scale : (D,) arrays
        By which the embedding is standardised; ``scale`` is infinite for a constant column.
    beside : (n, b) array of float32
        What stands beside the embedding, standardised and multiplied by its weight.
    names : tuple of str
        Parts of the features: ``embedding``, ``photometry``, ``structure``, or columns of the catalogue.
    left_out : tuple of str
        What could not be measured, with the reason.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> vectors = np.array([[0, 1], [2, 1]], dtype=np.float32)
    >>> space = Space.of(EmbeddingStore.from_array(["a", "b"], vectors, out=mkdtemp()))
    >>> space.names, space.rows(np.array([1])).tolist()
    (('embedding',), [[1.0, 0.0]])
    """

    store: EmbeddingStore
    mean: Float64[np.ndarray, " D"]
    scale: Float64[np.ndarray, " D"]
    beside: Float32[np.ndarray, "n b"]
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        *,
        beside: Sequence[str] = (AUTO,),
        weight: float = 2.0,
        embedding: bool = True,
        galaxies: Galaxies | None = None,
    ) -> "Space":
        """Measure the features of a store.

        Parameters
        ----------
        store : EmbeddingStore
        beside : sequence of str
            What stands beside the embedding: ``photometry``, ``structure``, numeric columns of the catalogue, or
            ``auto``: photometry and structure if the survey of the store has images.
        weight : float
            Weight of what stands beside the embedding.
        embedding : bool
            Whether the embedding is among the features.
        galaxies : Galaxies, optional
            The survey, if it is open already.

        Raises
        ------
        ConfigError
            There is no such column, or there are no features at all.
        StoreError
            Embeddings are not finite.
        """
        wanted, left_out = list(beside), tuple[str, ...]()
        if AUTO in wanted:
            wanted = [name for name in wanted if name != AUTO]
            if store.has_survey or galaxies is not None:
                try:
                    galaxies = galaxies or store.galaxies()
                    wanted += [PHOTOMETRY, STRUCTURE]
                except RarezooError as problem:
                    left_out = (f"photometry and structure ({problem.what})",)
        numbers, names = np.empty((len(store.ids), 0), dtype=np.float32), ["embedding"] if embedding else []
        if wanted or not embedding:
            found = features_of(
                store, embedding=False, beside=wanted, weight=weight, galaxies=galaxies, cache=default_cache(store)
            )
            numbers, left_out = found.matrix, (*left_out, *found.left_out)
            names += list(found.blocks)
        width = store.manifest.width if embedding else 0
        mean, scale = _moments(store) if embedding else (np.zeros(width), np.ones(width))
        return cls(store, mean, scale, numbers, tuple(names), left_out)

    @property
    def distance(self) -> float:
        """Typical distance between two galaxies: the root of twice the summed variance of the features."""
        spread = float(np.isfinite(self.scale).sum()) * bool(len(self.scale)) + float(self.beside.var(axis=0).sum())
        return float(np.sqrt(2 * spread))

    def rows(self, rows: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
        """Return the features of some galaxies, in the given order."""
        chosen, order = np.asarray(rows, dtype=np.int64), np.argsort(rows, kind="stable")
        whole = np.empty((len(chosen), len(self.mean) + self.beside.shape[1]), dtype=np.float32)
        for block, matrix in self.blocks():
            inside = order[np.searchsorted(chosen[order], block.start) : np.searchsorted(chosen[order], block.stop)]
            whole[inside] = matrix[chosen[inside] - block.start]
        return whole

    def blocks(self, description: str = "") -> Iterator[tuple[slice, Float32[np.ndarray, "m d"]]]:
        """Yield the features of all galaxies, shard by shard, with the rows that they are of."""
        if not len(self.mean):
            yield slice(0, len(self.beside)), self.beside
            return
        start = 0
        shards = range(self.store.manifest.shards)
        for shard in tqdm(shards, desc=description, unit="shard", leave=False, delay=_SILENT, disable=not description):
            vectors = tables.matrix(self.store.shard(shard, [tables.EMBEDDING]), tables.EMBEDDING)
            rows = slice(start, start + len(vectors))
            start = rows.stop
            standard = np.clip((vectors - self.mean) / self.scale, -FARTHEST, FARTHEST).astype(np.float32)
            yield rows, np.hstack([standard, self.beside[rows]])


def _moments(store: EmbeddingStore) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Return mean and standard deviation of the embedding, infinite where it is constant."""
    count, total, squares, bad = 0, np.zeros(store.manifest.width), np.zeros(store.manifest.width), 0
    origin = None
    for shard in range(store.manifest.shards):
        vectors = tables.matrix(store.shard(shard, [tables.EMBEDDING]), tables.EMBEDDING).astype(np.float64)
        bad += int((~np.isfinite(vectors).all(axis=1)).sum())
        # Squares are summed about a point near the mean, so that they do not cancel.
        origin = vectors.mean(axis=0) if origin is None and len(vectors) else origin
        if len(vectors):
            count, total = count + len(vectors), total + (vectors - origin).sum(axis=0)
            squares += np.square(vectors - origin).sum(axis=0)
    if bad:
        raise StoreError(
            "embeddings that are not finite", value=f"{bad} of {count} galaxies", fix="Embed these galaxies again."
        )
    mean = total / max(count, 1)
    spread = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    centre = mean + (0 if origin is None else origin)
    return centre, np.where(spread > 1e-6 * np.maximum(np.abs(centre), 1e-6), spread, np.inf)
