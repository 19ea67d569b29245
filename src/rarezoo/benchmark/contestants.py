"""Who takes part in ``rarezoo benchmark classes``: each contestant is one file, conf/contestant/NAME.yaml.

``kind`` in the file names one of :data:`KINDS`; the rest are its settings, ``compress`` and ``clusterer`` with their
``option``. Contestants that ask for the same map of the same galaxies share it.

Shape letters: n galaxies, D features, k dimensions of a map, c classes, w galaxies in a gallery row.
"""

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float32, Float64, Int32, Int64

from rarezoo import tables
from rarezoo.benchmark.scores import NOBODY, ROW_WIDTH
from rarezoo.cache import Cache
from rarezoo.embeddings.neighbours import NeighbourIndex, unit_vectors
from rarezoo.errors import ConfigError
from rarezoo.runs import digest, fingerprint
from rarezoo.searches.classes import nearest_to_medoid
from rarezoo.searches.cluster import ISOLATED, Clusterer
from rarezoo.searches.compress import Compressor
from rarezoo.searches.condensed import condensed
from rarezoo.searches.isolation import MOST_NEIGHBOURS
from rarezoo.searches.significance import Evidence, Significance, noise_of
from rarezoo.settings import choice, name_of, setting

FEATURES = ("embedding", "native", "untrained", "shuffled", "photometry")
_MAP = "map.npz"
Features = Float32[np.ndarray, "n D"]


@dataclass(frozen=True)
class Entry:
    """What a contestant hands in.

    Attributes:
        labels: (n,) class of each galaxy from 0, −1 for none; all −1 for a ranking.
        rows: (r, w) its gallery from the top: galaxies of one class in each row, or a ranking's next ones; −1: empty.
        spared: seconds of work that another contestant's map saved it.
    """

    labels: Int32[np.ndarray, " n"]
    rows: Int32[np.ndarray, "r w"]
    spared: float = 0.0


@dataclass(kw_only=True)
class Contestant(ABC):
    """One way from features to classes, or to a ranking of galaxies."""

    about: str = setting("", "one line for the table")
    features: str = setting(FEATURES[0], f"what it works on: {', '.join(FEATURES)}")

    @abstractmethod
    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """Classes or a ranking of n galaxies.

        Args:
            features: (n, D).
            seed: of every random draw.
            shelf: folder of maps that contestants share.
        """

    def settings(self) -> dict[str, Any]:
        """What makes it this contestant."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"kind": _kind_of(self)} | {
            name: {"option": name_of(type(part)), **asdict(part)} if isinstance(part, (Compressor, Clusterer)) else part
            for name, part in parts.items()
        }


@dataclass(kw_only=True)
class Search(Contestant):
    """A search of ours: a map, its tree, the classes; with ``selection=isolated`` held against noise."""

    compress: Compressor
    clusterer: Clusterer
    surveys: int = setting(20, "structureless surveys, for selection=isolated", unit="surveys")
    noise: str = setting("gaussian", "significance.kind of these surveys")
    galaxies: int = setting(4000, "of each, at most", unit="galaxies")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """The strongest classes first: by significance where there is one, else by persistence."""
        positions, spared = shared_map(self.compress, features, seed=seed, shelf=shelf)
        linkage, ids = self.clusterer.linkage(positions), names(len(features))
        if self.clusterer.selection != ISOLATED:
            clustering = self.clusterer.classes(linkage, ids=ids)
            return Entry(clustering.labels, gallery(clustering.labels, features, clustering.persistences), spared)
        seen = whitened_by(self.compress, features)
        folder = shelf / f"noise-{digest(self._noise_key(seen, seed))[:16]}"
        held_against = Significance(surveys=self.surveys, galaxies=self.galaxies, kind=self.noise)
        held_against.refuse()
        noise = noise_of(seen, self.compress, settings=held_against, folder=folder, seed=seed)
        evidence = Evidence(NeighbourIndex(seen, seed=seed).graph(MOST_NEIGHBOURS), noise)
        clustering = self.clusterer.classes(linkage, ids=ids, choice=evidence.nodes)
        tree = condensed(linkage, min_cluster_size=self.clusterer.min_cluster_size)
        scores = evidence.measures(tree, clustering.nodes)[tables.SIGNIFICANCE]
        return Entry(clustering.labels, gallery(clustering.labels, features, scores), spared)

    def _noise_key(self, features: np.ndarray, seed: int) -> dict[str, Any]:
        galaxies = fingerprint(features, ids=names(len(features)))
        return {"compress": asdict(self.compress), "surveys": self.surveys, "seed": seed, "galaxies": galaxies}


@dataclass(kw_only=True)
class Plscan(Contestant):
    """PLSCAN (Bot et al. 2025) on a map: leaves of the smallest size that persists most."""

    compress: Compressor
    min_samples: int = setting(10, "neighbours that make a density", unit="galaxies")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """It gives no order: the smallest class first."""
        plscan = _library("fast_plscan")
        positions, spared = shared_map(self.compress, features, seed=seed, shelf=shelf)
        labels = plscan.PLSCAN(min_samples=self.min_samples).fit(positions).labels_
        return _smallest_first(labels, features, spared)


@dataclass(kw_only=True)
class Evoc(Contestant):
    """EVoC: its own graph of angles, its own embedding of it, and its most persistent layer."""

    n_neighbors: int = setting(15, "neighbours in its graph", unit="galaxies")
    smallest: int = setting(10, "base_min_cluster_size", unit="galaxies")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """About the mean, because angles are all it sees; it gives no order: the smallest class first."""
        settings = {"n_neighbors": self.n_neighbors, "base_min_cluster_size": self.smallest}
        estimator = _library("evoc").EVoC(**settings, random_state=seed)
        return _smallest_first(estimator.fit_predict(features - features.mean(axis=0)), features)


@dataclass(kw_only=True)
class KMeans(Contestant):
    """As many spheres as it is told, all galaxies in one of them."""

    clusters: int = setting(300, "k")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """The smallest class first."""
        from sklearn.cluster import KMeans as Estimator

        clusters = min(self.clusters, len(features) // 2)
        return _smallest_first(Estimator(clusters, n_init=1, random_state=seed).fit_predict(features), features)


@dataclass(kw_only=True)
class Mixture(Contestant):
    """A mixture of normal distributions, axes along the principal components."""

    components: int = setting(100, "normal distributions")
    dimensions: int = setting(30, "principal components that they live in")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """The smallest class first."""
        from sklearn.decomposition import PCA
        from sklearn.mixture import GaussianMixture

        scores = PCA(min(self.dimensions, *features.shape), random_state=seed).fit_transform(features)
        mixture = GaussianMixture(self.components, covariance_type="diag", random_state=seed, max_iter=50)
        return _smallest_first(mixture.fit_predict(scores), features)


@dataclass(kw_only=True)
class Outliers(Contestant):
    """A ranking of galaxies, the strangest first: no classes."""

    method: str = setting("isolation_forest", "isolation_forest, lof (local outlier factor) or random")

    def entry(self, features: Features, *, seed: int, shelf: Path) -> Entry:
        """Its gallery shows the next ten in each row."""
        order = np.argsort(self._usualness(features, seed=seed), kind="stable").astype(np.int32)
        whole = len(order) // ROW_WIDTH * ROW_WIDTH
        return Entry(np.full(len(order), tables.NO_CLASS, np.int32), order[:whole].reshape(-1, ROW_WIDTH))

    def _usualness(self, features: Features, *, seed: int) -> Float64[np.ndarray, " n"]:
        from sklearn.ensemble import IsolationForest
        from sklearn.neighbors import LocalOutlierFactor

        if self.method == "random":
            return np.random.default_rng(seed).uniform(size=len(features))
        if self.method == "lof":
            return LocalOutlierFactor(n_neighbors=20).fit(features).negative_outlier_factor_
        if self.method == "isolation_forest":
            return IsolationForest(n_estimators=200, random_state=seed).fit(features).score_samples(features)
        raise ConfigError("unknown method", value=self.method, fix="Choose isolation_forest, lof or random.")


KINDS: dict[str, type[Contestant]] = {
    "search": Search, "plscan": Plscan, "evoc": Evoc, "kmeans": KMeans, "mixture": Mixture, "outliers": Outliers,
}  # fmt: skip
_PARTS = ("compress", "clusterer")


def read_contestants(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Contestant]:
    """Contestants by name: those wanted, or all of a folder.

    Raises:
        ConfigError: no such contestant, or a file that does not describe one.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError("unknown contestant", value=name, fix=f"{hint}There are: {', '.join(known)}.")
    return {name: contestant_from(yaml.safe_load((folder / f"{name}.yaml").read_text())) for name in wanted or known}


def contestant_from(settings: Mapping[str, Any]) -> Contestant:
    """A contestant from what :meth:`Contestant.settings` gives, or a file says.

    Raises:
        ConfigError: it does not describe one.
    """
    given = dict(settings)
    kind = given.pop("kind", "")
    if kind not in KINDS:
        raise ConfigError("unknown kind of contestant", value=kind, fix=f"Choose one of: {', '.join(KINDS)}.")
    for group in _PARTS:
        if group in given:
            part = dict(given[group])
            given[group] = _built(choice(group, part.pop("option", "")), part)
    contestant: Contestant = _built(KINDS[kind], given)
    if contestant.features not in FEATURES:
        raise ConfigError("unknown features", value=contestant.features, fix=f"Choose one of: {', '.join(FEATURES)}.")
    return contestant


def _built(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as problem:
        known = ", ".join(one.name for one in fields(kind))
        raise ConfigError(f"a contestant's settings do not fit ({problem})", fix=f"There are: {known}.") from problem


def shared_map(
    compress: Compressor, features: Features, *, seed: int, shelf: Path
) -> tuple[Float32[np.ndarray, "n k"], float]:
    """A map of the galaxies, and the seconds that were spared because it was there already."""
    ids, made = names(len(features)), []

    def make(place: Path) -> None:
        started = perf_counter()
        positions = compress.fit(features, ids=ids, seed=seed).positions
        made.append(perf_counter() - started)
        with tables.atomic(place / _MAP) as temporary, temporary.open("wb") as stream:
            np.savez(stream, positions=positions, seconds=made[0])

    made_with = {
        "map": {"option": name_of(type(compress)), **asdict(compress)},
        "seed": seed,
        "galaxies": fingerprint(features, ids=ids),
    }
    with TemporaryDirectory(dir=shelf) as target:
        Cache(shelf).fetch(made_with, Path(target), last=_MAP, make=make, code=[compress])
        with np.load(Path(target) / _MAP) as stored:
            return stored["positions"], 0.0 if made else float(stored["seconds"])


def whitened_by(compress: Compressor, features: Features) -> Features:
    """What a compressor sees of the features."""
    if not compress.whiten:
        return features
    return choice("compress", "none")(whiten=compress.whiten).fit(features, ids=names(len(features))).positions


def gallery(
    labels: Int32[np.ndarray, " n"], features: Features, strengths: Sequence[float] | Float64[np.ndarray, " c"]
) -> Int32[np.ndarray, "c w"]:
    """A row per class, the strongest first: its galaxies nearest to its medoid."""
    rows = np.full((len(strengths), ROW_WIDTH), NOBODY, dtype=np.int32)
    for row, one in enumerate(np.argsort(-np.asarray(strengths, dtype=np.float64), kind="stable")):
        nearest = nearest_to_medoid(features, np.flatnonzero(labels == one), most=ROW_WIDTH)
        rows[row, : len(nearest)] = nearest
    return rows


def likenesses(entry: Entry, features: Features) -> Float32[np.ndarray, "c n"]:
    """How like each class every galaxy is: the mean cosine to its members, about the mean galaxy.

    A ranking has one row: the earlier in it, the more alike.
    """
    classes = int(entry.labels.max(initial=tables.NO_CLASS)) + 1
    if not classes and len(entry.rows):
        order = entry.rows.ravel()
        ranks = np.full(len(features), -len(features), dtype=np.float32)
        ranks[order] = -np.arange(len(order), dtype=np.float32)
        return ranks[None, :]
    directions = unit_vectors(features)
    sums = np.zeros((classes, features.shape[1]), dtype=np.float32)
    inside = entry.labels != tables.NO_CLASS
    np.add.at(sums, entry.labels[inside], directions[inside])
    counts = np.bincount(entry.labels[inside], minlength=classes)[:, None]
    return (sums / np.maximum(counts, 1) @ directions.T).astype(np.float32)


def names(galaxies: int) -> np.ndarray:
    """Ids of galaxies that have none, in their order."""
    return np.char.zfill(np.arange(galaxies).astype(str), 9)


def _smallest_first(labels: Int64[np.ndarray, " n"], features: Features, spared: float = 0.0) -> Entry:
    """An entry whose classes are numbered through; labels below 0 are none."""
    _, numbered = np.unique(labels[labels >= 0], return_inverse=True)
    whole = np.full(len(labels), tables.NO_CLASS, dtype=np.int32)
    whole[labels >= 0] = numbered
    return Entry(whole, gallery(whole, features, -np.bincount(numbered).astype(np.float64)), spared)


def _library(name: str) -> Any:
    """A library of others, which rarezoo does without."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ConfigError("not installed", value=name, fix="pip install 'rarezoo[contestants]'.") from problem


def _kind_of(contestant: Contestant) -> str:
    return next(name for name, kind in KINDS.items() if kind is type(contestant))
