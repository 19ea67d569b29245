"""The methods that take part in ``rarezoo benchmark``; each is one file, ``conf/method/NAME.yaml``.

``kind`` in the file names one of :data:`KINDS`. The other keys are the settings of the method; ``compress`` and
``clusterer`` name their ``option``. Methods that need the same map of the same galaxies share it.

Shape letters: n galaxies, D features, k dimensions of a map, c classes, w galaxies in a gallery row.
"""

import difflib
import importlib
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import yaml
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64

from rarezoo import tables
from rarezoo.benchmark.scores import EMPTY_PLACE, ROW_WIDTH, ROWS
from rarezoo.cache import Cache
from rarezoo.embeddings.neighbours import unit_vectors
from rarezoo.errors import ConfigError, MissingDependency
from rarezoo.runs import digest, fingerprint
from rarezoo.searches.classes import nearest_to_medoid
from rarezoo.searches.cluster import ISOLATED, Clusterer
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.compress import Compressor
from rarezoo.searches.grades import class_directions, looking_order
from rarezoo.searches.null_surveys import null_surveys
from rarezoo.searches.presets import preset
from rarezoo.searches.significance import Significance, TreeScores
from rarezoo.settings import Settings, choice, described, refuse_unknown, setting

FEATURES = ("embedding", "native", "untrained", "shuffled", "photometry")
_MAP = "map.npz"
Features = Float32[np.ndarray, "n D"]


@dataclass(frozen=True)
class Submission:
    """The result of a method.

    Attributes
    ----------
    labels
        (n,) class of each galaxy from 0, −1 for none; all −1 for a ranking. Candidates that are not significant are
        no classes here.
    rows
        (r, w) its gallery from the top: galaxies of one class or candidate in each row, or the next galaxies of a
        ranking; −1 marks an empty place.
    seconds_saved
        Seconds of work that were saved because another method had already made the same map.
    main_groups
        Number of broad groups that stand apart and are too large to be rare; None if the method does not count them.
    """

    labels: Int32[np.ndarray, " n"]
    rows: Int32[np.ndarray, "r w"]
    seconds_saved: float = 0.0
    main_groups: int | None = None


@dataclass(kw_only=True)
class Method(Settings, ABC):
    """A way from features to classes, or to a ranking of galaxies."""

    prefix: ClassVar[str] = "method"

    about: str = setting("", "description of the method for the table, one line")
    features: str = setting(FEATURES[0], "features that the method works on", choices=FEATURES)

    @abstractmethod
    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Find classes, or rank galaxies.

        Parameters
        ----------
        features
            (n, D) features.
        seed
            Seed of every random draw.
        cache
            Folder of maps that methods share.
        """

    def settings(self) -> dict[str, Any]:
        """Return what :func:`method_from` needs to make the same method again."""
        values = {known.name: getattr(self, known.name) for known in fields(self)}
        kind = next(name for name, known in KINDS.items() if known is type(self))
        return {"kind": kind} | {
            name: described(value) if isinstance(value, (Compressor, Clusterer)) else value
            for name, value in values.items()
        }


@dataclass(kw_only=True)
class SearchMethod(Method):
    """A search of rarezoo: a map, its tree, and classes from the tree."""

    compress: Compressor
    clusterer: Clusterer
    surveys: int = setting(20, "number of null surveys, for selection=isolated", unit="surveys", ge=0)
    noise: str = setting("gaussian", "kind of null surveys: significance.kind")
    galaxies: int = setting(4000, "largest size of a null survey", unit="galaxies", ge=1)

    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Find classes; the strongest come first, by significance where there is one, otherwise by persistence."""
        positions, seconds_saved = shared_map(self.compress, features, seed=seed, cache=cache)
        linkage, ids = self.clusterer.linkage(positions), row_names(len(features))
        if self.clusterer.selection != ISOLATED:
            clustering = self.clusterer.classes(linkage, ids=ids)
            return Submission(
                clustering.labels, gallery(clustering.labels, features, clustering.persistences), seconds_saved
            )
        scores, seen = self._scores(self.compress, features, linkage, seed=seed, cache=cache)
        listed = self.clusterer.select(self.clusterer.tree(linkage), scores, ids=ids)
        values = scores.columns(listed.nodes)
        significant = np.array(values[tables.FALSE_DISCOVERY]) <= scores.settings.level
        rows = _in_looking_order(listed.labels, features, seen, values[tables.SIGNIFICANCE], significant)
        return Submission(_only_classes(listed.labels, significant), rows, seconds_saved, len(scores.main_groups))

    def _scores(
        self, compress: Compressor, features: Features, linkage: pa.Table, *, seed: int, cache: Path
    ) -> tuple[TreeScores, Float32[np.ndarray, "n d"]]:
        """Return the scores of a tree, and the features that were compressed."""
        seen = whitened(features, components=compress.whiten, power=compress.whiten_power)
        folder = cache / f"noise-{digest(self._noise_key(compress, seen, seed))[:16]}"
        null = null_surveys(
            seen, compress, count=self.surveys, galaxies=self.galaxies, kind=self.noise, tree_of=fine_tree,
            folder=folder, seed=seed,
        )  # fmt: skip
        tree = self.clusterer.tree(linkage)
        return TreeScores.of(tree, seen, null, Significance(rows=ROWS), seed=seed), seen

    def _noise_key(self, compress: Compressor, features: np.ndarray, seed: int) -> dict[str, Any]:
        galaxies = fingerprint(features, ids=row_names(len(features)))
        return {"compress": asdict(compress), "surveys": self.surveys, "seed": seed, "galaxies": galaxies}


@dataclass(kw_only=True)
class LooksMethod(SearchMethod):
    """Searches of several maps, whose candidates are judged together.

    Of candidates that share more than half of the smaller one, that with the higher score is kept. The number of
    candidates that chance is expected to show is that of all looks together.
    """

    looks: list[dict[str, Any]] = setting([], "settings of the compressor in each further look")

    def check(self) -> None:
        """Raise ConfigError for a setting that the compressor does not have."""
        known = [field.name for field in fields(self.compress)]
        for changes in self.looks:
            refuse_unknown(changes, known, of="a look")

    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Find classes in every look; rows are ordered as by one search."""
        saved, every = 0.0, []
        for changes in ({}, *self.looks):
            compress = replace(self.compress, **changes)
            positions, seconds_saved = shared_map(compress, features, seed=seed, cache=cache)
            every.append(self._scores(compress, features, self.clusterer.linkage(positions), seed=seed, cache=cache))
            saved += seconds_saved
        candidates = [
            (float(scores.scores[node]), scores.core(int(node) + scores.galaxies))
            for scores, _ in every
            for node in scores.candidates[:ROWS]
        ]
        labels, values = _without_overlaps(candidates, galaxies=len(features))
        significance = every[0][0].settings
        expected = sum(
            scores.null.expected(values, galaxies=len(features), shares=(0, significance.largest))
            for scores, _ in every
        )
        # After Benjamini & Hochberg: the values fall, so that the running minimum runs from the end.
        shares = np.minimum.accumulate((expected / np.arange(1, len(values) + 1))[::-1])[::-1]
        significant = shares <= significance.level
        rows = _in_looking_order(labels, features, every[0][1], values.tolist(), significant)
        return Submission(_only_classes(labels, significant), rows, saved)


@dataclass(kw_only=True)
class PlscanMethod(Method):
    """PLSCAN (Bot et al. 2025) on a map: the leaves of the tree at the most persistent smallest size."""

    compress: Compressor
    min_samples: int = setting(10, "neighbours that define a density", unit="galaxies", ge=1)

    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Find classes. PLSCAN gives them no order, so the smallest class comes first."""
        plscan = _optional_package("fast_plscan")
        positions, seconds_saved = shared_map(self.compress, features, seed=seed, cache=cache)
        labels = plscan.PLSCAN(min_samples=self.min_samples).fit(positions).labels_
        return _smallest_first(labels, features, seconds_saved)


@dataclass(kw_only=True)
class UnmappedMethod(Method):
    """A method that works on the features themselves, or on their whitened principal components."""

    whiten: int = setting(
        0, "number of principal components that are whitened first; 0 = the features as they are", ge=0
    )
    whiten_power: float = setting(
        1.0, "power of its scatter by which each of these components is divided: 1 = unit variance", gt=0, le=1
    )

    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Find classes; the smallest comes first."""
        seen = whitened(features, components=self.whiten, power=self.whiten_power)
        return _smallest_first(self.labels(seen, seed=seed), features)

    @abstractmethod
    def labels(self, features: Features, *, seed: int) -> Int[np.ndarray, " n"]:
        """Return the class of each galaxy; below 0 for none."""

    def settings(self) -> dict[str, Any]:
        """Return the settings; those of whitening are left out where they are not used: older results stay valid."""
        values = super().settings()
        return values if self.whiten else {name: values[name] for name in values if not name.startswith("whiten")}


@dataclass(kw_only=True)
class EvocMethod(UnmappedMethod):
    """EVoC: its own graph of angles, its own embedding of the graph, and its most persistent layer."""

    n_neighbors: int = setting(15, "neighbours in the graph", unit="galaxies", ge=1)
    smallest: int = setting(10, "EVoC's base_min_cluster_size", unit="galaxies", ge=2)

    def labels(self, features: Features, *, seed: int) -> Int[np.ndarray, " n"]:
        """Return the classes of the best layer. The mean is subtracted, because EVoC sees angles only."""
        settings = {"n_neighbors": self.n_neighbors, "base_min_cluster_size": self.smallest}
        estimator = _optional_package("evoc").EVoC(**settings, random_state=seed)
        return np.asarray(estimator.fit_predict(features - features.mean(axis=0)))


@dataclass(kw_only=True)
class KMeansMethod(UnmappedMethod):
    """k-means: a fixed number of clusters that contain all galaxies."""

    clusters: int = setting(300, "number of clusters", ge=1)

    def labels(self, features: Features, *, seed: int) -> Int[np.ndarray, " n"]:
        """Return the clusters."""
        from sklearn.cluster import KMeans

        clusters = min(self.clusters, len(features) // 2)
        return np.asarray(KMeans(clusters, n_init=1, random_state=seed).fit_predict(features))


@dataclass(kw_only=True)
class MixtureMethod(UnmappedMethod):
    """A Gaussian mixture in principal components, with diagonal covariances."""

    components: int = setting(100, "number of normal distributions", ge=1)
    dimensions: int = setting(30, "number of principal components", ge=1)

    def labels(self, features: Features, *, seed: int) -> Int[np.ndarray, " n"]:
        """Return the component to which each galaxy most likely belongs."""
        from sklearn.decomposition import PCA
        from sklearn.mixture import GaussianMixture

        scores = PCA(min(self.dimensions, *features.shape), random_state=seed).fit_transform(features)
        mixture = GaussianMixture(self.components, covariance_type="diag", random_state=seed, max_iter=50)
        return np.asarray(mixture.fit_predict(scores))


@dataclass(kw_only=True)
class OutlierRanking(Method):
    """A ranking of galaxies, the most unusual first. It has no classes."""

    detector: str = setting(
        "isolation_forest",
        "outlier detector; lof is the local outlier factor",
        choices=("isolation_forest", "lof", "random"),
    )

    def run(self, features: Features, *, seed: int, cache: Path) -> Submission:
        """Rank the galaxies; each row of the gallery shows the next ten."""
        from sklearn.ensemble import IsolationForest
        from sklearn.neighbors import LocalOutlierFactor

        if self.detector == "random":
            normality = np.random.default_rng(seed).uniform(size=len(features))
        elif self.detector == "lof":
            normality = LocalOutlierFactor(n_neighbors=20).fit(features).negative_outlier_factor_
        else:
            normality = IsolationForest(n_estimators=200, random_state=seed).fit(features).score_samples(features)
        order = np.argsort(normality, kind="stable").astype(np.int32)
        shown = len(order) // ROW_WIDTH * ROW_WIDTH
        return Submission(np.full(len(order), tables.NO_CLASS, np.int32), order[:shown].reshape(-1, ROW_WIDTH))


KINDS: dict[str, type[Method]] = {
    "search": SearchMethod,
    "looks": LooksMethod,
    "plscan": PlscanMethod,
    "evoc": EvocMethod,
    "kmeans": KMeansMethod,
    "mixture": MixtureMethod,
    "outliers": OutlierRanking,
}


def read_methods(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Method]:
    """Read the methods that are wanted, or all methods of a folder, by name.

    Raises
    ------
    ConfigError
        There is no such method, or a file does not describe one.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError("unknown method", value=name, fix=f"{hint}There are: {', '.join(known)}.")
    return {name: method_from(yaml.safe_load((folder / f"{name}.yaml").read_text())) for name in wanted or known}


def method_from(settings: Mapping[str, Any]) -> Method:
    """Make a method from the dictionary that :meth:`Method.settings` returns, or that a file contains.

    ``preset`` names a preset of a search (:mod:`rarezoo.searches.presets`), whose map and clusterer are used, as far as
    the method has them; what else the file says of them replaces single settings.

    Raises
    ------
    ConfigError
        The dictionary does not describe a method.
    """
    values = dict(settings)
    kind = values.pop("kind", "")
    if kind not in KINDS:
        raise ConfigError("unknown kind of method", value=kind, fix=f"Choose one of: {', '.join(KINDS)}.")
    searched = preset(values.pop("preset")) if "preset" in values else {}
    taken = {known.name for known in fields(KINDS[kind])}
    for group in ("compress", "clusterer"):
        if group in values or (group in searched and group in taken):
            part = {**(described(searched[group]) if searched else {}), **values.get(group, {})}
            values[group] = _made(choice(group, part.pop("option", "")), part)
    method: Method = _made(KINDS[kind], values)
    return method


def _made(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as problem:
        known = ", ".join(field.name for field in fields(kind))
        raise ConfigError(f"the settings of a method do not fit ({problem})", fix=f"There are: {known}.") from problem


def shared_map(
    compress: Compressor, features: Features, *, seed: int, cache: Path
) -> tuple[Float32[np.ndarray, "n k"], float]:
    """Return a map of the galaxies, and the seconds that were saved because it existed already."""
    ids = row_names(len(features))
    seconds: list[float] = []

    def make(place: Path) -> None:
        started = perf_counter()
        positions = compress.fit(features, ids=ids, seed=seed).positions
        seconds.append(perf_counter() - started)
        with tables.atomic(place / _MAP) as temporary, temporary.open("wb") as stream:
            np.savez(stream, positions=positions, seconds=seconds[0])

    key = {"map": described(compress), "seed": seed, "galaxies": fingerprint(features, ids=ids)}
    with TemporaryDirectory(dir=cache) as target:
        positions, earlier = Cache(cache).fetch(
            key, Path(target), last=_MAP, make=make, read=_read_map, code=[compress]
        )
        return positions, 0.0 if seconds else earlier


def _read_map(folder: Path) -> tuple[Float32[np.ndarray, "n k"], float]:
    """Read a map and the seconds that it took; StoreError if it is damaged."""
    try:
        with np.load(folder / _MAP, allow_pickle=False) as stored:
            return stored["positions"], float(stored["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise tables.damaged(folder / _MAP, fix="Delete it; it is then made again.") from problem


def whitened(features: Features, *, components: int, power: float) -> Float32[np.ndarray, "n d"]:
    """Return features as a compressor with these settings of ``whiten`` and ``whiten_power`` uses them."""
    if not components:
        return features
    compressor = choice("compress", "none")(whiten=components, whiten_power=power)
    return compressor.fit(features, ids=row_names(len(features))).positions


def gallery(
    labels: Int32[np.ndarray, " n"], features: Features, strengths: Sequence[float] | Float64[np.ndarray, " c"]
) -> Int32[np.ndarray, "c w"]:
    """Return one row per class, the strongest first: the galaxies of the class that are nearest to its medoid."""
    rows = np.full((len(strengths), ROW_WIDTH), EMPTY_PLACE, dtype=np.int32)
    for row, class_id in enumerate(np.argsort(-np.asarray(strengths, dtype=np.float64), kind="stable")):
        nearest = nearest_to_medoid(features, np.flatnonzero(labels == class_id), most=ROW_WIDTH)
        rows[row, : len(nearest)] = nearest
    return rows


def _in_looking_order(
    labels: Int32[np.ndarray, " n"],
    features: Features,
    seen: Float32[np.ndarray, "n d"],
    scores: Sequence[float | None],
    significant: Bool[np.ndarray, " c"],
) -> Int32[np.ndarray, "c w"]:
    """Return a gallery as a search lists its classes: significant ones first, then the next by expected gain."""
    values = np.array([score or 0.0 for score in scores])
    order = looking_order((~significant).tolist(), values, class_directions(seen, labels, classes=len(values)))
    places = np.empty(len(order))
    places[order] = np.arange(len(order))
    return gallery(labels, features, -places)


def _without_overlaps(
    candidates: Sequence[tuple[float, Int64[np.ndarray, " _"]]], *, galaxies: int
) -> tuple[Int32[np.ndarray, " n"], Float64[np.ndarray, " c"]]:
    """Return labels and scores of the candidates that are kept, the highest score first.

    A candidate is left out if it shares more than half of its galaxies, or of those of a better candidate, with it.
    What two candidates share less belongs to the better one.
    """
    labels, kept = np.full(galaxies, tables.NO_CLASS, dtype=np.int32), list[float]()
    sizes = list[int]()
    for score, rows in sorted(candidates, key=lambda candidate: -candidate[0]):
        taken = labels[rows][labels[rows] != tables.NO_CLASS]
        shared = np.bincount(taken, minlength=len(sizes))
        if len(sizes) and np.any(shared > np.minimum(len(rows), sizes) / 2):
            continue
        labels[rows[labels[rows] == tables.NO_CLASS]] = len(kept)
        kept.append(score)
        sizes.append(len(rows))
    return labels, np.array(kept)


def _only_classes(labels: Int32[np.ndarray, " n"], chosen: Bool[np.ndarray, " c"]) -> Int32[np.ndarray, " n"]:
    """Return the labels of the chosen classes, numbered from 0; galaxies of other classes are in none."""
    numbers = np.append(np.where(chosen, np.cumsum(chosen) - 1, tables.NO_CLASS), tables.NO_CLASS)
    return numbers[labels].astype(np.int32)


def class_similarities(submission: Submission, features: Features) -> Float32[np.ndarray, "c n"]:
    """Return how similar every galaxy is to each class: the mean cosine to its members, about the mean galaxy.

    A ranking has one row: the earlier a galaxy comes in it, the more similar it is.
    """
    classes = int(submission.labels.max(initial=tables.NO_CLASS)) + 1
    if not classes and len(submission.rows):
        order = submission.rows.ravel()
        ranks = np.full(len(features), -len(features), dtype=np.float32)
        ranks[order] = -np.arange(len(order), dtype=np.float32)
        return ranks[None, :]
    directions = unit_vectors(features)
    sums = np.zeros((classes, features.shape[1]), dtype=np.float32)
    inside = submission.labels != tables.NO_CLASS
    np.add.at(sums, submission.labels[inside], directions[inside])
    counts = np.bincount(submission.labels[inside], minlength=classes)[:, None]
    return (sums / np.maximum(counts, 1) @ directions.T).astype(np.float32)


def row_names(galaxies: int) -> np.ndarray:
    """Return ids for galaxies that have none, in their order."""
    return np.char.zfill(np.arange(galaxies).astype(str), 9)


def _smallest_first(labels: Int[np.ndarray, " n"], features: Features, seconds_saved: float = 0.0) -> Submission:
    """Return a submission whose classes are numbered from 0; labels below 0 mean no class."""
    _, numbered = np.unique(labels[labels >= 0], return_inverse=True)
    complete = np.full(len(labels), tables.NO_CLASS, dtype=np.int32)
    complete[labels >= 0] = numbered
    rows = gallery(complete, features, -np.bincount(numbered).astype(np.float64))
    return Submission(complete, rows, seconds_saved)


def _optional_package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise MissingDependency(name, extra="benchmark", purpose="This method of the benchmark") from problem
