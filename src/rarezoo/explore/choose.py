"""Which galaxies a person sees next: mostly those that the acquisition values, a few at random, no two alike."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from rarezoo.explore.acquisition import Acquisition, State
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
        ``model`` (the acquisition chose it), ``start`` (all ratings so far are equal, so galaxies of every sort are
        shown), or ``random`` (drawn blindly, so that the share of interesting galaxies can be estimated).
    """

    rows: Int64[np.ndarray, " k"]
    why: tuple[str, ...]


@dataclass(kw_only=True)
class Chooser(Settings):
    """How the next galaxies are chosen."""

    prefix: ClassVar[str] = "choose"

    random_share: float = setting(0.1, "share of galaxies that are drawn blindly", ge=0, le=1)
    diversity: float = setting(
        0.5, "how much a galaxy loses that looks like one chosen before it in the same batch", ge=0, le=1
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
        # The expected number of random galaxies is exact: the fraction is decided by chance.
        blind = int(np.floor(self.random_share * count + state.rng.random()))
        drawn = state.rng.choice(free, min(blind, count), replace=False)
        values, why = self._values(state, acquisition)
        left = np.setdiff1d(free, drawn, assume_unique=True)
        # Equal values are in a random order.
        state.rng.shuffle(left)
        chosen = self._different(state.features, left, values[left], count - len(drawn))
        # Random galaxies stand at random places among the others: the person cannot tell them apart.
        rows, reasons = list(map(int, chosen)), [why] * len(chosen)
        for row in drawn:
            place = int(state.rng.integers(len(rows) + 1))
            rows.insert(place, int(row))
            reasons.insert(place, RANDOM)
        return Choice(np.array(rows, dtype=np.int64), tuple(reasons))

    def _values(self, state: State, acquisition: Acquisition) -> tuple[Float[np.ndarray, " n"], str]:
        if not acquisition.needs_model:
            return np.asarray(acquisition.values(state), dtype=np.float64), MODEL
        if state.prediction is None or np.ptp(state.interest) == 0:
            # All ratings are equal, and so is the expected interest of all galaxies.
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
        candidates = min(len(rows), count * _CANDIDATES if self.diversity else count)
        if candidates < 1:
            return np.empty(0, dtype=np.int64)
        best = np.argpartition(-values, candidates - 1)[:candidates]
        best = best[np.argsort(-values[best], kind="stable")]
        rows, values = rows[best], values[best]
        if not self.diversity:
            return rows
        directions = features[rows] / np.maximum(np.linalg.norm(features[rows], axis=1, keepdims=True), 1e-9)
        gains = (values - values[-1]) / max(float(values[0] - values[-1]), 1e-12)
        alike = np.zeros(candidates)
        chosen: list[int] = []
        for _ in range(min(count, candidates)):
            worth = gains - self.diversity * alike
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
            alike = np.maximum(alike, np.clip(directions @ directions[chosen[-1]], 0, 1))
        return rows[np.array(chosen)]
