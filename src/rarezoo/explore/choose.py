"""Which galaxies a person sees next: mostly those that the acquisition values, a few at random, no two alike."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from rarezoo.explore.acquisition import Acquisition, State
from rarezoo.explore.ranker import Prediction
from rarezoo.settings import Settings, setting

# Why a galaxy is shown.
MODEL, RANDOM, START = "model", "random", "start"
# Interest from which a galaxy counts as found: more than half of the scale.
INTERESTING = 0.5
# Candidates among which different galaxies are chosen, per galaxy that is shown.
_CANDIDATES = 5


class Choice(NamedTuple):
    """Galaxies to show, in order.

    Attributes
    ----------
    rows : (k,) array of integers
    why : tuple of k texts
        ``model`` (the acquisition chose it), ``start`` (the ratings tell nothing yet, so galaxies of every sort are
        shown), or ``random`` (drawn at random, so that the share of interesting galaxies can be estimated).
    """

    rows: Int64[np.ndarray, " k"]
    why: tuple[str, ...]


@dataclass(kw_only=True)
class Chooser(Settings):
    """How the next galaxies are chosen."""

    prefix: ClassVar[str] = "choose"

    random_share: float = setting(0.1, "share of galaxies that are drawn at random", ge=0, le=1)
    diversity: float = setting(
        0.15, "how much a galaxy loses that looks like one chosen before it in the same batch", ge=0, le=1
    )

    def choose(self, state: State, acquisition: Acquisition, count: int, *, allowed: Bool[np.ndarray, " n"]) -> Choice:
        """Choose the galaxies of the next batch.

        Parameters
        ----------
        state : State
            What is known.
        acquisition : Acquisition
            What a galaxy is worth.
        count : int
            Number of galaxies; fewer if fewer are allowed.
        allowed : (n,) array of bool
            Galaxies that may be shown: not rated yet, and not in front of somebody else.
        """
        free = np.flatnonzero(allowed)
        count = min(count, len(free))
        places = state.rng.permutation(count)
        blind = set(places[: _whole(self.random_share * count, state.rng)].tolist())
        values, why = self._values(state, acquisition)
        # Equal values are in a random order.
        state.rng.shuffle(free)
        best = iter(self._different(state.features, free, values[free], count).tolist())
        rows: list[int] = []
        reasons: list[str] = []
        # Each is drawn from all galaxies that are not rated by the time that it is: what the model has chosen for later
        # in the batch is among them. The estimate of how many are left rests on that. Random galaxies stand at random
        # places among the others: the person cannot tell them apart.
        for place in range(count):
            taken = set(rows)
            if place in blind:
                rows.append(_drawn(free, taken, state.rng))
                reasons.append(RANDOM)
            else:
                rows.append(next(row for row in best if row not in taken))
                reasons.append(why)
        return Choice(np.array(rows, dtype=np.int64), tuple(reasons))

    def _values(self, state: State, acquisition: Acquisition) -> tuple[Float[np.ndarray, " n"], str]:
        if not acquisition.needs_model:
            return np.asarray(acquisition.values(state), dtype=np.float64), MODEL
        if all_equal(state.prediction, state.interest):
            return np.asarray(state.start, dtype=np.float64), START
        return np.asarray(acquisition.values(state), dtype=np.float64), MODEL

    def _different(
        self,
        features: Float32[np.ndarray, "n d"],
        rows: Int64[np.ndarray, " r"],
        values: Float[np.ndarray, " r"],
        count: int,
    ) -> Int64[np.ndarray, " k"]:
        """Return the rows of the highest values, each discounted by its likeness to those chosen before it."""
        candidates = min(len(rows), count * _CANDIDATES)
        if candidates < 1:
            return np.empty(0, dtype=np.int64)
        best = np.argpartition(-values, candidates - 1)[:candidates]
        best = best[np.argsort(-values[best], kind="stable")]
        rows, values = rows[best], values[best]
        if not self.diversity:
            return rows[: 2 * count]
        directions = features[rows] / np.maximum(np.linalg.norm(features[rows], axis=1, keepdims=True), 1e-9)
        gains = (values - values[-1]) / max(float(values[0] - values[-1]), 1e-12)
        alike = np.zeros(candidates)
        chosen: list[int] = []
        for _ in range(min(2 * count, candidates)):
            worth = gains - self.diversity * alike
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
            alike = np.maximum(alike, np.clip(directions @ directions[chosen[-1]], 0, 1))
        return rows[np.array(chosen)]


def all_equal(prediction: Prediction | None, interest: Float[np.ndarray, " m"]) -> bool:
    """Return whether the ratings tell nothing: there are none, or all are equal, and so is what the model expects."""
    return prediction is None or not len(interest) or float(np.ptp(interest)) == 0


def _whole(number: float, rng: np.random.Generator) -> int:
    """Return a whole number next to a number, by chance, so that it is right on average."""
    return int(np.floor(number + rng.random()))


def _drawn(rows: Int64[np.ndarray, " r"], taken: Collection[int], rng: np.random.Generator) -> int:
    """Return one of the rows that are not taken, each with the same probability."""
    while True:
        row = int(rows[rng.integers(len(rows))])
        if row not in taken:
            return row
