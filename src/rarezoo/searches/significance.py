"""Which groups of a tree are classes? Those that stand apart more than the groups of null surveys do.

The **score** of a node of the tree says by how much it is more isolated than nodes of its size in null surveys
(:mod:`rarezoo.searches.null_surveys`). On every branch of the tree the node with the most evidence is a **candidate**:
its evidence is by how much its score exceeds what null surveys show, and evidence of several nodes adds in quadrature.
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
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.errors import ConfigError
from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import MOST_NEIGHBOURS, NodeTree, neighbours_compared
from rarezoo.searches.null_surveys import GAUSSIAN, PERMUTED, STORE, NullSurveys, best_nodes, windows
from rarezoo.settings import Settings, setting

# Fewest null surveys that show how the tail of the scores falls off.
FEWEST_SURVEYS = 5
# Smallest size of null surveys that can be asked for.
_SMALLEST_SURVEY = 500
# Standard deviations between the median and a quartile of a normal distribution.
_QUARTILE = 0.6745
# Numbers of galaxies among which the core of a node is chosen.
_CORES = 7
# Excess of the score that is the threshold itself, so that its node has evidence too.
_LEAST = 1e-6
# Main groups hold at most this share of the galaxies: what holds more is the survey itself.
_MOST = 0.5


@dataclass
class Significance(Settings):
    """How classes are compared with null surveys: a setting of a search.

    Examples
    --------
    >>> Significance(surveys=2)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: significance.surveys: 2. Choose at least 5; or 0 (none) with clusterer.selection=leaf.
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
                "significance.surveys",
                value=self.surveys,
                fix=f"Choose at least {FEWEST_SURVEYS}; or 0 (none) with clusterer.selection=leaf.",
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
    densities : (n,) array of floats
        λ = 1 / map distance at which each galaxy leaves the tree.
    graph : (n, k) array of integers
        Nearest neighbours in the space that was compressed.
    null : NullSurveys
        What null surveys show.
    settings : Significance
        Level, largest share of a rare class, and length of the list.
    """

    tree: NodeTree
    densities: Float64[np.ndarray, " n"]
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
        graph = NeighbourIndex(features, seed=seed).graph(MOST_NEIGHBOURS)
        return cls(NodeTree.of(tree), tree.densities(), graph, null, settings)

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
        return self._scores_of(self.isolations, self.tree.sizes)

    def _scores_of(
        self, isolations: Float64[np.ndarray, " q"], sizes: Int64[np.ndarray, " q"]
    ) -> Float64[np.ndarray, " q"]:
        return self.null.scores(isolations, sizes, galaxies=self.galaxies) - self.common_excess(sizes)

    def common_excess(self, sizes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        """Return by how many scatters nodes of given sizes exceed null nodes just because they are of this survey."""
        grid, excess = self._own
        return np.interp(np.log(sizes), grid, excess)

    @cached_property
    def candidates(self) -> Int64[np.ndarray, " c"]:
        """The nodes with the most evidence on their branch, the highest score first; numbered from 0, the root.

        In pseudo-code::

            threshold = the score that a null survey is expected to show ``level`` times
            for each node, the leaves first:
                evidence = (score − threshold)²
                           0 if the score is lower, or the node has more than the share ``largest`` of the galaxies
                inside   = sum of what the nodes directly inside it have given it
                if evidence > 0 and evidence >= inside: the node takes the place of the nodes inside it
                give the larger of the two to the node around it
            where no node was taken: the node with the highest score, of those that hold no node that was taken

        None of them shares a galaxy with another. The sum over nodes inside is that of HDBSCAN's excess of mass
        (Campello et al. 2013), with squares of scores in the place of stabilities: two kinds that are joined at a low
        density are two classes, and two halves of one kind are one.
        """
        parents = self.tree.parents
        rare = self.tree.sizes <= self.settings.largest * self.galaxies
        stands_out = rare & (self.expected(np.arange(len(parents))) <= self.settings.level)
        # Without any node in null surveys there is no score.
        scores = np.nan_to_num(self.scores, nan=0.0)
        shares = (0, self.settings.largest)
        threshold = self.null.threshold(self.settings.level, galaxies=self.galaxies, shares=shares)
        evidence = np.where(stands_out, np.maximum(scores - threshold, _LEAST) ** 2, 0.0)
        taken = strongest_nodes(parents, evidence)
        elsewhere = rare & ~_related(parents, taken)
        chosen = np.concatenate([taken, best_nodes(parents, self.scores, elsewhere)])
        return chosen[np.argsort(-np.nan_to_num(self.scores[chosen], nan=-np.inf), kind="stable")]

    def core(self, node: int) -> Int64[np.ndarray, " core"]:
        """Return the members of a class: the galaxies of its node without those at its edge that only blur it.

        A node begins where it splits off its surroundings, and holds galaxies of these too. Its galaxies are taken
        from the densest on. Of the numbers between half and all of them the largest is chosen whose score is at most
        one scatter below the best score of these numbers. The evidence for a class is that of its whole node.

        Parameters
        ----------
        node : int
            Node, as the condensed tree numbers it.
        """
        rows = self.tree.members(node - self.galaxies)
        rows = rows[np.argsort(-self.densities[rows], kind="stable")]
        sizes = np.unique(np.geomspace(len(rows) / 2, len(rows), _CORES).round().astype(np.int64))[::-1]
        place = np.full(self.galaxies, len(rows), dtype=np.int64)
        place[rows] = np.arange(len(rows))
        near, compared = place[self.graph[rows]], np.minimum(neighbours_compared(sizes), self.graph.shape[1])
        isolations = [np.mean(near[:size, :count] < size) for size, count in zip(sizes, compared, strict=True)]
        scores = np.nan_to_num(self._scores_of(np.array(isolations), sizes))
        return np.sort(rows[: sizes[np.argmax(scores >= scores.max() - 1)]])

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


def strongest_nodes(
    parents: Int64[np.ndarray, " m"], evidence: Float64[np.ndarray, " m"]
) -> Int64[np.ndarray, " chosen"]:
    """Return the nodes of which none holds another and whose evidence has the largest sum.

    Parameters
    ----------
    parents : (m,) array of integers
        The node around each node, −1 for none; a node comes before those inside it.
    evidence : (m,) array of floats
        At least 0; a node without evidence is not chosen. Of equal evidence the outer node is chosen.

    Examples
    --------
    The first node holds the others, which together have more evidence:

    >>> strongest_nodes(np.array([-1, 0, 0]), np.array([5.0, 3.0, 4.0]))
    array([1, 2])
    >>> strongest_nodes(np.array([-1, 0, 0]), np.array([8.0, 3.0, 4.0]))
    array([0])
    """
    inside = np.zeros(len(parents))
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            inside[parents[node]] += max(evidence[node], inside[node])
    strong = (evidence > 0) & (evidence >= inside)
    # Where a strong node lies in another strong node, the outer one has more.
    return np.flatnonzero(strong & ~_inside(parents, strong))


def _inside(parents: Int64[np.ndarray, " m"], marked: Bool[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Return which nodes lie in a marked node, other than themselves."""
    inside = np.zeros(len(parents), dtype=bool)
    for node, around in enumerate(parents.tolist()):
        inside[node] = around >= 0 and (inside[around] or marked[around])
    return inside


def _related(parents: Int64[np.ndarray, " m"], nodes: Int64[np.ndarray, " chosen"]) -> Bool[np.ndarray, " m"]:
    """Return which nodes are among some nodes, hold one of them, or lie in one of them."""
    chosen = np.zeros(len(parents), dtype=bool)
    chosen[nodes] = True
    holds = chosen.copy()
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            holds[parents[node]] |= holds[node]
    return holds | _inside(parents, chosen)


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
