"""``python -m benchmarks scale_hats``: the whole way of a HATS catalogue of vectors, from the command line.

Import, search out of core on Dask, export as HATS, and a cross-match by LSDB with another catalogue. The other
catalogue has every tenth galaxy, displaced by 0.3 arcsec, so that the number of pairs is known.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.scale import groups_found, planted_survey
from rarezoo import tables
from rarezoo.data.hats import HatsCatalogue, write_hats
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

_AT_ONCE, _EVERY, _DISPLACED = 10_000, 10, 0.3 / 3600


@dataclass(kw_only=True)
class HatsScale(Settings):
    """Seconds of each command on a HATS catalogue of vectors with planted groups, and what came out.

    A command whose output is there is not run again.
    """

    galaxies: int = setting(100_000, "number of galaxies", unit="galaxies", ge=10_000)
    sample: int = setting(10_000, "galaxies of the sample", unit="galaxies", ge=1000)
    rare: int = setting(60, "galaxies of the rare group", unit="galaxies", ge=10)
    surveys: int = setting(5, "number of null surveys", ge=5)
    workers: int = setting(2, "number of Dask workers", ge=1)
    seed: int = setting(0, "seed of the vectors", ge=0)
    out: str = setting("runs/scale_hats", "folder of catalogues, store and search")

    def run(self) -> str:
        """Run what is not there yet; return a table of times, and the counts."""
        folder = Path(self.out).resolve()
        survey = planted_survey(self.galaxies, rare=self.rare, seed=self.seed)
        if not (folder / "vectors").exists():
            write_hats(self._vectors(), folder / "vectors", partition_rows=max(self.galaxies // 16, 1))
        if not (folder / "other").exists():
            write_hats(self._others(), folder / "other", partition_rows=max(self.galaxies // 16, 1))
        dask = ["engine=dask", f"engine.workers={self.workers}"]
        quick = [
            "images=false", "logger=none", "thumbnails=0", "beyond=false", "stability.refits=0",
            f"significance.surveys={self.surveys}", f"seed={self.seed}", f"sample={self.sample}",
        ]  # fmt: skip
        search, members = folder / "search", folder / "classes" / "members"
        commands = {
            "import": (folder / "store", ["store", "import", str(folder / "vectors"), "columns=[embedding]"]),
            "search": (search, ["cluster", f"store={folder / 'store'}", *quick, *dask]),
            "export": (folder / "classes", ["export", str(search), "format=hats", "unassigned=true"]),
            "cross-match": (folder / "matched", ["crossmatch", str(members), str(folder / "other"), "by=lsdb"]),
        }
        rows = []
        for name, (place, words) in commands.items():
            done = folder / f"{name}.json"
            if not done.exists():
                tables.write_json(_timed([*words, f"out={place}"], folder / f"{name}.log"), done)
            measured = tables.read_json(done, fix="Delete it.")
            rows.append([name, *(f"{measured[key]:.0f}" for key in ("seconds", "cpu"))])
        finished = Search.open(search)
        found, rare, alone = groups_found(finished, survey, whole=False)
        counted = {name: len(HatsCatalogue.open(place)) for name, place in
                   (("exported", members), ("pairs", folder / "matched"))}  # fmt: skip
        partitions = len(HatsCatalogue.open(folder / "vectors").counts)
        return (
            f"{self.galaxies:,} galaxies in {partitions} partitions\n\n"
            f"{tables.markdown(['command', 's', 'processor s'], rows)}\n\n{finished.about['large']['text']}\n"
            f"planted groups: {found}, by the sample alone {alone}; the rare group: {rare}\n"
            f"{counted['exported']:,} galaxies exported; {counted['pairs']:,} of {self.galaxies // _EVERY:,} pairs"
        )

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng([self.seed, 7])
        ra = random.uniform(0, 360, self.galaxies)
        return ra, np.degrees(np.arcsin(random.uniform(-1, 1, self.galaxies)))

    def _vectors(self) -> Iterator[pa.Table]:
        survey, (ra, dec) = planted_survey(self.galaxies, rare=self.rare, seed=self.seed), self._positions()
        for start in range(0, self.galaxies, _AT_ONCE):
            stop = min(start + _AT_ONCE, self.galaxies)
            yield pa.table({
                tables.ID: [f"g{row:010d}" for row in range(start, stop)], tables.RA: ra[start:stop],
                tables.DEC: dec[start:stop], tables.EMBEDDING: tables.vectors(survey.shard(start, stop)[0]),
            })  # fmt: skip

    def _others(self) -> Iterator[pa.Table]:
        ra, dec = (values[::_EVERY] for values in self._positions())
        # Towards the equator, so that no declination leaves the sky.
        moved = dec - np.where(dec > 0, _DISPLACED, -_DISPLACED)
        yield pa.table({"number": np.arange(len(ra)) * _EVERY, tables.RA: ra, tables.DEC: moved})


def _timed(words: list[str], log: Path) -> dict[str, float]:
    """Run a command of rarezoo; return seconds, and those of the processor, its children included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", "from rarezoo.cli import main; main()", *words]
    with log.open("wb") as stream:
        subprocess.run(command, check=True, env={**os.environ, "TQDM_DISABLE": "1"}, stdout=stream, stderr=stream)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu": cpu}
