"""From positions on a map to classes: the linkage is computed once, classes are read from it for any setting."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.condensed import CondensedTree, condensed
from rarezoo.searches.significance import TreeScores
from rarezoo.settings import Settings, setting

LEAF, EOM, LAMBDA, ISOLATED = "leaf", "eom", "lambda", "isolated"
SELECTIONS = (LEAF, EOM, LAMBDA, ISOLATED)


@dataclass(frozen=True)
class Clustering:
    """n galaxies in classes 0 … c − 1, numbered by size, the largest first; equal sizes by smallest id.

    Attributes
    ----------
    labels : (n,) array of int32
        Class of each galaxy, −1 for none.
    probabilities : (n,) array of float32
        Strength of membership, 0 to 1; 0 for none.
    outlier_scores : (n,) array of float32
        GLOSH score, 0 to 1.
    tree : pyarrow.Table
        TREE table.
    nodes : (c,) array of integers
        Node of each class in the tree.
    births : (c,) array of floats
        λ = 1 / map distance at which the class splits off.
    deaths : (c,) array of floats
        λ at which its last galaxy leaves it, or it splits in two.
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
        """Number of galaxies in each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self))

    @property
    def persistences(self) -> Float64[np.ndarray, " classes"]:
        """Range of density over which each class holds together, in e-folds: ln(λ death / λ birth).

        Infinite for a class around coincident galaxies, 0 for a class that consists of them alone.
        """
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.log(self.deaths) - np.log(self.births), nan=0.0, posinf=np.inf)


@dataclass
class Clusterer(Settings, ABC):
    """HDBSCAN (Campello et al. 2013); each subclass is one choice of ``clusterer=`` and computes the hierarchy its way.

    A new clusterer implements :meth:`_merges`; everything else is common to all.

    Attributes
    ----------
    computed_by
        Modules and packages that do the work besides the class's own module. A cached result is computed again when
        their code changes.

    Examples
    --------
    >>> from rarezoo.searches.clusterers.hdbscan import Hdbscan
    >>> positions = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    >>> positions[:30] += 20
    >>> clusterer = Hdbscan(min_samples=5, min_cluster_size=20)
    >>> tree = clusterer.tree(clusterer.linkage(positions))
    >>> clusterer.select(tree).sizes.tolist()
    [30, 30]
    """

    prefix: ClassVar[str] = "clusterer"
    computed_by: ClassVar[tuple[str, ...]] = ()

    min_samples: int = setting(
        300, "number of nearest neighbours that measure a density; smaller classes are not found", unit="galaxies", ge=1
    )
    min_cluster_size: int = setting(10, "smallest class", unit="galaxies", ge=2)
    selection: str = setting(
        LEAF,
        "nodes that are classes: the tree's leaves (leaf), its nodes of most excess of mass (eom), a cut at one "
        "density (lambda), or on each branch the node that stands apart most from null surveys (isolated)",
        choices=SELECTIONS,
    )
    threshold: float = setting(0.0, "density of the cut, for selection=lambda", unit="1 / map distance", ge=0)
    epsilon: float = setting(
        0.0, "leaf, eom: distance below which classes are not split; 0 = any", unit="map distance", ge=0
    )

    def check(self) -> None:
        """Raise ConfigError for a threshold or an epsilon that does not fit the selection."""
        if (self.selection == LAMBDA) != (self.threshold > 0):
            raise ConfigError(
                f"clusterer.threshold with clusterer.selection={self.selection}", value=self.threshold,
                fix="Give selection=lambda and a threshold above 0, or neither.",
            )  # fmt: skip
        if self.epsilon and self.selection not in (LEAF, EOM):
            raise ConfigError(
                f"clusterer.epsilon with clusterer.selection={self.selection}", value=self.epsilon,
                fix="Give an epsilon with selection=leaf or eom only.",
            )  # fmt: skip

    def require_galaxies(self, galaxies: int) -> None:
        """Raise ConfigError if so many galaxies are too few for ``min_samples``."""
        if galaxies <= self.min_samples:
            raise ConfigError(
                f"{galaxies} galaxies are too few for clusterer.min_samples", value=self.min_samples,
                fix=f"Choose at most {max(galaxies - 1, 1)}, or search more galaxies.",
            )  # fmt: skip

    def linkage(self, positions: Float[np.ndarray, "galaxies k"]) -> pa.Table:
        """Compute the hierarchy of n galaxies; it depends on ``min_samples``, and on settings of its own class, only.

        Galaxies are taken in the order of their positions, so that their order in the table changes nothing.

        Parameters
        ----------
        positions : (n, k) array of floats
            Positions on the map.

        Returns
        -------
        pyarrow.Table
            LINKAGE table of n − 1 merges.

        Raises
        ------
        ConfigError
            There are too few galaxies for ``min_samples``, or too many dimensions for this clusterer.
        StoreError
            Positions are not finite, or all equal.
        """
        values = np.ascontiguousarray(positions, dtype=np.float64)
        galaxies = len(values)
        self.require_galaxies(galaxies)
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values).all(axis=1)).sum())
            raise StoreError("positions that are not finite", value=f"{bad} of {galaxies}", fix="Fit the map again.")
        if (values == values[0]).all():
            raise StoreError("all positions are equal", value=values[0], fix="Choose another compress=.")
        order = np.lexsort(values.T[::-1])
        merges = self._merges(values[order])
        # Galaxies under their own rows; merged nodes keep their numbers.
        rows = np.concatenate([order, np.arange(galaxies, 2 * galaxies - 1)])
        sides = np.sort(rows[merges[:, :2].astype(np.int64)], axis=1)
        columns = {tables.LEFT: sides[:, 0], tables.RIGHT: sides[:, 1], tables.DISTANCE: merges[:, 2]}
        return tables.check(pa.table({**columns, tables.SIZE: merges[:, 3].astype(np.int64)}), tables.LINKAGE)

    def tree(self, linkage: pa.Table) -> CondensedTree:
        """Return the condensed tree of a LINKAGE table under ``min_cluster_size``; takes a second at most."""
        return condensed(linkage, min_cluster_size=self.min_cluster_size)

    def select(
        self,
        tree: CondensedTree,
        scores: TreeScores | None = None,
        *,
        ids: Sequence[str] | np.ndarray | None = None,
    ) -> Clustering:
        """Choose the nodes of a tree that are classes.

        ``leaf`` and ``eom`` are HDBSCAN's, with its ``cluster_selection_epsilon`` if ``epsilon`` is given. ``lambda``
        cuts the tree at λ = ``threshold``, as DBSCAN* does at the distance 1 / λ. ``isolated`` takes on each branch
        the node that stands apart most, compared with null surveys, without the galaxies at its edge
        (:mod:`rarezoo.searches.significance`).

        Parameters
        ----------
        tree : CondensedTree
            Tree of n galaxies.
        scores : TreeScores, optional
            Scores of its nodes, which ``isolated`` needs.
        ids : (n,) sequence of str, optional
            Ids, by which classes of equal size are numbered; without them rows are used.

        Raises
        ------
        ConfigError
            ``selection=isolated`` without scores.
        """
        if self.selection == LAMBDA:
            labels, strengths, nodes = tree.cut(self.threshold)
        elif self.selection != ISOLATED:
            labels, strengths, nodes = tree.selected(self.selection, epsilon=self.epsilon)
        elif scores is None:
            raise needs_null_surveys()
        else:
            labels, strengths, nodes = tree.labelled(scores.nodes)
            core = np.zeros(len(labels), dtype=bool)
            core[np.concatenate([scores.core(node) for node in nodes] or [np.empty(0, np.int64)])] = True
            labels, strengths = np.where(core, labels, tables.NO_CLASS), np.where(core, strengths, 0.0)
        ranks = np.arange(len(labels))
        if ids is not None:
            ranks = np.argsort(np.argsort(np.asarray(ids, dtype=object).astype(str)))
        order = _largest_first(labels, ranks, classes=len(nodes))
        births, deaths = tree.lifetimes(nodes[order])
        new_label = np.append(np.argsort(order), tables.NO_CLASS)
        return Clustering(
            labels=new_label[labels].astype(np.int32),
            probabilities=strengths.astype(np.float32),
            outlier_scores=tree.outlier_scores().astype(np.float32),
            tree=tree.table(),
            nodes=nodes[order],
            births=births,
            deaths=deaths,
        )

    def classes(self, linkage: pa.Table, *, ids: Sequence[str] | np.ndarray | None = None) -> Clustering:
        """Condense a linkage and choose its classes, without scores; see :meth:`select`."""
        return self.select(self.tree(linkage), ids=ids)

    @abstractmethod
    def _merges(self, positions: Float64[np.ndarray, "galaxies k"]) -> Float64[np.ndarray, "merges 4"]:
        """Left, right, distance and size of every merge, in scipy's convention, by increasing distance."""


def needs_null_surveys() -> ConfigError:
    """Return the error for ``selection=isolated`` without null surveys."""
    return ConfigError(
        "clusterer.selection=isolated needs null surveys", value="significance.surveys=0",
        fix="Give significance.surveys=20, or another clusterer.selection.",
    )  # fmt: skip


def _largest_first(labels: np.ndarray, ranks: np.ndarray, *, classes: int) -> np.ndarray:
    """Labels in the order of their final numbers."""
    inside = labels >= 0
    sizes = np.bincount(labels[inside], minlength=classes)
    first = np.full(classes, len(labels))
    np.minimum.at(first, labels[inside], ranks[inside])
    return np.lexsort((first, -sizes))
