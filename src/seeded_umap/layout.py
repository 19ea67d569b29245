"""The optimisation: neighbours attract, and points drawn at random repel (McInnes et al. 2018, §3.2).

umap-learn moves both ends of an edge as soon as the edge is drawn, so that its result depends on the order of its
threads. Here the points are divided into blocks, and an epoch into rounds. In one round every block is paired with at
most one other block (as in a tournament), and a thread works on the edges between the two: no two threads touch the
same point. Random draws are hashes of seed, point and epoch.

Shape letters: n points, m points to transform, k dimensions of the map, e edges, b blocks, p pairs of points (edges
counted once), t pairs of blocks, r rounds.
"""

import sys
from typing import Any, NamedTuple

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64
from scipy.sparse import csr_array
from tqdm import tqdm

# umap-learn's defaults (UMAP.__init__): number of random points that repel per attraction, length of the first step.
NEGATIVES, RATE = 5, 1.0
# umap-learn's bound on a move along an axis, and the constant that keeps a repulsion finite (layouts.py).
_LONGEST, _CLOSEST = 4.0, 0.001
# Smallest number of points per block and largest number of blocks: two blocks stay in the cache of a core. The result
# depends on the number of blocks, and not on that of the threads.
BLOCK_SIZE, _BLOCKS = 1000, 64
# Repelling points are drawn from a sample of this size, drawn in each round, which stays in the cache of a core.
_SAMPLE = 2048
# Number of pairs that are checked at a time for those that are due; of points that a thread transforms at once.
_AT_ONCE, _TOGETHER = 1024, 16
# The step of a generator of hashes (Steele et al. 2014).
_NEXT = np.uint64(0x9E3779B97F4A7C15)
# Forces are tabulated over squared distances 2^-24 … 2^24, 64 per octave, and interpolated to 2e-4 of their value.
_LOWEST, _OCTAVES, _STEPS = -24, 48, 64


class Forces(NamedTuple):
    """Attraction and repulsion per unit of separation, by squared distance, for the curve 1 / (1 + a d^(2b)).

    Attributes
    ----------
    pull, push : float32
        Values at the squared distances 2^(−24 + octave) (1 + step / 64).
    """

    pull: Float32[np.ndarray, " values"]
    push: Float32[np.ndarray, " values"]

    @classmethod
    def from_min_dist(cls, min_dist: float) -> "Forces":
        """Make the forces of the curve that umap-learn fits to ``min_dist``."""
        a, b = curve_of(min_dist)
        octave, step = np.divmod(np.arange(_OCTAVES * _STEPS + 1), _STEPS)
        squares = 2.0 ** (_LOWEST + octave) * (1 + step / _STEPS)
        curve = 1 + a * squares**b
        pull, push = 2 * a * b * squares ** (b - 1) / curve, 2 * b / ((_CLOSEST + squares) * curve)
        return cls(pull.astype(np.float32), push.astype(np.float32))


def curve_of(min_dist: float) -> tuple[float, float]:
    """Return a and b of 1 / (1 + a d^(2b)) as umap-learn's find_ab_params fits them; importing that takes seconds."""
    from scipy.optimize import curve_fit

    distances = np.linspace(0, 3, 300)
    wanted = np.where(distances < min_dist, 1.0, np.exp(min_dist - distances))
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distances, wanted)
    return float(a), float(b)


class Edges(NamedTuple):
    """Edges of a graph, ordered by the point that they start from.

    Attributes
    ----------
    starts : (m + 1,) int64
        First edge of each point, and e.
    ends : (e,) int32
        Point at the other end.
    paces : (e,) float32
        Number of attractions per epoch, 0 to 1.
    """

    starts: Int64[np.ndarray, " m+1"]
    ends: Int32[np.ndarray, " e"]
    paces: Float32[np.ndarray, " e"]

    @classmethod
    def from_graph(cls, graph: csr_array, *, epochs: int) -> "Edges":
        """Make the edges of a matrix of strengths, without those that would not attract once in all epochs."""
        paces = (graph.data / graph.data.max()).astype(np.float32)
        drawn = paces * np.float32(epochs) >= 1
        starts = np.concatenate([[0], np.cumsum(drawn)])[graph.indptr].astype(np.int64)
        return cls(starts, graph.indices[drawn].astype(np.int32), paces[drawn])

    @property
    def most(self) -> int:
        """Largest number of edges of a point."""
        return int(np.diff(self.starts).max(initial=0))


class Schedule(NamedTuple):
    """Edges of a symmetric graph, each once, ordered by round and by the two blocks that they join.

    Attributes
    ----------
    rounds : (r + 1,) int64
        First pair of blocks of each round, and t.
    starts : (t + 1,) int64
        First edge of each pair of blocks, and p.
    left, right : (p,) int32
        Points at the two ends.
    paces : (p,) float32
        Number of attractions per epoch that each end draws, 0 to 1.
    left_phases, right_phases : (p,) float32
        Where in its pace each end begins, 0 to 1.
    """

    rounds: Int64[np.ndarray, " r+1"]
    starts: Int64[np.ndarray, " t+1"]
    left: Int32[np.ndarray, " p"]
    right: Int32[np.ndarray, " p"]
    paces: Float32[np.ndarray, " p"]
    left_phases: Float32[np.ndarray, " p"]
    right_phases: Float32[np.ndarray, " p"]

    @classmethod
    def from_edges(cls, edges: Edges, *, seed: int, block_size: int = BLOCK_SIZE) -> "Schedule":
        """Make the schedule of the edges of a symmetric graph. In the first round each block is paired with itself."""
        points = len(edges.starts) - 1
        blocks = min(max(points // block_size, 1), _BLOCKS)
        size = -(-points // blocks)
        counts = _edge_counts(edges.starts, edges.ends, size, blocks)
        rounds = _rounds(counts)
        # By round; the order of the pairs of blocks within a round does not matter.
        first, second = np.nonzero(counts)
        order = np.argsort(rounds[first, second], kind="stable")
        first, second = first[order], second[order]
        starts = np.concatenate([[0], np.cumsum(counts[first, second])])
        places = np.zeros_like(counts)
        places[first, second] = starts[:-1]
        pairs = _paired(edges.starts, edges.ends, edges.paces, size, places, starts[-1])
        by_round = np.bincount(rounds[first, second])
        return cls(np.concatenate([[0], np.cumsum(by_round)]), starts, *pairs, *_both_phases(*pairs[:2], _key(seed)))


def _rounds(counts: Int64[np.ndarray, "b b"]) -> Int64[np.ndarray, "b b"]:
    """Return the round of each pair of blocks.

    Pairs with most edges come first, so that the pairs of one round take about the same time.
    """
    # Every block is paired with itself in round 0.
    rounds = np.zeros_like(counts)
    busy = np.zeros((len(counts), 2 * len(counts)), bool)
    busy[:, 0] = True
    by_size = np.unravel_index(np.argsort(-counts, axis=None, kind="stable"), counts.shape)
    for first, second in zip(*by_size, strict=True):
        if first != second and counts[first, second]:
            rounds[first, second] = np.argmin(busy[first] | busy[second])
            busy[[first, second], rounds[first, second]] = True
    return rounds


@numba.njit(cache=True)
def _edge_counts(starts: np.ndarray, ends: np.ndarray, size: int, blocks: int) -> np.ndarray:
    """Return the number of edges (b, b) that join two blocks of ``size`` points, each edge counted once."""
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
    """Return the ends and the pace of ``count`` edges; those that join two blocks begin at their ``places`` (b, b)."""
    left, right, kept = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.float32)
    for row in range(len(starts) - 1):
        for edge in range(starts[row], starts[row + 1]):
            if ends[edge] > row:
                at = places[row // size, ends[edge] // size]
                places[row // size, ends[edge] // size] += 1
                left[at], right[at], kept[at] = row, ends[edge], paces[edge]
    return left, right, kept


def optimise(
    positions: Float32[np.ndarray, "n k"],
    edges: Edges,
    forces: Forces,
    *,
    epochs: int,
    seed: int,
    progress: bool = False,
    block_size: int = BLOCK_SIZE,
) -> Float32[np.ndarray, "n k"]:
    """Return the positions after all epochs, in which the steps become shorter down to nothing."""
    here, axes = positions.copy(), (0,) * positions.shape[1]
    schedule = Schedule.from_edges(edges, seed=seed, block_size=block_size)
    steps = range(epochs)
    for epoch in tqdm(steps, desc="map", file=sys.stderr) if progress else steps:
        rate = np.float32(RATE * (1 - epoch / epochs))
        _run_epoch(here, axes, schedule, forces, rate, epoch, _key(seed))
    return here


def place(
    positions: Float32[np.ndarray, "m k"],
    anchors: Float32[np.ndarray, "n k"],
    edges: Edges,
    forces: Forces,
    *,
    hashes: UInt64[np.ndarray, " m"],
    epochs: int,
    seed: int,
) -> Float32[np.ndarray, "m k"]:
    """Return the positions of further points after all epochs; the ``anchors`` stay where they are.

    Parameters
    ----------
    positions : (m, k) float32
        First positions.
    anchors : (n, k) float32
        Positions of the fitted points.
    edges : Edges
        From further points to anchors.
    forces : Forces
    hashes : (m,) uint64
        Numbers from which the random draws of each point follow: see :func:`hashes_of`.
    epochs : int
    seed : int
    """
    here, there, axes = positions.copy(), positions.copy(), (0,) * positions.shape[1]
    phases = _phases(hashes, edges.starts, edges.ends, _key(seed))
    for epoch in range(epochs):
        # umap-learn's transform starts with a quarter of the step.
        rate = np.float32(RATE / 4 * (1 - epoch / epochs))
        _transform_epoch(here, there, anchors, hashes, axes, edges, phases, edges.most, forces, rate, epoch, _key(seed))
        here, there = there, here
    return here


def _key(seed: int) -> np.uint64:
    """Return the hash of a seed."""
    return np.uint64(_mixed(np.uint64(seed)))


@numba.njit(cache=True)
def _mixed(value: np.uint64) -> np.uint64:
    """Return a hash in which every bit depends on every bit: splitmix64's finaliser (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(parallel=True, cache=True)
def _phases(hashes: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: np.uint64) -> np.ndarray:
    """Return where in its pace each edge begins, 0 to 1."""
    phases = np.empty(len(ends), np.float32)
    for row in numba.prange(len(hashes)):
        for edge in range(starts[row], starts[row + 1]):
            phases[edge] = _phase(hashes[row], np.uint64(ends[edge]), seed)
    return phases


@numba.njit(parallel=True, cache=True)
def _both_phases(left: np.ndarray, right: np.ndarray, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Return where in its pace each edge begins, 0 to 1, if its left end draws it, and if its right end does."""
    left_phases, right_phases = np.empty(len(left), np.float32), np.empty(len(left), np.float32)
    for pair in numba.prange(len(left)):
        a, b = np.uint64(left[pair]), np.uint64(right[pair])
        left_phases[pair], right_phases[pair] = _phase(a, b, seed), _phase(b, a, seed)
    return left_phases, right_phases


@numba.njit(cache=True)
def _phase(drawing: np.uint64, drawn: np.uint64, seed: np.uint64) -> np.float32:
    """Return a number from 0 to 1 that depends on the point that draws an edge and on the point at its other end."""
    return _fraction(_mixed(_mixed(seed + drawing) + np.uint64(2) * _mixed(seed + drawn)))


@numba.njit(cache=True)
def _fraction(key: np.uint64) -> np.float32:
    """Return a hash as a number from 0 to 1."""
    return np.float32(key >> np.uint64(40)) * np.float32(2**-24)


@numba.njit(cache=True)
def _is_due(pace: np.float32, phase: np.float32, epoch: int) -> bool:
    """Return whether an edge is drawn in this epoch; over the epochs it is drawn evenly, at its pace."""
    return np.floor(np.float32(epoch + 1) * pace + phase) > np.floor(np.float32(epoch) * pace + phase)


@numba.njit(cache=True)
def _places(due: np.ndarray, count: int, places: np.ndarray) -> int:
    """Write the places of the first ``count`` that are due, and return their number."""
    found = 0
    for place in range(count):
        places[found] = place
        found += due[place] != 0
    return found


@numba.njit(cache=True, inline="always")
def _force(table: np.ndarray, square: np.float32) -> np.float32:
    """Return the force, interpolated linearly in the table and constant beyond its ends."""
    bits: Any = np.float32(max(square, np.float32(2.0**_LOWEST))).view(np.int32) - ((127 + _LOWEST) << 23)
    at: Any = min(bits >> 17, _OCTAVES * _STEPS - 1)
    part = np.float32(min(bits - (at << 17), 1 << 17)) * np.float32(2**-17)
    return table[at] + part * (table[at + 1] - table[at])


@numba.njit(cache=True, inline="always")
def _within(move: np.float32) -> np.float32:
    """Return a move that is cut at the longest one."""
    return min(max(move, np.float32(-_LONGEST)), np.float32(_LONGEST))


@numba.njit(cache=True, inline="always")
def _move(
    mine: np.ndarray, others: np.ndarray, other: int, axes: tuple[int, ...], table: np.ndarray, rate: np.float32
) -> None:
    """Move one position by an attraction (rate < 0) or a repulsion (rate > 0)."""
    square = np.float32(0)
    for axis in range(len(axes)):
        square += (mine[axis] - others[other, axis]) ** 2
    if square > 0:
        force = _force(table, square)
        for axis in range(len(axes)):
            mine[axis] += rate * _within(force * (mine[axis] - others[other, axis]))


@numba.njit(cache=True)
def _random_below(state: np.uint64, limit: int) -> Any:
    """Return a random number from 0 to limit − 1, by a hash."""
    return np.int64(((_mixed(state) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@numba.njit(parallel=True, cache=True)
def _run_epoch(
    here: np.ndarray,
    axes: tuple[int, ...],
    schedule: Schedule,
    forces: Forces,
    rate: np.float32,
    epoch: int,
    seed: np.uint64,
) -> None:
    """Run one epoch: positions are changed in place. ``axes`` is as long as a position."""
    sample = np.empty((_SAMPLE + NEGATIVES, len(axes)), np.float32)
    for turn in range(len(schedule.rounds) - 1):
        _draw_sample(sample, here, _mixed(_mixed(seed + np.uint64(epoch)) + np.uint64(turn)))
        for pair in numba.prange(schedule.rounds[turn], schedule.rounds[turn + 1]):
            _move_blocks(here, axes, schedule, forces, rate, epoch, seed, sample, pair)


@numba.njit(cache=True)
def _draw_sample(sample: np.ndarray, here: np.ndarray, state: np.uint64) -> None:
    """Write positions of points drawn at random; the first of them again at the end."""
    for place in range(_SAMPLE):
        state += _NEXT
        sample[place] = here[_random_below(state, len(here))]
    sample[_SAMPLE:] = sample[:NEGATIVES]


@numba.njit(cache=True)
def _move_blocks(
    here: np.ndarray,
    axes: tuple[int, ...],
    schedule: Schedule,
    forces: Forces,
    rate: np.float32,
    epoch: int,
    seed: np.uint64,
    sample: np.ndarray,
    blocks: int,
) -> None:
    """Go through the edges between two blocks: both ends attract, then some of the sample repel the end that drew."""
    first, last = schedule.starts[blocks], schedule.starts[blocks + 1]
    left, right, paces = schedule.left, schedule.right, schedule.paces
    left_phases, right_phases = schedule.left_phases, schedule.right_phases
    moved = np.empty(len(axes), np.float32)
    due, places = np.empty(_AT_ONCE, np.uint8), np.empty(_AT_ONCE + 1, np.int32)
    for begin in range(first, last, _AT_ONCE):
        count = min(_AT_ONCE, last - begin)
        for place in range(count):
            pair = begin + place
            by_left = _is_due(paces[pair], left_phases[pair], epoch)
            by_right = _is_due(paces[pair], right_phases[pair], epoch)
            due[place] = np.uint8(by_left) | (np.uint8(by_right) << np.uint8(1))
        for index in range(_places(due, count, places)):
            pair = begin + places[index]
            a, b, draw = left[pair], right[pair], _mixed(seed + np.uint64(pair)) + np.uint64(2 * epoch)
            if due[places[index]] & 1:
                _pull_together(here, a, b, axes, forces.pull, rate)
                _push_off(here, a, sample, _random_below(draw, _SAMPLE), axes, forces.push, rate, moved)
            if due[places[index]] & 2:
                _pull_together(here, a, b, axes, forces.pull, rate)
                _push_off(here, b, sample, _random_below(draw + np.uint64(1), _SAMPLE), axes, forces.push, rate, moved)


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _pull_together(
    here: np.ndarray, a: int, b: int, axes: tuple[int, ...], table: np.ndarray, rate: np.float32
) -> None:
    """Attract two points: both move by the same length."""
    square = np.float32(0)
    for axis in range(len(axes)):
        square += (here[a, axis] - here[b, axis]) ** 2
    if square > 0:
        force = _force(table, square)
        for axis in range(len(axes)):
            move = rate * _within(force * (here[a, axis] - here[b, axis]))
            here[a, axis] -= move
            here[b, axis] += move


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _push_off(
    here: np.ndarray,
    point: int,
    sample: np.ndarray,
    first: int,
    axes: tuple[int, ...],
    table: np.ndarray,
    rate: np.float32,
    moved: np.ndarray,
) -> None:
    """Repel a point from ``NEGATIVES`` of the sample at once. ``moved`` is memory for a position."""
    for axis in range(len(axes)):
        moved[axis] = 0
    for place in range(first, first + NEGATIVES):
        square = np.float32(0)
        for axis in range(len(axes)):
            square += (here[point, axis] - sample[place, axis]) ** 2
        force = _force(table, square)
        for axis in range(len(axes)):
            moved[axis] += _within(force * (here[point, axis] - sample[place, axis]))
    for axis in range(len(axes)):
        here[point, axis] += rate * moved[axis]


@numba.njit(parallel=True, cache=True)
def _transform_epoch(
    here: np.ndarray,
    there: np.ndarray,
    anchors: np.ndarray,
    hashes: np.ndarray,
    axes: tuple[int, ...],
    edges: Edges,
    phases: np.ndarray,
    most: int,
    forces: Forces,
    rate: np.float32,
    epoch: int,
    seed: np.uint64,
) -> None:
    """Run one epoch of a transformation: positions ``here`` become ``there``; only ``anchors`` attract and repel.

    ``axes`` is as long as a position, and ``most`` is the largest number of edges of a point.
    """
    starts, ends, paces = edges.starts, edges.ends, edges.paces
    for block in numba.prange((len(here) + _TOGETHER - 1) // _TOGETHER):
        mine, due, places = np.empty(len(axes), np.float32), np.empty(most, np.uint8), np.empty(most + 1, np.int32)
        for row in range(block * _TOGETHER, min((block + 1) * _TOGETHER, len(here))):
            for axis in range(len(axes)):
                mine[axis] = here[row, axis]
            state, first = _mixed(_mixed(seed + hashes[row]) + np.uint64(epoch)), starts[row]
            count = starts[row + 1] - first
            for place in range(count):
                due[place] = _is_due(paces[first + place], phases[first + place], epoch)
            for index in range(_places(due, count, places)):
                _move(mine, anchors, ends[first + places[index]], axes, forces.pull, -rate)
                for _ in range(NEGATIVES):
                    state += _NEXT
                    _move(mine, anchors, _random_below(state, len(anchors)), axes, forces.push, rate)
            for axis in range(len(axes)):
                there[row, axis] = mine[axis]


@numba.njit(cache=True)
def hashes_of(points: Float32[np.ndarray, "m D"]) -> UInt64[np.ndarray, " m"]:
    """Return a number for each point that depends on its own values and on nothing else."""
    hashes = np.zeros(len(points), np.uint64)
    for row in range(len(points)):
        for axis in range(points.shape[1]):
            # Adding zero makes −0 the same as 0.
            bits = np.float32(points[row, axis] + np.float32(0)).view(np.uint32)
            hashes[row] = _mixed(hashes[row] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(bits) + np.uint64(1))
    return hashes
