"""What a ranking works on: the principal components of an embedding, with photometry or catalogue columns beside them.

Photometry beside the embedding finds more mergers and odd galaxies than either alone (docs/explanation/explore.md).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Float64

from rarezoo import tables
from rarezoo.cache import Cache
from rarezoo.data import photometry as photometry_module
from rarezoo.data import structure as structure_module
from rarezoo.data.photometry import photometry
from rarezoo.data.structure import structure
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, RarezooError, StoreError
from rarezoo.runs import fingerprint

log = logging.getLogger(__name__)
PHOTOMETRY, STRUCTURE = "photometry", "structure"
# What can be measured from the images.
_MEASURED = {PHOTOMETRY: (photometry, photometry_module), STRUCTURE: (structure, structure_module)}
# Galaxies from which principal components are computed at most.
_FITTED = 100_000
# Galaxies that are standardised at a time.
_BLOCK = 2**14
# Standardised values are cut here, so that one catalogue value that is far out does not decide everything.
FARTHEST = 6.0


@dataclass(frozen=True)
class Features:
    """Features of n galaxies, standardised over the survey.

    Attributes
    ----------
    matrix : (n, d) array of floats
        Every feature has mean 0 over the survey. Components of the embedding have unit variance; what stands beside
        them has the variance of its weight squared.
    blocks : mapping from str to slice
        Columns of each part: ``embedding``, ``photometry``, and a catalogue column under its name.
    distance : float
        Typical distance between two galaxies.
    left_out : tuple of str
        What was asked for and is not there, with the reason.
    """

    matrix: Float32[np.ndarray, "n d"]
    blocks: Mapping[str, slice]
    left_out: tuple[str, ...] = ()

    @cached_property
    def distance(self) -> float:
        """Typical distance between two galaxies: the root of twice the summed variance; 0 if all are the same."""
        squares = sum(float(np.vdot(self.matrix[block], self.matrix[block])) for block in _blocks(self.matrix))
        mean = self.matrix.mean(axis=0, dtype=np.float64)
        return float(np.sqrt(2 * max(squares / max(len(self.matrix), 1) - mean @ mean, 0)))

    @classmethod
    def of(cls, parts: Sequence["Part"], *, left_out: Sequence[str] = ()) -> "Features":
        """Put parts beside each other.

        Examples
        --------
        >>> mass = Part("mass", np.array([[9.0], [np.nan]]), 2.0)
        >>> Features.of([Part("embedding", np.array([[0.0], [2.0]]), 1.0), mass]).matrix.tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
        """
        columns, blocks, start = [], {}, 0
        for part in parts:
            standard = standardised(part.values) * np.float32(part.weight)
            columns.append(standard)
            blocks[part.name] = slice(start, start + standard.shape[1])
            start += standard.shape[1]
        return cls(np.ascontiguousarray(np.hstack(columns), dtype=np.float32), blocks, tuple(left_out))


class Part(NamedTuple):
    """Some columns of the features.

    Attributes
    ----------
    name : str
        Name of the part.
    values : (n, c) array of floats
        NaN where a value is not known.
    weight : float
        What standardised columns are multiplied by.
    """

    name: str
    values: Float[np.ndarray, "n c"]
    weight: float


class Standard(NamedTuple):
    """What columns are standardised by.

    Attributes
    ----------
    mean, scale : (c,) arrays of floats
        Mean and standard deviation of each column; the scale of a column without any spread is infinite.
    """

    mean: Float64[np.ndarray, " c"]
    scale: Float64[np.ndarray, " c"]

    @classmethod
    def of(cls, mean: Float64[np.ndarray, " c"], spread: Float64[np.ndarray, " c"]) -> "Standard":
        """Return it for columns of some mean and standard deviation."""
        # Columns without any spread, and those in which only rounding differs, become 0.
        return cls(mean, np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1), spread, np.inf))

    def __call__(self, values: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n c"]:
        """Return columns with mean 0 and variance 1; unknown values become 0, and values are cut at 6 deviations."""
        standard = np.empty(values.shape, dtype=np.float32)
        centred = _centred(values, self.mean) / self.scale
        return np.clip(centred, -FARTHEST, FARTHEST, out=standard, casting="same_kind")


def standardised(values: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n c"]:
    """Return columns with mean 0 and variance 1; unknown values become 0, and values are cut at 6 deviations.

    >>> standardised(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    """
    counts, total, squares = (np.zeros(values.shape[1]) for _ in range(3))
    for block in _blocks(values):
        known = np.isfinite(values[block])
        counts += np.count_nonzero(known, axis=0)
        total += np.where(known, values[block], 0).sum(axis=0, dtype=np.float64)
    mean = total / np.maximum(counts, 1)
    for block in _blocks(values):
        centred = _centred(values[block], mean)
        squares += np.einsum("ij,ij->j", centred, centred)
    standard = Standard.of(mean, np.sqrt(squares / np.maximum(counts, 1)))
    result = np.empty(values.shape, dtype=np.float32)
    for block in _blocks(values):
        result[block] = standard(values[block])
    return result


def _centred(values: Float[np.ndarray, "n c"], mean: Float64[np.ndarray, " c"]) -> Float64[np.ndarray, "n c"]:
    centred = values - mean
    centred[~np.isfinite(centred)] = 0
    return centred


def _blocks(values: Float[np.ndarray, "n c"]) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, len(values), _BLOCK)]


def components_of(embeddings: Float[np.ndarray, "n D"], components: int) -> Float32[np.ndarray, "n c"]:
    """Return the principal components of embeddings, largest variance first.

    Parameters
    ----------
    embeddings : (n, D) array of floats
    components : int
        How many; at most D, and fewer than n. 0: the embedding itself.
    """
    if not components or min(components, embeddings.shape[1], len(embeddings) - 1) < 1:
        return np.asarray(embeddings, dtype=np.float32)
    from sklearn.decomposition import PCA

    kept = min(components, embeddings.shape[1], len(embeddings) - 1)
    every = max(1, len(embeddings) // _FITTED)
    reduction = PCA(kept, svd_solver="covariance_eigh").fit(embeddings[::every].astype(np.float64))
    axes = reduction.components_.astype(np.float32)
    return (embeddings.astype(np.float32, copy=False) - reduction.mean_.astype(np.float32)) @ axes.T


def features_of(
    store: EmbeddingStore,
    *,
    embedding: bool = True,
    beside: Sequence[str] = (PHOTOMETRY, STRUCTURE),
    components: int = 0,
    weight: float = 3.0,
    galaxies: Galaxies | None = None,
    cache: Cache | None = None,
) -> Features:
    """Return the features of all galaxies of a store, in its order.

    Parameters
    ----------
    store : EmbeddingStore
    embedding : bool
        Whether the embedding is among the features.
    beside : sequence of str
        What stands beside the embedding: ``photometry`` (colours, size, concentration, brightness), ``structure``
        (asymmetry, clumps, company), or names of numeric columns of the catalogue. What is measured from images is left
        out, with a message in the log, where the survey has none.
    components : int
        Number of principal components of the embedding.
    weight : float
        Weight of everything that stands beside the embedding.
    galaxies : Galaxies, optional
        The survey, if it is open already.
    cache : Cache, optional
        Where photometry is kept.

    Raises
    ------
    ConfigError
        The catalogue has no such column, or it holds no numbers.
    StoreError
        Embeddings are not finite.
    """
    embeddings = store.embeddings() if embedding else np.empty((len(store.ids), 0), dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise StoreError(
            "embeddings that are not finite cannot be ranked", value=f"{len(bad)} of {len(embeddings)} galaxies",
            fix="Embed these galaxies again.", ids=[str(store.ids[row]) for row in bad],
        )  # fmt: skip
    parts = [Part("embedding", components_of(embeddings, components), 1.0)] if embedding else []
    others, left_out = parts_beside(store, beside, weight=weight, galaxies=galaxies, cache=cache)
    parts += others
    if not parts:
        raise ConfigError(
            "nothing to rank by", value=f"embedding={str(embedding).lower()} beside={','.join(beside)}",
            fix="Use the embedding, or name catalogue columns.",
        )  # fmt: skip
    return Features.of(parts, left_out=left_out)


def parts_beside(
    store: EmbeddingStore,
    names: Sequence[str],
    *,
    weight: float,
    galaxies: Galaxies | None = None,
    cache: Cache | None = None,
) -> tuple[list[Part], list[str]]:
    """Return what stands beside an embedding, and what was left out, with the reasons; see :func:`features_of`."""
    parts, left_out = [], []
    for name in names:
        if name in _MEASURED:
            try:
                parts.append(Part(name, _measured(name, store, galaxies or store.galaxies(), cache), weight))
            except RarezooError as problem:
                log.warning("the ranking works without %s: %s", name, problem)
                left_out.append(f"{name} ({problem.what})")
        else:
            parts.append(Part(name, _column(store, galaxies or store.galaxies(), name)[:, None], weight))
    return parts, left_out


def _measured(name: str, store: EmbeddingStore, galaxies: Galaxies, cache: Cache | None) -> Float32[np.ndarray, "n c"]:
    """Measure the images of a store's galaxies; NaN for an image that cannot be read."""
    rows, (measure, module) = _rows_in(galaxies, store), _MEASURED[name]
    if cache is None:
        return measure(galaxies.images, rows, skip_unreadable=True)
    key = {"what": name, "images": galaxies.measured_from, "rows": fingerprint(rows, ids=())}
    try:
        values: Float32[np.ndarray, "n c"] = cache.array(
            key, lambda: measure(galaxies.images, rows, skip_unreadable=True), code=[module]
        )
    except OutputError as problem:
        log.warning("%s is measured again each time: %s", name, problem)
        return measure(galaxies.images, rows, skip_unreadable=True)
    return values


def _column(store: EmbeddingStore, galaxies: Galaxies, name: str) -> Float[np.ndarray, " n"]:
    """Return a numeric column of the catalogue in the order of the store, NaN where it is not known."""
    catalogue = galaxies.catalogue
    if name not in catalogue.column_names:
        import difflib

        names = [*catalogue.column_names, *_MEASURED]
        near = difflib.get_close_matches(name, names, n=3) or names[:8]
        raise ConfigError("the catalogue has no column", value=name, fix=f"Did you mean {' or '.join(near)}?")
    kind = catalogue[name].type
    # Arrow would also turn text into numbers, ids among it.
    if not (_is_number(kind) or pa.types.is_boolean(kind)):
        raise ConfigError("not a column of numbers", value=f"{name} ({kind})", fix="Choose a column of numbers.")
    numbers = catalogue[name].cast(pa.float64(), safe=False).to_numpy()
    return np.asarray(numbers, dtype=np.float64)[_rows_in(galaxies, store)]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _rows_in(galaxies: Galaxies, store: EmbeddingStore) -> np.ndarray:
    return tables.rows_of(store.ids, galaxies.catalogue, source="the survey")


def default_cache(store: EmbeddingStore) -> Cache:
    """Return the cache of a store's features, in its own folder."""
    return Cache(Path(store.folder) / "features")
