"""One search, whole: select → compress → cluster → describe → report → track."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rarezoo import __version__, tables
from rarezoo.data.galaxies import Galaxies, Survey
from rarezoo.embed import open_survey
from rarezoo.errors import ConfigError, DataError, OutputError
from rarezoo.explore.classes import class_table
from rarezoo.explore.cluster import Clusterer, Clustering
from rarezoo.explore.compress import Compressor, FittedMap
from rarezoo.explore.select import Select
from rarezoo.registry import setting
from rarezoo.report.pages import write_report
from rarezoo.report.track import Tracker
from rarezoo.store import EmbeddingStore, claim

log = logging.getLogger(__name__)
RUN_FILE = "run.json"


@dataclass(kw_only=True)
class ClusterRun:
    """Search one embedding store for rare classes.

    ``ClusterRun(store="runs/embed", clusterer=Hdbscan(min_samples=30), out="runs/cluster").run()`` leaves in ``out``:
    classes, members, tree, linkage, map and map_2d (Parquet, see tables.py), run.json and report/index.html.
    A killed run goes on where it stopped when the same command is given again.
    """

    store: str = setting("???", "folder of the embedding store to search")
    select: Select = setting(Select(), "which galaxies are searched")
    compress: Compressor = setting("???", "how embeddings become the map that is searched")
    drawing: Compressor | None = setting(None, "how the two-dimensional map is made; never searched")
    clusterer: Clusterer = setting("???", "how classes are read off the map")
    logger: Tracker = setting(Tracker(), "where the result is logged")
    data: Survey | None = setting(None, "the survey, if its images are no longer where the store remembers them")
    images: bool = setting(True, "show galaxies in the report; false if the images are not at hand")
    reuse: str | None = setting(None, "an earlier run's folder: take its map and linkage, made with the same settings")
    out: str = setting("runs/cluster", "output folder")
    seed: int = setting(0, "seed of every random draw")
    seconds: dict[str, float] = field(default_factory=dict, init=False, repr=False)
