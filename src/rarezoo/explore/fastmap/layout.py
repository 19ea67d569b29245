"""The descent: neighbours pull, galaxies drawn at random push, as in UMAP (McInnes et al. 2018, §3.2).

umap-learn moves both ends of an edge as soon as it is drawn, so that the order of threads shows in the result. Here
every galaxy gathers the moves that concern it, its own position changing as it goes and all others standing where the
last step left them, a quarter of an epoch ago; what is drawn is a hash of seed, galaxy and step.
n: galaxies. k: dimensions of the map.
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
# Steps of an epoch. All take a step at once, neighbours jump past each other, and the map comes out hotter than
# umap-learn's, whose galaxies see each other move: in one step per epoch two seeds agree on few classes.
_PER_EPOCH = 4
# Galaxies that gather one after another, by which threads share the work. Among more galaxies than a core's cache
# holds, where each reading of a random one would wait for memory, so many together share a crowd that they push away.
_BLOCK, _CACHED, _TOGETHER, _CROWD = 16, 50_000, 1024, 1024
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

    @property
    def most(self) -> int:
        """That one galaxy has."""
        return int(np.diff(self.starts).max(initial=0))


def settled(
    positions: Float32[np.ndarray, "n k"], edges: Edges, forces: Forces, *, epochs: int, seed: int, tell: bool = False
) -> Float32[np.ndarray, "n k"]:
    """Positions after all epochs, the steps growing shorter to nothing."""
    here, there = positions.copy(), positions.copy()
    names, axes = np.arange(len(positions), dtype=np.uint64), (0,) * positions.shape[1]
    phases = _phases(names, edges.starts, edges.ends, _key(seed))
    slower = edges._replace(paces=edges.paces / np.float32(_PER_EPOCH))
    for epoch in tqdm(range(epochs), desc="map", disable=not tell, file=sys.stderr):
        rate = np.float32(RATE * (1 - epoch / epochs))
        for step in range(epoch * _PER_EPOCH, (epoch + 1) * _PER_EPOCH):
            common = (*slower, *phases, edges.most, *forces, rate, step, _key(seed))
            if len(positions) > _CACHED:
                _gather_many(here, there, names, axes, *common)
            else:
                _gather(here, there, here, names, axes, *common, True)
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
    here, there, axes = positions.copy(), positions.copy(), (0,) * positions.shape[1]
    phases = _phases(names, edges.starts, edges.ends, _key(seed))
    for epoch in range(epochs):
        # umap-learn's transform starts with a quarter of the step.
        rate = np.float32(RATE / 4 * (1 - epoch / epochs))
        common = (*edges, *phases, edges.most, *forces, rate, epoch, _key(seed))
        # However many anchors there are: who is placed must not depend on who is placed beside it.
        _gather(here, there, anchors, names, axes, *common, False)
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
def _due(
    due: np.ndarray, paces: np.ndarray, there: np.ndarray, back: np.ndarray, first: np.uint64, count: int, step: int
) -> None:
    """Write which of so many edges pull in this step, each evenly at its pace: 1 there, 2 back, 3 both, 0 neither."""
    now, then = np.float32(step), np.float32(step + 1)
    for place in range(count):
        edge = first + np.uint64(place)
        pace = paces[edge]
        goes = np.floor(then * pace + there[edge]) > np.floor(now * pace + there[edge])
        comes = np.floor(then * pace + back[edge]) > np.floor(now * pace + back[edge])
        due[place] = np.uint8(goes) | (np.uint8(comes) << np.uint8(1))


@numba.njit(cache=True)
def _places(due: np.ndarray, count: int, places: np.ndarray) -> int:
    """Write where something is due, and how many places that are."""
    found = 0
    for place in range(count):
        places[found] = place
        found += due[place] != 0
    return found


@numba.njit(cache=True, inline="always")
def _force(table: np.ndarray, square: np.float32) -> np.float32:
    """The tabulated force, linearly between its values; at the ends of the table their own."""
    bits: Any = np.float32(max(square, np.float32(2.0**_LOWEST))).view(np.int32) - ((127 + _LOWEST) << 23)
    at: Any = min(bits >> 17, _OCTAVES * _STEPS - 1)
    part = np.float32(min(bits - (at << 17), 1 << 17)) * np.float32(2**-17)
    return table[at] + part * (table[at + 1] - table[at])


@numba.njit(cache=True, inline="always")
def _within(move: np.float32) -> np.float32:
    """At most the longest move."""
    return min(max(move, np.float32(-_LONGEST)), np.float32(_LONGEST))


@numba.njit(cache=True, inline="always")
def _move(
    mine: np.ndarray, others: np.ndarray, other: int, axes: tuple[int, ...], table: np.ndarray, rate: np.float32
) -> None:
    """My position moved by one pull (rate < 0) or push (rate > 0)."""
    square = np.float32(0)
    for axis in range(len(axes)):
        square += (mine[axis] - others[other, axis]) ** 2
    if square > 0:
        force = _force(table, square)
        for axis in range(len(axes)):
            mine[axis] += rate * _within(force * (mine[axis] - others[other, axis]))


@numba.njit(cache=True, fastmath={"reassoc"})
def _move_from(
    mine: np.ndarray, crowd: np.ndarray, first: np.uint64, axes: tuple[int, ...], table: np.ndarray,
    forces: np.ndarray, rate: np.float32,
) -> None:  # fmt: skip
    """My position pushed at once by the next ``NEGATIVES`` of the crowd (k, …); ``forces`` is room for as many."""
    for place in range(NEGATIVES):
        square = np.float32(0)
        for axis in range(len(axes)):
            square += (mine[axis] - crowd[axis, first + np.uint64(place)]) ** 2
        forces[place] = square
    for place in range(NEGATIVES):
        forces[place] = _force(table, forces[place])
    for axis in range(len(axes)):
        push = np.float32(0)
        for place in range(NEGATIVES):
            push += _within(forces[place] * (mine[axis] - crowd[axis, first + np.uint64(place)]))
        mine[axis] += rate * push


@numba.njit(cache=True)
def _one_of(state: np.uint64, galaxies: int) -> Any:
    """One of so many galaxies, by a hash."""
    return np.int64(((_mixed(state) >> np.uint64(32)) * np.uint64(galaxies)) >> np.uint64(32))


@numba.njit(cache=True)
def _crowd(anchors: np.ndarray, state: np.uint64) -> np.ndarray:
    """Positions (k, …) of galaxies drawn at random; the first ones again at the end."""
    drawn = np.empty((anchors.shape[1], _CROWD + NEGATIVES), np.float32)
    for place in range(_CROWD):
        state += _NEXT
        one = _one_of(state, len(anchors))
        for axis in range(anchors.shape[1]):
            drawn[axis, place] = anchors[one, axis]
    drawn[:, _CROWD:] = drawn[:, :NEGATIVES]
    return drawn


@numba.njit(parallel=True, cache=True)
def _gather(
    here: np.ndarray, there: np.ndarray, anchors: np.ndarray, names: np.ndarray, axes: tuple[int, ...],
    starts: np.ndarray, ends: np.ndarray, paces: np.ndarray, there_phases: np.ndarray, back_phases: np.ndarray,
    most: int, pull: np.ndarray, push: np.ndarray, rate: np.float32, step: int, seed: np.uint64, returned: bool,
) -> None:  # fmt: skip
    """One step: positions ``here`` of those who gather become ``there``; ``anchors`` are all who pull and push.

    Either end draws an edge. Whoever draws it also pushes others off; with ``returned`` the pull is felt again when the
    other end draws it. ``axes`` is as long as a position, ``most`` what one galaxy has of edges.
    """
    for block in numba.prange((len(here) + _BLOCK - 1) // _BLOCK):
        mine, due, places = np.empty(len(axes), np.float32), np.empty(most, np.uint8), np.empty(most + 1, np.int32)
        for row in range(block * _BLOCK, min((block + 1) * _BLOCK, len(here))):
            for axis in range(len(axes)):
                mine[axis] = here[row, axis]
            state, first = _mixed(_mixed(seed + names[row]) + np.uint64(step)), starts[row]
            count = starts[row + 1] - first
            _due(due, paces, there_phases, back_phases, np.uint64(first), count, step)
            for found in range(_places(due, count, places)):
                place = places[found]
                other = ends[first + place]
                if due[place] & 1:
                    _move(mine, anchors, other, axes, pull, -rate)
                    for _ in range(NEGATIVES):
                        state += _NEXT
                        _move(mine, anchors, _one_of(state, len(anchors)), axes, push, rate)
                if returned and due[place] & 2:
                    _move(mine, anchors, other, axes, pull, -rate)
            for axis in range(len(axes)):
                there[row, axis] = mine[axis]


@numba.njit(parallel=True, cache=True)
def _gather_many(
    here: np.ndarray, there: np.ndarray, names: np.ndarray, axes: tuple[int, ...],
    starts: np.ndarray, ends: np.ndarray, paces: np.ndarray, there_phases: np.ndarray, back_phases: np.ndarray,
    most: int, pull: np.ndarray, push: np.ndarray, rate: np.float32, step: int, seed: np.uint64,
) -> None:  # fmt: skip
    """One step among more galaxies than a core's cache holds.

    Galaxies that gather one after another share a crowd, and a galaxy pushes off those of it that follow a random one.
    """
    for block in numba.prange((len(here) + _TOGETHER - 1) // _TOGETHER):
        crowd = _crowd(here, _mixed(_mixed(seed ^ _mixed(np.uint64(block * _TOGETHER))) + np.uint64(step)))
        mine, forces = np.empty(len(axes), np.float32), np.empty(NEGATIVES, np.float32)
        due, places = np.empty(most, np.uint8), np.empty(most + 1, np.int32)
        for row in range(block * _TOGETHER, min((block + 1) * _TOGETHER, len(here))):
            for axis in range(len(axes)):
                mine[axis] = here[row, axis]
            first, count = starts[row], starts[row + 1] - starts[row]
            _due(due, paces, there_phases, back_phases, np.uint64(first), count, step)
            run = _one_of(_mixed(seed + names[row]) + np.uint64(step), _CROWD)
            for found in range(_places(due, count, places)):
                place = places[found]
                other = ends[first + place]
                _move(mine, here, other, axes, pull, -rate)
                if due[place] & 1:
                    _move_from(mine, crowd, np.uint64(run), axes, push, forces, rate)
                    run = (run + NEGATIVES) % _CROWD
                if due[place] == 3:
                    _move(mine, here, other, axes, pull, -rate)
            for axis in range(len(axes)):
                there[row, axis] = mine[axis]


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
