"""The descent: neighbours pull, galaxies drawn at random push, as in UMAP (McInnes et al. 2018, §3.2).

umap-learn moves both ends of an edge as soon as it is drawn, so that the order of threads shows in the result. So do
we, but galaxies are cut into blocks, and blocks meet as in a tournament: in one round none meets two others, so that
no two threads touch a galaxy. What is drawn is a hash of seed, galaxy and epoch.
n: galaxies. k: dimensions of the map. b: blocks. p: pairs. t: meetings. r: rounds.
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
# Galaxies of a block, at least, and most blocks: a pair of them stays in a core's cache, and their number, not that of
# the threads, decides what is seen to move by whom.
_IN_BLOCK, _BLOCKS = 1000, 64
# Those that are pushed away are drawn from a crowd, itself drawn anew in each round, which stays in a core's cache.
_CROWD = 2048
# Pairs looked through at a time for those that are due; galaxies that are placed one after another.
_AT_ONCE, _TOGETHER = 1024, 16
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


class Meetings(NamedTuple):
    """The graph's edges, each once, by the two blocks that they join.

    Attributes:
        rounds: (r + 1,) first meeting of each round.
        starts: (t + 1,) first edge of each meeting.
        ones, others: (p,) galaxies at the two ends.
        paces: (p,) pulls per epoch that each end draws, 0–1.
        there, back: (p,) where in its pace the one's, and the other's, begins, 0–1.
    """

    rounds: Int64[np.ndarray, " r+1"]
    starts: Int64[np.ndarray, " t+1"]
    ones: Int32[np.ndarray, " p"]
    others: Int32[np.ndarray, " p"]
    paces: Float32[np.ndarray, " p"]
    there: Float32[np.ndarray, " p"]
    back: Float32[np.ndarray, " p"]

    @classmethod
    def of(cls, edges: Edges, *, seed: int) -> "Meetings":
        """Meetings of the edges of a symmetric matrix. First each block meets itself."""
        galaxies = len(edges.starts) - 1
        blocks = min(max(galaxies // _IN_BLOCK, 1), _BLOCKS)
        size = -(-galaxies // blocks)
        counts = _joining(edges.starts, edges.ends, size, blocks)
        rounds = _rounds(counts)
        # By round; the order of meetings within one is of no consequence.
        ones, others = np.nonzero(counts)
        order = np.argsort(rounds[ones, others], kind="stable")
        ones, others = ones[order], others[order]
        starts = np.concatenate([[0], np.cumsum(counts[ones, others])])
        places = np.zeros_like(counts)
        places[ones, others] = starts[:-1]
        pairs = _paired(edges.starts, edges.ends, edges.paces, size, places, starts[-1])
        by_round = np.bincount(rounds[ones, others])
        return cls(np.concatenate([[0], np.cumsum(by_round)]), starts, *pairs, *_both_phases(*pairs[:2], _key(seed)))


def _rounds(counts: Int64[np.ndarray, "b b"]) -> Int64[np.ndarray, "b b"]:
    """The round in which two blocks meet: those that most edges join first, so that a round's meetings are alike."""
    # Every block meets itself in round 0.
    rounds = np.zeros_like(counts)
    busy = np.zeros((len(counts), 2 * len(counts)), bool)
    busy[:, 0] = True
    for one, other in zip(*np.unravel_index(np.argsort(-counts, axis=None, kind="stable"), counts.shape), strict=True):
        if one != other and counts[one, other]:
            rounds[one, other] = np.argmin(busy[one] | busy[other])
            busy[[one, other], rounds[one, other]] = True
    return rounds


@numba.njit(cache=True)
def _joining(starts: np.ndarray, ends: np.ndarray, size: int, blocks: int) -> np.ndarray:
    """How many edges (b, b) join two blocks of such a size, each edge counted once."""
    counts = np.zeros((blocks, blocks), np.int64)
    for row in range(len(starts) - 1):
        for edge in range(starts[row], starts[row + 1]):
            if ends[edge] > row:
                counts[row // size, ends[edge] // size] += 1
    return counts


@numba.njit(cache=True)
def _paired(
    starts: np.ndarray, ends: np.ndarray, paces: np.ndarray, size: int, places: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends and pace of each of so many edges; those that join two blocks from the place (b, b) that is theirs."""
    ones, others, kept = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.float32)
    for row in range(len(starts) - 1):
        for edge in range(starts[row], starts[row + 1]):
            if ends[edge] > row:
                at = places[row // size, ends[edge] // size]
                places[row // size, ends[edge] // size] += 1
                ones[at], others[at], kept[at] = row, ends[edge], paces[edge]
    return ones, others, kept


def settled(
    positions: Float32[np.ndarray, "n k"], edges: Edges, forces: Forces, *, epochs: int, seed: int, tell: bool = False
) -> Float32[np.ndarray, "n k"]:
    """Positions after all epochs, the steps growing shorter to nothing."""
    here, axes = positions.copy(), (0,) * positions.shape[1]
    meetings = Meetings.of(edges, seed=seed)
    for epoch in tqdm(range(epochs), desc="map", disable=not tell, file=sys.stderr):
        rate = np.float32(RATE * (1 - epoch / epochs))
        _meet(here, axes, *meetings, *forces, rate, epoch, _key(seed))
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
        _gather(here, there, anchors, names, axes, *edges, phases, edges.most, *forces, rate, epoch, _key(seed))
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
def _phases(names: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: np.uint64) -> np.ndarray:
    """Where in its pace each edge begins, 0 to 1."""
    phases = np.empty(len(ends), np.float32)
    for row in numba.prange(len(names)):
        for edge in range(starts[row], starts[row + 1]):
            phases[edge] = _phase(names[row], np.uint64(ends[edge]), seed)
    return phases


@numba.njit(parallel=True, cache=True)
def _both_phases(ones: np.ndarray, others: np.ndarray, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Where in its pace each edge begins, 0 to 1: drawn by the one, and drawn by the other."""
    there, back = np.empty(len(ones), np.float32), np.empty(len(ones), np.float32)
    for pair in numba.prange(len(ones)):
        one, other = np.uint64(ones[pair]), np.uint64(others[pair])
        there[pair], back[pair] = _phase(one, other, seed), _phase(other, one, seed)
    return there, back


@numba.njit(cache=True)
def _phase(one: np.uint64, other: np.uint64, seed: np.uint64) -> np.float32:
    """A number from 0 to 1 of the one that draws and the other that it is drawn to."""
    return _share(_mixed(_mixed(seed + one) + np.uint64(2) * _mixed(seed + other)))


@numba.njit(cache=True)
def _share(key: np.uint64) -> np.float32:
    """A hash as a number from 0 to 1."""
    return np.float32(key >> np.uint64(40)) * np.float32(2**-24)


@numba.njit(cache=True)
def _goes(pace: np.float32, phase: np.float32, epoch: int) -> bool:
    """Whether an edge is drawn in this epoch, evenly at its pace."""
    return np.floor(np.float32(epoch + 1) * pace + phase) > np.floor(np.float32(epoch) * pace + phase)


@numba.njit(cache=True)
def _places(due: np.ndarray, count: int, places: np.ndarray) -> int:
    """Write which of the first so many are due, and return how many these are."""
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


@numba.njit(cache=True)
def _one_of(state: np.uint64, galaxies: int) -> Any:
    """One of so many galaxies, by a hash."""
    return np.int64(((_mixed(state) >> np.uint64(32)) * np.uint64(galaxies)) >> np.uint64(32))


@numba.njit(parallel=True, cache=True)
def _meet(
    here: np.ndarray, axes: tuple[int, ...], rounds: np.ndarray, starts: np.ndarray, ones: np.ndarray,
    others: np.ndarray, paces: np.ndarray, there: np.ndarray, back: np.ndarray, pull: np.ndarray, push: np.ndarray,
    rate: np.float32, epoch: int, seed: np.uint64,
) -> None:  # fmt: skip
    """One epoch: positions are changed in place. ``axes`` is as long as a position."""
    crowd = np.empty((_CROWD + NEGATIVES, len(axes)), np.float32)
    for turn in range(len(rounds) - 1):
        _draw_crowd(crowd, here, _mixed(_mixed(seed + np.uint64(epoch)) + np.uint64(turn)))
        for meeting in numba.prange(rounds[turn], rounds[turn + 1]):
            first, last = starts[meeting], starts[meeting + 1]
            _attend(here, axes, ones, others, paces, there, back, pull, push, rate, epoch, seed, crowd, first, last)


@numba.njit(cache=True)
def _draw_crowd(crowd: np.ndarray, here: np.ndarray, state: np.uint64) -> None:
    """Write positions of galaxies drawn at random; the first ones again at the end."""
    for place in range(_CROWD):
        state += _NEXT
        crowd[place] = here[_one_of(state, len(here))]
    crowd[_CROWD:] = crowd[:NEGATIVES]


@numba.njit(cache=True)
def _attend(
    here: np.ndarray, axes: tuple[int, ...], ones: np.ndarray, others: np.ndarray, paces: np.ndarray,
    there: np.ndarray, back: np.ndarray, pull: np.ndarray, push: np.ndarray, rate: np.float32, epoch: int,
    seed: np.uint64, crowd: np.ndarray, first: int, last: int,
) -> None:  # fmt: skip
    """One meeting, edge after edge: both ends move, then whoever drew the edge is pushed off by some of the crowd."""
    moved = np.empty(len(axes), np.float32)
    due, places = np.empty(_AT_ONCE, np.uint8), np.empty(_AT_ONCE + 1, np.int32)
    for begin in range(first, last, _AT_ONCE):
        count = min(_AT_ONCE, last - begin)
        for place in range(count):
            pair = begin + place
            goes, comes = _goes(paces[pair], there[pair], epoch), _goes(paces[pair], back[pair], epoch)
            due[place] = np.uint8(goes) | (np.uint8(comes) << np.uint8(1))
        for found in range(_places(due, count, places)):
            pair = begin + places[found]
            one, other, draw = ones[pair], others[pair], _mixed(seed + np.uint64(pair)) + np.uint64(2 * epoch)
            if due[places[found]] & 1:
                _pull_together(here, one, other, axes, pull, rate)
                _push_off(here, one, crowd, _one_of(draw, _CROWD), axes, push, rate, moved)
            if due[places[found]] & 2:
                _pull_together(here, one, other, axes, pull, rate)
                _push_off(here, other, crowd, _one_of(draw + np.uint64(1), _CROWD), axes, push, rate, moved)


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _pull_together(
    here: np.ndarray, one: int, other: int, axes: tuple[int, ...], table: np.ndarray, rate: np.float32
) -> None:
    """One pull: both galaxies move, by as much."""
    square = np.float32(0)
    for axis in range(len(axes)):
        square += (here[one, axis] - here[other, axis]) ** 2
    if square > 0:
        force = _force(table, square)
        for axis in range(len(axes)):
            move = rate * _within(force * (here[one, axis] - here[other, axis]))
            here[one, axis] -= move
            here[other, axis] += move


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _push_off(
    here: np.ndarray, one: int, crowd: np.ndarray, first: int, axes: tuple[int, ...], table: np.ndarray,
    rate: np.float32, moved: np.ndarray,
) -> None:  # fmt: skip
    """``NEGATIVES`` of the crowd push at once. ``moved`` is room for a position."""
    for axis in range(len(axes)):
        moved[axis] = 0
    for place in range(first, first + NEGATIVES):
        square = np.float32(0)
        for axis in range(len(axes)):
            square += (here[one, axis] - crowd[place, axis]) ** 2
        force = _force(table, square)
        for axis in range(len(axes)):
            moved[axis] += _within(force * (here[one, axis] - crowd[place, axis]))
    for axis in range(len(axes)):
        here[one, axis] += rate * moved[axis]


@numba.njit(parallel=True, cache=True)
def _gather(
    here: np.ndarray, there: np.ndarray, anchors: np.ndarray, names: np.ndarray, axes: tuple[int, ...],
    starts: np.ndarray, ends: np.ndarray, paces: np.ndarray, phases: np.ndarray, most: int, pull: np.ndarray,
    push: np.ndarray, rate: np.float32, epoch: int, seed: np.uint64,
) -> None:  # fmt: skip
    """One epoch of placing: positions ``here`` become ``there``; ``anchors`` are all who pull and push.

    ``axes`` is as long as a position, ``most`` what one galaxy has of edges.
    """
    for block in numba.prange((len(here) + _TOGETHER - 1) // _TOGETHER):
        mine, due, places = np.empty(len(axes), np.float32), np.empty(most, np.uint8), np.empty(most + 1, np.int32)
        for row in range(block * _TOGETHER, min((block + 1) * _TOGETHER, len(here))):
            for axis in range(len(axes)):
                mine[axis] = here[row, axis]
            state, first = _mixed(_mixed(seed + names[row]) + np.uint64(epoch)), starts[row]
            count = starts[row + 1] - first
            for place in range(count):
                due[place] = _goes(paces[first + place], phases[first + place], epoch)
            for found in range(_places(due, count, places)):
                _move(mine, anchors, ends[first + places[found]], axes, pull, -rate)
                for _ in range(NEGATIVES):
                    state += _NEXT
                    _move(mine, anchors, _one_of(state, len(anchors)), axes, push, rate)
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
