"""Does a class come back? Refits with other seeds and subsamples, or the label sets of other networks.

Shape letters: n galaxies, m of them in a refit, r refits, c classes.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64, Int, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.explore.matching import SAME, Comparison, labels_of

log = logging.getLogger(__name__)

# Of the galaxies in a subsample: enough for a class to keep its density, few enough to tell a class from its outliers.
SHARE = 0.8


class Pipeline(Protocol):
    """Anything that gives labels (m,), −1 for none, to embeddings (m, D) of galaxies with ids (m,)."""

    def __call__(
        self, embeddings: Float[np.ndarray, "m D"], *, ids: np.ndarray, seed: int
    ) -> Int[np.ndarray, " m"]: ...


@dataclass(frozen=True)
class Refit:
    """Another labelling of some of the galaxies.

    Attributes:
        name: how it differs: ``seed 3``, ``subsample 4``, or another network's name.
        rows: (m,) of the galaxies in it.
        labels: (m,) its own classes, −1 for none.
    """

    name: str
    rows: Int64[np.ndarray, " m"]
    labels: Int64[np.ndarray, " m"]


@dataclass(frozen=True)
class Stability:
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
        known = np.isfinite(self.jaccards)
        total = np.where(known, self.jaccards, 0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    @property
    def spreads(self) -> Float64[np.ndarray, " c"]:
        """Standard deviation of the best Jaccard over the refits; NaN with fewer than two."""
        known = np.isfinite(self.jaccards)
        squares = np.where(known, (self.jaccards - self.means) ** 2, 0).sum(axis=0)
        degrees = known.sum(axis=0) - 1
        return np.where(degrees > 0, np.sqrt(squares / np.maximum(degrees, 1)), np.nan)

    @property
    def survives(self) -> Bool[np.ndarray, "r c"]:
        """In which refits a class is still the same (Jaccard at least :data:`~rarezoo.explore.matching.SAME`)."""
        return self.jaccards >= SAME

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
        """A CLASSES table of the same classes with stability, its spread, and the share of refits each lives in."""
        place = {one: column for column, one in enumerate(self.classes.tolist())}
        order = [place[one] for one in classes.column(tables.CLASS_ID).to_pylist()]
        known = np.isfinite(self.jaccards).sum(axis=0)
        shares = np.where(known > 0, self.survives.sum(axis=0) / np.maximum(known, 1), np.nan)
        measured = {tables.STABILITY: self.means, tables.STABILITY_SPREAD: self.spreads, tables.SURVIVED: shares}
        for name, values in measured.items():
            column = pa.array(values[order], pa.float64(), from_pandas=True)
            names = classes.column_names
            place_of = names.index(name) if name in names else len(names)
            classes = (classes.set_column if name in names else classes.add_column)(place_of, name, column)
        return classes


def stability(labels: Int[np.ndarray, " n"], refits: Sequence[Refit]) -> Stability:
    """How well the classes of some galaxies come back in other labellings of them.

    Args:
        labels: (n,) the classes that are judged, −1 for none.
        refits: other labellings.

    Raises:
        ConfigError: no refit.
    """
    if not refits:
        raise ConfigError("nothing to measure stability by", value="0 refits", fix="Give one at least.")
    classes = np.unique(labels[labels != tables.NO_CLASS]).astype(np.int64)
    best = [Comparison.of_labels(labels[one.rows], one.labels, old_classes=classes).best for one in refits]
    return Stability(classes, tuple(one.name for one in refits), np.array(best).reshape(len(refits), len(classes)))


def refits_of(
    embeddings: Float[np.ndarray, "n D"],
    pipeline: Pipeline,
    *,
    ids: np.ndarray,
    count: int,
    seed: int = 0,
    share: float = SHARE,
    folder: Path | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> list[Refit]:
    """Other labellings by the same pipeline: in turn all galaxies with another seed, and a subsample with another seed.

    The pipeline's settings are not scaled to the subsample: a class hardly bigger than ``min_cluster_size`` may be lost
    to that alone. Where the pipeline draws nothing at random (PCA), other seeds change nothing and say nothing.

    Args:
        embeddings: one row per galaxy.
        pipeline: embeddings → labels.
        ids: (n,) id strings; the draws do not depend on the order of the rows.
        count: refits.
        seed: of the draws.
        share: of the galaxies in a subsample, 0–1.
        folder: where each refit's labels are kept, so that a killed run goes on; None keeps none.
        made_with: what the pipeline is; kept labels of another pipeline, or of other embeddings, are made anew.
    """
    if count < 0 or not 0 < share <= 1:
        raise ConfigError("refits and their share", value=(count, share), fix="Choose 0 or more, and 0 to 1.")
    names = np.asarray(ids, dtype=object).astype(str)
    about = {"made_with": tables.plain(made_with or {}), "embeddings": _digest(embeddings, names), "seed": seed}
    refits = []
    for index in tqdm(range(count), desc="refits", unit="refit"):
        path = folder / f"refit-{index:03d}.parquet" if folder else None
        refit = _kept(path, names, {**about, "share": share}) if path else None
        if refit is None:
            refit = _refit(embeddings, pipeline, names, index=index, seed=seed, share=share)
            if path:
                _keep(refit, names, path, {**about, "share": share})
        refits.append(refit)
    return refits


def label_sets(members: pa.Table, others: Mapping[str, pa.Table]) -> tuple[Int64[np.ndarray, " n"], list[Refit]]:
    """Labels of a search, and those that other searches (of other networks, say) give to the same galaxies.

    Args:
        members: MEMBERS table of n galaxies.
        others: name → MEMBERS table; galaxies that are not in ``members`` are left out.

    Raises:
        StoreError: one of the others has no galaxy in common.
    """
    ids = tables.strings(members, tables.ID).astype(str)
    refits = []
    for name, other in others.items():
        rows = np.flatnonzero(np.isin(ids, tables.strings(other, tables.ID).astype(str)))
        if not len(rows):
            raise StoreError("no galaxy in common", value=name, fix="Give searches of the same survey.")
        refits.append(Refit(name, rows, labels_of(other, ids[rows])))
    return labels_of(members, ids), refits


def _refit(
    embeddings: np.ndarray, pipeline: Pipeline, names: np.ndarray, *, index: int, seed: int, share: float
) -> Refit:
    drawn = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    rows = np.arange(len(names))
    if index % 2:
        chosen = np.random.default_rng(drawn).permutation(len(names))[: max(1, round(share * len(names)))]
        rows = np.sort(np.argsort(names, kind="stable")[chosen])
    labels = pipeline(embeddings[rows], ids=names[rows], seed=drawn)
    return Refit(_name(index), rows, np.asarray(labels, dtype=np.int64))


def _name(index: int) -> str:
    return f"{'subsample' if index % 2 else 'seed'} {index}"


def _keep(refit: Refit, names: np.ndarray, path: Path, about: Mapping[str, Any]) -> None:
    columns = {tables.ID: pa.array(names[refit.rows], pa.string()), tables.CLASS_ID: pa.array(refit.labels, pa.int32())}
    tables.write(pa.table(columns), path, tables.REFITS, name=refit.name, **about)


def _kept(path: Path, names: np.ndarray, about: Mapping[str, Any]) -> Refit | None:
    """The refit in a file, if it is this one."""
    if not path.exists():
        return None
    table = tables.read(path, tables.REFITS)
    found = tables.provenance(table)
    if any(found.get(key) != value for key, value in about.items()):
        log.warning("%s was made with other galaxies or settings: made anew", path)
        return None
    row_of = {one: row for row, one in enumerate(names.tolist())}
    rows = np.array([row_of[one] for one in table.column(tables.ID).to_pylist()], dtype=np.int64)
    return Refit(found["name"], rows, table.column(tables.CLASS_ID).to_numpy().astype(np.int64))


def _digest(embeddings: np.ndarray, names: np.ndarray) -> str:
    """sha256 of ids and embeddings, in order."""
    state = hashlib.sha256("\n".join(names.tolist()).encode())
    state.update(np.ascontiguousarray(embeddings).data)
    return state.hexdigest()
