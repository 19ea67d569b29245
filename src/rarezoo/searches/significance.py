"""Is it a class, or what noise looks like? Structureless surveys, compressed and read as the real one is.

A structureless survey has no group in it. It has the real one's spread along its first principal components, and so
many of these that its local dimension is the real one's: an embedding of galaxies is a thin sheet in many dimensions,
and a clump of a sheet has fewer neighbours outside than one of a ball. Its map has clumps all the same; how isolated a
clump of each size is there (see :mod:`rarezoo.searches.isolation`) is what a class must exceed. Within a class the same
question decides whether its pieces are classes: it is a survey of its own size, and its pieces are held against the
clumps of structureless surveys of about that size.

Shape letters: n galaxies, d features, s nodes of structureless surveys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from tqdm import tqdm

from rarezoo import tables
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.quality import local_dimension
from rarezoo.errors import ConfigError
from rarezoo.searches.clusterers.fast_hdbscan import MOST_DIMENSIONS, FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compress import Compressor
from rarezoo.searches.condensed import CondensedTree, condensed
from rarezoo.searches.isolation import MOST_NEIGHBOURS, Nest, neighbours_asked
from rarezoo.settings import setting

STORE = "store"
KINDS = ("gaussian", "permuted", STORE)
# The tree of a structureless map is read this finely whatever the search does: clumps of every size, and more of them.
MIN_SAMPLES, MIN_CLUSTER_SIZE = 5, 10
# Galaxies of the structureless surveys that the pieces of a class are held against.
SMALL = 500
# Galaxies that local dimensions are measured on, at most, and steps by which they are matched.
_MEASURED, _HALVINGS = 2000, 9
# Fewer galaxies than this have no clumps to speak of.
FEWEST = 100
# Share of a survey beyond which a clump says nothing: it is most of the survey.
_MOST = 0.9
# Clumps near in size that tell what is usual; steps in size at which they are asked; least scatter (logit).
_NEAR, _STEPS, _LEAST_SCATTER = 25, 48, 0.12
# Share of the smaller of two surveys above which sizes are compared as shares of them, below as numbers.
_BULKY = 0.1
_MAD_TO_SIGMA = 1.4826
# Highest nodes per structureless survey that tell how the tail falls off (a tenth of all at most), and fewest that can.
_TAIL, _FITTED = 2, 10
_FEWEST_SURVEYS = _FITTED // _TAIL
# Scatters by which the only part must exceed the whole to be the class in its place: less is chance; and by which the
# whole must exceed all parts, isolated as they are, to be one class.
_CLEARLY, _BY_FAR = 1.5, 6.0
# Share of a node that its parts hold if they make it up.
_MOSTLY = 0.5
# By how many standard deviations the lower quartile of a normal distribution lies below its middle.
_QUARTER = 0.6745


@dataclass
class Significance:
    """How classes are held against noise; a setting of a search."""

    surveys: int = setting(20, "structureless surveys; 0 = significance is not measured", unit="surveys")
    galaxies: int = setting(4000, "of each, at most; more take longer and change little", unit="galaxies")
    kind: str = setting(
        "gaussian", "structureless by: gaussian, permuted (principal components, each shuffled), or store"
    )
    store: str = setting("", "kind=store: embeddings by a network that learnt nothing (train.shuffle_votes=true)")
    level: float = setting(0.05, "share of false classes to expect among those reported, at most")
    largest: float = setting(0.2, "share of the galaxies above which a group is not a rare class")

    def refuse(self) -> None:
        """Refuse nonsense before the long work.

        Raises:
            ConfigError: see the message.
        """
        if self.surveys and self.surveys < _FEWEST_SURVEYS:
            raise ConfigError(
                "significance.surveys", value=self.surveys, fix=f"Choose 0 (none) or at least {_FEWEST_SURVEYS}."
            )
        if self.galaxies < SMALL:
            raise ConfigError("significance.galaxies", value=self.galaxies, fix=f"Choose at least {SMALL}.")
        if self.kind not in KINDS:
            raise ConfigError("significance.kind", value=self.kind, fix=f"Choose {' or '.join(KINDS)}.")
        if (self.kind == STORE) != bool(self.store):
            raise ConfigError(
                f"significance.store with significance.kind={self.kind}", value=self.store or "no store",
                fix="Give both kind=store and the folder of an embedding store, or neither.",
            )  # fmt: skip
        for name in ("level", "largest"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"significance.{name}", value=getattr(self, name), fix="Choose between 0 and 1.")


@dataclass(frozen=True)
class Clumps:
    """Nodes of structureless surveys of one size.

    Attributes:
        made: structureless surveys, whether they have nodes or not.
        galaxies: in each survey.
        surveys: (s,) which survey a node is of, from 0.
        sizes: (s,) galaxies in each node.
        isolations: (s,) 0 to 1.
    """

    made: int
    galaxies: int
    surveys: Int64[np.ndarray, " s"]
    sizes: Int64[np.ndarray, " s"]
    isolations: Float64[np.ndarray, " s"]

    @cached_property
    def _usual(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sizes (log), and the median logit isolation and its upward scatter at each; NaN where there are no nodes."""
        if not len(self.sizes):
            return np.zeros(1), np.full(1, np.nan), np.ones(1)
        grid, windows = _windows(self.sizes, _logit(self.isolations, self.sizes))
        middle = np.median(windows, axis=1)
        above = [np.median(row[row >= one]) - one for row, one in zip(windows, middle, strict=True)]
        return grid, middle, np.maximum(_MAD_TO_SIGMA * np.array(above), _LEAST_SCATTER)

    def scores(
        self, isolations: Float[np.ndarray, " q"], sizes: Int64[np.ndarray, " q"], *, galaxies: int
    ) -> Float64[np.ndarray, " q"]:
        """By how many scatters nodes of a survey of so many galaxies exceed what is usual at their size.

        NaN if the structureless surveys have no nodes to compare them with.
        """
        grid, middle, scatter = self._usual
        at = np.log(self._alike(sizes, galaxies=galaxies))
        return (_logit(isolations, sizes) - np.interp(at, grid, middle)) / np.interp(at, grid, scatter)

    @cached_property
    def _own_scores(self) -> Float64[np.ndarray, " s"]:
        """Of each node, by what is usual in the other surveys: a real survey has no part in what is usual either."""
        scores = np.full(len(self.sizes), np.nan)
        for survey in np.unique(self.surveys):
            one, rest = self._only(self.surveys == survey), self._only(self.surveys != survey)
            scores[self.surveys == survey] = rest.scores(one.isolations, one.sizes, galaxies=self.galaxies)
        return scores

    def _only(self, those: Bool[np.ndarray, " s"]) -> "Clumps":
        return replace(
            self, surveys=self.surveys[those], sizes=self.sizes[those], isolations=self.isolations[those]
        )  # fmt: skip

    def _alike(self, sizes: Int64[np.ndarray, " q"], *, galaxies: int) -> Float64[np.ndarray, " q"]:
        """Sizes here that are like those in a survey of so many galaxies: as many while few, else the same share."""
        few = sizes <= _BULKY * min(galaxies, self.galaxies)
        shares = sizes * (self.galaxies / galaxies)
        return np.where(few, sizes, np.maximum(_BULKY * self.galaxies, shares)).astype(np.float64)

    def expected(self, scores: Float[np.ndarray, " q"], *, galaxies: int, largest: float) -> Float64[np.ndarray, " q"]:
        """How many nodes with such a score a structureless survey of so many galaxies shows.

        Nodes are counted as far as there are some; beyond, the excess over a high score falls off exponentially (as the
        tail of most distributions does) at a rate that is known as well as the highest few nodes tell it: what the next
        survey shows then follows Lomax's law. The number grows with the galaxies as that of nodes does. Where there are
        too few nodes to tell a rate, it is that of nodes at all, whatever the score.
        """
        highest = np.sort(self._own_scores[self.sizes <= largest * self.galaxies])[::-1]
        each = galaxies / self.galaxies / self.made
        tail = min(_TAIL * self.made, max(len(highest) // 10, _FITTED), len(highest) - 1)
        if tail < _FITTED:
            return np.full(len(scores), (len(highest) + 1) / (self.made + 1) * galaxies / self.galaxies)
        high = highest[tail]
        rate = max(float(np.mean(highest[:tail] - high)), _LEAST_SCATTER)
        above = np.maximum(np.asarray(scores) - high, 0)
        beyond = tail * np.exp(-tail * np.log1p(above / (tail * rate)))
        return np.where(scores > high, beyond, np.searchsorted(-highest, -np.asarray(scores), side="right")) * each


@dataclass(frozen=True)
class Noise:
    """What a survey's structureless likes show, at its own size (or as large as they were made) and at a class's."""

    settings: Significance
    whole: Clumps
    small: Clumps


@dataclass(frozen=True)
class Standing:
    """How the nodes of a survey's tree stand out.

    A real survey without any class may still be unlike its structureless likes: of fewer dimensions, say, so that every
    clump is more isolated. What most of its own nodes have in common is therefore no evidence: scores are counted from
    where the lower half of its own nodes of that size lie, if that is higher (Efron 2004 calls it the empirical null).

    Attributes:
        nest: the tree, m nodes.
        graph: (n, k) nearest neighbours in the space that was compressed.
        noise: what the survey's structureless likes show.
    """

    nest: Nest
    graph: Int32[np.ndarray, "n k"]
    noise: Noise

    @cached_property
    def isolations(self) -> Float64[np.ndarray, " m"]:
        """Of each node, 0 to 1."""
        return self.nest.isolations(self.graph)

    @cached_property
    def scores(self) -> Float64[np.ndarray, " m"]:
        """By how many scatters each node exceeds what is usual at its size, in noise and in the survey itself."""
        raw = self.noise.whole.scores(self.isolations, self.nest.sizes, galaxies=len(self.nest.home))
        return raw - self._shift(self.nest.sizes)

    @cached_property
    def expected(self) -> Float64[np.ndarray, " m"]:
        """How many nodes that stand out as much noise shows; infinitely many for nodes too large to be rare."""
        noise, rare = self.noise, self.nest.sizes <= self._largest
        told = noise.whole.expected(self.scores, galaxies=len(self.nest.home), largest=noise.settings.largest)
        return np.where(rare, told, np.inf)

    @cached_property
    def chances(self) -> Float64[np.ndarray, " m"]:
        """The chance that noise shows any node that stands out as much."""
        return -np.expm1(-self.expected)

    @cached_property
    def false_discoveries(self) -> Float64[np.ndarray, " m"]:
        """Share of false ones to expect among the classes, were all nodes classes that stand out at least as much.

        After Benjamini & Hochberg 1995; nodes that hold each other are counted once.
        """
        shares, order = np.empty(len(self.scores)), np.argsort(-self.scores, kind="stable")
        order = order[np.argsort(self.expected[order], kind="stable")]
        shares[order] = np.minimum(self.expected[order] / _apart_so_far(self.nest.above, order), 1.0)
        # A node that stands out more is never more doubtful than one that stands out less.
        shares[order] = np.minimum.accumulate(shares[order][::-1])[::-1]
        return shares

    def classes(self) -> tuple[list[int], dict[int, int]]:
        """The nodes that are classes, and for those that belong together the node that holds them all.

        From the smallest nodes up. Two or more classes that are isolated within a node and make it up are classes,
        and it is their group, unless it stands out by far more than each of them: then they are parts of one class.
        Otherwise a node that noise would not show replaces the classes below it, unless one of them stands out more
        than it does (and clearly more, if they are not two or more that make it up).
        """
        counts = self.false_discoveries <= self.noise.settings.level
        found: list[list[int]] = [[] for _ in self.nest.above]
        groups = []
        for node in range(len(found) - 1, -1, -1):
            inside = [one for child in self.nest.below[node] for one in found[child]]
            found[node] = inside
            if counts[node] and not inside:
                found[node] = [node]
            elif counts[node]:
                apart, lead = self._apart(node, inside), self.scores[node] - self.scores[inside].max()
                if self._make_up(node, apart) and lead <= _BY_FAR:
                    found[node] = apart
                    groups.append(node)
                elif lead >= (0 if self._make_up(node, inside) else -_CLEARLY):
                    found[node] = [node]
        return found[0], self._group_of(found[0], groups)

    def _group_of(self, classes: Sequence[int], groups: Sequence[int]) -> dict[int, int]:
        """The smallest group that each class shares with another; the groups given from the smallest up."""
        group_of: dict[int, int] = {}
        for group in groups:
            inside = set(self.nest.within(group)).intersection(classes)
            if len(inside) > 1:
                group_of.update({one: group for one in inside if one not in group_of})
        return group_of

    def _make_up(self, node: int, parts: list[int]) -> bool:
        """Whether two parts or more hold most of a node."""
        return len(parts) > 1 and bool(self.nest.sizes[parts].sum() >= _MOSTLY * self.nest.sizes[node])

    def _apart(self, node: int, inside: list[int]) -> list[int]:
        """Which of the classes inside a node are isolated within it, as if it were all there is."""
        galaxies, sizes = int(self.nest.sizes[node]), self.nest.sizes
        candidates = [one for one in inside if sizes[one] <= _MOST * galaxies]
        if len(candidates) < 2:
            return []
        clumps = self.noise.whole if galaxies >= self.noise.whole.galaxies else self.noise.small
        shares = self.nest.isolations_within(node, self.graph, of=candidates)
        scores = clumps.scores(shares, sizes[candidates], galaxies=galaxies) - self._shift(sizes[candidates])
        expected = clumps.expected(scores, galaxies=galaxies, largest=_MOST)
        return [one for one, false in zip(candidates, expected, strict=True) if false <= self.noise.settings.level]

    @cached_property
    def _largest(self) -> float:
        return self.noise.settings.largest * len(self.nest.home)

    def _shift(self, sizes: Int64[np.ndarray, " q"]) -> Float64[np.ndarray, " q"]:
        grid, shift = self._own
        return np.interp(np.log(sizes), grid, shift)

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes (log), and by how many scatters the survey's own lower half lies above that of noise."""
        counted = np.flatnonzero(self.nest.sizes <= self._largest)
        if len(counted) < _NEAR:
            return np.zeros(1), np.zeros(1)
        raw = self.noise.whole.scores(self.isolations, self.nest.sizes, galaxies=len(self.nest.home))
        grid, windows = _windows(self.nest.sizes[counted], raw[counted])
        return grid, np.maximum(np.quantile(windows, 0.25, axis=1) + _QUARTER, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What decides whether a node of a survey's tree is a class.

    Attributes:
        graph: (n, k) nearest neighbours in the space that was compressed.
        noise: what the survey's structureless likes show.
    """

    graph: Int32[np.ndarray, "n k"]
    noise: Noise

    def nodes(self, tree: CondensedTree) -> list[int]:
        """The tree's nodes that are classes, none of which holds another."""
        return sorted(tree.galaxies + one for one in self._standing(tree).classes()[0])

    def measures(self, tree: CondensedTree, nodes: Int64[np.ndarray, " c"]) -> dict[str, list[Any]]:
        """CLASSES' columns that tell classes from noise, for the classes that are these nodes of the tree."""
        standing, rows = self._standing(tree), nodes - tree.galaxies
        groups = standing.classes()[1]
        return {
            tables.ISOLATION: list(standing.isolations[rows]),
            tables.SIGNIFICANCE: [None if np.isnan(one) else one for one in standing.scores[rows]],
            tables.P_VALUE: list(standing.chances[rows]),
            tables.FALSE_DISCOVERY: list(standing.false_discoveries[rows]),
            tables.GROUP: [groups[row] + tree.galaxies if row in groups else None for row in rows.tolist()],
        }

    def _standing(self, tree: CondensedTree) -> Standing:
        return Standing(Nest.of(tree), self.graph, self.noise)


def noise_of(
    features: Float32[np.ndarray, "n d"],
    compressor: Compressor,
    *,
    settings: Significance,
    folder: Path | None = None,
    earlier: Path | None = None,
    likes: Float[np.ndarray, "l D"] | None = None,
    seed: int = 0,
) -> Noise:
    """Make the structureless likes of a survey, compress and read them.

    Args:
        features: what the compressor works on (whitened, if the search whitens).
        compressor: of the search.
        settings: how many, how large, which kind.
        folder: where each is kept when it is done, so that a killed run goes on; None keeps nothing.
        earlier: where some may lie already, made with the same features, compressor and seed.
        likes: kind=store: embeddings of a network that learnt nothing; half of its galaxies at most make a survey.
        seed: of every random draw.

    Raises:
        ConfigError: fewer galaxies than :data:`FEWEST`.
        OutputError: the folder cannot be written.
    """
    source, compressor = (features, replace(compressor, whiten=0)) if likes is None else (likes, compressor)
    # Surveys of all of a store's galaxies would be one and the same survey.
    most = len(features) if likes is None else min(len(features), len(likes) // 2)
    if most < FEWEST:
        raise ConfigError(
            "too few galaxies to tell a class from noise", value=most,
            fix=f"Search at least {FEWEST}, or choose significance.surveys=0 and clusterer.selection=leaf.",
        )  # fmt: skip
    whole, small = min(settings.galaxies, most), min(SMALL, most)
    sizes = tuple(dict.fromkeys((small, whole)))
    # A store's surveys are as they are.
    components = (
        {size: _components(source, size, kind=settings.kind, seed=seed) for size in sizes} if likes is None else {}
    )
    made: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    plan = [(size, survey) for size in sizes for survey in range(settings.surveys)]
    for size, survey in tqdm(plan, desc="structureless surveys", unit="survey", leave=False):
        name = f"{settings.kind}-{components.get(size, 0):.2f}-{size}-{survey:03d}.clumps.npy"
        known = next((one / name for one in (folder, earlier) if one and (one / name).exists()), None)
        if known is None:
            random = np.random.default_rng([seed, size, survey])
            noise = source[np.sort(random.choice(len(source), size, replace=False))]
            if likes is None:
                noise = structureless(noise, kind=settings.kind, components=components[size], random=random)
            nodes = _nodes(noise, _fitting(compressor, size), seed=seed + survey)
            _keep(nodes, folder and folder / name)
        else:
            nodes = np.load(known)
        made[size].append(nodes)
    return Noise(settings, _clumps(whole, made[whole]), _clumps(small, made[small]))


def structureless(
    features: Float32[np.ndarray, "n d"], *, kind: str, random: np.random.Generator, components: float = np.inf
) -> Float32[np.ndarray, "n d"]:
    """As many galaxies with the same spread along the first principal components, and nothing else of the survey.

    ``gaussian`` draws from a normal distribution of the same mean and covariance; ``permuted`` shuffles each
    component's scores on its own, which keeps its distribution, outliers too.

    Args:
        features: of the survey.
        kind: see above.
        random: where chance comes from.
        components: how many are kept; of 3.4 three, and the fourth at 0.4 of its spread.
    """
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(values, rowvar=False).reshape(len(mean), -1))
    if kind == "gaussian":
        scores = random.normal(size=values.shape) * np.sqrt(np.maximum(variances, 0))
    else:
        scores = random.permuted((values - mean) @ axes, axis=0)
    kept = np.clip(components - np.arange(len(mean)), 0, 1)[::-1]
    return ((scores * kept) @ axes.T + mean).astype(np.float32)


def _components(features: Float32[np.ndarray, "n d"], galaxies: int, *, kind: str, seed: int) -> float:
    """How many principal components a structureless survey keeps to have the real one's local dimension."""
    random = np.random.default_rng([seed, galaxies])
    some = features[np.sort(random.choice(len(features), min(galaxies, _MEASURED), replace=False))]
    sought, fewest, most = local_dimension(some), 1.0, float(features.shape[1])
    for _ in range(_HALVINGS):
        middle = np.sqrt(fewest * most)
        made = structureless(some, kind=kind, components=middle, random=np.random.default_rng([seed, galaxies]))
        fewest, most = (middle, most) if local_dimension(made) < sought else (fewest, middle)
    return float(most)


def _fitting(compressor: Compressor, galaxies: int) -> Compressor:
    """The compressor; its neighbours no more than a small survey has."""
    neighbours = getattr(compressor, "n_neighbors", 0)
    fewer = {"n_neighbors": galaxies // 10} if neighbours > galaxies // 10 else {}
    return replace(compressor, **fewer)


def _nodes(noise: Float32[np.ndarray, "n d"], compressor: Compressor, *, seed: int) -> Float64[np.ndarray, "2 s"]:
    """Sizes and isolations of the nodes of a structureless survey's tree but its root."""
    ids = np.char.zfill(np.arange(len(noise)).astype(str), len(str(len(noise))))
    fitted = compressor.fit(noise, ids=ids, seed=seed)
    clusterer = FastHdbscan if fitted.positions.shape[1] <= MOST_DIMENSIONS else Hdbscan
    linkage = clusterer(min_samples=MIN_SAMPLES).linkage(fitted.positions)
    nest = Nest.of(condensed(linkage, min_cluster_size=MIN_CLUSTER_SIZE))
    graph = NeighbourIndex(fitted.features(noise), seed=seed).graph(MOST_NEIGHBOURS)
    return np.stack([nest.sizes[1:], nest.isolations(graph)[1:]])


def _apart_so_far(above: Int64[np.ndarray, " m"], order: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """As nodes are taken in that order: how many of those taken hold no other that is."""
    taken, holds = np.zeros(len(above), dtype=bool), np.zeros(len(above), dtype=bool)
    count, counts = 0, np.empty(len(above), dtype=np.int64)
    for place, node in enumerate(order.tolist()):
        taken[node] = True
        count += not holds[node]
        around = above[node]
        while around >= 0 and not holds[around]:
            holds[around] = True
            count -= bool(taken[around])
            around = above[around]
        counts[place] = count
    return counts


def _keep(nodes: np.ndarray, place: Path | None) -> None:
    if place is None:
        return
    with tables.atomic(place) as temporary, temporary.open("wb") as stream:
        np.save(stream, nodes)


def _clumps(galaxies: int, surveys: list[np.ndarray]) -> Clumps:
    numbers = np.repeat(np.arange(len(surveys)), [one.shape[1] for one in surveys])
    sizes, isolations = np.concatenate(surveys, axis=1)
    return Clumps(len(surveys), galaxies, numbers, sizes.astype(np.int64), isolations)


def _logit(isolations: np.ndarray, sizes: np.ndarray) -> Float64[np.ndarray, " q"]:
    """Of a share among so many galaxies' neighbours; finite where all or none of them are members."""
    asked = sizes * neighbours_asked(sizes)
    inside = isolations * asked
    return np.asarray(np.log((inside + 1) / (asked - inside + 1)))


def _windows(
    sizes: Int64[np.ndarray, " s"], values: Float64[np.ndarray, " s"]
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, "steps near"]]:
    """Steps in size (log), and the values of the nodes nearest in size to each."""
    order = np.argsort(sizes, kind="stable")
    logs, near = np.log(sizes[order]), min(max(_NEAR, len(sizes) // 12), len(sizes))
    grid = np.linspace(logs[0], logs[-1], _STEPS)
    starts = np.clip(np.searchsorted(logs, grid) - near // 2, 0, len(logs) - near)
    return grid, values[order][starts[:, None] + np.arange(near)]
