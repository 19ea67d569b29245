"""``python -m benchmarks paper``: claims of Walmsley & Scaife (2023) about their search, tested on known answers.

The data are planted vectors or, with ``checkpoint=``, mock galaxies with planted populations, embedded by a network.

They say that a map of fifteen dimensions gives worse classes than one of five, that densMAP smooths further, and that
no single λ or ε selects small classes without splitting or swallowing large ones. The paper gives no numbers for these
claims, so each is turned into a number here: a mean over independent skies with Student's 95 % interval. A claim agrees
or disagrees only if the whole interval does.

- **15-D worse**: *recovery*, the mean over planted classes of the best Jaccard with a class found, of the search in
  fifteen dimensions less that in five. Agrees below 0. Beside it *false classes*, of which no planted class makes up
  more than half. Agrees above 0.
- **densMAP smoother**: number of classes, densMAP less UMAP; agrees below 0. Logarithm of the ratio of the median sizes
  of the classes; agrees above 0.
- **No single threshold**: a planted class is *found* by a labelling when one class is mostly made of it and holds most
  of it (:mod:`rarezoo.searches.recovery`), and *reachable* when it is found at one of the 60 thresholds tried. Small
  classes are the smaller half of those planted. *Large classes lost*: reachable large classes that are not found at the
  threshold that finds most small ones (of several such, the one that loses fewest). *Shortfall*: reachable classes of
  any size less those that the best single threshold finds. Both agree above one half: between no class and one. A lost
  class is *split* (several classes are mostly made of it), *swallowed* (a class that is mostly something else holds
  most of it), or *dissolved*.

All searches are umap-learn's and hdbscan's, 50 neighbours, leaf selection, smallest class 10, as in the paper;
``min_samples`` is scaled to the size of the skies. n: galaxies. p: planted classes. b: classes found.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int, Int64
from tqdm.auto import tqdm

from rarezoo import __version__, tables
from rarezoo.benchmark.planted import GENERATION, planted_vectors
from rarezoo.benchmark.tiers import MockGalaxies
from rarezoo.searches.cluster import LAMBDA, Clusterer
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.umap import Umap
from rarezoo.searches.matching import ClassOverlap
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval, Recovery, students_interval

# The paper's (Walmsley & Scaife 2023).
_NEIGHBORS, _MIN_CLASS = 50, 10
_MAPS = {"5-D": Umap(n_components=5), "15-D": Umap(n_components=15), "densMAP": Umap(n_components=5, densmap=True)}
_THRESHOLDS = 60
_LEAF, _EPSILON = "leaf", "epsilon"
SPLIT, SWALLOWED, DISSOLVED = "split", "swallowed", "dissolved"
_FEWEST = 1000
# Largest size of a planted class, and its largest share of all galaxies.
_LARGEST, _ONE_IN = 2000, 15
# Half a class: the middle between no class and one class.
_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class SkySettings:
    """Settings that define the skies and the search on them.

    Attributes
    ----------
    galaxies
        Number of galaxies in each sky.
    planted
        Number of classes in each sky, of 20 galaxies up to a fifteenth of all galaxies or 2,000; together at most half
        of a sky.
    min_samples
        min_samples of HDBSCAN.
    checkpoint
        Checkpoint that embeds mock galaxies with planted populations; empty: planted vectors.
    """

    galaxies: int
    planted: int
    min_samples: int
    checkpoint: str = ""


class Found(NamedTuple):
    """What became of the planted classes in a labelling.

    Attributes
    ----------
    whole
        (p,) whether a planted class is found.
    fates
        (p,) "found", or what became of the planted class: split, swallowed or dissolved.
    recovery
        Mean best Jaccard index, 0–1.
    false
        Number of classes of which no planted class makes up more than half.
    sizes
        (b,) sizes of the classes.
    """

    whole: Bool[np.ndarray, " p"]
    fates: tuple[str, ...]
    recovery: float
    false: int
    sizes: Int[np.ndarray, " b"]


def found(populations: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Found:
    """Return what a labelling (n,), −1 for none, finds of the planted classes (n,), −1 for the bulk."""
    comparison = ClassOverlap.of_labels(populations, labels)
    recovery = Recovery.of(comparison.counts, populations=comparison.old_sizes, classes=comparison.new_sizes)
    whole, pieces, swallowed = recovery.found, recovery.pure.sum(axis=1), recovery.complete.any(axis=1)
    fates = tuple(
        "found" if ok else SPLIT if parts > 1 else SWALLOWED if inside else DISSOLVED
        for ok, parts, inside in zip(whole.tolist(), pieces.tolist(), np.atleast_1d(swallowed).tolist(), strict=True)
    )
    false = int((~recovery.pure.any(axis=0)).sum())
    inside = labels[labels != tables.NO_CLASS]
    return Found(whole, fates, float(comparison.best.mean()), false, np.unique(inside, return_counts=True)[1])


class Single(NamedTuple):
    """What single thresholds of one kind can find of the classes of one sky.

    Attributes
    ----------
    small
        Number of small planted classes that are found at the threshold that finds most of them.
    lost
        Number of reachable large classes that are not found at this threshold, by what became of them.
    shortfall
        Number of reachable classes minus the number that the best threshold finds.
    reachable
        Number of classes that are found at any threshold.
    """

    small: int
    lost: Counter[str]
    shortfall: int
    reachable: int


def single_threshold(results: Sequence[Found], *, small: Bool[np.ndarray, " p"]) -> Single:
    """Summarise what each threshold finds, given which planted classes are small."""
    whole = np.array([labelling.whole for labelling in results])
    reachable = whole.any(axis=0)
    lost = reachable & ~small & ~whole
    best = min(range(len(results)), key=lambda at: (-int(whole[at, small].sum()), int(lost[at].sum())))
    fates = Counter(results[best].fates[at] for at in np.flatnonzero(lost[best]))
    shortfall = int(reachable.sum() - whole.sum(axis=1).max())
    return Single(int(whole[best, small].sum()), fates, shortfall, int(reachable.sum()))


def thresholds(linkage: pa.Table) -> np.ndarray:
    """Return map distances (60,) to cut at, evenly spaced in the logarithm between the shortest and longest merge."""
    distances = linkage.column(tables.DISTANCE).to_numpy()
    return np.geomspace(distances[distances > 0].min(), distances.max(), _THRESHOLDS)


def swept(clusterer: Clusterer, linkage: pa.Table, *, kind: str) -> Iterator[np.ndarray]:
    """Return the labels at every threshold: λ = 1 / distance, or ε = distance."""
    for distance in thresholds(linkage).tolist():
        cut = {"selection": LAMBDA, "threshold": 1 / distance} if kind == LAMBDA else {"epsilon": distance}
        yield replace(clusterer, **cut).classes(linkage).labels


class Sky(NamedTuple):
    """Embeddings (n, D), and the planted class (n,) of each, from 0; −1 for the bulk."""

    embeddings: Float32[np.ndarray, "n D"]
    groups: Int64[np.ndarray, " n"]


def sky_of(settings: SkySettings, *, seed: int, folder: Path) -> Sky:
    """Return planted vectors, or mock galaxies embedded by a network, which are kept in the folder."""
    if not settings.checkpoint:
        largest = min(_LARGEST, settings.galaxies // _ONE_IN)
        planted = planted_vectors(seed, galaxies=settings.galaxies, groups=settings.planted, largest=largest)
        return Sky(planted.embeddings, planted.groups)
    tier = MockGalaxies(galaxies=settings.galaxies, checkpoint=settings.checkpoint)
    # What another generator drew and a network saw stays beside it, and is not taken for this sky.
    seen = tier.sky(seed, folder / f"sky{seed}.{tier.generation}")
    members = seen.truth.members
    return Sky(seen.embeddings, np.where(members.any(axis=1), members.argmax(axis=1), -1))


def measured_sky(sky: Sky, settings: SkySettings, *, seed: int) -> dict[str, float]:
    """Return every measure of one sky."""
    ids = np.array([f"{row:06d}" for row in range(len(sky.embeddings))])
    clusterer = Hdbscan(min_samples=settings.min_samples, min_cluster_size=_MIN_CLASS)
    results, linkages = {}, {}
    for name, compressor in _MAPS.items():
        positions = replace(compressor, n_neighbors=_NEIGHBORS).fit(sky.embeddings, ids=ids, seed=seed).positions
        linkages[name] = clusterer.linkage(positions)
        results[name] = found(sky.groups, clusterer.classes(linkages[name], ids=ids).labels)
    sizes = np.bincount(sky.groups[sky.groups >= 0])
    small = np.argsort(np.argsort(sizes, kind="stable")) < len(sizes) // 2
    singles = {
        kind: single_threshold(
            [found(sky.groups, labels) for labels in swept(clusterer, linkages["5-D"], kind=kind)], small=small
        )
        for kind in (LAMBDA, _EPSILON)
    }
    return {**_map_measures(results), **_threshold_measures(singles)}


def _map_measures(results: Mapping[str, Found]) -> dict[str, float]:
    return {
        f"{name} {measure}": value
        for name, labelling in results.items()
        for measure, value in (
            ("recovery", labelling.recovery), ("found", float(labelling.whole.sum())),
            ("false", float(labelling.false)),
            ("classes", float(len(labelling.sizes))),
            ("size", float(np.median(labelling.sizes)) if len(labelling.sizes) else np.nan),
        )
    }  # fmt: skip


def _threshold_measures(singles: Mapping[str, Single]) -> dict[str, float]:
    return {
        f"{kind} {measure}": float(value)
        for kind, single in singles.items()
        for measure, value in (
            ("small", single.small), ("lost", single.lost.total()), ("shortfall", single.shortfall),
            ("reachable", single.reachable), *((fate, single.lost[fate]) for fate in (SPLIT, SWALLOWED, DISSOLVED)),
        )
    }  # fmt: skip


class Finding(NamedTuple):
    """The number that tests a claim.

    Attributes
    ----------
    claim
        The claim, in short.
    measure
        What was measured; see the top of the module.
    value
        Its mean over skies with the interval.
    verdict
        agrees, disagrees or undecided.
    beside
        The numbers from which it was computed, as text.
    """

    claim: str
    measure: str
    value: Interval
    verdict: str
    beside: str

    def __str__(self) -> str:
        return f"{self.claim} | {self.measure}: {self.value.text('.4g')} → {self.verdict} ({self.beside})"


def verdict(value: Interval, *, above: float = -np.inf, below: float = np.inf) -> str:
    """Return whether a claim that a value is above (or below) a bound holds on the whole interval."""
    if value.low > above and value.high < below:
        return "agrees"
    return "disagrees" if value.high < above or value.low > below else "undecided"


def findings(skies: Sequence[Mapping[str, float]]) -> list[Finding]:
    """Test every claim with the measures of the skies."""
    of = {name: np.array([sky[name] for sky in skies]) for name in skies[0]}
    recovery, false = (students_interval(of[f"15-D {name}"] - of[f"5-D {name}"]) for name in ("recovery", "false"))
    fewer = students_interval(of["densMAP classes"] - of["5-D classes"])
    larger = students_interval(np.log(of["densMAP size"] / of["5-D size"]))
    worse, smoother = "15-D worse than 5-D", "densMAP smoother than UMAP"
    return [
        Finding(worse, "recovery, difference", recovery, verdict(recovery, below=0), _both(of, "recovery", "15-D")),
        Finding(worse, "false classes, difference", false, verdict(false, above=0), _both(of, "false", "15-D")),
        Finding(smoother, "classes, difference", fewer, verdict(fewer, below=0), _both(of, "classes", "densMAP")),
        Finding(smoother, "ln of the ratio of median sizes", larger, verdict(larger, above=0),
                _both(of, "size", "densMAP")),
        *_threshold_findings(of),
    ]  # fmt: skip


def _both(of: Mapping[str, np.ndarray], name: str, other: str) -> str:
    five, second = (students_interval(of[f"{kind} {name}"]).text(".4g") for kind in ("5-D", other))
    return f"5-D UMAP {five}; {other} {second}"


def _threshold_findings(of: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    for kind in (LAMBDA, _EPSILON):
        lost, shortfall = (students_interval(of[f"{kind} {name}"]) for name in ("lost", "shortfall"))
        mean = {name: of[f"{kind} {name}"].mean() for name in ("small", "reachable", SPLIT, SWALLOWED, DISSOLVED)}
        claim = f"no single {kind}"
        fates = ", ".join(f"{mean[fate]:.3g} {fate}" for fate in (SPLIT, SWALLOWED, DISSOLVED))
        beside = f"where it finds {mean['small']:.3g} small ones; {fates}"
        yield Finding(claim, "large classes lost", lost, verdict(lost, above=_HALF), beside)
        leaf = of["5-D found"].mean()
        beside = f"{mean['reachable']:.3g} reachable; leaf selection finds {leaf:.3g}"
        yield Finding(claim, "shortfall", shortfall, verdict(shortfall, above=_HALF), beside)


@dataclass(kw_only=True)
class PaperClaims(Settings):
    """The claims of Walmsley & Scaife (2023) about their own search, on data whose answers are known."""

    galaxies: int = setting(6000, "number of galaxies in each sky", unit="galaxies", ge=_FEWEST)
    skies: int = setting(5, "number of independent skies", ge=3)
    planted: int = setting(12, "number of planted classes in each sky", ge=2)
    min_samples: int = setting(
        20, "min_samples of HDBSCAN; the paper uses 300 for 632,000", unit="galaxies", ge=1, lt=_FEWEST
    )
    checkpoint: str = setting(
        "", "checkpoint that embeds mock galaxies with planted populations; empty: planted vectors are used"
    )
    out: str = setting("runs/benchmark_paper", "folder of the results")

    def run(self) -> str:
        """Measure the skies that have not been measured, write the results, and return one line per claim."""
        settings = SkySettings(
            galaxies=self.galaxies, planted=self.planted, min_samples=self.min_samples, checkpoint=self.checkpoint
        )
        folder = Path(self.out)
        skies = [_measured(settings, seed=seed, folder=folder) for seed in tqdm(range(self.skies), unit="sky")]
        results = findings(skies)
        rows = [{**finding._asdict(), "value": finding.value._asdict()} for finding in results]
        tables.write_json({"settings": vars(settings), "skies": skies, "findings": rows}, folder / "paper.json")
        return "\n".join(map(str, results))


def _measured(settings: SkySettings, *, seed: int, folder: Path) -> dict[str, float]:
    """Return the measures of one sky, from a file if an earlier call measured it."""
    generation = MockGalaxies().generation if settings.checkpoint else GENERATION
    made_with = {**vars(settings), "version": __version__, "generation": generation}
    planted = f"mock.{Path(settings.checkpoint).name}" if settings.checkpoint else f"planted{settings.planted}"
    name = f"n{settings.galaxies}.{planted}.samples{settings.min_samples}.sky{seed}.json"
    if (folder / name).exists():
        kept = json.loads((folder / name).read_text())
        if kept["made_with"] == made_with:
            return {key: np.nan if value is None else value for key, value in kept["measures"].items()}
    measures = measured_sky(sky_of(settings, seed=seed, folder=folder), settings, seed=seed)
    tables.write_json({"made_with": made_with, "measures": measures}, folder / name)
    return measures
