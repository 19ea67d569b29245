"""What is judged side by side: stores of embeddings, and features that need no network or no embedding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64

from rarezoo import tables
from rarezoo.cache import Cache
from rarezoo.data import photometry as photometry_module
from rarezoo.data.photometry import photometry
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.quality import METRICS, whitened
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.runs import fingerprint

PHOTOMETRY, VOTES = "photometry", "votes"
BESIDE = (PHOTOMETRY, VOTES)
# What else stands beside the names of contestants in a table.
_COLUMNS = ("answer", "measure", "chance")


@dataclass(frozen=True)
class Contestant:
    """Features of galaxies that are judged.

    Attributes
    ----------
    name : str
        Name in the table.
    features : (n, d) array
        NaN for galaxies for which no answer is known, and for those whose image photometry cannot read.
    answers : tuple of str
        Answers that its network was trained on, as far as they are known.
    metrics : tuple of str
        Metrics by which similar galaxies are ranked; of several, the better one counts.
    """

    name: str
    features: Float[np.ndarray, "n d"]
    answers: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS[:1]


def of_stores(stores: Sequence[EmbeddingStore], ids: np.ndarray, *, whiten: int, votes: bool) -> Iterator[Contestant]:
    """Yield each store's embeddings of some galaxies; if wanted, also whitened, and its predicted vote fractions.

    Parameters
    ----------
    stores : sequence of EmbeddingStore
    ids : (n,) array
        Galaxies that all stores hold.
    whiten : int
        Number of principal components to bring to unit variance; 0: none.
    votes : bool
        Whether the predicted vote fractions of stores that hold them are judged too.
    """
    for name, store in zip(names_of(stores), stores, strict=True):
        answers = store.manifest.answers
        rows = tables.rows_of(ids, pa.table({tables.ID: pa.array(store.ids, pa.string())}), source=str(store.folder))
        embeddings = store.embeddings()[rows]
        yield Contestant(name, embeddings, answers)
        if whiten:
            yield Contestant(f"{name} whitened", whitened(embeddings, components=whiten), answers)
        if votes and answers:
            predicted = store.read([tables.ID, *map(tables.fraction_column, answers)])
            columns = [predicted[tables.fraction_column(answer)].to_numpy()[rows] for answer in answers]
            yield Contestant(f"votes predicted by {name}", np.column_stack(columns), answers)


def names_of(stores: Sequence[EmbeddingStore]) -> list[str]:
    """Return each store's checkpoint, with the folder where that is also the name of something else in the table."""
    names = [store.manifest.checkpoint for store in stores]
    derived = {beside for name in names for beside in (f"{name} whitened", f"votes predicted by {name}")}
    return [
        name if names.count(name) == 1 and name not in {PHOTOMETRY, *_COLUMNS, *derived} else f"{name} ({store.folder})"
        for name, store in zip(names, stores, strict=True)
    ]  # fmt: skip


def of_photometry(
    galaxies: Galaxies, rows: Int64[np.ndarray, " n"], *, known: Bool[np.ndarray, " n"], cache: Cache
) -> Contestant:
    """Measure colours, size, concentration and brightness of the galaxies for which any answer is known.

    Similar galaxies are ranked by the better of two metrics, so that no embedding wins because the wrong one was used.
    """
    wanted = rows[known]
    key = {"what": PHOTOMETRY, "images": galaxies.measured_from, "rows": fingerprint(wanted, ids=())}
    measured = cache.array(
        key, lambda: photometry(galaxies.images, wanted, skip_unreadable=True), code=[photometry_module]
    ).astype(float)
    readable = np.isfinite(measured).all(axis=1)
    spread = measured[readable].std(axis=0) if readable.any() else np.ones(measured.shape[1])
    features = np.full((len(rows), measured.shape[1]), np.nan)
    features[known] = measured / np.where(spread > 0, spread, 1)
    return Contestant(PHOTOMETRY, features, metrics=METRICS)
