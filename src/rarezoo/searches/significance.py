"""Which groups of a tree are classes? Those that stand apart more than the groups of null surveys do.

The **score** of a node of the tree says by how much it is more isolated than nodes of its size in null surveys
(:mod:`rarezoo.searches.null_surveys`). On every branch of the tree the node with the highest score is a **candidate**.
A candidate is **significant** if few candidates with such a score are expected in a null survey, compared with how
many the real survey has. That is the whole rule; :attr:`TreeScores.candidates` has it in pseudo-code.

Shape letters: n galaxies, m nodes of the survey's tree, c candidates or classes, q nodes in question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError
from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import MOST_NEIGHBOURS, NodeTree
from rarezoo.searches.null_surveys import GAUSSIAN, PERMUTED, STORE, NullSurveys, best_nodes, windows
from rarezoo.settings import Settings, setting

# Fewest null surveys that show how the tail of the scores falls off.
FEWEST_SURVEYS = 5
# Smallest size of null surveys that can be asked for.
_SMALLEST_SURVEY = 500
# Standard deviations between the median and a quartile of a normal distribution.
_QUARTILE = 0.6745
# Main groups hold at most this share of the galaxies: what holds more is the survey itself.
_MOST = 0.5


@dataclass
class Significance(Settings):
    """How classes are compared with null surveys: a setting of a search.

    Examples
    --------
    >>> Significance(surveys=2)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: significance.surveys: 2. Choose 0 (none) or at least 5.
    """

    prefix: ClassVar[str] = "significance"

    surveys: int = setting(20, "number of null surveys; 0 = significance is not measured", unit="surveys", ge=0)
    galaxies: int = setting(
        4000, "largest size of a null survey; more take longer and change little", unit="galaxies", ge=_SMALLEST_SURVEY
    )
    kind: str = setting(
        GAUSSIAN,
        "how null surveys are made: gaussian (normal distribution), permuted (each principal component shuffled), "
        "or store",
        choices=(GAUSSIAN, PERMUTED, STORE),
    )
    store: str = setting("", "kind=store: embedding store of a network that learnt nothing (train.shuffle_votes=true)")
    level: float = setting(0.05, "largest expected share of false classes among the significant ones", gt=0, lt=1)
    largest: float = setting(
        0.07, "share of the galaxies above which a group is no rare class but a main group", gt=0, lt=_MOST
    )
    rows: int = setting(
        50, "length of the list: after the significant classes come the best candidates until it is full; 0 = none",
        unit="classes", ge=0,
    )  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError for too few null surveys, or a store and a kind that do not fit each other."""
        if 0 < self.surveys < FEWEST_SURVEYS:
            raise ConfigError(
                "significance.surveys", value=self.surveys, fix=f"Choose 0 (none) or at least {FEWEST_SURVEYS}."
            )
        if (self.kind == STORE) != bool(self.store):
            raise ConfigError(
                f"significance.store with significance.kind={self.kind}", value=self.store or "no store",
                fix="Give both kind=store and the folder of an embedding store, or neither.",
            )  # fmt: skip


class MainGroup(NamedTuple):
    """Broad structure: a node too large to be rare that stands apart more than such nodes of null surveys do.

    Attributes
    ----------
    node : int
        Node, as the condensed tree numbers it.
    members : array of integers
        Rows of its galaxies.
    significance : float
        Scatters by which its isolation exceeds what is usual at its size.
    p_value : float
        Probability that a null survey shows such a node.
    """

    node: int
    members: Int64[np.ndarray, " members"]
    significance: float
    p_value: float


@dataclass(frozen=True)
class TreeScores:
    """How much each node of a survey's tree stands out from null surveys, and which nodes are classes.

    A real survey without any class may still differ from its null surveys: it may have fewer dimensions, for example,
    so that every group is more isolated. What most of its own nodes have in common is therefore no evidence. Scores
    are counted from where the lower half of its own nodes of that size lie, if that is higher (Efron 2004 calls this
    the empirical null).

    Everything is computed once, when it is first needed.

    Attributes
    ----------
    tree : NodeTree
        The tree, m nodes.
    graph : (n, k) array of integers
        Nearest neighbours in the space that was compressed.
    null : NullSurveys
        What null surveys show.
    settings : Significance
        Level, largest share of a rare class, and length of the list.
    """

    tree: NodeTree
    graph: Int32[np.ndarray, "n k"]
    null: NullSurveys
    settings: Significance

    @classmethod
    def of(
        cls,
        tree: CondensedTree,
        features: Float32[np.ndarray, "n d"],
        null: NullSurveys,
        settings: Significance,
        *,
        seed: int = 0,
    ) -> "TreeScores":
        """Score a condensed tree of n galaxies.

        Parameters
        ----------
        tree : CondensedTree
            Tree of the map.
        features : (n, d) array of floats
            What was compressed to the map.
        null : NullSurveys
            What null surveys show.
        settings : Significance
            Level, largest share of a rare class, and length of the list.
        seed : int
            Seed of the nearest-neighbour index.
        """
        return cls(NodeTree.of(tree), NeighbourIndex(features, seed=seed).graph(MOST_NEIGHBOURS), null, settings)

    @property
    def galaxies(self) -> int:
        """Number of galaxies, n."""
        return len(self.tree.homes)

    @cached_property
    def isolations(self) -> Float64[np.ndarray, " m"]:
        """Isolation of each node, 0 to 1."""
        return self.tree.isolations(self.graph)

    @cached_property
    def scores(self) -> Float64[np.ndarray, " m"]:
        """Scatters by which each node exceeds what is usual at its size, in null surveys and in the survey itself."""
        return self._raw_scores - self.common_excess(self.tree.sizes)

    def common_excess(self, sizes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        """Return by how many scatters nodes of given sizes exceed null nodes just because they are of this survey."""
        grid, excess = self._own
        return np.interp(np.log(sizes), grid, excess)

    @cached_property
    def candidates(self) -> Int64[np.ndarray, " c"]:
        """The nodes that have the highest score on their branch of the tree, the highest first; numbered from the root.

        In pseudo-code::

            nodes      = all nodes with at most the share ``largest`` of the galaxies
            candidates = []
            while nodes is not empty:
                best       = the node with the highest score
                candidates = candidates + [best]
                nodes      = nodes without best, without those that hold it, and without those inside it

        None of them shares a galaxy with another.
        """
        rare = self.tree.sizes <= self.settings.largest * self.galaxies
        chosen = best_nodes(self.tree.parents, self.scores, rare)
        return chosen[np.argsort(-np.nan_to_num(self.scores[chosen], nan=-np.inf), kind="stable")]

    def false_discoveries(self, nodes: Int64[np.ndarray, " c"]) -> Float64[np.ndarray, " c"]:
        """Return the expected share of false classes if all given nodes that stand out at least as much were classes.

        After Benjamini & Hochberg 1995: the number of candidates with such a score in a null survey, divided by the
        number of given nodes with at least this score.
        """
        expected, scores = self.expected(nodes), self.scores[nodes]
        order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
        order = order[np.argsort(expected[order], kind="stable")]
        shares = np.empty(len(nodes))
        shares[order] = np.minimum(expected[order] / np.arange(1, len(nodes) + 1), 1.0)
        # A node that stands out more is never more doubtful than one that stands out less.
        shares[order] = np.minimum.accumulate(shares[order][::-1])[::-1]
        return shares

    def expected(self, nodes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        """Return how many candidates with such a score a null survey is expected to show; infinity for main groups."""
        largest = self.settings.largest
        expected = self.null.expected(self.scores[nodes], galaxies=self.galaxies, shares=(0, largest))
        return np.where(self.tree.sizes[nodes] <= largest * self.galaxies, expected, np.inf)

    @cached_property
    def significant(self) -> Int64[np.ndarray, " c"]:
        """The candidates whose false discovery rate is at most the level, the highest score first."""
        return self.candidates[self.false_discoveries(self.candidates) <= self.settings.level]

    @property
    def nodes(self) -> list[int]:
        """The nodes on the list of classes, as the condensed tree numbers them; none of them holds another.

        All significant ones, and the best of the other candidates until the list is full.
        """
        rows = max(len(self.significant), self.settings.rows)
        return sorted((self.galaxies + self.candidates[:rows]).tolist())

    @cached_property
    def main_groups(self) -> list[MainGroup]:
        """Nodes too large to be rare that stand apart more than such nodes of null surveys do, the largest first.

        They are chosen like candidates, among the nodes that hold more than the share ``largest`` of the galaxies and
        at most half of them.
        """
        shares = (self.settings.largest, _MOST)
        sizes = self.tree.sizes / self.galaxies
        chosen = best_nodes(self.tree.parents, self.scores, (sizes > shares[0]) & (sizes <= shares[1]))
        expected = self.null.expected(self.scores[chosen], galaxies=self.galaxies, shares=shares)
        groups = [
            MainGroup(
                node + self.galaxies, self.tree.members(node), float(self.scores[node]), float(-np.expm1(-number))
            )
            for node, number in zip(chosen.tolist(), expected.tolist(), strict=True)
            if number <= self.settings.level
        ]
        return sorted(groups, key=lambda group: -len(group.members))

    def columns(self, nodes: Int64[np.ndarray, " c"]) -> dict[str, list[Any]]:
        """Return the columns of the classes table that compare classes with null surveys.

        Parameters
        ----------
        nodes : (c,) array of integers
            Node of each class, as the condensed tree numbers them.
        """
        rows = np.asarray(nodes, dtype=np.int64) - self.galaxies
        false_discoveries = self.false_discoveries(rows)
        groups = smallest_groups(self.tree, rows.tolist(), self._groups)
        return {
            tables.ISOLATION: list(self.isolations[rows]),
            tables.SIGNIFICANCE: [None if np.isnan(score) else score for score in self.scores[rows]],
            tables.P_VALUE: list(-np.expm1(-self.expected(rows))),
            tables.FALSE_DISCOVERY: list(false_discoveries),
            tables.GROUP: [groups[row] + self.galaxies if row in groups else None for row in rows.tolist()],
        }

    def table(self) -> pa.Table:
        """Return the NODES table: all nodes of the survey, and then those of the null surveys, without the roots.

        It is what a figure of the evidence needs (:mod:`rarezoo.report.evidence`).
        """
        null, nodes = self.null, np.arange(1, len(self.tree.parents))
        usual, scatter = null.usual(self.tree.sizes[nodes], galaxies=self.galaxies)
        own = {
            tables.NODE: nodes + self.galaxies, tables.GALAXIES: np.full(len(nodes), self.galaxies),
            tables.SIZE: self.tree.sizes[nodes], tables.ISOLATION: self.isolations[nodes], tables.USUAL: usual,
            tables.SCATTER: scatter, tables.SIGNIFICANCE: self.scores[nodes],
            tables.IS_CANDIDATE: np.isin(nodes, self.candidates), tables.EXPECTED: self.expected(nodes),
        }  # fmt: skip
        shares = (0, self.settings.largest)
        others = {
            tables.NULL_SURVEY: null.surveys, tables.GALAXIES: np.full(len(null.sizes), null.galaxies),
            tables.SIZE: null.sizes, tables.ISOLATION: null.isolations, tables.SIGNIFICANCE: null.own_scores,
            tables.IS_CANDIDATE: np.isin(np.arange(len(null.sizes)), null.candidates(shares)),
            tables.EXPECTED: null.expected(null.own_scores, galaxies=self.galaxies, shares=shares),
        }  # fmt: skip
        parts = []
        for columns in (own, others):
            nothing = np.full(len(columns[tables.SIZE]), None)
            parts.append(
                pa.table(
                    {
                        name: pa.array(columns.get(name, nothing), kind, from_pandas=True)
                        for name, kind in tables.NODES.columns.items()
                    }
                )
            )
        return pa.concat_tables(parts)

    @cached_property
    def _groups(self) -> list[int]:
        """Nodes of any size that stand apart, children before their parents: those that may be groups of classes."""
        nodes = np.arange(len(self.tree.parents))
        apart = self.expected(nodes) <= self.settings.level
        apart[[group.node - self.galaxies for group in self.main_groups]] = True
        return np.flatnonzero(apart)[::-1].tolist()

    @cached_property
    def _raw_scores(self) -> Float64[np.ndarray, " m"]:
        return self.null.scores(self.isolations, self.tree.sizes, galaxies=self.galaxies)

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Log sizes, and by how many scatters the lower half of the survey's own nodes exceeds that of null nodes."""
        fit = self.null.fit
        rare = np.flatnonzero(self.tree.sizes <= self.settings.largest * self.galaxies)
        if len(rare) < fit.nearest:
            return np.zeros(1), np.zeros(1)
        grid, near = windows(self.tree.sizes[rare], self._raw_scores[rare], fit)
        return grid, np.maximum(np.quantile(near, 0.25, axis=1) + _QUARTILE, 0.0)


def smallest_groups(tree: NodeTree, classes: Sequence[int], groups: Sequence[int]) -> dict[int, int]:
    """Return the smallest group that each class shares with another class.

    Parameters
    ----------
    tree : NodeTree
        The tree.
    classes : sequence of int
        Nodes that are classes.
    groups : sequence of int
        Nodes that may be groups, children before their parents.
    """
    group_of: dict[int, int] = {}
    for group in groups:
        inside = set(tree.subtree(group)).intersection(classes)
        if len(inside) > 1:
            group_of.update({node: group for node in inside if node not in group_of})
    return group_of
