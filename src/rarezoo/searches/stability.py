"""Does a class come back? Refits with other seeds, with subsamples, and with the embeddings of other networks.

Shape letters: n galaxies, m of them in a refit, r refits, c classes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

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
from rarezoo.settings import setting

log = logging.getLogger(__name__)


class Pipeline(Protocol):
    """Anything that gives labels (m,), −1 for none, to embeddings (m, D) of galaxies with ids (m,)."""

    def __call__(
        self, embeddings: Float[np.ndarray, "m D"], *, ids: np.ndarray, seed: int
    ) -> Int[np.ndarray, " m"]: ...


@dataclass(frozen=True)
class Refit:
    """Another labelling of some of the galaxies.

    Attributes:
        name: how it differs: ``other seed 1``, ``subsample 2``, or another network's store.
        rows: (m,) of the galaxies in it.
        labels: (m,) its own classes, −1 for none.
    """

    name: str
    rows: Int64[np.ndarray, " m"]
    labels: Int64[np.ndarray, " m"]


@dataclass(frozen=True)
class _Plan:
    """A refit to be made: of which galaxies, from which embeddings (m, D), read when they are needed."""

    name: str
    rows: Int64[np.ndarray, " m"]
    embeddings: Callable[[], np.ndarray]
    seed: int
    source: str


@dataclass
class Stability:
    """By which refits the stability of classes is measured; a setting of a search.

    The search's settings are not scaled to a subsample: a class hardly bigger than ``min_cluster_size`` may be lost to
    that alone. Where the search draws nothing at random (PCA), other seeds change nothing and say nothing.
    """

    refits: int = setting(4, "refits, in turn with another seed and with another seed and subsample; 0 = none")
    share: float = setting(0.8, "of the galaxies in a subsample")
    stores: list[str] = setting([], "the survey's embedding stores under other checkpoints: a refit each")

    @property
    def wanted(self) -> bool:
        """Whether anything is to be refitted."""
        return bool(self.refits or self.stores)

    def refuse(self) -> None:
        """Refuse before the long work begins.

        Raises:
            ConfigError: settings out of range.
            StoreError: a store that is not there, or not whole.
        """
        if self.refits < 0 or not 0 < self.share <= 1:
            raise ConfigError(
                "stability.refits and stability.share", value=(self.refits, self.share),
                fix="Choose 0 or more, and more than 0 and at most 1.",
            )  # fmt: skip
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
        """Other labellings by the same pipeline, less those of too few galaxies for it.

        Args:
            embeddings: one row per galaxy.
            pipeline: embeddings → labels.
            ids: (n,) id strings; the draws do not depend on the order of the rows.
            seed: of the draws.
            folder: where each refit's labels are kept, so that a killed run goes on; None keeps none.
            made_with: what the pipeline is; kept labels of another, or of other embeddings, are made anew.

        Raises:
            StoreError: a store without any of the galaxies.
        """
        names = np.asarray(ids, dtype=object).astype(str)
        plans = [*self._draws(embeddings, names, seed), *(_of_store(one, names, seed) for one in self.stores)]
        refits = []
        for index, plan in enumerate(tqdm(plans, desc="refits", unit="refit")):
            path = folder / f"refit-{index:03d}.parquet" if folder else None
            about = {
                "refit": plan.name, "seed": plan.seed, "share": self.share, "source": plan.source,
                "made_with": tables.plain(made_with or {}),
            }  # fmt: skip
            refit = (path and _kept(path, names, about)) or _made(plan, pipeline, names)
            if refit and path:
                _keep(refit, names, path, about)
            refits += [refit] if refit else []
        return refits

    def _draws(self, embeddings: np.ndarray, names: np.ndarray, seed: int) -> Iterator[_Plan]:
        """Other seeds, every second with a subsample."""
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

    Attributes:
        classes: (c,) class ids.
        names: of the r refits.
        jaccards: (r, c) the class's best Jaccard among the refit's classes, over the galaxies in the refit; NaN where
            none of the class's galaxies is.
    """

    classes: Int64[np.ndarray, " c"]
    names: tuple[str, ...]
    jaccards: Float64[np.ndarray, "r c"]

    @property
    def means(self) -> Float64[np.ndarray, " c"]:
        """Stability of each class: its mean best Jaccard over the refits, 0–1."""
        return np.asarray(np.ma.masked_invalid(self.jaccards).mean(axis=0).filled(np.nan))

    @property
    def survived(self) -> Float64[np.ndarray, " c"]:
        """Share of refits in which a class is kept (Jaccard at least :data:`~rarezoo.searches.matching.SAME`)."""
        return np.asarray((np.ma.masked_invalid(self.jaccards) >= SAME).mean(axis=0).filled(np.nan))

    def table(self) -> pa.Table:
        """STABILITIES, one row per class and refit."""
        r, c = self.jaccards.shape
        columns = {
            tables.CLASS_ID: pa.array(np.repeat(self.classes, r), pa.int32()),
            tables.REFIT: pa.array(list(self.names) * c, pa.string()),
            tables.JACCARD: pa.array(self.jaccards.T.ravel(), pa.float64(), from_pandas=True),
        }
        return pa.table(columns)

    def added_to(self, classes: pa.Table) -> pa.Table:
        """A CLASSES table of the same classes with stability, and the share of refits each survived."""
        order = np.searchsorted(self.classes, classes.column(tables.CLASS_ID).to_numpy())
        for name, values in {tables.STABILITY: self.means, tables.SURVIVED: self.survived}.items():
            kept = classes.drop_columns([name]) if name in classes.column_names else classes
            classes = kept.append_column(name, pa.array(values[order], pa.float64(), from_pandas=True))
        return classes


def stabilities(labels: Int[np.ndarray, " n"], refits: Sequence[Refit]) -> Stabilities:
    """How well the classes of some galaxies come back in other labellings of them.

    Args:
        labels: (n,) the classes that are judged, −1 for none.
        refits: other labellings, one at least.
    """
    classes = np.unique(labels[labels != tables.NO_CLASS]).astype(np.int64)
    best = [ClassOverlap.of_labels(labels[one.rows], one.labels, old_classes=classes).best for one in refits]
    return Stabilities(classes, tuple(one.name for one in refits), np.array(best).reshape(len(refits), len(classes)))


def _of_store(folder: str, names: np.ndarray, seed: int) -> _Plan:
    """A refit from another network's embeddings of the galaxies that it has seen too."""
    store = EmbeddingStore.open(folder)
    where = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(store.ids, pa.string()))
    rows, theirs = np.flatnonzero(where.is_valid().to_numpy(False)), where.drop_null().to_numpy()
    if not len(rows):
        raise StoreError(
            "the store has no galaxy in common with this search", value=folder,
            fix="Give stability.stores= of the same survey.",
        )  # fmt: skip
    return _Plan(f"store {folder}", rows, lambda: store.embeddings()[theirs], seed, store.manifest.checkpoint_sha256)


def _made(plan: _Plan, pipeline: Pipeline, names: np.ndarray) -> Refit | None:
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
    """The refit in a file, if it is this one."""
    if not path.exists():
        return None
    table = tables.read(path, tables.REFITS)
    found = tables.provenance(table)
    if any(found.get(key) != value for key, value in about.items()):
        log.warning("%s was made with other galaxies or settings: made anew", path)
        return None
    rows = pc.index_in(table.column(tables.ID), value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)
    return Refit(str(about["refit"]), rows, table.column(tables.CLASS_ID).to_numpy().astype(np.int64))
