"""One search, whole: select → compress → cluster → describe → report → track."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import __version__, tables
from rarezoo.data.galaxies import Galaxies, Survey
from rarezoo.embed import open_survey
from rarezoo.errors import DataError, StoreError
from rarezoo.explore.classes import class_table, member_table
from rarezoo.explore.cluster import Clusterer, Clustering
from rarezoo.explore.compress import Compressor, FittedMap
from rarezoo.explore.select import Select
from rarezoo.registry import setting
from rarezoo.report.pages import write_report
from rarezoo.report.track import Tracker
from rarezoo.store import EmbeddingStore, claim, digest

log = logging.getLogger(__name__)
RUN_FILE = "run.json"
MAP_FOLDER = "fitted_map"


@dataclass(kw_only=True)
class ClusterRun:
    """Search one embedding store for rare classes.

    ``ClusterRun(store="runs/embed", compress=Umap(), clusterer=Hdbscan(min_samples=30), out="runs/cluster").run()``
    leaves in ``out``: classes, members, tree, linkage, map and map_2d (Parquet, see tables.py), the fitted map,
    run.json and report/index.html. A killed run goes on where it stopped when the same command is given again.
    """

    store: str = setting("???", "folder of the embedding store to search")
    select: Select = setting(Select(), "which galaxies are searched")
    compress: Compressor
    drawing: Compressor | None = setting(None, "how the two-dimensional map is made; never searched")
    clusterer: Clusterer
    logger: Tracker = setting(Tracker(), "where the result is logged")
    data: Survey | None = setting(None, "the survey, if its images are no longer where the store remembers them")
    images: bool = setting(True, "show galaxies in the report; false if the images are not at hand")
    reuse: str | None = setting(None, "an earlier run's folder: take its map and linkage, made with the same settings")
    out: str = setting("runs/cluster", "output folder")
    seed: int = setting(0, "seed of every random draw")

    def run(self) -> Path:
        """Search; the path of the report's index page.

        Raises:
            StoreError, ConfigError, DataError, OutputError: see the message.
        """
        folder = claim(self.out, verb="cluster", settings=asdict(self))
        page = folder / "report" / "index.html"
        if (folder / RUN_FILE).exists():
            log.info("already searched: %s", page)
            return page
        clock = _Clock()
        store = EmbeddingStore.open(self.store)
        galaxies = self._galaxies(store)
        sample, tolls = self._sample(store)
        fitted = self._map(sample, self.compress, folder / MAP_FOLDER, clock)
        clustering = self._clustering(sample, fitted, folder, clock)
        with clock.stage("draw"):
            drawn = self._drawing(sample, fitted)
        classes = class_table(clustering, ids=sample[tables.ID], positions=fitted.positions, predictions=sample)
        members = member_table(clustering, ids=sample[tables.ID])
        about = self._about(store, sample, tolls)
        _write_tables(folder, about, sample, fitted, drawn, members=members, classes=classes, clustering=clustering)
        with clock.stage("report"):
            self._report(folder, galaxies, members, classes, clustering, drawn, sample, about)
        return self._finish(folder, about, clock, members, classes, page)
