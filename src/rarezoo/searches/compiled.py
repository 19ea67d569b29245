"""Loops over trees that numba compiles, apart from code whose annotations are checked while tests run."""

import numba
import numpy as np


@numba.njit(cache=True)
def _below(sides: np.ndarray, root: int, queue: np.ndarray) -> int:
    """Count the nodes of the tree from a node down; the queue holds them level by level."""
    galaxies, count, queue[0] = len(sides) + 1, 1, root
    at = 0
    while at < count:
        node = queue[at]
        if node >= galaxies:
            queue[count], queue[count + 1] = sides[node - galaxies]
            count += 2
        at += 1
    return count


@numba.njit(cache=True)
def condense(
    sides: np.ndarray, distances: np.ndarray, sizes: np.ndarray, smallest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return parent, child, λ and size of the child of every row, in the order of hdbscan's condense_tree."""
    galaxies, root = len(sides) + 1, 2 * len(sides)
    order, part = np.empty(root + 1, np.int64), np.empty(root + 1, np.int64)
    _below(sides, root, order)
    name, gone = np.empty(root + 1, np.int64), np.zeros(root + 1, np.bool_)
    parents, children = np.empty(root + 2, np.int64), np.empty(root + 2, np.int64)
    lambdas, counts = np.empty(root + 2, np.float64), np.empty(root + 2, np.int64)
    name[root], following, row = galaxies, galaxies + 1, 0
    for node in order:
        if gone[node] or node < galaxies:
            continue
        merge = node - galaxies
        density = 1.0 / distances[merge] if distances[merge] > 0 else np.inf
        large = np.empty(2, np.int64)
        for side in range(2):
            child = sides[merge, side]
            large[side] = sizes[child - galaxies] if child >= galaxies else 1
        splits = large[0] >= smallest and large[1] >= smallest
        for side in range(2):
            child = sides[merge, side]
            if splits:
                name[child] = following
                parents[row], children[row], lambdas[row], counts[row] = name[node], following, density, large[side]
                following += 1
                row += 1
            elif large[side] >= smallest:
                name[child] = name[node]
            else:
                for place in range(_below(sides, child, part)):
                    inside = part[place]
                    gone[inside] = True
                    if inside < galaxies:
                        parents[row], children[row], lambdas[row], counts[row] = name[node], inside, density, 1
                        row += 1
    return parents[:row], children[:row], lambdas[:row], counts[:row]


@numba.njit(cache=True)
def summed_up(parents: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Add each node's own counts and those of all nodes below it."""
    total = own.copy()
    for node in range(len(parents) - 1, 0, -1):
        total[parents[node]] += total[node]
    return total


@numba.njit(cache=True)
def count_shared_nodes(parents: np.ndarray, homes: np.ndarray, graph: np.ndarray) -> np.ndarray:
    """Count pairs (galaxy, neighbour) by the smallest node that holds both and by the neighbour's place."""
    counts = np.zeros((len(parents), graph.shape[1]), dtype=np.int64)
    # The last galaxy that each node was found to hold.
    held = np.full(len(parents), -1, dtype=np.int64)
    for row in range(graph.shape[0]):
        node = homes[row]
        while node >= 0:
            held[node] = row
            node = parents[node]
        for place in range(graph.shape[1]):
            shared = homes[graph[row, place]]
            while held[shared] != row:
                shared = parents[shared]
            counts[shared, place] += 1
    return counts
