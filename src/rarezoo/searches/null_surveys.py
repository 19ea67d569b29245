"""Null surveys: surveys without any group, and how much the groups of their trees stand apart.

A **null survey** has the spread of the real survey along its first principal components, and as many of these as give
it the local dimension of the real survey: an embedding of galaxies is a thin sheet in many dimensions, and a group in
a sheet has fewer neighbours outside than a group in a ball. A map of a null survey has groups all the same. How
isolated a group of each size is there (:mod:`rarezoo.searches.isolation`) is what a class must exceed.

Shape letters: n galaxies, d features, m nodes of a tree, s nodes of all null surveys, q nodes in question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from tqdm import tqdm

from rarezoo.cache import kept_array
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.quality import local_dimension
from rarezoo.errors import ConfigError
from rarezoo.searches.compress import Compressor
from rarezoo.searches.condensed import CondensedTree
from rarezoo.searches.isolation import MOST_NEIGHBOURS, NodeTree, neighbours_compared

GAUSSIAN, PERMUTED, STORE = "gaussian", "permuted", "store"
# Fewer galaxies than this give no groups that could be compared.
FEWEST = 100
# Galaxies on which a local dimension is measured, at most, and bisections by which it is matched.
_MEASURED, _BISECTIONS = 2000, 9
# Scores between which a threshold is sought, and bisections.
_SCORES, _BISECTIONS_OF_SCORE = (-10.0, 1e4), 60
# Standard deviations per median absolute deviation of a normal distribution.
_MAD_TO_SIGMA = 1.4826

# Builds the condensed tree of the map of a null survey: (galaxies, dimensions) → tree.
TreeBuilder = Callable[[np.ndarray], CondensedTree]


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
class NullSurveys:
    """The nodes of the trees of null surveys, and what isolation is usual among them.

    Attributes
    ----------
    count : int
        Number of null surveys, with nodes or without.
    galaxies : int
        Galaxies in each.
    surveys : (s,) array of integers
        The survey of each node, from 0.
    parents : (s,) array of integers
        The node around each node; −1 if there is none but the root, which holds all galaxies and is left out.
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
    parents: Int64[np.ndarray, " s"]
    sizes: Int64[np.ndarray, " s"]
    isolations: Float64[np.ndarray, " s"]
    fit: NullFit = NullFit()

    @classmethod
    def of(cls, galaxies: int, surveys: Sequence[Float64[np.ndarray, "3 _"]]) -> "NullSurveys":
        """Join the nodes of several null surveys, given as rows of parents, sizes and isolations."""
        counts = [nodes.shape[1] for nodes in surveys]
        numbers = np.repeat(np.arange(len(surveys)), counts)
        parents, sizes, isolations = np.concatenate(surveys, axis=1)
        first = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
        joined = np.where(parents >= 0, parents + first, -1).astype(np.int64)
        return cls(len(surveys), galaxies, numbers, joined, sizes.astype(np.int64), isolations)

    @cached_property
    def _usual(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log sizes, and the median and upward scatter of the logit isolation at each; NaN where no node exists."""
        if not len(self.sizes):
            return np.zeros(1), np.full(1, np.nan), np.ones(1)
        grid, near = windows(self.sizes, logit_isolations(self.isolations, self.sizes), self.fit)
        median = np.median(near, axis=1)
        above = [np.median(row[row >= middle]) - middle for row, middle in zip(near, median, strict=True)]
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
        usual, scatter = self.usual(sizes, galaxies=galaxies)
        return (logit_isolations(isolations, sizes) - usual) / scatter

    def usual(
        self, sizes: Int64[np.ndarray, " q"], *, galaxies: int
    ) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
        """Return the median logit isolation of null nodes of given sizes in a survey, and their scatter upwards.

        Small nodes are compared with null nodes of as many galaxies, large ones with null nodes of the same share of
        their survey. NaN if the null surveys have no nodes.
        """
        grid, median, scatter = self._usual
        few = sizes <= self.fit.bulky * min(galaxies, self.galaxies)
        shares = np.maximum(self.fit.bulky * self.galaxies, sizes * (self.galaxies / galaxies))
        at = np.log(np.where(few, sizes, shares).astype(np.float64))
        return np.interp(at, grid, median), np.interp(at, grid, scatter)

    @cached_property
    def own_scores(self) -> Float64[np.ndarray, " s"]:
        """Score of each null node by what is usual in the other null surveys, as a real survey is scored."""
        scores = np.full(len(self.sizes), np.nan)
        for number in np.unique(self.surveys):
            inside = self.surveys == number
            survey, others = self._only(inside), self._only(~inside)
            scores[inside] = others.scores(survey.isolations, survey.sizes, galaxies=self.galaxies)
        return scores

    def _only(self, chosen: Bool[np.ndarray, " s"]) -> "NullSurveys":
        """Return the nodes of some surveys."""
        number = np.cumsum(chosen) - 1
        parents = np.where(self.parents[chosen] >= 0, number[self.parents[chosen]], -1)
        return replace(
            self, surveys=self.surveys[chosen], parents=parents, sizes=self.sizes[chosen],
            isolations=self.isolations[chosen],
        )  # fmt: skip

    def candidates(self, shares: tuple[float, float]) -> Int64[np.ndarray, " chosen"]:
        """Return the rows of the candidates of all null surveys, chosen as those of a real survey are.

        Parameters
        ----------
        shares : (float, float)
            Candidates hold more than the first and at most the second share of the galaxies.
        """
        smallest, largest = (share * self.galaxies for share in shares)
        return best_nodes(self.parents, self.own_scores, (self.sizes > smallest) & (self.sizes <= largest))

    def expected(
        self, scores: Float[np.ndarray, " q"], *, galaxies: int, shares: tuple[float, float]
    ) -> Float64[np.ndarray, " q"]:
        """Return how many candidates with at least each score one null survey is expected to show.

        The candidates of null surveys (:meth:`candidates`) are counted as far as there are some. Beyond, the excess
        over a high score falls off exponentially, as the tail of most distributions does. The rate is known only as
        well as the highest few candidates show it; averaged over that uncertainty the number follows Lomax's law. The
        number grows with the galaxies, as that of nodes does. Where there are too few candidates to estimate a rate,
        it is the number of all of them, whatever the score.

        Parameters
        ----------
        scores : (q,) array of floats
            Of nodes of another survey.
        galaxies : int
            Galaxies in that survey.
        shares : (float, float)
            Candidates hold more than the first and at most the second share of the galaxies.
        """
        highest = np.sort(self.own_scores[self.candidates(shares)])[::-1]
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

    def threshold(self, number: float, *, galaxies: int, shares: tuple[float, float]) -> float:
        """Return the lowest score that one null survey is expected to show at most ``number`` times; infinity for none.

        It is found by bisection, because :meth:`expected` falls with the score. The other arguments are those of that
        method.
        """
        low, high = _SCORES

        def few(score: float) -> bool:
            return bool(self.expected(np.array([score]), galaxies=galaxies, shares=shares)[0] <= number)

        if not few(high):
            return np.inf
        for _ in range(_BISECTIONS_OF_SCORE):
            middle = (low + high) / 2
            low, high = (low, middle) if few(middle) else (middle, high)
        return high


def best_nodes(
    parents: Int64[np.ndarray, " m"], scores: Float64[np.ndarray, " m"], allowed: Bool[np.ndarray, " m"]
) -> Int64[np.ndarray, " chosen"]:
    """Return the nodes that have the highest score on their branch; none of them holds another.

    The node with the highest score is chosen; all nodes that hold it or lie in it are left out; and so on, until no
    node is left. In other words: a node is chosen if no node inside it has a higher score, and no node around it is
    chosen. Of equal scores the outer node is chosen.

    Parameters
    ----------
    parents : (m,) array of integers
        The node around each node, −1 for none; a node comes before those inside it.
    scores : (m,) array of floats
        NaN counts as the lowest score.
    allowed : (m,) array of bool
        Whether a node may be chosen.

    Examples
    --------
    The first node holds the others. It gives way to the better of these two, and the other one is chosen too:

    >>> best_nodes(np.array([-1, 0, 0]), np.array([2.0, 3.0, 1.0]), np.array([True, True, True]))
    array([1, 2])
    >>> best_nodes(np.array([-1, 0, 0]), np.array([4.0, 3.0, 1.0]), np.array([True, True, True]))
    array([0])
    """
    values = np.where(allowed, np.nan_to_num(scores, nan=-np.inf), -np.inf)
    highest_inside = np.full(len(parents), -np.inf)
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            highest = max(values[node], highest_inside[node])
            highest_inside[parents[node]] = max(highest_inside[parents[node]], highest)
    wins = allowed & (values >= highest_inside)
    below_chosen = np.zeros(len(parents), dtype=bool)
    for node in range(len(parents)):
        around = parents[node]
        below_chosen[node] = around >= 0 and (below_chosen[around] or wins[around])
    return np.flatnonzero(wins & ~below_chosen)


def null_surveys(
    features: Float32[np.ndarray, "n d"],
    compressor: Compressor,
    *,
    count: int,
    galaxies: int,
    kind: str = GAUSSIAN,
    tree_of: TreeBuilder,
    folder: Path | None = None,
    earlier: Path | None = None,
    untrained: Float[np.ndarray, "l D"] | None = None,
    seed: int = 0,
) -> NullSurveys:
    """Make the null surveys of a survey, compress them, and read their trees.

    Parameters
    ----------
    features : (n, d) array of floats
        What the compressor works on: whitened, if the search whitens.
    compressor : Compressor
        Of the search.
    count : int
        How many null surveys.
    galaxies : int
        Largest number of galaxies in each.
    kind : {"gaussian", "permuted", "store"}
        How they are made: see :func:`null_survey`; with ``store`` they are drawn from ``untrained``.
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
    size = min(galaxies, most)
    # Embeddings of an untrained network are taken as they are.
    components = matched_components(source, size, kind=kind, seed=seed) if untrained is None else 0.0
    surveys = []
    for number in tqdm(range(count), desc="null surveys", unit="survey", leave=False):

        def nodes(number: int = number) -> np.ndarray:
            random = np.random.default_rng([seed, size, number])
            survey = source[np.sort(random.choice(len(source), size, replace=False))]
            if untrained is None:
                survey = null_survey(survey, kind=kind, components=components, random=random)
            return _nodes(survey, compressor_for(compressor, size), tree_of, seed=seed + number)

        name = f"{kind}-{components:.2f}-{size}-{number:03d}.tree.npy"
        known = earlier / name if earlier and (earlier / name).exists() else folder and folder / name
        surveys.append(kept_array(known, nodes))
    return NullSurveys.of(size, surveys)


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
) -> Float64[np.ndarray, "3 _"]:
    """Parents, sizes and isolations of the nodes of a null survey's tree, without its root."""
    ids = np.char.zfill(np.arange(len(survey)).astype(str), len(str(len(survey))))
    fitted = compressor.fit(survey, ids=ids, seed=seed)
    tree = NodeTree.of(tree_of(fitted.positions))
    graph = NeighbourIndex(fitted.features(survey), seed=seed).graph(MOST_NEIGHBOURS)
    # Without the root every node has a number one lower; −1 stands for the root.
    return np.stack([tree.parents[1:] - 1, tree.sizes[1:], tree.isolations(graph)[1:]])


def logit_isolations(isolations: Float[np.ndarray, " q"], sizes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
    """Return the logit of isolations; finite where all or none of the neighbours are members.

    >>> logit_isolations(np.array([0.5, 1.0]), np.array([20, 20])).round(2)
    array([0.  , 5.71])
    """
    compared = sizes * neighbours_compared(sizes)
    inside = isolations * compared
    return np.asarray(np.log((inside + 1) / (compared - inside + 1)))


def windows(
    sizes: Int64[np.ndarray, " s"], values: Float64[np.ndarray, " s"], fit: NullFit
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, "steps near"]]:
    """Log sizes in even steps, and the values of the nodes nearest in size to each."""
    order = np.argsort(sizes, kind="stable")
    logs, near = np.log(sizes[order]), min(max(fit.nearest, len(sizes) // fit.one_in), len(sizes))
    grid = np.linspace(logs[0], logs[-1], fit.steps)
    starts = np.clip(np.searchsorted(logs, grid) - near // 2, 0, len(logs) - near)
    return grid, values[order][starts[:, None] + np.arange(near)]
