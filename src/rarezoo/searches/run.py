"""A search from an embedding store to classes and their report, step by step."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int32

from rarezoo import __version__, tables
from rarezoo.cache import Cache
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine
from rarezoo.errors import ConfigError, OutputError, StoreError, StoreNotFound
from rarezoo.runs import changed_inputs, claim, file_sha256, fingerprint
from rarezoo.searches.classes import class_table, main_group_table, member_table, with_columns
from rarezoo.searches.cluster import ISOLATED, Clusterer, Clustering, needs_null_surveys
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.compress import SETTINGS_FILE, Compressor, FittedMap
from rarezoo.searches.decisions import DecidedTables, Decisions, apply_decisions, search_key
from rarezoo.searches.features import Features, WithColumns
from rarezoo.searches.features.image import Image
from rarezoo.searches.grades import class_directions, counts, graded
from rarezoo.searches.metadata import Metadata
from rarezoo.searches.null_surveys import NullSurveys, null_surveys
from rarezoo.searches.presets import DEFAULT
from rarezoo.searches.presets import preset as preset_settings
from rarezoo.searches.previous import PreviousSearch
from rarezoo.searches.result import FITTED, RUN_FILE, TABLES, Search, galaxies_of
from rarezoo.searches.select import Select, Selection
from rarezoo.searches.significance import Significance, TreeScores
from rarezoo.searches.stability import Stabilities, Stability, stabilities
from rarezoo.searches.systematics import ColumnTest, Systematics, cause_columns
from rarezoo.settings import Settings, choice, described, refuse_unknown, setting
from rarezoo.track import Tracker

log = logging.getLogger(__name__)
LINKAGE_FILE = TABLES["linkage"][0]
DRAWN_MAP, _NULL_SURVEYS = "drawn_map", "null_surveys"
# Code that the nodes of null surveys depend on, besides that of the compressor.
_NULL_CODE = tuple(
    f"rarezoo.searches.{name}" for name in ("null_surveys", "isolation", "condensed", "compiled", "clusterers")
)
_DEFAULTS = preset_settings(DEFAULT)
# What a killed search leaves behind and goes on with.
_KEPT = (FITTED, LINKAGE_FILE, _NULL_SURVEYS, "refits", RUN_FILE)
# Settings that only a search out of core has, beside its engine; they decide its result.
OUT_OF_CORE = ("sample", "drawn", "magnitude", "level", "second_pass")
# Settings that only say where an input lies.
_PLACES = (
    "store", "select.fractions_from", "previous", "stability.stores", "significance.store", "decisions",
    "features.table",
)  # fmt: skip
# Settings of a search that are components, and the group of choices of each.
_CHOICES = {"features": "features", "compress": "compress", "drawing": "compress", "clusterer": "clusterer"}


@dataclass(kw_only=True)
class SearchRun(Settings):
    """Search one embedding store for rare classes.

    The defaults are the default search, ``preset("multiscale")``. A run writes into ``out`` the tables classes,
    members, tree, linkage, map and map_2d (Parquet, see :mod:`rarezoo.tables`), the fitted map, ``run.json`` and
    ``report/index.html``. A killed run continues where it stopped when the same search is run again.

    Examples
    --------
    >>> run = SearchRun(store="runs/embed", out="runs/search", seed=1)
    >>> run.clusterer.selection
    'isolated'
    >>> run.run()  # doctest: +SKIP
    Search('runs/search': 12 classes among 50,000 galaxies)
    """

    store: Any = setting(help="folder of the embedding store that is searched (in Python also the store itself)")
    select: Select = setting(Select, "which galaxies are searched")
    features: Features = setting(Image, "what is searched: the images, or also columns of a catalogue")
    compress: Compressor = setting(_DEFAULTS["compress"], "map that is clustered")
    drawing: Compressor = setting(_DEFAULTS["drawing"], "map that is drawn, of two dimensions")
    clusterer: Clusterer = setting(_DEFAULTS["clusterer"], "how classes are read from the map")
    logger: Tracker = setting(Tracker, "where the result is logged")
    data: Survey | None = setting(None, "the survey, if its images are no longer where the store remembers them")
    images: bool = setting(True, "show galaxies in the report; false if their images cannot be read")
    reuse: str | None = setting(
        None, "folder of an earlier search with the same settings for the map: its map and linkage are used again"
    )
    cache: str | None = setting(
        None, "folder in which several searches share maps and linkages, so that each is computed once"
    )
    previous: str | None = setting(None, "folder of an earlier search: a class that is the same keeps its id")
    significance: Significance = setting(Significance, "how classes are compared with null surveys")
    stability: Stability = setting(Stability, "whether classes come back in other searches")
    beyond: bool = setting(True, "measure how much of each class the predicted answers do not explain")
    systematics: Systematics = setting(Systematics, "test whether the telescope or the catalogue explains a class")
    decisions: str | None = setting(
        None, "file of decisions that was saved from the atlas: about this search, or about the search in previous="
    )
    thumbnails: int = setting(
        20_000, "largest number of galaxies that the atlas shows as images", unit="galaxies", ge=0
    )
    engine: Engine | None = setting(
        None, "where a store is searched that is too large for the memory: from a sample, shard by shard; null = the "
        "whole store in the memory"
    )  # fmt: skip
    sample: int = setting(500_000, "engine=: galaxies from which classes are found", unit="galaxies", ge=100)
    drawn: int = setting(1_000_000, "engine=: galaxies that report and atlas show", unit="galaxies", ge=100)
    magnitude: str = setting("", "engine=: column of magnitudes by which the sample is stratified too; empty: none")
    level: float = setting(
        0.05, "engine=: expected share of galaxies of no class that are wrongly placed in a class", gt=0, le=1
    )
    second_pass: bool = setting(True, "engine=: search what belongs to nothing and lies far from everything on its own")
    out: str = setting("runs/cluster", "output folder")
    seed: int = setting(0, "seed of every random draw", ge=0)
    vary: dict[str, Any] = setting(
        {}, "{SETTING:VALUE, …} that one job of a multirun changes together, because KEY=A,B alone makes every "
        "combination; on the command line only"
    )  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError if there are no null surveys to compare with, or stores that lack what is searched."""
        if self.clusterer.selection == ISOLATED and not self.significance.surveys:
            raise needs_null_surveys()
        others = [*self.stability.stores, *([self.significance.store] if self.significance.store else [])]
        if others and not self.features.of_images:
            raise ConfigError(
                "stability.stores and significance.store hold embeddings of images alone, and this search has columns "
                "of a catalogue too", value=", ".join(others), fix="Leave them out, or search with features=image.",
            )  # fmt: skip
        alone = {"select.sample": self.select.sample, "select.fractions_from": self.select.fractions_from,
                 "decisions": self.decisions, "previous": self.previous, "reuse": self.reuse,
                 "stability.stores": self.stability.stores, "significance.store": self.significance.store,
                 "features": "" if self.features.of_images else "with columns"}  # fmt: skip
        if self.engine is None:
            changed = [
                f"{known.name}={getattr(self, known.name)}" for known in fields(self)
                if known.name in OUT_OF_CORE and getattr(self, known.name) != known.default
            ]  # fmt: skip
            if changed:
                raise ConfigError(
                    "settings that only a search out of core has", value=", ".join(changed),
                    fix="Add engine=local or engine=dask, or leave them out. In the memory, select.sample= searches a "
                    "part.",
                )  # fmt: skip
        given = [name for name, value in alone.items() if value] if self.engine is not None else []
        if given:
            raise ConfigError(
                "settings that a search out of core does not have", value=", ".join(given),
                fix="Leave them out, or leave engine= out and search in the memory. sample= says how many galaxies the "
                "classes are found from; rarezoo classes apply takes decisions.",
            )  # fmt: skip

    def run(self) -> Search:
        """Search, or return the search if it is finished already.

        Raises
        ------
        StoreError, ConfigError, DataError, OutputError
            See the message.
        """
        self.stability.check_stores()
        previous = PreviousSearch.read(self.previous) if self.previous else None
        decisions = Decisions.read(self.decisions) if self.decisions else None
        store = self.store if isinstance(self.store, EmbeddingStore) else EmbeddingStore.open(self.store)
        self._check_columns(store)
        inputs = self._inputs(store, previous)
        folder = claim(
            self.out, verb="cluster", settings=self.settings(), inputs=lambda: inputs, places=_PLACES,
            begun=lambda folder: any((folder / name).exists() for name in (*_KEPT, "sample")),
        )  # fmt: skip
        finished = self._finished(folder, store, inputs)
        if finished is not None:
            log.info("already searched: %s", finished.page)
        elif self.engine is not None:
            from rarezoo.searches.large import LargeSearch

            finished = LargeSearch(self, store, folder).search(inputs)
        return self._searched(store, folder, inputs, previous, decisions) if finished is None else finished

    def _searched(
        self, store: EmbeddingStore, folder: Path, inputs: Mapping[str, Any], previous: PreviousSearch | None,
        decisions: Decisions | None,
    ) -> Search:  # fmt: skip
        """Search a whole store in the memory, step by step."""
        clock = Clock()
        galaxies = self._survey(store)
        metadata = Metadata.of(galaxies, systematics=self.systematics)

        # Select, compress, build the tree.
        sample, embeddings, selection = self._selected(store)
        ids = tables.strings(sample, tables.ID)
        # The map refuses a single galaxy.
        if len(ids) > 1:
            self.clusterer.require_galaxies(len(ids))
        if previous:
            previous.require_common_galaxies(ids)
        fitted = self._map(self._compressor, embeddings, ids, folder / FITTED, clock, "compress")
        with clock.stage("linkage"):
            tree = self.clusterer.tree(self._linkage(fitted, folder))

        # Compare its nodes with null surveys, choose the classes.
        scores, null, features = None, None, fitted.features(embeddings)
        with clock.stage("significance"):
            if self.significance.surveys:
                null = self._null_surveys(fitted, features, ids, folder)
                scores = TreeScores.of(tree, features, null, self.significance, seed=self.seed)
        with clock.stage("classes"):
            clustering = self.clusterer.select(tree, scores, ids=ids)
            classes = class_table(clustering, ids=ids, positions=fitted.positions, predictions=sample)
            if scores:
                classes = with_columns(classes, scores.columns(clustering.nodes))
            members = member_table(clustering, ids=ids)

        # Search again for stability, draw.
        with clock.stage("stability"):
            stability = self._stability(embeddings, ids, clustering, null, folder / "refits")
        drawn = self._map(self.features.drawing(self.drawing), embeddings, ids, folder / DRAWN_MAP, clock, "draw")
        other_tables = {"tree": clustering.tree, "map": _map_table(fitted), "map_2d": _map_table(drawn)}
        if scores:
            other_tables["main_groups"] = main_group_table(
                scores.main_groups, ids=ids, positions=fitted.positions, predictions=sample
            )
            other_tables["nodes"] = scores.table()
        if stability:
            classes, other_tables["stability"] = stability.added_to(classes), stability.table()

        # Take over the class ids of an earlier search.
        free_class_id = len(clustering)
        if previous:
            lineage = previous.lineage(members)
            classes, members, free_class_id = lineage.renamed(classes), lineage.renamed(members), lineage.free
            other_tables["evolution"] = lineage.evolution
            if stability:
                other_tables["stability"] = lineage.renamed(other_tables["stability"])

        # Explain the classes, give them grades and an order, apply the decisions of a reader.
        classes, tests = self._explained(classes, clustering, sample, embeddings, metadata, clock)
        directions = class_directions(features, clustering.labels, classes=len(clustering))
        classes = graded(classes, level=self.significance.level, directions=directions)
        if decisions:
            decided = self._decided(decisions, previous, members, classes, fitted, sample)
            classes, members = decided.classes, decided.members

        # Write, report, log.
        about = {**self._about(store, selection, classes, members), "inputs": inputs, "folder": str(folder.resolve())}
        search = Search.write(
            folder, about, {**other_tables, "members": members, "classes": classes}, free_class_id=free_class_id,
            store=store, galaxies=galaxies, tests=tests, predictions=sample,
        )  # fmt: skip
        with clock.stage("report"):
            search.report(images=galaxies is not None, thumbnails=self.thumbnails)
        search.finish({**about, "seconds": clock.seconds})
        search.log(self.logger, images=galaxies is not None)
        log.info("%s", search.summary())
        return search

    def settings(self) -> dict[str, Any]:
        """Return what identifies this search. Where it is logged and whether it shows images does not."""
        folder = self.store.folder if isinstance(self.store, EmbeddingStore) else self.store
        return {
            "store": _absolute(folder),
            "select": {**asdict(self.select), "fractions_from": _absolute(self.select.fractions_from)},
            "compress": described(self.compress), "drawing": described(self.drawing),
            "clusterer": described(self.clusterer), "previous": _absolute(self.previous),
            "stability": {**asdict(self.stability), "stores": [_absolute(store) for store in self.stability.stores]},
            "significance": {**asdict(self.significance), "store": _absolute(self.significance.store)},
            "beyond": self.beyond, "systematics": asdict(self.systematics), "seed": self.seed,
            "decisions": _absolute(self.decisions),
            # Searches of images have no such setting, as in earlier versions.
            **({} if self.features == Image() else {"features": self.features.settings()}),
            **({} if self.engine is None else {
                "large": {name: getattr(self, name) for name in OUT_OF_CORE}
            }),
        }  # fmt: skip

    @property
    def _compressor(self) -> Compressor:
        """The compressor of what is searched; features of a catalogue are weighted already."""
        return self.features.compressor(self.compress)

    def _inputs(self, store: EmbeddingStore, previous: PreviousSearch | None) -> dict[str, Any]:
        """Return what the search is made from, as hashes."""
        others = {"fractions_from": self.select.fractions_from, "null surveys": self.significance.store}
        others |= {f"stability {number}": other for number, other in enumerate(self.stability.stores, start=1)}
        return {
            "store": store.identity,
            **{name: EmbeddingStore.open(other).identity for name, other in others.items() if other},
            "previous": previous.sha256 if previous else None,
            "decisions": file_sha256(self.decisions) if self.decisions else None,
            **self.features.inputs(),
        }

    def _finished(self, folder: Path, store: EmbeddingStore, inputs: Mapping[str, Any]) -> Search | None:
        """Return the search in a claimed folder if it is finished; it learns where its store is now.

        Raises
        ------
        OutputError
            It was made from something else: its record of settings was deleted.
        """
        if not (folder / RUN_FILE).exists():
            return None
        if self.engine is not None:
            return self._finished_large(folder, store)
        try:
            search = Search.open(folder, survey=self.data, store=store)
        except StoreError as problem:
            log.warning("%s is not readable, and the search goes on: %s", folder / RUN_FILE, problem)
            return None
        changed = changed_inputs(search.about.get("inputs", {}), tables.plain(inputs))
        if changed:
            raise OutputError(
                f"{folder} holds a search that was made from other inputs", value=changed,
                fix="Choose another out=DIR, or delete that folder if you no longer need it.",
            )  # fmt: skip
        places = {"settings": {**search.settings, **self.settings()}, "folder": str(folder.resolve())}
        if tables.plain(places) != {name: search.about.get(name) for name in places}:
            search.finish({**search.about, **places})
        return search

    def _finished_large(self, folder: Path, store: EmbeddingStore) -> Search | None:
        """Return the finished search out of core in a claimed folder; OutputError if it is of another store."""
        search = Search.open(folder, survey=self.data)
        changed = changed_inputs(search.about.get("inputs", {}).get("whole store", {}), tables.plain(store.identity))
        if changed:
            raise OutputError(
                f"{folder} holds a search that was made from other inputs", value=changed,
                fix="Choose another out=DIR, or delete that folder if you no longer need it.",
            )  # fmt: skip
        return search

    def labels(
        self, embeddings: Float[np.ndarray, "galaxies D"], *, ids: np.ndarray, seed: int, null: NullSurveys | None
    ) -> Int32[np.ndarray, " galaxies"]:
        """Search other embeddings, or some of the galaxies, with the same settings and the same null surveys.

        Parameters
        ----------
        embeddings : (n, D) array of floats
            Their embeddings.
        ids : (n,) array of str
            Their ids.
        seed : int
            Seed of every random draw.
        null : NullSurveys or None
            What null surveys show; None if significance is not measured.

        Returns
        -------
        (n,) array of integers
            Class of each galaxy, −1 for none.
        """
        fitted = self._compressor.fit(embeddings, ids=ids, seed=seed)
        tree = self.clusterer.tree(self.clusterer.linkage(fitted.positions))
        features = fitted.features(embeddings)
        scores = TreeScores.of(tree, features, null, self.significance, seed=seed) if null else None
        return self.clusterer.select(tree, scores, ids=ids).labels

    def _survey(self, store: EmbeddingStore) -> Galaxies | None:
        """Open the survey before the long work begins; None without images."""
        if not self.images or (self.data is None and not store.has_survey):
            return None
        way_out = "Say where its images are now (data=…), or make a report without them: images=false."
        return galaxies_of(store, survey=self.data, way_out=way_out)

    def _check_columns(self, store: EmbeddingStore) -> None:
        """Read the columns before the folder is claimed, so that a misspelt one leaves no folder of its settings."""
        if isinstance(self.features, WithColumns):
            self.features.values(store.ids, self._catalogue(store))

    def _catalogue(self, store: EmbeddingStore) -> pa.Table | None:
        """Catalogue of the survey for features that need its columns; None without one, or if a table is named."""
        if getattr(self.features, "table", "") or (self.data is None and not store.has_survey):
            return None
        return galaxies_of(
            store, survey=self.data, way_out="Give a table of the columns: features.table=FILE."
        ).catalogue

    def _selected(self, store: EmbeddingStore) -> tuple[pa.Table, np.ndarray, Selection]:
        """Ids and predicted fractions of the galaxies that are searched, their features (n, d), and the cuts."""
        galaxies = self.select.judged(store.read(_columns_without_embedding(store)), store=store)
        embeddings = store.embeddings()
        selection = self.select.kept(galaxies, embeddings=embeddings, seed=self.seed)
        if not selection.mask.all():
            galaxies, embeddings = galaxies.filter(pa.array(selection.mask)), embeddings[selection.mask]
        if self.features.of_images:
            return galaxies, embeddings, selection
        searched = self.features.searched(
            embeddings, ids=tables.strings(galaxies, tables.ID), catalogue=self._catalogue(store), seed=self.seed,
            compressor=self.compress,
        )  # fmt: skip
        mask = selection.mask.copy()
        mask[np.flatnonzero(mask)[~searched.kept]] = False
        for cut in searched.cuts:
            log.info("%s", cut)
        return (
            galaxies.filter(pa.array(searched.kept)),
            searched.matrix,
            Selection(mask, (*selection.cuts, *searched.cuts)),
        )

    def _map(
        self, compressor: Compressor, embeddings: np.ndarray, ids: np.ndarray, folder: Path, clock: "Clock", stage: str
    ) -> FittedMap:
        """Return a map: that of this run before it was killed, or of an earlier run, or a new one."""
        own = _map_in(folder)
        for known, place in ((own, folder), (_reused_map(self.reuse, folder.name), self.reuse)):
            if known is None:
                continue
            same_settings = (known.compressor, known.seed) == (compressor, self.seed)
            if same_settings and known.is_of(embeddings, ids=ids):
                return known
            if known is own:
                log.warning("the map in %s was made from something else and is made again", folder)
                continue
            what = "from other embeddings or galaxies" if same_settings else "with other settings or another seed"
            raise ConfigError(
                f"the map of reuse= was made {what}", value=place,
                fix="Give the same store=, select=, compress= and seed=, or leave out reuse=.",
            )  # fmt: skip

        if folder.name == FITTED:
            # What was made from a map that is not there any more must not be taken for results of the new one.
            shutil.rmtree(folder.parent / _NULL_SURVEYS, ignore_errors=True)

        def fit(place: Path) -> FittedMap:
            with clock.stage(stage):
                fitted = compressor.fit(embeddings, ids=ids, seed=self.seed)
            fitted.save(place)
            return fitted

        if not self.cache:
            return fit(folder)
        key = {"map": described(compressor), "seed": self.seed, "galaxies": fingerprint(embeddings, ids=ids)}
        cache = Cache(Path(self.cache))
        fetched: FittedMap = cache.fetch(
            key, folder, last=SETTINGS_FILE, make=fit, read=FittedMap.open, code=[compressor]
        )
        return fetched

    def _linkage(self, fitted: FittedMap, folder: Path) -> pa.Table:
        """Return the linkage: saved already, or computed and saved.

        It depends on the map, on ``min_samples``, and on settings that a clusterer has of its own.
        """
        selecting = {field.name for field in fields(Clusterer)} - {"min_samples"}
        settings = {name: value for name, value in described(self.clusterer).items() if name not in selecting}
        made_with = {
            "clusterer": settings.pop("option"), **settings,
            "positions": fingerprint(fitted.positions, ids=fitted.ids),
        }  # fmt: skip

        def read(place: Path) -> pa.Table:
            return tables.read(place / LINKAGE_FILE, tables.LINKAGE)

        for place in (folder, *([Path(self.reuse)] if self.reuse else [])):
            try:
                linkage = read(place)
            except StoreNotFound:
                continue
            except StoreError as problem:
                log.warning("the linkage is computed again: %s", problem)
                continue
            if tables.provenance(linkage).get("made_with") == made_with:
                return linkage

        def compute(place: Path) -> None:
            linkage = self.clusterer.linkage(fitted.positions)
            tables.write(linkage, place / LINKAGE_FILE, tables.LINKAGE, made_with=made_with)

        if self.cache:
            cache = Cache(Path(self.cache))
            return cache.fetch(made_with, folder, last=LINKAGE_FILE, make=compute, read=read, code=[self.clusterer])
        compute(folder)
        return read(folder)

    def _null_surveys(self, fitted: FittedMap, features: np.ndarray, ids: np.ndarray, folder: Path) -> NullSurveys:
        """Return what null surveys show; their nodes are kept in the run's folder, or in the cache if there is one."""
        place = folder / _NULL_SURVEYS
        store = EmbeddingStore.open(self.significance.store) if self.significance.store else None
        if self.cache:
            key = {
                "null": described(self._compressor), "store": store.identity if store else "", "seed": self.seed,
                "galaxies": fingerprint(features, ids=ids),
            }  # fmt: skip
            code = [self._compressor, *_NULL_CODE]
            place = Cache(Path(self.cache)).place(key, code=code)
        # If the map there was made with the same settings from the same embeddings, so were its null surveys, unless
        # they are those of another store.
        reused = None if store else _reused_map(self.reuse, FITTED)
        same = reused and (reused.compressor, reused.seed, reused.made_from) == (
            fitted.compressor, fitted.seed, fitted.made_from,
        )  # fmt: skip
        earlier = Path(self.reuse) / _NULL_SURVEYS if self.reuse and same else None
        return null_surveys(
            features, self._compressor, count=self.significance.surveys, galaxies=self.significance.galaxies,
            kind=self.significance.kind, tree_of=fine_tree, folder=place, earlier=earlier,
            untrained=store.embeddings() if store else None, seed=self.seed,
        )  # fmt: skip

    def _stability(
        self, embeddings: np.ndarray, ids: np.ndarray, clustering: Clustering, null: NullSurveys | None, folder: Path
    ) -> Stabilities | None:
        if not self.stability.wanted or not len(clustering):
            return None
        refits = self.stability.refits_of(
            embeddings, partial(self.labels, null=null), ids=ids, seed=self.seed, folder=folder,
            made_with={
                "compress": described(self._compressor), "clusterer": described(self.clusterer),
                "significance": asdict(self.significance),
            },
        )  # fmt: skip
        return stabilities(clustering.labels, refits) if refits else None

    def _explained(
        self, classes: pa.Table, clustering: Clustering, sample: pa.Table, embeddings: np.ndarray, metadata: Metadata,
        clock: "Clock",
    ) -> tuple[pa.Table, Mapping[int, tuple[ColumnTest, ...]]]:  # fmt: skip
        """Classes with what the predicted answers and the telescope explain of them, and their tests by class id."""
        labels, count = clustering.labels, classes.num_rows
        if self.beyond:
            with clock.stage("beyond"):
                left = metadata.beyond(sample, embeddings, labels=labels, classes=count, seed=self.seed)
            classes = with_columns(classes, left)
        with clock.stage("systematics"):
            causes = metadata.causes(sample, labels=labels, classes=count)
        ids = classes.column(tables.CLASS_ID).to_pylist()
        tests = {class_id: cause.tests for class_id, cause in zip(ids, causes, strict=True)}
        return with_columns(classes, cause_columns(causes)), tests

    def _decided(
        self, decisions: Decisions, previous: PreviousSearch | None, members: pa.Table, classes: pa.Table,
        fitted: FittedMap, sample: pa.Table,
    ) -> DecidedTables:  # fmt: skip
        """Classes dropped, merged and named as a reader decided; ConfigError for decisions about another search."""
        searches = [members] if previous is None else [members, previous.members]
        decisions.require_search(
            *(
                search_key(known.column(tables.ID).to_pylist(), known.column(tables.CLASS_ID).to_numpy())
                for known in searches
            )
        )
        return apply_decisions(
            decisions, members=members, classes=classes, positions=fitted.positions, predictions=sample
        )

    def _about(
        self, store: EmbeddingStore, selection: Selection, classes: pa.Table, members: pa.Table
    ) -> dict[str, Any]:
        """Content of run.json."""
        return {
            "title": store.manifest.title,
            "survey": store.manifest.survey,
            "survey_sha256": store.manifest.survey_sha256,
            "checkpoint": store.manifest.checkpoint,
            "checkpoint_sha256": store.manifest.checkpoint_sha256,
            "settings": self.settings(),
            "version": __version__,
            "galaxies": len(selection.mask),
            "searched": members.num_rows,
            "cuts": [asdict(cut) for cut in selection.cuts],
            "classes": classes.num_rows,
            "grades": counts(classes.column(tables.GRADE).to_pylist()),
            "unassigned": float(np.mean(members.column(tables.CLASS_ID).to_numpy() == tables.NO_CLASS)),
        }


def search(
    store: EmbeddingStore | Path | str, *, out: Path | str = "runs/cluster", preset: str = DEFAULT, **settings: Any
) -> Search:
    """Search an embedding store for rare classes.

    Parameters
    ----------
    store : EmbeddingStore, Path or str
        The store, or its folder.
    out : Path or str
        Output folder. A finished search with the same settings in it is returned at once.
    preset : str
        ``multiscale`` (classes of every size), ``small``, ``medium``, ``paper``, …: see
        :data:`rarezoo.searches.presets.PRESETS`.
    **settings
        Fields of :class:`SearchRun`, which replace those of the preset: ``seed=1``, ``images=False``,
        ``significance=Significance(surveys=50)``. A dictionary changes some settings of a field and keeps the others:
        ``compress={"whiten": 32}`` means the same as ``compress.whiten=32`` on the command line, and
        ``clusterer="hdbscan"`` the same as ``clusterer=hdbscan``: settings of the preset that it has too are kept.
        Nothing is logged unless a ``logger`` is given.

    Raises
    ------
    StoreError, ConfigError, DataError, OutputError
        See the message.

    Examples
    --------
    >>> search("runs/embed", out="runs/search", preset="small")  # doctest: +SKIP
    Search('runs/search': 4 classes among 6,000 galaxies)
    """
    values = {"logger": Tracker(mode="none"), **preset_settings(preset)}
    known = {field.name: field for field in fields(SearchRun) if field.name not in ("store", "out")}
    refuse_unknown(settings, known, of="a search")
    defaults = SearchRun(store=store, out=str(out), **values)
    for name, value in settings.items():
        values[name] = value
        part = getattr(defaults, name)
        if isinstance(value, str) and name in _CHOICES:
            kind = choice(_CHOICES[name], value)
            shared = [field.name for field in fields(kind) if field.init and hasattr(part, field.name)]
            values[name] = kind(**{field: getattr(part, field) for field in shared})
        elif isinstance(value, Mapping) and is_dataclass(part) and not isinstance(part, type):
            refuse_unknown(value, [field.name for field in fields(part)], of=name)
            values[name] = replace(part, **value)
    return SearchRun(store=store, out=str(out), **values).run()


class Clock:
    """Seconds of wall time per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a ``with`` block."""
        log.info("%s …", name)
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _map_in(folder: Path) -> FittedMap | None:
    """Return the map in a folder; None if there is none, or one that a power failure has damaged."""
    if not (folder / SETTINGS_FILE).exists():
        return None
    try:
        return FittedMap.open(folder)
    except StoreError as problem:
        log.warning("the map is made again: %s", problem)
        return None


def _reused_map(folder: str | None, name: str) -> FittedMap | None:
    """Return the map of an earlier search, if there is such a folder with a map in it."""
    place = Path(folder) / name if folder else None
    return FittedMap.open(place) if place and (place / SETTINGS_FILE).exists() else None


def _absolute(path: Any) -> Any:
    """Return a path that does not depend on the working directory; empty and None stay."""
    return str(Path(path).resolve()) if path else path


def _map_table(fitted: FittedMap) -> pa.Table:
    """Return a fitted map's positions as a MAP table."""
    ids = pa.array(fitted.ids, pa.string())
    return pa.table({tables.ID: ids, tables.POSITION: tables.vectors(fitted.positions)})


def _columns_without_embedding(store: EmbeddingStore) -> list[str]:
    return [name for name in store.shard(0).column_names if name != tables.EMBEDDING]
