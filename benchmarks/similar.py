"""``python -m benchmarks similar``: how long a search for similar galaxies takes, against plain numpy and scikit-learn.

The vectors are random. Ours are unit vectors in a file, which the index scans block by block; numpy and scikit-learn
hold all vectors in memory. Every number is the least of several runs in one process, and the ways must find the same
galaxies by the cosine. A probe whitens the survey once in a process, and then compares as fast.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from rarezoo.cache import Cache
from rarezoo.embeddings.neighbours import NeighbourIndex, centred, unit_vectors
from rarezoo.explore.scores import COSINE, PROBE, Whitening, background_of, scores_of, whitening_of
from rarezoo.explore.similar import in_order
from rarezoo.settings import Settings, setting
from rarezoo.tables import markdown

T = TypeVar("T")
_AT_ONCE = 10_000
_EXAMPLES = 5


@dataclass(kw_only=True)
class SimilarSpeed(Settings):
    """Seconds of one search for similar galaxies among random vectors, and the ratio against other ways."""

    galaxies: list[int] = setting([100_000, 1_000_000], "numbers of galaxies", unit="galaxies", ge=100)
    width: int = setting(128, "width of the embedding", ge=1)
    k: int = setting(24, "number of galaxies that are found", unit="galaxies", ge=1, le=99)
    runs: int = setting(5, "runs of each way, of which the fastest counts", ge=1)
    seed: int = setting(0, "seed of the vectors", ge=0)

    def run(self) -> str:
        """Measure, and return a table and whether all ways found the same galaxies."""
        rows, same = [], True
        for galaxies in self.galaxies:
            seconds, agree = self._measured(galaxies)
            same &= agree
            ratios = [f"{seconds['ours'] / seconds[way]:.2f}" for way in ("numpy", "scikit-learn")]
            rows.append([f"{galaxies:,}", *(f"{value:.3f}" for value in seconds.values()), *ratios])
        head = [
            "galaxies", "make the file, s", "open it, s", "whiten it, s", f"probe of {_EXAMPLES} examples, s",
            "cosine, s", "numpy, s", "scikit-learn, s", "cosine / numpy", "cosine / scikit-learn",
        ]  # fmt: skip
        verdict = "the same galaxies" if same else "DIFFERENT GALAXIES"
        return f"{self.width}-D, {self.k} similar galaxies\n\n{markdown(head, rows)}\n\nall ways: {verdict}"

    def _measured(self, galaxies: int) -> tuple[dict[str, float], bool]:
        """Return the seconds of each step, and whether all ways found the same galaxies."""
        from sklearn.neighbors import NearestNeighbors

        shape, key = (galaxies, self.width), {"seed": self.seed}
        with tempfile.TemporaryDirectory(prefix="rarezoo-") as folder:

            def opened() -> NeighbourIndex:
                blocks = lambda: self._blocks(galaxies)  # noqa: E731
                return NeighbourIndex.of(centred(blocks, shape=shape, cache=Cache(Path(folder)), key=key))

            seconds = {"make": _timed(opened, runs=1)[0]}
            seconds["open"], index = _timed(opened, runs=self.runs)
            vectors = np.concatenate([*self._blocks(galaxies)])
            asked = vectors[:_EXAMPLES] - index.centred.mean
            mask = np.ones(galaxies, dtype=bool)
            mask[:_EXAMPLES] = False

            def whiten() -> tuple[Whitening, np.ndarray]:
                made = whitening_of(background_of(index, seed=0))
                return made, made.lengths(index)

            seconds["whiten"], (whitening, whitened) = _timed(whiten, runs=1)

            def ours(examples: np.ndarray, by: str) -> list[int]:
                scores = scores_of(index, examples, by=by, whitening=whitening, whitened=whitened)
                ranked = in_order(scores.values, mask, first=self.k)
                return [next(ranked) for _ in range(self.k)]

            seconds["probe"], _ = _timed(lambda: ours(asked, PROBE), runs=self.runs)
            seconds["ours"], found = _timed(lambda: ours(asked[:1], COSINE), runs=self.runs)
            units = unit_vectors(vectors)

            def by_numpy() -> list[int]:
                cosines = units @ units[0]
                cosines[:_EXAMPLES] = -np.inf
                nearest = np.argpartition(-cosines, self.k)[: self.k]
                return nearest[np.argsort(-cosines[nearest])].tolist()

            seconds["numpy"], expected = _timed(by_numpy, runs=self.runs)
            others = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(units[_EXAMPLES:])

            def by_sklearn() -> list[int]:
                return (others.kneighbors(units[:1])[1][0] + _EXAMPLES).tolist()

            seconds["scikit-learn"], also = _timed(by_sklearn, runs=self.runs)
        return seconds, found == expected == also

    def _blocks(self, galaxies: int) -> Iterator[np.ndarray]:
        """Yield the same random vectors each time, some at a time."""
        random = np.random.default_rng(self.seed)
        for start in range(0, galaxies, _AT_ONCE):
            yield random.standard_normal((min(_AT_ONCE, galaxies - start), self.width), dtype=np.float32)


def _timed(run: Callable[[], T], *, runs: int) -> tuple[float, T]:
    """Return the seconds of the fastest of some runs, and what the last of them returned."""
    fastest = np.inf
    for _ in range(runs):
        started = time.perf_counter()
        result = run()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest, result
