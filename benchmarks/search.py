"""``python -m benchmarks search``: our seeded search against plain umap-learn and hdbscan, on planted embeddings.

Each measurement runs in a process of its own, so that its memory and threads can be controlled, and leaves a file
behind: the same command goes on where it stopped. Shape letters: n galaxies, D embedding width, q queried galaxies.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rarezoo import tables
from rarezoo.benchmark.planted import GENERATION, Planted, planted_vectors, refuse_other_skies
from rarezoo.benchmark.scores import Tally, Truth
from rarezoo.errors import ConfigError
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval, students_interval

OURS, PLAIN = "ours", "plain"
# Number of planted groups in each sky; largest size of a group, and its largest share of all galaxies.
_GROUPS, _LARGEST, _ONE_IN = 30, 2000, 50
# The paper's UMAP (Walmsley & Scaife 2023), and its smallest class.
_NEIGHBORS, _COMPONENTS, _MIN_CLASS = 50, 5, 10
# Galaxies asked, neighbours of each that are compared, and rows of distances held at a time.
_ASKED, _COMPARED, _AT_ONCE = 1000, 15, 100
# Fewest whose groups leave room for a bulk; and enough for umap-learn to take its way for many galaxies, so that
# nothing is compiled while the clock runs.
FEWEST, WARMING = 2000, 4500
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MEASURES = ("found", "classes", "trustworthiness", "preservation", "agreement", "search s", "memory GB")


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """One search of one sky.

    Attributes
    ----------
    way
        ``ours`` or ``plain``.
    galaxies
        Number of galaxies n.
    sky
        Seed of the embeddings.
    seed
        Seed of the search.
    threads
        Number of threads that it may use.
    min_samples
        min_samples of HDBSCAN.
    run
        0, or 1 for a repetition of the same search.
    generation
        Generation of the code that draws the skies.
    """

    way: str
    galaxies: int
    sky: int
    seed: int
    threads: int
    min_samples: int
    run: int = 0
    generation: int = GENERATION

    @property
    def name(self) -> str:
        """Return the name of its files."""
        again = f".again{self.run}" if self.run else ""
        searched = f"{self.way}.n{self.galaxies}.samples{self.min_samples}.sky{self.sky}"
        return f"{searched}.seed{self.seed}.t{self.threads}{again}"


def measure(job: SearchJob, folder: Path) -> None:
    """Search, and write the labels and the measurements."""
    search = _our_search if job.way == OURS else _plain_search
    search(planted_sky(99, galaxies=min(WARMING, job.galaxies)).embeddings, job, folder)
    sky = planted_sky(job.sky, galaxies=job.galaxies)
    positions, labels, about = search(sky.embeddings, job, folder)
    # Before the judging, whose memory is not the search's.
    memory = peak_memory()
    quality = {**_recovered(labels, sky), **_kept(sky.embeddings, positions)}
    np.save(folder / f"{job.name}.npy", labels)
    tables.write_json({**asdict(job), **about, **quality, "memory GB": memory}, folder / f"{job.name}.json")


def planted_sky(seed: int, *, galaxies: int) -> Planted:
    """Draw planted vectors whose groups leave room for a bulk, however few galaxies there are."""
    return planted_vectors(seed, galaxies=galaxies, groups=_GROUPS, largest=min(_LARGEST, galaxies // _ONE_IN))


def peak_memory() -> float:
    """Return the largest memory that this process has used, GB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux; kilobytes, or bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    # getrusage on Linux counts what the parent held when it started this process.
    return float(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def _our_search(embeddings: np.ndarray, job: SearchJob, folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    ids = np.array([f"{row:09d}" for row in range(len(embeddings))])
    clusterer = FastHdbscan(min_samples=job.min_samples, min_cluster_size=_MIN_CLASS)
    started = time.perf_counter()
    fitted = FastUmap(n_neighbors=_NEIGHBORS, n_components=_COMPONENTS).fit(embeddings, ids=ids, seed=job.seed)
    mapped = time.perf_counter()
    linkage = clusterer.linkage(fitted.positions)
    labels = clusterer.classes(linkage, ids=ids).labels
    ended = time.perf_counter()
    columns = [column.to_numpy().tobytes() for column in linkage.columns]
    digest = hashlib.sha256(b"".join([fitted.positions.tobytes(), *columns])).hexdigest()
    saved = tables.write(linkage, folder / f"{job.name}.linkage.parquet", tables.LINKAGE)
    again = time.perf_counter()
    FastHdbscan(min_cluster_size=30, selection="eom").classes(tables.read(saved, tables.LINKAGE), ids=ids)
    relabelled = time.perf_counter() - again
    saved.unlink()
    times = {"map s": mapped - started, "tree s": ended - mapped, "search s": ended - started}
    return fitted.positions, labels, {**times, "another selection s": relabelled, "sha256": digest}


def _plain_search(
    embeddings: np.ndarray, job: SearchJob, folder: Path
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    import warnings

    from hdbscan import HDBSCAN
    from umap import UMAP

    warnings.filterwarnings("ignore", category=UserWarning)
    started = time.perf_counter()
    reducer = UMAP(n_neighbors=_NEIGHBORS, n_components=_COMPONENTS, random_state=job.seed)
    positions = np.asarray(reducer.fit_transform(embeddings))
    mapped = time.perf_counter()
    tree = HDBSCAN(
        min_samples=job.min_samples,
        min_cluster_size=_MIN_CLASS,
        cluster_selection_method="leaf",
        core_dist_n_jobs=job.threads,
    )
    labels = np.asarray(tree.fit(positions).labels_)
    ended = time.perf_counter()
    return positions, labels, {"map s": mapped - started, "tree s": ended - mapped, "search s": ended - started}


def _recovered(labels: np.ndarray, sky: Planted) -> dict[str, float]:
    """Return the number of planted groups that are found, and the number of classes."""
    tally = Tally.of(labels, Truth.of_groups(sky.groups, names=[str(group) for group in range(len(sky.sizes))]))
    return {"found": float(tally.found.sum()), "classes": float(len(tally.classes))}


def _kept(embeddings: np.ndarray, positions: np.ndarray) -> dict[str, float]:
    """Return trustworthiness (Venna & Kaski 2001) and the share of the 15 nearest neighbours that the map keeps."""
    asked = np.random.default_rng(0).choice(len(embeddings), min(_ASKED, len(embeddings)), replace=False)
    k, galaxies = min(_COMPARED, (len(embeddings) - 2) // 2), len(embeddings)
    too_far, shared = 0, 0
    for first in range(0, len(asked), _AT_ONCE):
        rows = asked[first : first + _AT_ONCE]
        ranks = np.argsort(np.argsort(_squares(embeddings, rows), axis=1), axis=1)
        near = np.argpartition(_squares(positions, rows), k, axis=1)[:, : k + 1]
        # A galaxy's own rank is 0, whether or not it is among its nearest on the map.
        result = np.take_along_axis(ranks, near, axis=1)
        too_far += int(np.maximum(result - k, 0).sum())
        shared += int(((result > 0) & (result <= k)).sum())
    worst = len(asked) * k * (2 * galaxies - 3 * k - 1) / 2
    return {"trustworthiness": 1 - too_far / worst, "preservation": shared / (len(asked) * k)}


def _squares(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return squared distances (q, n) up to a constant in each row; the distance to itself is the smallest."""
    squares = np.square(values).sum(axis=1) - 2 * values[rows] @ values.T
    squares[np.arange(len(rows)), rows] = -np.inf
    return squares


def jobs(*, galaxies: int, skies: int, seeds: int, threads: Sequence[int], min_samples: int) -> Iterator[SearchJob]:
    """Return both ways on each sky with each seed on all threads; then ours once more, and on fewer threads."""
    common = {"galaxies": galaxies, "min_samples": min_samples}
    for sky in range(skies):
        for seed in range(seeds * sky, seeds * sky + seeds):
            for way in (OURS, PLAIN):
                yield SearchJob(way=way, sky=sky, seed=seed, threads=max(threads), **common)
    yield SearchJob(way=OURS, sky=0, seed=0, threads=max(threads), run=1, **common)
    for count in sorted(set(threads) - {max(threads)}):
        yield SearchJob(way=OURS, sky=0, seed=0, threads=count, **common)


def measured(job: SearchJob, folder: Path) -> dict[str, Any]:
    """Measure in a process of its own, or read what an earlier call measured.

    Raises
    ------
    ConfigError
        The process was killed.
    OutputError
        An earlier call measured on skies that another generator drew.
    """
    path = folder / f"{job.name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(job.threads))}
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.search", str(folder), json.dumps(asdict(job))], env=variables
        )
        if ended.returncode:
            raise ConfigError(
                "a measurement failed", value=f"{job.name}, status {ended.returncode}",
                fix="A negative status means that it was killed, perhaps for lack of memory. Run the command again.",
            )  # fmt: skip
    content: dict[str, Any] = json.loads(path.read_text())
    refuse_other_skies(content.get("generation"), now=job.generation, where=folder)
    return content


def compared(results: Sequence[dict[str, Any]], folder: Path) -> dict[str, dict[str, Interval]]:
    """Return, by measure: ours, plain, and ours minus plain on the same sky; for times the ratio plain over ours."""
    by_way = {way: _by_sky(results, way, folder) for way in (OURS, PLAIN)}
    rows = {}
    for measure_name in _MEASURES:
        ours, plain = (np.array([sky[measure_name] for sky in by_way[way]]) for way in (OURS, PLAIN))
        ratio = measure_name.endswith(" s")
        rows[measure_name] = {
            OURS: students_interval(ours),
            PLAIN: students_interval(plain),
            "plain / ours" if ratio else "ours − plain": students_interval(plain / ours if ratio else ours - plain),
        }
    return rows


def _by_sky(results: Sequence[dict[str, Any]], way: str, folder: Path) -> list[dict[str, float]]:
    """Return the means of each sky over its seeds, and the adjusted Rand index of the labels of the first two seeds."""
    from sklearn.metrics import adjusted_rand_score

    most = max(result["threads"] for result in results)
    whole = [result for result in results if result["way"] == way and result["threads"] == most and not result["run"]]
    skies = []
    for sky in sorted({result["sky"] for result in whole}):
        seeds = [result for result in whole if result["sky"] == sky]
        labels = [np.load(folder / f"{_job(result).name}.npy") for result in seeds[:2]]
        means = {name: float(np.mean([result[name] for result in seeds])) for name in _MEASURES if name in seeds[0]}
        skies.append({**means, "agreement": float(adjusted_rand_score(*labels)) if len(labels) > 1 else np.nan})
    return skies


def _job(result: dict[str, Any]) -> SearchJob:
    return SearchJob(**{name: result[name] for name in SearchJob.__dataclass_fields__})


def _summary(results: Sequence[dict[str, Any]], folder: Path) -> Iterator[str]:
    """Return the lines of the summary."""
    first = [result for result in results if result["way"] == OURS and result["sky"] == 0 and result["seed"] == 0]
    same = "the same bits" if len({result["sha256"] for result in first}) == 1 else "DIFFERENT BITS"
    ways = ", ".join(f"{result['threads']} threads{' again' if result['run'] else ''}" for result in first)
    yield f"map and linkage: {same} ({ways})"
    yield f"another selection from a saved linkage: {max(result['another selection s'] for result in first):.2f} s"
    for name, row in compared(results, folder).items():
        yield f"{name}: " + "; ".join(f"{label} {interval.text('.4g')}" for label, interval in row.items())


@dataclass(kw_only=True)
class SearchSpeed(Settings):
    """Speed, memory and quality of our seeded search against umap-learn and hdbscan, on planted embeddings."""

    galaxies: int = setting(20_000, "number of galaxies in each sky", unit="galaxies", ge=FEWEST)
    skies: int = setting(3, "number of skies", ge=1)
    seeds: int = setting(2, "random seeds per sky; with one seed, agreement between seeds is not reported", ge=1)
    threads: list[int] = setting(
        sorted({1, 2, os.cpu_count() or 1}), "thread counts that give the same bits; timings use the largest", ge=1
    )
    min_samples: int = setting(50, "min_samples of HDBSCAN; the paper uses 300", unit="galaxies", ge=1, lt=FEWEST)
    out: str = setting("runs/benchmark_search", "folder of the results")

    def run(self) -> str:
        """Measure what has not been measured, print a line for each search, and return the summary."""
        folder, results = Path(self.out), []
        settings = {
            "galaxies": self.galaxies,
            "skies": self.skies,
            "seeds": self.seeds,
            "min_samples": self.min_samples,
        }
        for job in jobs(threads=self.threads, **settings):
            results.append(measured(job, folder))
            print(f"{job.name}: {results[-1]['search s']:.1f} s, {results[-1]['memory GB']:.1f} GB", flush=True)
        return "\n".join(_summary(results, folder))


if __name__ == "__main__":
    measure(SearchJob(**json.loads(sys.argv[2])), Path(sys.argv[1]))
