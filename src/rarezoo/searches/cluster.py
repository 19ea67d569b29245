"""Positions to classes: the linkage once, the classes from it for any setting."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.condensed import CondensedTree, condensed
from rarezoo.settings import setting

LAMBDA, ISOLATED = "lambda", "isolated"
SELECTIONS = ("leaf", "eom", LAMBDA, ISOLATED)


@dataclass(frozen=True)
class Clustering:
    """n galaxies in classes 0 … c − 1, numbered by size, biggest first; equal sizes by smallest id.

    Attributes:
        labels: (n,) class of each galaxy, −1 for none.
        probabilities: (n,) strength of membership, 0–1; 0 for none.
        outlier_scores: (n,) GLOSH, 0–1.
        tree: TREE table.
        nodes: (c,) each class's node of the tree.
        births: (c,) λ = 1 / map distance at which the class splits off.
        deaths: (c,) λ at which its last galaxy leaves it, or it splits in two.
    """

    labels: Int32[np.ndarray, " galaxies"]
    probabilities: Float32[np.ndarray, " galaxies"]
    outlier_scores: Float32[np.ndarray, " galaxies"]
    tree: pa.Table
    nodes: Int64[np.ndarray, " classes"]
    births: Float64[np.ndarray, " classes"]
    deaths: Float64[np.ndarray, " classes"]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def sizes(self) -> Int64[np.ndarray, " classes"]:
        """Galaxies in each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self))

    @property
    def persistences(self) -> Float64[np.ndarray, " classes"]:
        """ln(λ death / λ birth): over how many e-folds of density the class holds together.

        Infinite for a class around coincident galaxies, 0 for one that is made of nothing else.
        """
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.log(self.deaths) - np.log(self.births), nan=0.0, posinf=np.inf)


@dataclass
class Clusterer(ABC):
    """HDBSCAN (Campello et al. 2013); each subclass is one way to compute its hierarchy, a choice of ``clusterer=``."""

    min_samples: int = setting(300, "neighbours that make a density; smaller classes are not found", unit="galaxies")
    min_cluster_size: int = setting(10, "smallest class", unit="galaxies")
    selection: str = setting(
        "leaf",
        "classes are the tree's leaves (leaf), its most massive branches (eom), a cut at one λ (lambda), or nodes of "
        "any size that stand apart more than noise would (isolated)",
    )
    threshold: float = setting(0.0, "density of the cut, for selection=lambda", unit="1 / map distance")
    epsilon: float = setting(0.0, "leaf, eom: distance below which classes are not split; 0 = any", unit="map distance")

    def linkage(self, positions: Float32[np.ndarray, "galaxies k"]) -> pa.Table:
        """The hierarchy of n galaxies, as a LINKAGE table of n − 1 merges; depends on ``min_samples`` only.

        Galaxies are taken in the order of their positions, so that their order in the table changes nothing.

        Raises:
            ConfigError: too few galaxies for ``min_samples``, or another setting that does not fit.
            StoreError: positions that are not finite, or all equal.
        """
        values = np.ascontiguousarray(positions, dtype=np.float64)
        self._refuse(values)
        order = np.lexsort(values.T[::-1])
        merges = self._merges(values[order])
        sides = np.sort(_renamed(merges[:, :2].astype(np.int64), order), axis=1)
        columns = {tables.LEFT: sides[:, 0], tables.RIGHT: sides[:, 1], tables.DISTANCE: merges[:, 2]}
        return tables.check(pa.table({**columns, tables.SIZE: merges[:, 3].astype(np.int64)}), tables.LINKAGE)

    def classes(
        self,
        linkage: pa.Table,
        *,
        ids: Sequence[str] | np.ndarray | None = None,
        choice: Callable[[CondensedTree], Sequence[int]] | None = None,
    ) -> Clustering:
        """Classes under ``min_cluster_size`` and ``selection``: cheap, and leaves positions and linkage alone.

        ``leaf`` and ``eom`` are HDBSCAN's, with its ``cluster_selection_epsilon`` if ``epsilon`` is given. ``lambda``
        cuts the tree at λ = ``threshold``, as DBSCAN* does at the distance 1 / λ. ``isolated`` takes nodes of any size
        that noise would not show (:mod:`rarezoo.searches.significance`).

        Args:
            linkage: LINKAGE table.
            ids: (n,) id strings, which number classes of equal size; rows do without.
            choice: of nodes, none of which holds another; ``isolated`` needs it.

        Raises:
            ConfigError: ``min_cluster_size`` below 2, an unknown selection, or a threshold that it does not go with.
        """
        self.refuse_settings()
        tree = condensed(linkage, min_cluster_size=self.min_cluster_size)
        labels, strengths, nodes = self._selected(tree, choice)
        ranks = (
            np.arange(len(labels)) if ids is None else np.argsort(np.argsort(np.asarray(ids, dtype=object).astype(str)))
        )
        order = _biggest_first(labels, ranks, classes=len(nodes))
        births, deaths = tree.lifetimes(nodes[order])
        new_name = np.append(np.argsort(order), tables.NO_CLASS)
        return Clustering(
            labels=new_name[labels].astype(np.int32),
            probabilities=strengths.astype(np.float32),
            outlier_scores=tree.outlier_scores().astype(np.float32),
            tree=tree.table(),
            nodes=nodes[order],
            births=births,
            deaths=deaths,
        )

    def _selected(
        self, tree: CondensedTree, choice: Callable[[CondensedTree], Sequence[int]] | None
    ) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        if self.selection == LAMBDA:
            return tree.cut(self.threshold)
        if self.selection != ISOLATED:
            return tree.selected(self.selection, epsilon=self.epsilon)
        if choice is None:
            raise without_noise()
        return tree.held(choice(tree))

    @abstractmethod
    def _merges(self, positions: Float64[np.ndarray, "galaxies k"]) -> Float64[np.ndarray, "merges 4"]:
        """Left, right, distance and size of every merge, in scipy's convention, by increasing distance."""

    def _refuse(self, positions: np.ndarray) -> None:
        self.refuse_settings()
        galaxies = len(positions)
        if galaxies <= self.min_samples:
            raise ConfigError(
                f"{galaxies} galaxies are too few for clusterer.min_samples", value=self.min_samples,
                fix=f"Choose at most {max(galaxies - 1, 1)}, or search more galaxies.",
            )  # fmt: skip
        if not np.isfinite(positions).all():
            bad = int((~np.isfinite(positions).all(axis=1)).sum())
            raise StoreError("positions that are not finite", value=f"{bad} of {galaxies}", fix="Fit the map anew.")
        if (positions == positions[0]).all():
            raise StoreError("all positions are equal", value=positions[0], fix="Choose another compress=.")

    def refuse_settings(self) -> None:
        """Raise ConfigError for settings that no galaxies fit."""
        if self.selection not in SELECTIONS:
            raise ConfigError(
                "unknown clusterer.selection", value=self.selection, fix=f"Choose {' or '.join(SELECTIONS)}."
            )
        cut = self.selection == LAMBDA
        if (self.threshold <= 0) if cut else self.threshold:
            raise ConfigError(
                f"clusterer.threshold with clusterer.selection={self.selection}", value=self.threshold,
                fix="Give selection=lambda and a threshold above 0, or neither.",
            )  # fmt: skip
        if self.epsilon < 0 or (self.selection not in SELECTIONS[:2] and self.epsilon):
            raise ConfigError(
                f"clusterer.epsilon with clusterer.selection={self.selection}", value=self.epsilon,
                fix="Choose 0 or more with leaf or eom, and none otherwise.",
            )  # fmt: skip
        if self.min_cluster_size < 2 or self.min_samples < 1:
            raise ConfigError(
                "clusterer.min_cluster_size and min_samples", value=(self.min_cluster_size, self.min_samples),
                fix="Choose at least 2 and 1.",
            )  # fmt: skip


def without_noise() -> ConfigError:
    """What a user is told who wants classes that noise would not show, and no noise."""
    return ConfigError(
        "clusterer.selection=isolated needs structureless surveys", value="significance.surveys=0",
        fix="Give significance.surveys=20, or another clusterer.selection.",
    )  # fmt: skip


def _renamed(nodes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Galaxies of a linkage under their own rows; merged nodes keep their numbers."""
    names = np.concatenate([order, np.arange(len(order), 2 * len(order) - 1)])
    return names[nodes]


def _biggest_first(labels: np.ndarray, ranks: np.ndarray, *, classes: int) -> np.ndarray:
    """Labels in the order of their final numbers."""
    inside = labels >= 0
    sizes = np.bincount(labels[inside], minlength=classes)
    first = np.full(classes, len(labels))
    np.minimum.at(first, labels[inside], ranks[inside])
    return np.lexsort((first, -sizes))
