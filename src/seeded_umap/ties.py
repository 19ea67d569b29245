"""One spanning tree out of all that are equally short."""

import numba
import numpy as np
from jaxtyping import Float64


@numba.njit(cache=True)
def definite(edges: Float64[np.ndarray, "merges 3"]) -> Float64[np.ndarray, "merges 3"]:
    """The spanning tree that depends on what holds together at each length, and not on which edges hold it.

    What edges of one length join into a group is the same in every shortest tree. Each part of the group is joined by
    its own first galaxy to the first galaxy of all, in their order.

    Args:
        edges: two galaxies and a length; the shortest first.
    """
    above, found = np.arange(len(edges) + 1), np.empty_like(edges)
    start = 0
    while start < len(edges):
        end = start
        while end < len(edges) and edges[end, 2] == edges[start, 2]:
            one, other = _first(above, int(edges[end, 0])), _first(above, int(edges[end, 1]))
            above[max(one, other)] = min(one, other)
            found[end, 1] = max(one, other)
            end += 1
        found[start:end, 1] = np.sort(found[start:end, 1])
        for edge in range(start, end):
            found[edge, 0], found[edge, 2] = _first(above, int(found[edge, 1])), edges[edge, 2]
        start = end
    return found


@numba.njit(cache=True)
def _first(above: np.ndarray, galaxy: int) -> int:
    """The first galaxy of those that it is joined to; the way there is shortened for the next time."""
    while above[galaxy] != galaxy:
        above[galaxy] = above[above[galaxy]]
        galaxy = above[galaxy]
    return galaxy
