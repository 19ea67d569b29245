"""``python -m benchmarks rank``: how long a person waits for the next galaxies after a rating.

What is timed: a model learns from the ratings, expects something of every galaxy, and the next batch is chosen. All
rankers work on the same made-up features. The ratios are against scikit-learn's Gaussian process with the same fixed
kernel in the same run; above a number of galaxies it expects something of that many only, and its time is scaled up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from rarezoo.explore.acquisition import State
from rarezoo.explore.acquisitions.from_model import UpperConfidenceBound
from rarezoo.explore.choose import Chooser
from rarezoo.explore.features import Features, standardised
from rarezoo.explore.ranker import Ranker
from rarezoo.explore.rankers.gaussian_process import GaussianProcess
from rarezoo.explore.start import start_values
from rarezoo.settings import Settings, choice, setting
from rarezoo.tables import markdown

# Galaxies that scikit-learn's process is timed on at most: it takes several times as long as ours.
_TIMED = 20_000


@dataclass(kw_only=True)
class RankCost(Settings):
    """Time to the next batch after a rating, for each ranker, and what a survey costs once."""

    galaxies: list[int] = setting([100_000, 1_000_000], "numbers of galaxies", unit="galaxies", ge=100)
    features: int = setting(141, "number of features", ge=2)
    ratings: int = setting(200, "number of rated galaxies", unit="galaxies", ge=2)
    batch: int = setting(12, "number of galaxies that are chosen", unit="galaxies", ge=1)
    rankers: list[str] = setting(["gaussian_process", "logistic", "ridge"], "names of rankers")
    repeats: int = setting(3, "number of measurements, of which the fastest counts", ge=1)
    once: bool = setting(True, "whether to time what a survey costs once")
    seed: int = setting(0, "seed of the features", ge=0)

    def run(self) -> str:
        """Measure, and return a table for each number of galaxies."""
        return "\n\n".join(self._measured(count) for count in self.galaxies)

    def _measured(self, count: int) -> str:
        rng = np.random.default_rng(self.seed)
        vectors = rng.standard_normal((count, self.features), dtype=np.float32)
        parts: dict[str, Callable[[], object]] = {"features standardised": lambda: standardised(vectors)}
        features = Features(vectors, {"embedding": slice(0, self.features)})
        parts["typical distance"] = lambda: Features(vectors, {}).distance
        parts["order of the first galaxies"] = lambda: start_values(vectors, seed=self.seed)
        rated = rng.choice(count, min(self.ratings, count // 2), replace=False)
        interest = (vectors[rated, 0] > 0.8).astype(np.float64)
        theirs = _scikit_learn(features, rated, interest)
        rows = []
        for name in self.rankers:
            ranker = choice("ranker", name)()
            tries = [self._next_batch(ranker, features, rated, interest) for _ in range(self.repeats)]
            seconds = min(tries, key=sum)
            rows.append([name, *(f"{value:.2f}" for value in seconds), f"{theirs / sum(seconds):.0f}"])
        head = ["ranker", "learn, s", "expect, s", "choose, s", "scikit-learn / ours"]
        text = f"{count:,} galaxies, {self.features} features, {len(rated)} ratings\n\n{markdown(head, rows)}"
        if self.once:
            once = [[name, f"{_seconds(part):.1f}"] for name, part in parts.items()]
            text += f"\n\n{markdown(['once for a survey', 's'], once)}"
        return text

    def _next_batch(
        self, ranker: Ranker, features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"]
    ) -> tuple[float, float, float]:
        """Return the seconds to learn, to expect something of every galaxy, and to choose."""
        distance, matrix = features.distance, features.matrix
        begun = time.perf_counter()
        model = ranker.fit(matrix[rated], interest, distance=distance, seed=self.seed)
        learnt = time.perf_counter()
        prediction = model.predict(matrix)
        expected = time.perf_counter()
        rng = np.random.default_rng(self.seed)
        start = np.zeros(len(matrix), dtype=np.float32)
        allowed = np.ones(len(matrix), dtype=bool)
        allowed[rated] = False
        state = State(matrix, rated, interest, prediction, start, rng)
        Chooser().choose(state, UpperConfidenceBound(), self.batch, allowed=allowed)
        return learnt - begun, expected - learnt, time.perf_counter() - expected


def _scikit_learn(features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"]) -> float:
    """Return the seconds in which scikit-learn's process with our kernel expects something of every galaxy."""
    ours = GaussianProcess()
    matrix: Float32[np.ndarray, "n d"] = features.matrix[:_TIMED]
    process = GaussianProcessRegressor(RBF(ours.length * features.distance), alpha=ours.noise, optimizer=None)
    fit = _seconds(lambda: process.fit(features.matrix[rated], interest - interest.mean()))
    predict = _seconds(lambda: process.predict(matrix, return_std=True))
    return fit + predict * len(features.matrix) / len(matrix)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
