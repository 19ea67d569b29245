"""Does a class come back? Refits with other seeds, with subsamples, and with the embeddings of other networks.

Shape letters: n galaxies, m of them in a refit, r refits, c classes, D width of the embeddings.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float64, Int, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, StoreError
from rarezoo.runs import fingerprint
from rarezoo.searches.matching import SAME, ClassOverlap
from rarezoo.settings import Settings, setting

log = logging.getLogger(__name__)


@runtime_checkable
class Pipeline(Protocol):
    """Anything that gives a class (m,), −1 for none, to embeddings (m, D) of galaxies with ids (m,)."""

    def __call__(self, embeddings: Float[np.ndarray, "m D"], *, ids: np.ndarray, seed: int) -> Int[np.ndarray, " m"]:
        """Label the galaxies."""


@dataclass(frozen=True)
class Refit:
    """Another labelling of some of the galaxies.

    Attributes
    ----------
    name : str
        How it differs: ``other seed 1``, ``subsample 2``, or the store of another network.
    rows : (m,) array of integers
        Rows of the galaxies in it.
    labels : (m,) array of integers
        Its own classes, −1 for none.
    """

    name: str
    rows: Int64[np.ndarray, " m"]
    labels: Int64[np.ndarray, " m"]


@dataclass(frozen=True)
class _Plan:
    """A refit to be made: of which galaxies, and from which embeddings (m, D), which are read when they are needed."""

    name: str
    rows: Int64[np.ndarray, " m"]
    embeddings: Callable[[], np.ndarray]
    seed: int
    source: str


@dataclass
class Stability(Settings):
    """The refits by which the stability of classes is measured: a setting of a search.

    The search's settings are not scaled to a subsample: a class hardly larger than ``min_cluster_size`` may be lost
    for this reason alone. Where the search draws nothing at random (PCA), other seeds change nothing and show nothing.

    Examples
    --------
    >>> embeddings, ids = np.arange(6.0)[:, None], np.array(list("abcdef"))
    >>> def halves(embeddings, *, ids, seed):
    ...     return (embeddings[:, 0] > 2).astype(np.int64)
    >>> refits = Stability(refits=2).refits_of(embeddings, halves, ids=ids)
    >>> [refit.name for refit in refits]
    ['other seed 1', 'subsample 2']
    >>> stabilities(halves(embeddings, ids=ids, seed=0), refits).means
    array([1., 1.])
    """

    prefix: ClassVar[str] = "stability"

    refits: int = setting(
        4, "number of repeated searches, in turn with another seed, and with another seed and subsample; 0 = none", ge=0
    )
    share: float = setting(0.8, "share of the galaxies in a subsample", gt=0, le=1)
    stores: list[str] = setting([], "embedding stores of the same survey under other checkpoints: one refit each")

    @property
    def wanted(self) -> bool:
        """Whether anything is to be refitted."""
        return bool(self.refits or self.stores)

    def check_stores(self) -> None:
        """Open every store before the long work begins.

        Raises
        ------
        StoreError
            A store does not exist or is not complete.
        """
        for folder in self.stores:
            EmbeddingStore.open(folder)

    def refits_of(
        self,
        embeddings: Float[np.ndarray, "n D"],
        pipeline: Pipeline,
        *,
        ids: np.ndarray,
        seed: int = 0,
        folder: Path | None = None,
        made_with: Mapping[str, Any] | None = None,
    ) -> list[Refit]:
        """Label the galaxies again by the same pipeline; refits of too few galaxies for it are left out.

        Parameters
        ----------
        embeddings : (n, D) array of floats
            One row per galaxy.
        pipeline : Pipeline
            From embeddings to labels.
        ids : (n,) array of str
            Ids; the draws do not depend on the order of the rows.
        seed : int
            Seed of the draws.
        folder : Path, optional
            Where the labels of each refit are kept, so that a killed run continues.
        made_with : mapping, optional
            What the pipeline is. Labels of another pipeline, or of other embeddings, are computed again.

        Raises
        ------
        StoreError
            A store has none of the galaxies.
        """
        names = np.asarray(ids, dtype=object).astype(str)
        plans = [*self._draws(embeddings, names, seed), *(_of_store(store, names, seed) for store in self.stores)]
        refits = []
        for index, plan in enumerate(tqdm(plans, desc="refits", unit="refit")):
            path = folder / f"refit-{index:03d}.parquet" if folder else None
            about = {
                "refit": plan.name, "seed": plan.seed, "share": self.share, "source": plan.source,
                "made_with": tables.plain(made_with or {}),
            }  # fmt: skip
            refit = (path and _kept(path, names, about)) or _refitted(plan, pipeline, names)
            if refit and path:
                _keep(refit, names, path, about)
            refits += [refit] if refit else []
        return refits

    def _draws(self, embeddings: np.ndarray, names: np.ndarray, seed: int) -> Iterator[_Plan]:
        """Other seeds, every second one with a subsample."""
        by_id, source = np.argsort(names, kind="stable"), fingerprint(embeddings, ids=names)
        for index in range(self.refits):
            drawn = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            rows, name = np.arange(len(names)), "other seed"
            if index % 2:
                order = np.random.default_rng(drawn).permutation(len(names))
                rows, name = np.sort(by_id[order[: max(1, round(self.share * len(names)))]]), "subsample"
            yield _Plan(f"{name} {index + 1}", rows, partial(np.take, embeddings, rows, axis=0), drawn, source)


@dataclass(frozen=True)
class Stabilities:
    """How well each class comes back in each refit.

    Attributes
    ----------
    classes : (c,) array of integers
        Class ids.
    names : tuple of str
        Names of the r refits.
    jaccards : (r, c) array of floats
        Best Jaccard index of each class among the classes of a refit, over the galaxies in the refit; NaN where none
        of the class's galaxies is in it.
    """

    classes: Int64[np.ndarray, " c"]
    names: tuple[str, ...]
    jaccards: Float64[np.ndarray, "r c"]

    @property
    def means(self) -> Float64[np.ndarray, " c"]:
        """Stability of each class: its mean best Jaccard index over the refits, 0 to 1."""
        return np.asarray(np.ma.masked_invalid(self.jaccards).mean(axis=0).filled(np.nan))

    @property
    def survived(self) -> Float64[np.ndarray, " c"]:
        """Share of refits in which a class is kept (Jaccard at least :data:`~rarezoo.searches.matching.SAME`)."""
        return np.asarray((np.ma.masked_invalid(self.jaccards) >= SAME).mean(axis=0).filled(np.nan))

    def table(self) -> pa.Table:
        """Return them as a STABILITIES table, one row per class and refit."""
        refits, classes = self.jaccards.shape
        columns = {
            tables.CLASS_ID: pa.array(np.repeat(self.classes, refits), pa.int32()),
            tables.REFIT: pa.array(list(self.names) * classes, pa.string()),
            tables.JACCARD: pa.array(self.jaccards.T.ravel(), pa.float64(), from_pandas=True),
        }
        return pa.table(columns)

    def added_to(self, classes: pa.Table) -> pa.Table:
        """Add stability, and the share of refits that each class survived, to a CLASSES table of the same classes."""
        order = np.searchsorted(self.classes, classes.column(tables.CLASS_ID).to_numpy())
        for name, values in {tables.STABILITY: self.means, tables.SURVIVED: self.survived}.items():
            others = classes.drop_columns([name]) if name in classes.column_names else classes
            classes = others.append_column(name, pa.array(values[order], pa.float64(), from_pandas=True))
        return classes


def stabilities(labels: Int[np.ndarray, " n"], refits: Sequence[Refit]) -> Stabilities:
    """Measure how well classes come back in other labellings of the same galaxies.

    Parameters
    ----------
    labels : (n,) array of integers
        The classes, −1 for none.
    refits : sequence of Refit
        Other labellings, at least one.
    """
    classes = np.unique(labels[labels != tables.NO_CLASS]).astype(np.int64)
    best = [ClassOverlap.of_labels(labels[refit.rows], refit.labels, old_classes=classes).best for refit in refits]
    jaccards = np.array(best).reshape(len(refits), len(classes))
    return Stabilities(classes, tuple(refit.name for refit in refits), jaccards)


def _of_store(folder: str, names: np.ndarray, seed: int) -> _Plan:
    """Plan a refit from another network's embeddings of the galaxies that are in its store too."""
    store = EmbeddingStore.open(folder)
    where = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(store.ids, pa.string()))
    rows, store_rows = np.flatnonzero(where.is_valid().to_numpy(False)), where.drop_null().to_numpy()
    if not len(rows):
        raise StoreError(
            "the store has no galaxy in common with this search", value=folder,
            fix="Give stability.stores= of the same survey.",
        )  # fmt: skip
    sha256 = store.manifest.checkpoint_sha256
    return _Plan(f"store {folder}", rows, lambda: store.embeddings()[store_rows], seed, sha256)


def _refitted(plan: _Plan, pipeline: Pipeline, names: np.ndarray) -> Refit | None:
    try:
        labels = pipeline(plan.embeddings(), ids=names[plan.rows], seed=plan.seed)
    except ConfigError as problem:
        log.warning("refit left out of stability, %s of %d galaxies: %s", plan.name, len(plan.rows), problem)
        return None
    return Refit(plan.name, plan.rows, np.asarray(labels, dtype=np.int64))


def _keep(refit: Refit, names: np.ndarray, path: Path, about: Mapping[str, Any]) -> None:
    columns = {tables.ID: pa.array(names[refit.rows], pa.string()), tables.CLASS_ID: pa.array(refit.labels, pa.int32())}
    tables.write(pa.table(columns), path, tables.REFITS, **about)


def _kept(path: Path, names: np.ndarray, about: Mapping[str, Any]) -> Refit | None:
    """Return the refit in a file, if it was made with the same galaxies and settings."""
    if not path.exists():
        return None
    table = tables.read(path, tables.REFITS)
    known = tables.provenance(table)
    if any(known.get(key) != value for key, value in about.items()):
        log.warning("%s was made with other galaxies or settings and is made again", path)
        return None
    rows = tables.rows_of(table.column(tables.ID), pa.table({tables.ID: pa.array(names, pa.string())}), source="refit")
    return Refit(str(about["refit"]), rows, table.column(tables.CLASS_ID).to_numpy().astype(np.int64))
