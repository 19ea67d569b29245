"""``python -m benchmarks scale``: surveys that outgrow the memory, searched out of core.

Each size is a synthetic store, written shard by shard, with planted groups. ``rarezoo cluster`` searches it in a
process of its own; the peak memory is that of the largest of its processes. Finished sizes are kept in ``out`` and not
measured again, so that a measurement that was stopped goes on.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.benchmark.planted import PlantedSurvey
from rarezoo.embeddings.store import IMPORTED, EmbeddingStore, Manifest
from rarezoo.runs import digest
from rarezoo.searches.large import placed_tables
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

_MEMORY = "memory"
# A group counts as found if a class holds half of it, and half of the class is of the group.
_HALF = 0.5
# Sizes for which the cost is read off the measured lines.
_PROJECTED = (10**7, 10**8, 10**9)


@dataclass(kw_only=True)
class Scale(Settings):
    """Time, peak memory, bytes on disk and planted groups found, for surveys of several sizes.

    Groups: large ones, whose sizes are shares of the survey; and a rare one off the bulk, of which the sample has too
    few members, so that only the second pass can find it.
    """

    galaxies: list[int] = setting([100_000], "numbers of galaxies", unit="galaxies", ge=10_000)
    sample: int = setting(20_000, "galaxies of the sample", unit="galaxies", ge=1000)
    rare: int = setting(60, "galaxies of the rare group", unit="galaxies", ge=10)
    shard_rows: int = setting(10_000, "galaxies per shard", unit="galaxies", ge=100)
    engines: list[str] = setting(["local"], "local, dask, or memory: the whole store at once, as without engine=")
    workers: int = setting(2, "workers of engine=dask", ge=1)
    surveys: int = setting(8, "number of null surveys", ge=5)
    seed: int = setting(0, "seed of the surveys", ge=0)
    out: str = setting("runs/scale", "folder of stores, searches and results")

    def run(self) -> str:
        """Measure what is not measured yet, and return a table and the exponents of time."""
        rows: list[list[str]] = []
        results: dict[str, list[dict[str, Any]]] = {}
        for galaxies in self.galaxies:
            for engine in self.engines:
                result = self._measured(galaxies, engine)
                results.setdefault(engine, []).append(result)
                rows.append([
                    f"{galaxies:,}", engine, f"{result['seconds']:.0f}", f"{result['cpu']:.0f}",
                    f"{result['peak'] / 2**30:.2f}", f"{result['store_bytes'] / 2**30:.2f}",
                    f"{result['search_bytes'] / 2**30:.2f}", result["found"], result["rare"],
                ])  # fmt: skip
        head = [
            "galaxies",
            "engine",
            "s",
            "processor s",
            "peak GiB",
            "store GiB",
            "search GiB",
            "groups found",
            "rare group",
        ]
        lines = [tables.markdown(head, rows)]
        for engine, measured in results.items():
            if len(measured) > 1:
                lines.append(_projected(engine, measured))
        return "\n\n".join(lines)

    def _measured(self, galaxies: int, engine: str) -> dict[str, Any]:
        about = {"galaxies": galaxies, "engine": engine, "sample": self.sample, "rare": self.rare, "seed": self.seed,
                 "surveys": self.surveys, "shard_rows": self.shard_rows, "workers": self.workers}  # fmt: skip
        kept = Path(self.out) / f"result-{digest(about)[:12]}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        survey = planted_survey(galaxies, rare=self.rare, seed=self.seed)
        store = self._store(survey)
        folder = Path(self.out) / f"search-{digest(about)[:12]}"
        words = [
            f"store={store.folder}", f"out={folder}", "images=false", "logger=none", "thumbnails=0", "beyond=false",
            "stability.refits=0", f"significance.surveys={self.surveys}", f"seed={self.seed}",
        ]  # fmt: skip
        if engine != _MEMORY:
            words += [f"engine={engine}", f"sample={self.sample}"]
        if engine == "dask":
            words += [f"engine.workers={self.workers}"]
        environment = {**os.environ, "TQDM_DISABLE": "1"}
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", "from rarezoo.cli import main; main()", "cluster", *words]
        with (Path(self.out) / f"{folder.name}.log").open("wb") as log:
            subprocess.run(command, check=True, env=environment, stdout=log, stderr=log)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        found, rare, _ = groups_found(Search.open(folder), survey, whole=engine == _MEMORY)
        result = {
            **about, "seconds": seconds, "peak": after.ru_maxrss * 1024,
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "store_bytes": _bytes(store.folder), "search_bytes": _bytes(folder), "found": found, "rare": rare,
        }  # fmt: skip
        tables.write_json(result, kept)
        return result

    def _store(self, survey: PlantedSurvey) -> EmbeddingStore:
        """Return the store of a survey, written shard by shard where it is not there."""
        from rarezoo.benchmark.planted import WIDTH

        name = digest({"survey": str(survey), "shards": self.shard_rows})
        manifest = Manifest(
            survey=IMPORTED, survey_sha256=name, checkpoint="planted", checkpoint_sha256=digest({"network": "planted"}),
            precision=IMPORTED, width=WIDTH, dtype="float32", rows=survey.galaxies, shard_rows=self.shard_rows,
            content_sha256=name,
        )  # fmt: skip
        store = EmbeddingStore.create(Path(self.out) / f"store-{survey.galaxies}-{name[:8]}", manifest)
        for index in tqdm(store.missing(), desc="store", unit="shard"):
            covered = manifest.rows_of(index)
            embeddings, _ = survey.shard(covered.start, covered.stop)
            ids = [f"g{row:010d}" for row in range(covered.start, covered.stop)]
            fractions = np.empty((len(ids), 0), dtype=np.float32)
            store.write_shard(index, ids=ids, embeddings=embeddings, fractions=fractions)
        return store.finish()


def planted_survey(galaxies: int, *, rare: int, seed: int) -> PlantedSurvey:
    """Return a survey with four groups whose sizes are shares of it, and a rare one off the bulk."""
    shares = (0.002, 0.005, 0.01, 0.02)
    return PlantedSurvey(
        galaxies, sizes=(*(int(share * galaxies) for share in shares), rare),
        places=("edge", "off", "off", "inside", "off"), contrasts=(20.0, 20.0, 10.0, 20.0, 60.0), seed=seed,
    )  # fmt: skip


def groups_found(search: Search, survey: PlantedSurvey, *, whole: bool) -> tuple[str, str, str]:
    """Return how many large groups were found, which pass found the rare one, and how many the sample alone found.

    Parameters
    ----------
    search
        The finished search; ids are ``g`` and the row of the survey.
    survey
        The survey with its groups.
    whole
        Whether the search was one of the whole store at once, so that there is no sample.
    """
    if whole:
        parts = search.table("members").select([tables.ID, tables.CLASS_ID])
    else:
        parts = pa.concat_tables(part.select([tables.ID, tables.CLASS_ID]) for part in placed_tables(search))
    labels = np.full(survey.galaxies, tables.NO_CLASS)
    rows = np.array([int(galaxy[1:]) for galaxy in parts.column(tables.ID).to_pylist()])
    labels[rows] = parts.column(tables.CLASS_ID).to_numpy()
    groups, by = survey.groups(), []
    for group in range(len(survey.sizes)):
        inside = labels[groups == group]
        classes, counts = np.unique(inside[inside >= 0], return_counts=True)
        best = classes[np.argmax(counts)] if len(classes) else tables.NO_CLASS
        own = counts.max() if len(classes) else 0
        pure = own / max((labels == best).sum(), 1) if len(classes) else 0.0
        by.append(int(best) if own >= _HALF * survey.sizes[group] and pure >= _HALF else tables.NO_CLASS)
    second = search.about.get("large", {}).get("second_pass_from", 10**9)
    rare = "not found" if by[-1] < 0 else ("second pass" if by[-1] >= second else "first pass")
    alone = sum(0 <= label < second for label in by)
    return f"{sum(label >= 0 for label in by[:-1])} of {len(by) - 1}", rare, f"{alone} of {len(by)}"


def _projected(engine: str, measured: list[dict[str, Any]]) -> str:
    """Return the exponents of time, and what larger surveys need on a line through the two largest sizes."""

    def exponent(small: dict[str, Any], large: dict[str, Any]) -> str:
        growth = np.log(large["cpu"] / small["cpu"]) / np.log(large["galaxies"] / small["galaxies"])
        return f"n^{growth:.2f} from {small['galaxies']:,} to {large['galaxies']:,}"

    steps = [exponent(*pair) for pair in pairwise(measured)]
    if len(measured) > 2:
        steps = [exponent(measured[0], measured[-1]), *steps]
    lines = [f"{engine}: processor time grows as {', '.join(steps)}"]
    before, last = measured[-2:]
    slopes = {
        key: (last[key] - before[key]) / (last["galaxies"] - before["galaxies"])
        for key in ("cpu", "store_bytes", "search_bytes")
    }
    lines.append(
        f"per million galaxies more: {slopes['cpu'] * 1e6:.0f} processor s, "
        f"{slopes['store_bytes'] * 1e6 / 2**30:.2f} GiB of store, "
        f"{slopes['search_bytes'] * 1e6 / 2**30:.2f} GiB of search"
    )
    rows = []
    for galaxies in _PROJECTED:
        at = {key: last[key] + slope * (galaxies - last["galaxies"]) for key, slope in slopes.items()}
        rows.append([
            f"{galaxies:,}", f"{at['cpu'] / 3600:.1f}", f"{at['store_bytes'] / 2**30:.0f}",
            f"{at['search_bytes'] / 2**30:.0f}",
        ])  # fmt: skip
    lines.append(tables.markdown(["galaxies, by these lines", "processor h", "store GiB", "search GiB"], rows))
    return "\n\n".join(lines)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
