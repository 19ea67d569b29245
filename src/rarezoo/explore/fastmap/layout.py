"""The descent: neighbours pull, galaxies drawn at random push, as in UMAP (McInnes et al. 2018, §3.2).

umap-learn moves both ends of an edge as soon as it is drawn, so that the order of threads shows in the result. Here
every galaxy gathers the moves that concern it, its own position changing as it goes and all others standing where the
last epoch left them; what is drawn is a hash of seed, galaxy and epoch. n: galaxies. k: dimensions of the map.
"""

import sys
from typing import Any, NamedTuple

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64
from scipy.sparse import csr_array
from tqdm import tqdm

# umap-learn's defaults (UMAP.__init__): random galaxies pushed away per pull, and the first step's length.
NEGATIVES, RATE = 5, 1.0
# umap-learn's bound on a move along an axis, and what keeps a push finite (layouts.py).
_LONGEST, _CLOSEST = 4.0, 0.001
# Galaxies that gather one after another share the crowd that they push away, so that it stays in a core's cache: among
# more galaxies than fit there, each reading of a random one waits for memory. Up to so many there is no crowd.
_TOGETHER, _CROWD, _CACHED = 1024, 4096, 50_000
# The step of a generator of hashes (Steele et al. 2014).
_NEXT = np.uint64(0x9E3779B97F4A7C15)
# Forces are tabulated over squared distances 2^-24 … 2^24, so many per octave, and interpolated to 2e-4 of their value.
_LOWEST, _OCTAVES, _STEPS = -24, 48, 64


class Forces(NamedTuple):
    """Pull and push per unit of separation, by squared distance, for the curve 1 / (1 + a d^(2b)).

    Attributes:
        pull, push: values at 2^(−24 + octave) (1 + step / 64).
    """

    pull: Float32[np.ndarray, " values"]
    push: Float32[np.ndarray, " values"]

    @classmethod
    def of(cls, *, min_dist: float) -> "Forces":
        """Forces of the curve that umap-learn fits to ``min_dist``."""
        a, b = curve_of(min_dist)
        octave, step = np.divmod(np.arange(_OCTAVES * _STEPS + 1), _STEPS)
        squares = 2.0 ** (_LOWEST + octave) * (1 + step / _STEPS)
        curve = 1 + a * squares**b
        pull, push = 2 * a * b * squares ** (b - 1) / curve, 2 * b / ((_CLOSEST + squares) * curve)
        return cls(pull.astype(np.float32), push.astype(np.float32))


def curve_of(min_dist: float) -> tuple[float, float]:
    """a and b of 1 / (1 + a d^(2b)), as umap-learn's find_ab_params fits them; importing that takes seconds."""
    from scipy.optimize import curve_fit

    distances = np.linspace(0, 3, 300)
    wanted = np.where(distances < min_dist, 1.0, np.exp(min_dist - distances))
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distances, wanted)
    return float(a), float(b)


class Edges(NamedTuple):
    """The graph's edges by the galaxy that gathers.

    Attributes:
        starts: (m + 1,) first edge of each galaxy.
        ends: (e,) the galaxy at the other end.
        paces: (e,) pulls per epoch, 0–1.
    """

    starts: Int64[np.ndarray, " m+1"]
    ends: Int32[np.ndarray, " e"]
    paces: Float32[np.ndarray, " e"]

    @classmethod
    def of(cls, graph: csr_array, *, epochs: int) -> "Edges":
        """Edges of a matrix of strengths, without those that would not pull once in all epochs."""
        paces = (graph.data / graph.data.max()).astype(np.float32)
        drawn = paces * np.float32(epochs) >= 1
        starts = np.concatenate([[0], np.cumsum(drawn)])[graph.indptr].astype(np.int64)
        return cls(starts, graph.indices[drawn].astype(np.int32), paces[drawn])


def settled(
    positions: Float32[np.ndarray, "n k"], edges: Edges, forces: Forces, *, epochs: int, seed: int, tell: bool = False
) -> Float32[np.ndarray, "n k"]:
    """Positions after all epochs, the steps growing shorter to nothing."""
    here, there = positions.copy(), positions.copy()
    names = np.arange(len(positions), dtype=np.uint64)
    phases = _phases(names, edges.starts, edges.ends, _key(seed))
    for epoch in tqdm(range(epochs), desc="map", disable=not tell, file=sys.stderr):
        rate = np.float32(RATE * (1 - epoch / epochs))
        _gather(here, there, here, names, *edges, *phases, *forces, rate, epoch, _key(seed), True)
        here, there = there, here
    return here


def placed(
    positions: Float32[np.ndarray, "m k"], anchors: Float32[np.ndarray, "n k"], edges: Edges, forces: Forces, *,
    names: UInt64[np.ndarray, " m"], epochs: int, seed: int,
) -> Float32[np.ndarray, "m k"]:  # fmt: skip
    """Positions of further galaxies after all epochs; the ``anchors`` stay where they are.

    Args:
        edges: from further galaxies to anchors.
        names: what tells the galaxies' random draws apart.
    """
    here, there = positions.copy(), positions.copy()
    phases = _phases(names, edges.starts, edges.ends, _key(seed))
    for epoch in range(epochs):
        # umap-learn's transform starts with a quarter of the step.
        rate = np.float32(RATE / 4 * (1 - epoch / epochs))
        _gather(here, there, anchors, names, *edges, *phases, *forces, rate, epoch, _key(seed), False)
        here, there = there, here
    return here


def _key(seed: int) -> np.uint64:
    return np.uint64(_mixed(np.uint64(seed)))


@numba.njit(cache=True)
def _mixed(value: np.uint64) -> np.uint64:
    """splitmix64's finaliser (Steele et al. 2014): a hash in which every bit depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(parallel=True, cache=True)
def _phases(names: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Where in its pace each edge begins, 0 to 1: drawn by the galaxy that gathers, and drawn by the one at its end."""
    there, back = np.empty(len(ends), np.float32), np.empty(len(ends), np.float32)
    for row in numba.prange(len(names)):
        own = _mixed(seed + names[row])
        for edge in range(starts[row], starts[row + 1]):
            theirs = _mixed(seed + np.uint64(ends[edge]))
            there[edge] = _share(_mixed(own + np.uint64(2) * theirs))
            back[edge] = _share(_mixed(theirs + np.uint64(2) * own))
    return there, back


@numba.njit(cache=True)
def _share(key: np.uint64) -> np.float32:
    """A hash as a number from 0 to 1."""
    return np.float32(key >> np.uint64(40)) * np.float32(2**-24)


@numba.njit(cache=True)
def _drawn(phase: np.float32, epoch: int, pace: np.float32) -> bool:
    """Whether an edge pulls in this epoch: evenly at its pace."""
    return np.floor(np.float32(epoch + 1) * pace + phase) > np.floor(np.float32(epoch) * pace + phase)


@numba.njit(cache=True)
def _force(table: np.ndarray, square: np.float32) -> np.float32:
    """The tabulated force, linearly between its values; at the ends of the table their own."""
    bits: Any = np.float32(max(square, np.float32(2.0**_LOWEST))).view(np.int32) - ((127 + _LOWEST) << 23)
    at: Any = min(bits >> 17, _OCTAVES * _STEPS - 1)
    part = np.float32(min(bits - (at << 17), 1 << 17)) * np.float32(2**-17)
    return table[at] + part * (table[at + 1] - table[at])


@numba.njit(cache=True)
def _move(mine: np.ndarray, others: np.ndarray, table: np.ndarray, rate: np.float32) -> None:
    """My position moved by one pull (rate < 0) or push (rate > 0)."""
    square = np.float32(0)
    for axis in range(len(mine)):
        square += (mine[axis] - others[axis]) ** 2
    if square > 0:
        force = _force(table, square)
        for axis in range(len(mine)):
            move = force * (mine[axis] - others[axis])
            mine[axis] += rate * min(max(move, np.float32(-_LONGEST)), np.float32(_LONGEST))


@numba.njit(cache=True)
def _one_of(state: np.uint64, galaxies: int) -> np.uint64:
    """One of so many galaxies, by a hash."""
    return ((_mixed(state) >> np.uint64(32)) * np.uint64(galaxies)) >> np.uint64(32)


@numba.njit(cache=True)
def _crowd(anchors: np.ndarray, state: np.uint64) -> np.ndarray:
    """Positions of galaxies drawn at random."""
    drawn = np.empty((_CROWD, anchors.shape[1]), np.float32)
    for place in range(_CROWD):
        state += _NEXT
        drawn[place] = anchors[_one_of(state, len(anchors))]
    return drawn


@numba.njit(parallel=True, cache=True)
def _gather(
    here: np.ndarray, there: np.ndarray, anchors: np.ndarray, names: np.ndarray,
    starts: np.ndarray, ends: np.ndarray, paces: np.ndarray, there_phases: np.ndarray, back_phases: np.ndarray,
    pull: np.ndarray, push: np.ndarray, rate: np.float32, epoch: int, seed: np.uint64, returned: bool,
) -> None:  # fmt: skip
    """One epoch: positions ``here`` of those who gather become ``there``; ``anchors`` are all who pull and push.

    Either end draws an edge. Whoever draws it also pushes others off; with ``returned`` the pull is felt again when the
    other end draws it.
    """
    # Who is placed on a finished map must not depend on who is placed beside it.
    crowded = returned and len(anchors) > _CACHED
    together = _TOGETHER if crowded else 16
    for block in numba.prange((len(here) + together - 1) // together):
        first = block * together
        others = (
            _crowd(anchors, _mixed(_mixed(seed ^ _mixed(np.uint64(first))) + np.uint64(epoch))) if crowded else anchors
        )
        for row in range(first, min(first + together, len(here))):
            mine = there[row]
            mine[:] = here[row]
            state = _mixed(_mixed(seed + names[row]) + np.uint64(epoch))
            for edge in range(starts[row], starts[row + 1]):
                other, pace = ends[edge], paces[edge]
                if _drawn(there_phases[edge], epoch, pace):
                    _move(mine, anchors[other], pull, -rate)
                    for _ in range(NEGATIVES):
                        state += _NEXT
                        _move(mine, others[_one_of(state, len(others))], push, rate)
                if returned and _drawn(back_phases[edge], epoch, pace):
                    _move(mine, anchors[other], pull, -rate)


@numba.njit(cache=True)
def names_of(embeddings: Float32[np.ndarray, "m D"]) -> UInt64[np.ndarray, " m"]:
    """A number for each galaxy that depends on its own embedding and nothing else."""
    names = np.zeros(len(embeddings), np.uint64)
    for row in range(len(embeddings)):
        for axis in range(embeddings.shape[1]):
            # Adding zero makes −0 the same as 0.
            bits = np.float32(embeddings[row, axis] + np.float32(0)).view(np.uint32)
            names[row] = _mixed(names[row] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(bits) + np.uint64(1))
    return names
