"""HDBSCAN's condensed tree, read from a linkage. The only file that uses internals of the hdbscan library.

They are used because the public estimator computes the linkage again for every setting (minutes for a large survey),
while condensing and labelling take a second. What the library does galaxy by galaxy in Python is compiled or done on
whole arrays here, with the same rows and numbers; the library decides which nodes are leaves or have most excess of
mass. Parity tests compare every number with the library's functions and with its public estimator.

The functions of fast_hdbscan.cluster_trees are not used: they hold densities in single precision, compiled with
fastmath, so that their trees and scores are not the library's to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from rarezoo import tables
from rarezoo.searches.compiled import condense


@dataclass(frozen=True)
class CondensedTree:
    """The tree of a map without the splits in which fewer than ``min_cluster_size`` galaxies leave.

    Attributes
    ----------
    rows : structured array
        Columns parent, child, lambda_val (density, 1 / map distance) and child_size. Children below ``galaxies`` are
        galaxies by row; the others are nodes. Node ``galaxies`` is the root.
    galaxies : int
        Number of galaxies, n.

    Examples
    --------
    >>> linkage = pa.table({"left": [0, 2, 4], "right": [1, 3, 5], "distance": [1.0, 1.0, 4.0], "size": [2, 2, 4]})
    >>> tree = condensed(linkage, min_cluster_size=2)
    >>> tree.rows["parent"].tolist(), tree.rows["child"].tolist()
    ([4, 4, 5, 5, 6, 6], [5, 6, 0, 1, 2, 3])
    >>> labels, strengths, nodes = tree.selected("leaf")
    >>> labels.tolist(), nodes.tolist()
    ([0, 0, 1, 1], [5, 6])
    """

    rows: np.ndarray
    galaxies: int

    def table(self) -> pa.Table:
        """Return it as a TREE table."""
        names = {"parent": tables.PARENT, "child": tables.CHILD, "lambda_val": tables.LAMBDA}
        names["child_size"] = tables.CHILD_SIZE
        return tables.check(pa.table({column: self.rows[name] for name, column in names.items()}), tables.TREE)

    def outlier_scores(self) -> Float64[np.ndarray, " galaxies"]:
        """Return GLOSH scores (n,): 0 in the densest part of a galaxy's own branch, towards 1 far from it."""
        inside = self.rows[self.rows["child"] < self.galaxies]
        left, densest = inside["lambda_val"], self._densest()[inside["parent"]]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where((densest == 0) | ~np.isfinite(left), 0.0, (densest - left) / densest)
        scores = np.zeros(self.galaxies)
        # Beside infinitely dense (coincident) galaxies anything else is an outlier.
        scores[inside["child"]] = np.nan_to_num(share, nan=1.0)
        return scores

    def densities(self) -> Float64[np.ndarray, " galaxies"]:
        """Return λ at which each galaxy leaves the tree: the density up to which it belongs to a node."""
        inside = self.rows[self.rows["child"] < self.galaxies]
        densities = np.zeros(self.galaxies)
        densities[inside["child"]] = inside["lambda_val"]
        return densities

    def _densest(self) -> Float64[np.ndarray, " all"]:
        """λ at which the last galaxy leaves each node or a node below it."""
        densest = self._lifetimes()[1]
        # A node's number is above its parent's.
        for row in self.rows[self.rows["child"] >= self.galaxies][::-1]:
            densest[row["parent"]] = max(densest[row["parent"]], densest[row["child"]])
        return densest

    def selected(
        self, selection: str, *, epsilon: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """Return the classes that HDBSCAN chooses.

        Parameters
        ----------
        selection : {"leaf", "eom"}
            The leaves of the tree, or its nodes of most excess of mass.
        epsilon : float
            Map distance below which classes are not split (Malzer & Baum 2020).

        Returns
        -------
        labels : (n,) array of integers
            Class of each galaxy from 0, −1 for none.
        strengths : (n,) array of floats
            Strength of membership, 0 to 1.
        nodes : (classes,) array of integers
            Node of each class.
        """
        from hdbscan._hdbscan_tree import get_clusters

        settings = {"cluster_selection_method": selection, "cluster_selection_epsilon": epsilon}
        rows, first = self.rows, self.galaxies
        galaxies = np.flatnonzero(rows["child"] < first)
        homes = rows["parent"][galaxies] - first
        # The library labels galaxies one by one, so it gets one galaxy of each node, and the last, by which it counts.
        example = np.full(int(rows["parent"].max()) - first + 1, -1)
        example[homes[::-1]] = galaxies[::-1]
        last = galaxies[np.argmax(rows["child"][galaxies])]
        examples = np.unique(np.concatenate([np.flatnonzero(rows["child"] >= first), example[example >= 0], [last]]))
        with np.errstate(invalid="ignore"):
            chosen = get_clusters(rows[examples], self._stability(), **settings)[0]
        label_of = np.full(len(example), tables.NO_CLASS)
        label_of[example >= 0] = chosen[rows["child"][example[example >= 0]]]
        labels = np.full(first, tables.NO_CLASS)
        labels[rows["child"][galaxies]] = label_of[homes]
        nodes = self._nodes(labels)
        return labels, self._strengths(labels, nodes), nodes

    def _stability(self) -> dict[int, float]:
        """Excess of mass of each node: over all that leave it, how much denser it is then than when it began."""
        rows, first = self.rows, self.galaxies
        births = np.zeros(int(max(rows["child"].max(), rows["parent"].max())) + 1)
        births[rows["child"]] = rows["lambda_val"]
        births[first] = 0.0
        with np.errstate(invalid="ignore"):
            excess = (rows["lambda_val"] - births[rows["parent"]]) * rows["child_size"]
        return dict(enumerate(np.bincount(rows["parent"] - first, weights=excess).tolist(), start=first))

    def _strengths(self, labels: np.ndarray, nodes: Int64[np.ndarray, " classes"]) -> Float64[np.ndarray, " galaxies"]:
        """How long each galaxy stays in its class, as a share of how long the class lasts; 0 in none."""
        inside = self.rows[self.rows["child"] < self.galaxies]
        label, left = labels[inside["child"]], inside["lambda_val"]
        lasts = np.append(self._lifetimes()[1][nodes], 0.0)[label]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where((lasts == 0) | ~np.isfinite(left), 1.0, np.minimum(left, lasts) / lasts)
        strengths = np.zeros(self.galaxies)
        strengths[inside["child"]] = np.where(label == tables.NO_CLASS, 0.0, share)
        return strengths

    def cut(self, density: float) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """Return what hangs together at one density everywhere, as DBSCAN* does; see :meth:`selected`.

        A class is what its node still holds at that density, and no more. All galaxies may be one class, the root.

        Parameters
        ----------
        density : float
            λ, 1 / map distance.
        """
        rows = self.rows
        births, deaths = self._lifetimes()
        alive = np.arange(len(births))
        # A node's number is above its parent's, so that parents come first.
        for row in np.sort(rows[rows["child"] >= self.galaxies], order="child"):
            if births[row["child"]] > density:
                alive[row["child"]] = alive[row["parent"]]
        dense = rows[(rows["child"] < self.galaxies) & (rows["lambda_val"] > density)]
        nodes, label = np.unique(alive[dense["parent"]], return_inverse=True)
        labels, strengths = np.full(self.galaxies, tables.NO_CLASS), np.zeros(self.galaxies)
        labels[dense["child"]] = label
        with np.errstate(invalid="ignore"):
            share = np.minimum(dense["lambda_val"] / deaths[nodes[label]], 1)
        strengths[dense["child"]] = np.nan_to_num(share, nan=1.0)
        return labels, strengths, nodes

    def labelled(self, nodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """Return the classes that are some given nodes, none of which holds another; see :meth:`selected`."""
        first = self.galaxies
        rows = self.rows[self.rows["child"] < first]
        class_of = np.full(int(max(self.rows["child"].max(), self.rows["parent"].max())) - first + 1, tables.NO_CLASS)
        class_of[np.asarray(nodes, dtype=np.int64) - first] = np.arange(len(nodes))
        for row in self.rows[self.rows["child"] >= first]:
            # Parents come before their children.
            if class_of[row["parent"] - first] != tables.NO_CLASS:
                class_of[row["child"] - first] = class_of[row["parent"] - first]
        labels, left = np.full(first, tables.NO_CLASS), np.zeros(first)
        labels[rows["child"]], left[rows["child"]] = class_of[rows["parent"] - first], rows["lambda_val"]
        densest = np.zeros(len(nodes) + 1)
        np.maximum.at(densest, labels, np.where(np.isfinite(left), left, 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            strengths = np.where(np.isfinite(left), left / densest[labels], 1.0)
        return labels, np.where(labels == tables.NO_CLASS, 0.0, strengths), np.asarray(nodes, dtype=np.int64)

    def _nodes(self, labels: np.ndarray) -> Int64[np.ndarray, " classes"]:
        """Highest node that holds exactly the galaxies of each label."""
        rows, first = self.rows, self.galaxies
        above = np.zeros(int(max(rows["child"].max(), rows["parent"].max())) + 1, dtype=np.int64)
        sizes = np.full(len(above), first, dtype=np.int64)
        above[rows["child"]], sizes[rows["child"]] = rows["parent"], rows["child_size"]
        values, member, counts = np.unique(labels, return_index=True, return_counts=True)
        nodes = []
        for row, size in zip(member[values >= 0], counts[values >= 0], strict=True):
            node = above[row]
            while sizes[node] < size:
                node = above[node]
            nodes.append(node)
        return np.array(nodes, dtype=np.int64)

    def lifetimes(self, nodes: Int64[np.ndarray, " classes"]) -> tuple[np.ndarray, np.ndarray]:
        """Return λ at which each node splits off its parent, and λ at which its last galaxy leaves it or it splits.

        The root begins where the last galaxy joins it.
        """
        births, deaths = self._lifetimes()
        return births[nodes], deaths[nodes]

    def _lifetimes(self) -> tuple[Float64[np.ndarray, " all"], Float64[np.ndarray, " all"]]:
        rows = self.rows
        births = np.zeros(int(max(rows["child"].max(), rows["parent"].max())) + 1)
        deaths = np.zeros_like(births)
        births[rows["child"]] = rows["lambda_val"]
        births[self.galaxies] = rows["lambda_val"].min()
        np.maximum.at(deaths, rows["parent"], rows["lambda_val"])
        return births, deaths


def condensed(linkage: pa.Table, *, min_cluster_size: int) -> CondensedTree:
    """Return the condensed tree of a LINKAGE table; splits below ``min_cluster_size`` galaxies are left out."""
    sides, distances, sizes = (
        np.column_stack([linkage.column(name).to_numpy() for name in (tables.LEFT, tables.RIGHT)]),
        linkage.column(tables.DISTANCE).to_numpy(),
        linkage.column(tables.SIZE).to_numpy(),
    )
    columns = condense(sides.astype(np.int64), distances.astype(np.float64), sizes.astype(np.int64), min_cluster_size)
    names = [("parent", np.intp), ("child", np.intp), ("lambda_val", np.float64), ("child_size", np.intp)]
    rows = np.empty(len(columns[0]), dtype=names)
    for (name, _), column in zip(names, columns, strict=True):
        rows[name] = column
    return CondensedTree(rows, len(sides) + 1)
