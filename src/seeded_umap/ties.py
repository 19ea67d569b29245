"""A spanning tree that is the same whichever of equally long edges was found first."""

import numba
import numpy as np
from jaxtyping import Float64


@numba.njit(cache=True)
def canonical_tree(edges: Float64[np.ndarray, "merges 3"]) -> Float64[np.ndarray, "merges 3"]:
    """Return the minimum spanning tree that depends only on which points are connected at each length.

    The edges of one length join the same points into a group in every minimum spanning tree. Here, the first point of
    each part of a group is joined to the first point of the whole group, in the order of the points.

    Parameters
    ----------
    edges : (merges, 3) float64
        Edges of any minimum spanning tree: two points and a length, the shortest first.
    """
    above, tree = np.arange(len(edges) + 1), np.empty_like(edges)
    start = 0
    while start < len(edges):
        end = start
        while end < len(edges) and edges[end, 2] == edges[start, 2]:
            left, right = _first_of_group(above, int(edges[end, 0])), _first_of_group(above, int(edges[end, 1]))
            above[max(left, right)] = min(left, right)
            tree[end, 1] = max(left, right)
            end += 1
        tree[start:end, 1] = np.sort(tree[start:end, 1])
        for edge in range(start, end):
            tree[edge, 0], tree[edge, 2] = _first_of_group(above, int(tree[edge, 1])), edges[edge, 2]
        start = end
    return tree


@numba.njit(cache=True)
def _first_of_group(above: np.ndarray, point: int) -> int:
    """Return the first of the points that a point is joined to; paths are shortened on the way."""
    while above[point] != point:
        above[point] = above[above[point]]
        point = above[point]
    return point
