"""Which groups of a tree are classes? Those that stand apart more than the groups of null surveys do.

A **null survey** is a survey without any group. It has the spread of the real survey along its first principal
components, and as many of these as give it the local dimension of the real survey: an embedding of galaxies is a thin
sheet in many dimensions, and a group in a sheet has fewer neighbours outside than a group in a ball. A map of a null
survey has groups all the same. How isolated a group of each size is there (:mod:`rarezoo.searches.isolation`) is what
a class must exceed.

Within a class the same question decides whether its parts are classes of their own. The class is then treated as a
survey of its own size, and its parts are compared with the groups of null surveys of about that size.

Shape letters: n galaxies, d features, m nodes of the survey's tree, s nodes of null surveys, q nodes in question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.cache import kept_array
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.quality import local_dimension
from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor
from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import MOST_NEIGHBOURS, NodeTree, neighbours_compared
from rarezoo.settings import Settings, setting

GAUSSIAN, PERMUTED, STORE = "gaussian", "permuted", "store"
# Galaxies of the small null surveys, with which the parts of a class are compared.
SMALL = 500
# Fewer galaxies than this give no groups that could be compared.
FEWEST = 100
# Fewest null surveys that show how the tail of the scores falls off.
FEWEST_SURVEYS = 5
# Galaxies on which a local dimension is measured, at most, and bisections by which it is matched.
_MEASURED, _BISECTIONS = 2000, 9
# Standard deviations per median absolute deviation, and per distance from median to quartile, of a normal distribution.
_MAD_TO_SIGMA, _QUARTILE = 1.4826, 0.6745

# Builds the condensed tree of the map of a null survey: (galaxies, dimensions) → tree.
TreeBuilder = Callable[[np.ndarray], CondensedTree]


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
        4000, "largest size of a null survey; more take longer and change little", unit="galaxies", ge=SMALL
    )
    kind: str = setting(
        GAUSSIAN,
        "how null surveys are made: gaussian (normal distribution), permuted (each principal component shuffled), "
        "or store",
        choices=(GAUSSIAN, PERMUTED, STORE),
    )
    store: str = setting("", "kind=store: embedding store of a network that learnt nothing (train.shuffle_votes=true)")
    level: float = setting(0.05, "largest expected share of false classes among those that are reported", gt=0, lt=1)
    largest: float = setting(0.2, "share of the galaxies above which a group is no rare class", gt=0, lt=1)

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


@dataclass(frozen=True)
class NullFit:
    """How the isolation of null nodes is summarised: settings of an estimate, which users need not change.

    Attributes
    ----------
    nearest, one_in
        The distribution at one size is taken from the nodes nearest in size: this many, or one in ``one_in`` of all
        nodes if that is more.
    steps
        Sizes at which the distribution is taken, evenly spaced in their logarithm; values between are interpolated.
    least_scatter
        Smallest scatter that is used, in logit isolation; a smaller estimate is replaced by it.
    bulky
        Share of the smaller of two surveys above which nodes are compared by their share of the survey. Smaller nodes
        are compared by their number of galaxies.
    tail
        Highest nodes per null survey from which the fall of the tail is taken, a tenth of all nodes at most.
    fewest
        Fewest nodes from which the fall of the tail can be taken.
    """

    nearest: int = 25
    one_in: int = 12
    steps: int = 48
    least_scatter: float = 0.12
    bulky: float = 0.1
    tail: int = 2
    fewest: int = 10


@dataclass(frozen=True)
class Rule:
    """Thresholds by which nodes are chosen: :attr:`TreeScores.choice` has the whole rule.

    Attributes
    ----------
    clear_lead : float
        Scatters by which a node inside must have a higher score than the larger node to replace it, if the nodes
        inside do not make the larger node up. A smaller difference is chance. If they do make it up, any higher score
        replaces it.
    far_lead : float
        Scatters. A node whose score is higher than that of every node inside by more than this is one class, even if
        the nodes inside are isolated within it.
    made_up : float
        Nodes inside make a node up if there are two or more, and they hold at least this share of its galaxies.
    most : float
        Largest share of a node's galaxies that a part of it may hold. A node inside that holds more is nearly the
        same group as the node, so it says nothing about the parts of the node.
    """

    clear_lead: float = 1.5
    far_lead: float = 6.0
    made_up: float = 0.5
    most: float = 0.9


@dataclass(frozen=True)
class NullNodes:
    """The nodes of null surveys of one size, and what isolation is usual among them.

    Attributes
    ----------
    count : int
        Number of null surveys, with nodes or without.
    galaxies : int
        Galaxies in each.
    surveys : (s,) array of integers
        The survey of each node, from 0.
    sizes : (s,) array of integers
        Galaxies in each node.
    isolations : (s,) array of floats
        Isolation of each node, 0 to 1.
    fit : NullFit
        How they are summarised.
    """

    count: int
    galaxies: int
    surveys: Int64[np.ndarray, " s"]
    sizes: Int64[np.ndarray, " s"]
    isolations: Float64[np.ndarray, " s"]
    fit: NullFit = NullFit()

    @classmethod
    def of(cls, galaxies: int, surveys: Sequence[Float64[np.ndarray, "2 _"]]) -> "NullNodes":
        """Join the nodes of several null surveys, given as rows of sizes and isolations."""
        numbers = np.repeat(np.arange(len(surveys)), [nodes.shape[1] for nodes in surveys])
        sizes, isolations = np.concatenate(surveys, axis=1)
        return cls(len(surveys), galaxies, numbers, sizes.astype(np.int64), isolations)

    @cached_property
    def _usual(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log sizes, and the median and upward scatter of the logit isolation at each; NaN where no node exists."""
        if not len(self.sizes):
            return np.zeros(1), np.full(1, np.nan), np.ones(1)
        grid, windows = _windows(self.sizes, _logit(self.isolations, self.sizes), self.fit)
        median = np.median(windows, axis=1)
        above = [np.median(row[row >= middle]) - middle for row, middle in zip(windows, median, strict=True)]
        return grid, median, np.maximum(_MAD_TO_SIGMA * np.array(above), self.fit.least_scatter)

    def scores(
        self, isolations: Float[np.ndarray, " q"], sizes: Int64[np.ndarray, " q"], *, galaxies: int
    ) -> Float64[np.ndarray, " q"]:
        """Return by how many scatters nodes exceed the usual isolation of null nodes of their size.

        Parameters
        ----------
        isolations, sizes : (q,) arrays
            Of nodes of another survey.
        galaxies : int
            Galaxies in that survey.

        Returns
        -------
        (q,) array of floats
            NaN if the null surveys have no nodes.
        """
        grid, median, scatter = self._usual
        few = sizes <= self.fit.bulky * min(galaxies, self.galaxies)
        shares = np.maximum(self.fit.bulky * self.galaxies, sizes * (self.galaxies / galaxies))
        at = np.log(np.where(few, sizes, shares).astype(np.float64))
        return (_logit(isolations, sizes) - np.interp(at, grid, median)) / np.interp(at, grid, scatter)

    @cached_property
    def _own_scores(self) -> Float64[np.ndarray, " s"]:
        """Score of each null node by what is usual in the other null surveys, as a real survey is scored."""
        scores = np.full(len(self.sizes), np.nan)
        for number in np.unique(self.surveys):
            inside = self.surveys == number
            survey, others = self._only(inside), self._only(~inside)
            scores[inside] = others.scores(survey.isolations, survey.sizes, galaxies=self.galaxies)
        return scores

    def _only(self, chosen: Bool[np.ndarray, " s"]) -> "NullNodes":
        return replace(self, surveys=self.surveys[chosen], sizes=self.sizes[chosen], isolations=self.isolations[chosen])

    def expected(self, scores: Float[np.ndarray, " q"], *, galaxies: int, largest: float) -> Float64[np.ndarray, " q"]:
        """Return how many nodes with at least each score one null survey is expected to show.

        Nodes are counted as far as there are some. Beyond, the excess over a high score falls off exponentially, as
        the tail of most distributions does. The rate is known only as well as the highest few nodes show it; averaged
        over that uncertainty the number follows Lomax's law. The number grows with the galaxies, as that of nodes
        does. Where there are too few nodes to estimate a rate, it is the number of all nodes, whatever the score.

        Parameters
        ----------
        scores : (q,) array of floats
            Of nodes of another survey.
        galaxies : int
            Galaxies in that survey.
        largest : float
            Share of the galaxies above which null nodes do not count.
        """
        highest = np.sort(self._own_scores[self.sizes <= largest * self.galaxies])[::-1]
        fit = self.fit
        tail = min(fit.tail * self.count, max(len(highest) // 10, fit.fewest), len(highest) - 1)
        if tail < fit.fewest:
            return np.full(len(scores), (len(highest) + 1) / (self.count + 1) * galaxies / self.galaxies)
        high = highest[tail]
        rate = max(float(np.mean(highest[:tail] - high)), fit.least_scatter)
        above = np.maximum(np.asarray(scores) - high, 0)
        beyond = tail * np.exp(-tail * np.log1p(above / (tail * rate)))
        counted = np.searchsorted(-highest, -np.asarray(scores), side="right")
        return np.where(scores > high, beyond, counted) * (galaxies / self.galaxies / self.count)


@dataclass(frozen=True)
class NullModel:
    """What null surveys of a survey show, at its own size (or as large as they were made) and at that of a class.

    Attributes
    ----------
    settings : Significance
        How they were made, and the level at which classes are reported.
    whole, small : NullNodes
        Nodes of large and of small null surveys.
    rule : Rule
        Thresholds by which nodes are chosen.
    """

    settings: Significance
    whole: NullNodes
    small: NullNodes
    rule: Rule = Rule()


@dataclass(frozen=True)
class TreeScores:
    """How much each node of a survey's tree stands out from the null model, and which nodes are classes.

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
    null : NullModel
        What null surveys show.
    """

    tree: NodeTree
    graph: Int32[np.ndarray, "n k"]
    null: NullModel

    @classmethod
    def of(
        cls, tree: CondensedTree, features: Float32[np.ndarray, "n d"], null: NullModel, *, seed: int = 0
    ) -> "TreeScores":
        """Score a condensed tree of n galaxies.

        Parameters
        ----------
        tree : CondensedTree
            Tree of the map.
        features : (n, d) array of floats
            What was compressed to the map.
        null : NullModel
            What null surveys show.
        seed : int
            Seed of the nearest-neighbour index.
        """
        return cls(NodeTree.of(tree), NeighbourIndex(features, seed=seed).graph(MOST_NEIGHBOURS), null)

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
        return self._raw_scores - self._own_excess(self.tree.sizes)

    @cached_property
    def expected(self) -> Float64[np.ndarray, " m"]:
        """Nodes that stand out as much, expected in a null survey; infinity for nodes too large to be rare."""
        largest = self.null.settings.largest
        expected = self.null.whole.expected(self.scores, galaxies=self.galaxies, largest=largest)
        return np.where(self.tree.sizes <= largest * self.galaxies, expected, np.inf)

    @cached_property
    def p_values(self) -> Float64[np.ndarray, " m"]:
        """Probability that a null survey shows any node that stands out as much."""
        return -np.expm1(-self.expected)

    @cached_property
    def false_discoveries(self) -> Float64[np.ndarray, " m"]:
        """Expected share of false classes if all nodes that stand out at least as much were classes.

        After Benjamini & Hochberg 1995; of nodes inside each other only the innermost counts.
        """
        shares, order = np.empty(len(self.scores)), np.argsort(-self.scores, kind="stable")
        order = order[np.argsort(self.expected[order], kind="stable")]
        shares[order] = np.minimum(self.expected[order] / _innermost_so_far(self.tree.parents, order), 1.0)
        # A node that stands out more is never more doubtful than one that stands out less.
        shares[order] = np.minimum.accumulate(shares[order][::-1])[::-1]
        return shares

    @cached_property
    def choice(self) -> tuple[list[int], dict[int, int]]:
        """The nodes that are classes, and the group of each class that belongs together with others.

        A class is a node that stands out from null surveys. If such a node has others inside it, the rule decides
        whether the larger node or the nodes inside are the classes. ``level`` and ``largest`` are settings of
        :class:`Significance`; ``clear_lead``, ``far_lead``, ``made_up`` and ``most`` are thresholds of :class:`Rule`.
        In pseudo-code::

            for each node, children before their parents:
                inside = classes found inside the node so far
            1.  if false_discovery(node) > level:                 classes = inside
            2.  else if inside is empty:                          classes = {node}
                else:
                    lead  = score(node) − highest score of inside
                    parts = nodes of inside that are isolated within the node (see below)
            3.      if parts make up the node, lead <= far_lead:  classes = parts; the node is their group
            4.      else if inside makes up the node:             classes = {node} if lead >= 0 else inside
            5.      else:                                         classes = {node} if lead >= −clear_lead else inside
            the answer is what the root has

            false_discovery:        is 1 for a node of more than the share ``largest`` of the galaxies
            isolated within a node: has at most ``most`` of its galaxies, and null surveys are expected to show at most
                                    ``level`` groups that are isolated as much: those of 500 galaxies, or the large
                                    ones if the node has at least as many galaxies as these
            make up a node:         are two or more, and hold at least ``made_up`` of its galaxies

        Returns
        -------
        (list of int, dict of int to int)
            The classes, and the group of each class that has one, as numbers of nodes from 0 (the root).
        """
        significant = self.false_discoveries <= self.null.settings.level
        rule, sizes = self.null.rule, self.tree.sizes
        classes: list[list[int]] = [[] for _ in self.tree.parents]
        groups = []

        def make_up(node: int, parts: list[int]) -> bool:
            return len(parts) > 1 and bool(sizes[parts].sum() >= rule.made_up * sizes[node])

        for node in range(len(classes) - 1, -1, -1):
            inside = [inner for child in self.tree.children[node] for inner in classes[child]]
            if not significant[node]:
                classes[node] = inside
            elif not inside:
                classes[node] = [node]
            else:
                lead, parts = self.scores[node] - self.scores[inside].max(), self.isolated_parts(node, inside)
                if make_up(node, parts) and lead <= rule.far_lead:
                    classes[node] = parts
                    groups.append(node)
                else:
                    least_lead = 0 if make_up(node, inside) else -rule.clear_lead
                    classes[node] = [node] if lead >= least_lead else inside
        return classes[0], smallest_groups(self.tree, classes[0], groups)

    @property
    def nodes(self) -> list[int]:
        """The nodes that are classes, as the condensed tree numbers them; none of them holds another."""
        return sorted(self.galaxies + node for node in self.choice[0])

    def isolated_parts(self, node: int, inside: Sequence[int]) -> list[int]:
        """Return those of the nodes inside a node that are more isolated within it than null surveys of its size show.

        Neighbours outside the node are ignored, as if its galaxies were the whole survey. A node inside that holds
        more than ``Rule.most`` of the galaxies is no part. One part alone does not divide a node, so the list is
        empty if fewer than two nodes are small enough.
        """
        galaxies, sizes, most = int(self.tree.sizes[node]), self.tree.sizes, self.null.rule.most
        candidates = [inner for inner in inside if sizes[inner] <= most * galaxies]
        if len(candidates) < 2:
            return []
        null_nodes = self.null.whole if galaxies >= self.null.whole.galaxies else self.null.small
        isolations = self.tree.isolations_within(node, self.graph, of=candidates)
        scores = null_nodes.scores(isolations, sizes[candidates], galaxies=galaxies)
        scores = scores - self._own_excess(sizes[candidates])
        expected = null_nodes.expected(scores, galaxies=galaxies, largest=most)
        # So small an expected number is nearly the probability of at least one such group.
        most_expected = self.null.settings.level
        return [part for part, number in zip(candidates, expected, strict=True) if number <= most_expected]

    def columns(self, nodes: Int64[np.ndarray, " c"]) -> dict[str, list[Any]]:
        """Return the columns of the classes table that compare classes with null surveys.

        Parameters
        ----------
        nodes : (c,) array of integers
            Node of each class, as the condensed tree numbers them.
        """
        rows, groups = nodes - self.galaxies, self.choice[1]
        return {
            tables.ISOLATION: list(self.isolations[rows]),
            tables.SIGNIFICANCE: [None if np.isnan(score) else score for score in self.scores[rows]],
            tables.P_VALUE: list(self.p_values[rows]),
            tables.FALSE_DISCOVERY: list(self.false_discoveries[rows]),
            tables.GROUP: [groups[row] + self.galaxies if row in groups else None for row in rows.tolist()],
        }

    @cached_property
    def _raw_scores(self) -> Float64[np.ndarray, " m"]:
        return self.null.whole.scores(self.isolations, self.tree.sizes, galaxies=self.galaxies)

    def _own_excess(self, sizes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        grid, excess = self._own
        return np.interp(np.log(sizes), grid, excess)

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Log sizes, and by how many scatters the lower half of the survey's own nodes exceeds that of null nodes."""
        fit = self.null.whole.fit
        rare = np.flatnonzero(self.tree.sizes <= self.null.settings.largest * self.galaxies)
        if len(rare) < fit.nearest:
            return np.zeros(1), np.zeros(1)
        grid, windows = _windows(self.tree.sizes[rare], self._raw_scores[rare], fit)
        return grid, np.maximum(np.quantile(windows, 0.25, axis=1) + _QUARTILE, 0.0)


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


def null_model(
    features: Float32[np.ndarray, "n d"],
    compressor: Compressor,
    *,
    settings: Significance,
    tree_of: TreeBuilder,
    folder: Path | None = None,
    earlier: Path | None = None,
    untrained: Float[np.ndarray, "l D"] | None = None,
    seed: int = 0,
) -> NullModel:
    """Make the null surveys of a survey, compress them, and read their trees.

    Parameters
    ----------
    features : (n, d) array of floats
        What the compressor works on: whitened, if the search whitens.
    compressor : Compressor
        Of the search.
    settings : Significance
        How many null surveys, of which size and kind.
    tree_of : function
        Builds the tree of a map. It should resolve groups of every size, whatever the search itself does.
    folder : Path, optional
        Where the nodes of each null survey are kept as soon as they are known, so that a killed run continues.
    earlier : Path, optional
        Where some may lie already, made from the same features, compressor and seed.
    untrained : (l, D) array of floats, optional
        ``kind=store``: embeddings of a network that learnt nothing, from which null surveys are drawn, each of at
        most half of them.
    seed : int
        Seed of every random draw.

    Raises
    ------
    ConfigError
        There are fewer than 100 galaxies.
    OutputError
        The folder cannot be written.
    """
    source, compressor = (features, replace(compressor, whiten=0)) if untrained is None else (untrained, compressor)
    # Null surveys of all galaxies of a store would be one and the same survey.
    most = len(features) if untrained is None else min(len(features), len(untrained) // 2)
    if most < FEWEST:
        raise ConfigError(
            "too few galaxies for null surveys", value=most,
            fix=f"Search at least {FEWEST}, or choose significance.surveys=0 and clusterer.selection=leaf.",
        )  # fmt: skip
    whole, small = min(settings.galaxies, most), min(SMALL, most)
    sizes = tuple(dict.fromkeys((small, whole)))
    # Embeddings of an untrained network are taken as they are.
    components = (
        {size: matched_components(source, size, kind=settings.kind, seed=seed) for size in sizes}
        if untrained is None
        else {}
    )
    surveys: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    plan = [(size, number) for size in sizes for number in range(settings.surveys)]
    for size, number in tqdm(plan, desc="null surveys", unit="survey", leave=False):

        def nodes(size: int = size, number: int = number) -> np.ndarray:
            random = np.random.default_rng([seed, size, number])
            survey = source[np.sort(random.choice(len(source), size, replace=False))]
            if untrained is None:
                survey = null_survey(survey, kind=settings.kind, components=components[size], random=random)
            return _nodes(survey, compressor_for(compressor, size), tree_of, seed=seed + number)

        name = f"{settings.kind}-{components.get(size, 0):.2f}-{size}-{number:03d}.nodes.npy"
        known = earlier / name if earlier and (earlier / name).exists() else folder and folder / name
        surveys[size].append(kept_array(known, nodes))
    return NullModel(settings, NullNodes.of(whole, surveys[whole]), NullNodes.of(small, surveys[small]))


def null_survey(
    features: Float32[np.ndarray, "n d"], *, kind: str, random: np.random.Generator, components: float = np.inf
) -> Float32[np.ndarray, "n d"]:
    """Draw as many galaxies with the same spread along the first principal components, and nothing else of the survey.

    Parameters
    ----------
    features : (n, d) array of floats
        Of the survey.
    kind : {"gaussian", "permuted"}
        ``gaussian`` draws from a normal distribution of the same mean and covariance. ``permuted`` shuffles the
        scores of each component on its own, which keeps their distribution, outliers too.
    random : numpy.random.Generator
        Source of random numbers.
    components : float
        Principal components that are kept; of 3.4 three, and the fourth at 0.4 of its spread.
    """
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(values, rowvar=False).reshape(len(mean), -1))
    if kind == GAUSSIAN:
        scores = random.normal(size=values.shape) * np.sqrt(np.maximum(variances, 0))
    else:
        scores = random.permuted((values - mean) @ axes, axis=0)
    kept = np.clip(components - np.arange(len(mean)), 0, 1)[::-1]
    return ((scores * kept) @ axes.T + mean).astype(np.float32)


def matched_components(features: Float32[np.ndarray, "n d"], galaxies: int, *, kind: str, seed: int) -> float:
    """Return how many principal components give a null survey of some galaxies the local dimension of the real one."""
    random = np.random.default_rng([seed, galaxies])
    sample = features[np.sort(random.choice(len(features), min(galaxies, _MEASURED), replace=False))]
    wanted, fewest, most = local_dimension(sample), 1.0, float(features.shape[1])
    for _ in range(_BISECTIONS):
        middle = np.sqrt(fewest * most)
        drawn = null_survey(sample, kind=kind, components=middle, random=np.random.default_rng([seed, galaxies]))
        fewest, most = (middle, most) if local_dimension(drawn) < wanted else (fewest, middle)
    return float(most)


def compressor_for(compressor: Compressor, galaxies: int) -> Compressor:
    """Return the compressor for a small survey: its neighbours are a tenth of the galaxies at most."""
    neighbours = getattr(compressor, "n_neighbors", 0)
    return replace(compressor, **({"n_neighbors": galaxies // 10} if neighbours > galaxies // 10 else {}))


def _nodes(
    survey: Float[np.ndarray, "n d"], compressor: Compressor, tree_of: TreeBuilder, *, seed: int
) -> Float64[np.ndarray, "2 _"]:
    """Sizes and isolations of the nodes of a null survey's tree, without its root."""
    ids = np.char.zfill(np.arange(len(survey)).astype(str), len(str(len(survey))))
    fitted = compressor.fit(survey, ids=ids, seed=seed)
    tree = NodeTree.of(tree_of(fitted.positions))
    graph = NeighbourIndex(fitted.features(survey), seed=seed).graph(MOST_NEIGHBOURS)
    return np.stack([tree.sizes[1:], tree.isolations(graph)[1:]])


def _innermost_so_far(parents: Int64[np.ndarray, " m"], order: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Count, as nodes are taken in an order, those taken so far that hold no other node taken so far."""
    taken, holds = np.zeros(len(parents), dtype=bool), np.zeros(len(parents), dtype=bool)
    count, counts = 0, np.empty(len(parents), dtype=np.int64)
    for place, node in enumerate(order.tolist()):
        taken[node] = True
        count += not holds[node]
        around = parents[node]
        while around >= 0 and not holds[around]:
            holds[around] = True
            count -= bool(taken[around])
            around = parents[around]
        counts[place] = count
    return counts


def _logit(isolations: np.ndarray, sizes: np.ndarray) -> Float64[np.ndarray, " q"]:
    """Logit of isolations; finite where all or none of the neighbours are members."""
    compared = sizes * neighbours_compared(sizes)
    inside = isolations * compared
    return np.asarray(np.log((inside + 1) / (compared - inside + 1)))


def _windows(
    sizes: Int64[np.ndarray, " s"], values: Float64[np.ndarray, " s"], fit: NullFit
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, "steps near"]]:
    """Log sizes in even steps, and the values of the nodes nearest in size to each."""
    order = np.argsort(sizes, kind="stable")
    logs, near = np.log(sizes[order]), min(max(fit.nearest, len(sizes) // fit.one_in), len(sizes))
    grid = np.linspace(logs[0], logs[-1], fit.steps)
    starts = np.clip(np.searchsorted(logs, grid) - near // 2, 0, len(logs) - near)
    return grid, values[order][starts[:, None] + np.arange(near)]
