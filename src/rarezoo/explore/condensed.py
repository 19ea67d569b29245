"""HDBSCAN's condensed tree, read from a linkage. The only file that touches the hdbscan library's internals.

They are used because the public estimator computes the linkage anew for every setting (minutes for a big survey),
while condensing and labelling take a second. Held to the public estimator by a parity test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from rarezoo import tables


@dataclass(frozen=True)
class CondensedTree:
    """The tree without the splits that shed fewer than ``min_cluster_size`` galaxies.

    Attributes:
        rows: structured array with parent, child, lambda_val (1 / map distance), child_size. Children below
            ``galaxies`` are galaxies by row; the rest are nodes. Node ``galaxies`` is the root.
        galaxies: n.
    """

    rows: np.ndarray
    galaxies: int

    def table(self) -> pa.Table:
        """As a TREE table."""
        names = {"parent": tables.PARENT, "child": tables.CHILD, "lambda_val": tables.LAMBDA}
        names["child_size"] = tables.CHILD_SIZE
        return tables.check(pa.table({column: self.rows[name] for name, column in names.items()}), tables.TREE)

    def outlier_scores(self) -> Float64[np.ndarray, " galaxies"]:
        """GLOSH: 0 in the densest part of a galaxy's own branch, towards 1 far from it."""
        from hdbscan._hdbscan_tree import outlier_scores

        with np.errstate(invalid="ignore"):
            scores = outlier_scores(self.rows)
        # Beside infinitely dense (coincident) galaxies anything else is an outlier.
        return np.nan_to_num(scores, nan=1.0)

    def selected(
        self, selection: str, *, epsilon: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """Labels (n,) from 0 with −1 for none, membership strengths (n,), and each label's node of the tree.

        Args:
            selection: ``leaf`` or ``eom`` (excess of mass).
            epsilon: map distance below which classes are not split (Malzer & Baum 2020).
        """
        from hdbscan._hdbscan_tree import compute_stability, get_clusters

        settings = {"cluster_selection_method": selection, "cluster_selection_epsilon": epsilon}
        with np.errstate(invalid="ignore"):
            labels, strengths, _ = get_clusters(self.rows, compute_stability(self.rows), **settings)
        return labels, strengths, self._nodes(labels)

    def cut(self, density: float) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """What hangs together at one density everywhere, as DBSCAN* has it; returns what :meth:`selected` does.

        A class is what its node still holds at that density, and no more; all may be one class, the root.

        Args:
            density: λ, 1 / map distance.
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

    def held(self, nodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " classes"]]:
        """Labels, strengths and nodes as :meth:`selected` gives them, of nodes none of which holds another."""
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
        """For each label the highest node that holds exactly its galaxies."""
        rows, first = self.rows, self.galaxies
        above = np.zeros(int(max(rows["child"].max(), rows["parent"].max())) + 1, dtype=np.int64)
        sizes = np.full(len(above), first, dtype=np.int64)
        above[rows["child"]], sizes[rows["child"]] = rows["parent"], rows["child_size"]
        members, member = np.unique(labels, return_index=True)
        found = []
        for row, label in zip(member[members >= 0], members[members >= 0], strict=True):
            size, node = np.sum(labels == label), above[row]
            while sizes[node] < size:
                node = above[node]
            found.append(node)
        return np.array(found, dtype=np.int64)

    def lifetimes(self, nodes: Int64[np.ndarray, " classes"]) -> tuple[np.ndarray, np.ndarray]:
        """λ at which each node splits off its parent, and λ at which its last galaxy leaves it or it splits.

        The root is born where the last galaxy joins it.
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
    """The condensed tree of a LINKAGE table."""
    from hdbscan._hdbscan_tree import condense_tree

    columns = (tables.LEFT, tables.RIGHT, tables.DISTANCE, tables.SIZE)
    merges = np.column_stack([linkage.column(name).to_numpy().astype(np.float64) for name in columns])
    return CondensedTree(condense_tree(merges, min_cluster_size), len(merges) + 1)
