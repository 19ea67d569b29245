"""``python -m benchmarks scale_embedding``: a HATS survey embedded by one process, and by workers of which one dies.

The images are drawn ellipses with noise, and encoded as JPEG in a column of a HATS catalogue. The store of the workers
must have the bytes of that of one process. Every process computes with one thread, so that workers can be as many times
faster as there are free cores. The share of the ideal means something only on a machine with as many free cores as
workers, and with ``kill=false``.
"""

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from rarezoo.data.hats import HatsCatalogue, write_hats
from rarezoo.settings import Settings, setting
from rarezoo.tables import markdown

_SIDE, _AT_ONCE, _BATCH = 64, 1000, 64
# At the end a worker may wait for another one's shard, so that shards must not grow with the survey.
_SHARDS, _SHARD_ROWS = 32, 1250


@dataclass(kw_only=True)
class EmbeddingScale(Settings):
    """Seconds of embedding a HATS survey by one process and by Dask workers, one of which is killed on the way."""

    galaxies: int = setting(20_000, "number of galaxies", unit="galaxies", ge=100)
    partitions: int = setting(16, "least number of partitions of the catalogue", ge=1)
    workers: int = setting(2, "number of Dask workers", ge=1)
    kill: bool = setting(True, "end one worker with SIGKILL when the first shards are written")
    separate: bool = setting(True, "also embed by separate processes, which show what the machine allows")
    checkpoint: str = setting("efficientnet_b0.mock_64px", "network")
    out: str = setting("runs/scale", "folder of the survey and the stores")

    def run(self) -> str:
        """Measure, and return a table and whether all bytes are the same."""
        folder = Path(self.out)
        catalogue = folder / f"survey-{self.galaxies}"
        if not catalogue.exists():
            write_hats(self._galaxies(), catalogue, margin=0, partition_rows=max(self.galaxies // self.partitions, 1))
        rows, seconds, begun = [], {}, {}
        # Each way is one command, or several at once. Separate processes share nothing, and so they show how much
        # faster the machine itself is with that many of them.
        one, apart, many = "one process", f"{self.workers} separate processes", f"{self.workers} Dask workers"
        ways: dict[str, list[list[str]]] = {one: [[f"parts={self.shards}"]]}
        if self.separate:
            ways[apart] = [[f"part={number + 1}/{self.workers}"] for number in range(self.workers)]
        ways[many] = [[f"parts={self.shards}", "engine=dask", f"engine.workers={self.workers}"]]
        shards = []
        for number, (way, commands) in enumerate(ways.items()):
            store = folder / f"embedded-{self.galaxies}-{number}"
            shutil.rmtree(store, ignore_errors=True)
            wall, first, cpu, killed = self._timed(catalogue, store, commands, kill=self.kill and way == many)
            seconds[way], begun[way] = wall, first
            rows.append([way, f"{wall:.0f}", f"{first:.0f}", f"{cpu:.0f}", str(killed)])
            shards.append({path.name: path.read_bytes() for path in store.glob("*.parquet")})
        faster = {way: seconds[one] / seconds[way] for way in ways if way != one}
        running = {way: (seconds[one] - begun[one]) / (seconds[way] - begun[way]) for way in faster}
        table = markdown(["by", "s", f"of these until {self.workers} shards", "processor s", "workers killed"], rows)
        same = "the same bytes" if all(written == shards[0] for written in shards) else "OTHER BYTES"
        partitions = len(HatsCatalogue.open(catalogue).counts)
        lines = [
            f"{way} are {faster[way]:.2f} times as fast as one process, {faster[way] / self.workers:.2f} of the ideal; "
            f"{running[way]:.2f} times, once {self.workers} shards are written"
            for way in faster
        ]
        counts = f"{self.galaxies:,} galaxies in {partitions} partitions, {len(shards[0])} shards"
        return "\n\n".join([counts, table, "\n".join([same, *lines])])

    @property
    def shards(self) -> int:
        """Number of shards that are asked for; those of a store may be a few less."""
        return max(_SHARDS, self.galaxies // _SHARD_ROWS)

    def _timed(
        self, catalogue: Path, store: Path, commands: list[list[str]], *, kill: bool
    ) -> tuple[float, float, float, int]:
        """Return seconds, those until each worker can have written a shard, processor seconds, and killed workers."""
        # Shards end where batches do: no batch is computed twice.
        shard_rows = -(-self.galaxies // (self.shards * _BATCH)) * _BATCH
        common = [
            sys.executable, "-c", "from rarezoo.cli import main; main()", "embed", "data=hats", f"batch_size={_BATCH}",
            f"data.catalogue={catalogue}", f"checkpoint={self.checkpoint}", f"out={store}", "workers=0",
            f"shard_rows={shard_rows}",
        ]  # fmt: skip
        before, started, killed = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
        first = 0.0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        runs = [
            subprocess.Popen([*common, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for words in commands
        ]
        while any(run.poll() is None for run in runs):
            written = len(list(store.glob("shard-*.parquet")))
            if not first and written >= self.workers:
                first = time.perf_counter() - started
            if kill and not killed and written:
                import psutil  # type: ignore[import-untyped,unused-ignore]

                children = psutil.Process(runs[0].pid).children(recursive=True)
                workers = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
                if workers:
                    os.kill(workers[0], signal.SIGKILL)
                    killed = 1
            time.sleep(0.1)
        ended = [run.returncode for run in runs]
        if any(ended):
            raise RuntimeError(f"embedding ended with status {ended}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - started, first, cpu, killed

    def _galaxies(self) -> Iterator[pa.Table]:
        for start in range(0, self.galaxies, _AT_ONCE):
            count, random = min(_AT_ONCE, self.galaxies - start), np.random.default_rng([1, start])
            numbers = range(start, start + count)
            yield pa.table({
                "id_str": [f"m{number:08d}" for number in numbers], "ra": random.uniform(0, 360, count),
                "dec": np.degrees(np.arcsin(random.uniform(-1, 1, count))),
                "image": pa.array([_picture(number) for number in numbers], pa.binary()),
            })  # fmt: skip


def _picture(number: int) -> bytes:
    """Return a drawn ellipse with noise as JPEG."""
    random = np.random.default_rng(number)
    down, across = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    width, height, angle = *random.uniform(0.1, 0.6, 2), random.uniform(0, np.pi)
    along, aside = across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)
    light = np.exp(-np.hypot(along / width, aside / height))[..., None] * random.uniform(0.5, 1, 3) * 230
    pixels = (light + random.normal(0, 4, (_SIDE, _SIDE, 3))).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=90)
    return stream.getvalue()
