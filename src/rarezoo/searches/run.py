"""One search, whole: select → compress → cluster → describe → report → track."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import __version__, tables
from rarezoo.cache import Cache
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.neighbours import NeighbourIndex
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.report.pages import THUMBNAILS
from rarezoo.report.record import search_record
from rarezoo.runs import claim, digest, fingerprint, refuse_seed
from rarezoo.searches.classes import class_table, member_table, with_columns
from rarezoo.searches.cluster import ISOLATED, Clusterer, Clustering, without_noise
from rarezoo.searches.compress import Compressor, FittedMap
from rarezoo.searches.condensed import condensed
from rarezoo.searches.decisions import Decisions, apply_decisions, search_key
from rarezoo.searches.isolation import MOST_NEIGHBOURS
from rarezoo.searches.previous import Lineage, PreviousSearch
from rarezoo.searches.result import FITTED, RUN_FILE, TABLES, Search, galaxies_of
from rarezoo.searches.select import Select, Selection
from rarezoo.searches.significance import Evidence, Noise, Significance, noise_of
from rarezoo.searches.stability import Stabilities, Stability, stabilities
from rarezoo.searches.surroundings import Surroundings
from rarezoo.searches.systematics import ColumnTest, Systematics, cause_columns
from rarezoo.settings import name_of, setting
from rarezoo.track import Tracker

log = logging.getLogger(__name__)
LINKAGE_FILE = TABLES["linkage"][0]
_DRAWN = "drawn_map"
_NAMED_BY = 16


@dataclass(kw_only=True)
class SearchRun:
    """Search one embedding store for rare classes.

    ``SearchRun(store="runs/embed", compress=Umap(), clusterer=Hdbscan(min_samples=30), out="runs/cluster").run()``
    leaves in ``out``: classes, members, tree, linkage, map and map_2d (Parquet, see tables.py), the fitted map,
    run.json and report/index.html. A killed run goes on where it stopped when the same command is given again.
    """

    store: str
    select: Select = setting(Select(), "which galaxies are searched")
    compress: Compressor
    drawing: Compressor
    clusterer: Clusterer
    logger: Tracker = setting(Tracker(), "where the result is logged")
    data: Survey | None = setting(None, "the survey, if its images are no longer where the store remembers them")
    images: bool = setting(True, "show galaxies in the report; false if the images are not at hand")
    reuse: str | None = setting(None, "an earlier run's folder: take its map and linkage, made with the same settings")
    cache: str | None = setting(None, "folder of maps and linkages that searches share, each made once")
    previous: str | None = setting(None, "an earlier search's folder: a class that is the same keeps its id")
    significance: Significance = setting(Significance(), "how classes are held against noise")
    stability: Stability = setting(Stability(), "whether classes come back")
    beyond: bool = setting(True, "measure what of each class is left once the predicted answers are regressed out")
    systematics: Systematics = setting(Systematics(), "what besides galaxies may make a class")
    decisions: str | None = setting(
        None, "a file of decisions from the atlas, of this search made before, or of the one that previous= names"
    )
    thumbnails: int = setting(THUMBNAILS, "most galaxies that the atlas shows as images on its map", unit="galaxies")
    out: str = setting("runs/cluster", "output folder")
    seed: int = setting(0, "seed of every random draw")

    def run(self) -> Search:
        """Search; the finished search.

        Raises:
            StoreError, ConfigError, DataError, OutputError: see the message.
        """
        refuse_seed(self.seed)
        self.significance.refuse()
        self.stability.refuse()
        earlier = PreviousSearch.read(self.previous) if self.previous else None
        decisions = Decisions.read(self.decisions) if self.decisions else None
        if self.thumbnails < 0:
            raise ConfigError("thumbnails", value=self.thumbnails, fix="Choose 0 for none, or more.")
        self.clusterer.refuse_settings()
        if self.clusterer.selection == ISOLATED and not self.significance.surveys:
            raise without_noise()
        folder = claim(self.out, verb="cluster", settings=self._settings())
        if (folder / RUN_FILE).exists():
            search = Search.open(folder, survey=self.data)
            log.info("already searched: %s", search.page)
            return search
        clock = Clock()
        store = EmbeddingStore.open(self.store)
        galaxies = self._galaxies(store)
        around = Surroundings.of(galaxies, systematics=self.systematics)
        whole = self.select.judged(store.read(), store=store)
        selection = self.select.kept(whole, seed=self.seed)
        sample = whole.filter(pa.array(selection.mask))
        if earlier:
            earlier.require_common_galaxies(tables.strings(sample, tables.ID))
        found = self._found(sample, folder, clock)
        found = found.continuing(earlier) if earlier else found
        found = self._explained(found, sample, around, clock)
        found = found.decided(decisions, earlier, sample) if decisions else found
        about = self._about(store, whole, selection, found)
        search = Search.write(
            folder, about, found.tables(), free_class_id=found.free_class_id, store=store, galaxies=galaxies,
            tests=found.tests, predictions=sample.drop_columns([tables.EMBEDDING]),
        )  # fmt: skip
        with clock.stage("report"):
            search.report(images=galaxies is not None, thumbnails=self.thumbnails)
        search.finish({**about, "seconds": clock.seconds})
        self.logger.log_search(
            self.out, lambda: search_record(search, images=galaxies is not None, checkpoint=self.logger.checkpoint)
        )
        log.info("%s", search.summary())
        return search

    def _settings(self) -> dict[str, Any]:
        """What makes this search this search; where it is logged and whether it is illustrated do not."""
        return {
            "store": str(Path(self.store).resolve()), "select": asdict(self.select),
            "compress": _named(self.compress), "drawing": _named(self.drawing), "clusterer": _named(self.clusterer),
            "previous": self.previous and str(Path(self.previous).resolve()), "stability": asdict(self.stability),
            "significance": asdict(self.significance),
            "beyond": self.beyond, "systematics": asdict(self.systematics), "seed": self.seed,
            "decisions": self.decisions and str(Path(self.decisions).resolve()),
        }  # fmt: skip

    def _galaxies(self, store: EmbeddingStore) -> Galaxies | None:
        """The survey that the store was made from, opened before the long work begins; None without images."""
        if not self.images or (self.data is None and not store.has_survey):
            return None
        return galaxies_of(
            store, survey=self.data,
            way_out="Say where its images are now (data=…), or make a report without them: images=false.",
        )  # fmt: skip

    def _explained(self, found: "Found", sample: pa.Table, around: Surroundings, clock: "Clock") -> "Found":
        """The same classes, with what of them the predicted answers and the telescope explain."""
        labels, classes = found.clustering.labels, found.classes
        if self.beyond:
            with clock.stage("beyond"):
                told = around.beyond(sample, labels=labels, classes=classes.num_rows, seed=self.seed)
            classes = with_columns(classes, told)
        with clock.stage("systematics"):
            causes = around.causes(sample, labels=labels, classes=classes.num_rows)
        ids = classes.column(tables.CLASS_ID).to_pylist()
        tests = {one: cause.tests for one, cause in zip(ids, causes, strict=True)}
        return replace(found, classes=with_columns(classes, cause_columns(causes)), tests=tests)

    def _found(self, sample: pa.Table, folder: Path, clock: "Clock") -> "Found":
        ids = tables.strings(sample, tables.ID)
        fitted = self._fitted(sample, ids, self.compress, folder / FITTED, clock.stage("compress"))
        with clock.stage("linkage"):
            linkage = self._linkage(fitted, folder)
        with clock.stage("significance"):
            evidence = self._evidence(sample, fitted, folder / "structureless")
        with clock.stage("classes"):
            clustering = self.clusterer.classes(linkage, ids=ids, choice=evidence.nodes if evidence else None)
            classes = class_table(clustering, ids=ids, positions=fitted.positions, predictions=sample)
            if evidence:
                tree = condensed(linkage, min_cluster_size=self.clusterer.min_cluster_size)
                classes = with_columns(classes, evidence.measures(tree, clustering.nodes))
        with clock.stage("stability"):
            stable = self._stability(
                sample, ids, clustering, folder / "refits", noise=evidence.noise if evidence else None
            )
        drawn = self._fitted(sample, ids, self.drawing, folder / _DRAWN, clock.stage("draw"))
        found = Found(ids, fitted, drawn, linkage, clustering, classes, member_table(clustering, ids=ids))
        return found.measured(stable) if stable else found

    def _evidence(self, sample: pa.Table, fitted: FittedMap, folder: Path) -> Evidence | None:
        """What tells classes from noise; None if that is not wanted."""
        if not self.significance.surveys:
            return None
        features = fitted.features(tables.matrix(sample, tables.EMBEDDING))
        if self.cache:
            galaxies = fingerprint(features, ids=fitted.ids)
            made_with = {
                "noise": _named(self.compress), "store": self.significance.store, "seed": self.seed,
                "galaxies": galaxies, "version": __version__,
            }  # fmt: skip
            folder = Path(self.cache) / digest(made_with)[:_NAMED_BY]
        likes = EmbeddingStore.open(self.significance.store).embeddings() if self.significance.store else None
        # The map there was made with the same settings, of the same galaxies: so were its structureless surveys, unless
        # they are another store's.
        earlier = Path(self.reuse) / folder.name if self.reuse and likes is None else None
        noise = noise_of(
            features, self.compress, settings=self.significance, folder=folder, earlier=earlier, likes=likes,
            seed=self.seed,
        )  # fmt: skip
        return Evidence(NeighbourIndex(features, seed=self.seed).graph(MOST_NEIGHBOURS), noise)

    def _stability(
        self, sample: pa.Table, ids: np.ndarray, clustering: Clustering, folder: Path, *, noise: Noise | None
    ) -> Stabilities | None:
        if not self.stability.wanted or not len(clustering):
            return None
        refits = self.stability.refits_of(
            tables.matrix(sample, tables.EMBEDDING), partial(self._labels, noise=noise), ids=ids, seed=self.seed,
            folder=folder,
            made_with={
                "compress": _named(self.compress), "clusterer": _named(self.clusterer),
                "significance": asdict(self.significance),
            },
        )  # fmt: skip
        return stabilities(clustering.labels, refits) if refits else None

    def _labels(self, embeddings: np.ndarray, *, ids: np.ndarray, seed: int, noise: Noise | None) -> np.ndarray:
        """The search's pipeline: embeddings of some galaxies to their labels, held against the same noise."""
        fitted = self.compress.fit(embeddings, ids=ids, seed=seed)
        linkage = self.clusterer.linkage(fitted.positions)
        evidence = None
        if noise:
            index = NeighbourIndex(fitted.features(embeddings), seed=seed)
            evidence = Evidence(index.graph(MOST_NEIGHBOURS), noise)
        return self.clusterer.classes(linkage, ids=ids, choice=evidence.nodes if evidence else None).labels

    def _fitted(self, sample: pa.Table, ids: np.ndarray, compressor: Compressor, folder: Path, stage: Any) -> FittedMap:
        """A map of the sample: this run's own from before it was killed, an earlier run's, or a new one."""
        for place in (folder, Path(self.reuse) / folder.name if self.reuse else folder):
            if (place / "map.json").exists():
                return self._same_map(FittedMap.open(place), compressor, ids, place)
        embeddings = tables.matrix(sample, tables.EMBEDDING)

        def save(place: Path) -> FittedMap:
            with stage:
                fitted = compressor.fit(embeddings, ids=ids, seed=self.seed)
            fitted.save(place)
            return fitted

        if not self.cache:
            return save(folder)
        made_with = {"map": _named(compressor), "seed": self.seed, "galaxies": fingerprint(embeddings, ids=ids)}
        Cache(Path(self.cache)).fetch(made_with, folder, last="map.json", make=save, code=[compressor])
        return FittedMap.open(folder)

    def _same_map(self, fitted: FittedMap, compressor: Compressor, ids: np.ndarray, place: Path) -> FittedMap:
        same = fitted.compressor == compressor and fitted.seed == self.seed and list(fitted.ids) == list(map(str, ids))
        if not same:
            raise ConfigError(
                "the map there was made with other settings, seed or galaxies", value=place,
                fix="Give the same select=, compress= and seed=, or leave out reuse=.",
            )  # fmt: skip
        return fitted

    def _linkage(self, fitted: FittedMap, folder: Path) -> pa.Table:
        """The linkage: saved already, or computed and saved at once. It depends on the map and min_samples only."""
        made_with = {"clusterer": name_of(type(self.clusterer)), "min_samples": self.clusterer.min_samples}
        for place in (folder, *([Path(self.reuse)] if self.reuse else [])):
            path = place / LINKAGE_FILE
            if path.exists():
                linkage = tables.read(path, tables.LINKAGE)
                if tables.provenance(linkage).get("made_with") == made_with:
                    return linkage

        def save(place: Path) -> None:
            linkage = self.clusterer.linkage(fitted.positions)
            tables.write(linkage, place / LINKAGE_FILE, tables.LINKAGE, made_with=made_with)

        if self.cache:
            galaxies = fingerprint(fitted.positions, ids=fitted.ids)
            key = {**made_with, "positions": galaxies}
            Cache(Path(self.cache)).fetch(key, folder, last=LINKAGE_FILE, make=save, code=[self.clusterer])
        else:
            save(folder)
        return tables.read(folder / LINKAGE_FILE, tables.LINKAGE)

    def _about(self, store: EmbeddingStore, whole: pa.Table, selection: Selection, found: "Found") -> dict[str, Any]:
        return {
            "title": f"{store.manifest.survey} seen by {store.manifest.checkpoint}",
            "survey": store.manifest.survey,
            "survey_sha256": store.manifest.survey_sha256,
            "checkpoint": store.manifest.checkpoint,
            "checkpoint_sha256": store.manifest.checkpoint_sha256,
            "settings": self._settings(),
            "version": __version__,
            "galaxies": whole.num_rows,
            "searched": len(found.ids),
            "cuts": [asdict(toll) for toll in selection.tolls],
            "classes": found.classes.num_rows,
            "unassigned": float(np.mean(found.members.column(tables.CLASS_ID).to_numpy() == tables.NO_CLASS)),
        }


@dataclass(frozen=True)
class Found:
    """What a search found, all of it in the order of ``ids``.

    Attributes:
        stabilities: STABILITIES table, if there were refits.
        lineage: what its classes have to do with those of an earlier search, if there was one.
        tests: of its classes against the catalogue, by class id.
    """

    ids: np.ndarray
    fitted: FittedMap
    drawn: FittedMap
    linkage: pa.Table
    clustering: Clustering
    classes: pa.Table
    members: pa.Table
    stabilities: pa.Table | None = None
    lineage: Lineage | None = None
    tests: Mapping[int, Sequence[ColumnTest]] = field(default_factory=dict)

    def measured(self, stability: Stabilities) -> "Found":
        """With the stability of its classes."""
        return replace(self, classes=stability.added_to(self.classes), stabilities=stability.table())

    def continuing(self, earlier: PreviousSearch) -> "Found":
        """Its classes under the ids that they had in an earlier search, or under ids never given before."""
        lineage = earlier.lineage(self.members)
        stabilities = None if self.stabilities is None else lineage.renamed(self.stabilities)
        return replace(
            self, members=lineage.renamed(self.members), classes=lineage.renamed(self.classes),
            stabilities=stabilities, lineage=lineage,
        )  # fmt: skip

    def decided(self, decisions: Decisions, earlier: PreviousSearch | None, sample: pa.Table) -> "Found":
        """With classes dropped, merged and named as a reader decided.

        Raises:
            ConfigError: the decisions are of another search.
        """
        keys = [search_key(self.ids, self.members.column(tables.CLASS_ID).to_numpy())]
        if earlier is not None:
            before = earlier.members
            keys.append(search_key(before.column(tables.ID).to_pylist(), before.column(tables.CLASS_ID).to_numpy()))
        decisions.require_search(*keys)
        after = apply_decisions(
            decisions, members=self.members, classes=self.classes, positions=self.fitted.positions, predictions=sample
        )
        return replace(self, members=after.members, classes=after.classes)

    def map_table(self, fitted: FittedMap) -> pa.Table:
        """A fitted map's positions as a MAP table."""
        return pa.table({tables.ID: pa.array(self.ids, pa.string()), tables.POSITION: tables.vectors(fitted.positions)})

    @property
    def free_class_id(self) -> int:
        """Smallest class id that neither this search nor those before it have given."""
        return len(self.clustering) if self.lineage is None else self.lineage.free

    def tables(self) -> dict[str, pa.Table]:
        """Every table but the linkage, which was written when it was made."""
        found = {
            "map": self.map_table(self.fitted), "map_2d": self.map_table(self.drawn), "tree": self.clustering.tree,
            "members": self.members, "classes": self.classes,
        }  # fmt: skip
        if self.stabilities is not None:
            found["stability"] = self.stabilities
        if self.lineage is not None:
            found["evolution"] = self.lineage.evolution
        return found


class Clock:
    """Seconds of wall time per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        log.info("%s …", name)
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _named(component: Any) -> dict[str, Any]:
    return {"option": name_of(type(component)), **asdict(component)}
