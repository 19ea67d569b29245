"""``python -m benchmarks cost``: what each step of the default search costs, in units of the time of its map alone.

The same map by umap-learn is timed in the same process, because the map of the default search is made by our own code.
Each number of threads is measured in a process of its own, because threads and memory are controlled by process. The
classes must be the same to the bit for every number of threads.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks.search import FEWEST, THREAD_VARIABLES, WARMING, peak_memory, planted_sky
from rarezoo.errors import ConfigError
from rarezoo.searches.clusterers import fine_tree
from rarezoo.searches.compressors.umap import Umap
from rarezoo.searches.null_surveys import null_surveys
from rarezoo.searches.presets import preset
from rarezoo.searches.significance import FEWEST_SURVEYS, Significance, TreeScores
from rarezoo.settings import Settings, setting
from rarezoo.tables import markdown

_MAP, _TREE, _NULL, _SCORES = "map", "tree", "null surveys", "scores and classes"
_STEPS = (_MAP, _TREE, _NULL, _SCORES)
_REFERENCE = "map by umap-learn"


def measured_here(galaxies: int, seed: int) -> dict[str, Any]:
    """Search planted vectors, and return the seconds of each step, the peak memory, and a digest of the classes."""
    settings, seconds = preset(), dict[str, float]()
    compressor, clusterer, significance = settings["compress"], settings["clusterer"], Significance()

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - started

    def search(embeddings: np.ndarray, *, surveys: int) -> bytes:
        ids = np.char.zfill(np.arange(len(embeddings)).astype(str), 9)
        with timed(_MAP):
            fitted = compressor.fit(embeddings, ids=ids, seed=seed)
        with timed(_TREE):
            tree = clusterer.tree(clusterer.linkage(fitted.positions))
        features = fitted.features(embeddings)
        with timed(_NULL):
            null = null_surveys(
                features, compressor, count=surveys, galaxies=significance.galaxies, tree_of=fine_tree,
                seed=seed,
            )  # fmt: skip
        with timed(_SCORES):
            scores = TreeScores.of(tree, features, null, significance, seed=seed)
            clustering = clusterer.select(tree, scores, ids=ids)
        return clustering.labels.tobytes() + np.array(scores.scores).tobytes()

    def reference(embeddings: np.ndarray) -> None:
        ids = np.char.zfill(np.arange(len(embeddings)).astype(str), 9)
        with timed(_REFERENCE):
            Umap(**{field.name: getattr(compressor, field.name) for field in fields(compressor)}).fit(
                embeddings, ids=ids, seed=seed
            )

    # Compile everything before the clock counts.
    small, sky = planted_sky(99, galaxies=WARMING).embeddings, planted_sky(seed, galaxies=galaxies).embeddings
    search(small, surveys=FEWEST_SURVEYS)
    found, memory = search(sky, surveys=significance.surveys), peak_memory()
    reference(small)
    reference(sky)
    return {"seconds": seconds, "memory GB": memory, "sha256": hashlib.sha256(found).hexdigest()}


@dataclass(kw_only=True)
class SearchCost(Settings):
    """Time and memory of each step of the default search on planted vectors, as multiples of its map alone."""

    galaxies: int = setting(100_000, "number of galaxies", unit="galaxies", ge=FEWEST)
    threads: list[int] = setting(sorted({1, os.cpu_count() or 1}), "thread counts, each in a process of its own", ge=1)
    seed: int = setting(0, "seed of the vectors and of the search", ge=0)

    def run(self) -> str:
        """Measure, and return a table and whether all numbers of threads gave the same bits.

        Raises
        ------
        ConfigError
            A process was killed.
        """
        rows, digests = [], set()
        for threads in self.threads:
            result = self._measured(threads)
            seconds = result["seconds"]
            ratios = [f"{seconds[step] / seconds[_MAP]:.2f}" for step in _STEPS]
            total = sum(seconds[step] for step in _STEPS)
            by_others = [f"{seconds[_REFERENCE] / seconds[_MAP]:.2f}", f"{total / seconds[_REFERENCE]:.2f}"]
            memory = f"{result['memory GB']:.1f}"
            rows.append(
                [str(threads), f"{seconds[_MAP]:.0f}", *ratios, f"{total / seconds[_MAP]:.2f}", *by_others, memory]
            )
            digests.add(result["sha256"])
        head = ["threads", "map, s", *(f"{step} / map" for step in _STEPS), "all / map", f"{_REFERENCE} / map",
                f"all / {_REFERENCE}", "peak memory, GB"]  # fmt: skip
        same = "the same bits" if len(digests) == 1 else "DIFFERENT BITS"
        return f"{self.galaxies:,} galaxies\n\n{markdown(head, rows)}\n\nscores and classes: {same}"

    def _measured(self, threads: int) -> dict[str, Any]:
        variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        command = [sys.executable, "-m", "benchmarks.cost", str(self.galaxies), str(self.seed)]
        ended = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            raise ConfigError(
                "a measurement failed", value=f"{threads} threads, status {ended.returncode}",
                fix="A negative status means that it was killed, perhaps for lack of memory.",
            )  # fmt: skip
        content: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return content


if __name__ == "__main__":
    print(json.dumps(measured_here(int(sys.argv[1]), int(sys.argv[2]))))
