"""UMAP that uses every core and gives the same bits whatever the number of threads.

UMAP (McInnes, Healy & Melville 2018, arXiv:1802.03426) places points of many dimensions on a map of few. umap-learn is
either seeded, on one thread, or parallel, with a result that changes from run to run. This package is both seeded and
parallel, because nothing in it adds numbers in an order that depends on the number of threads, or on which points are
transformed together. It imports numba, which takes seconds: import it where it is used.

Modules
-------
umap
    :class:`SeededUMAP`, an estimator with the words of scikit-learn.
neighbours
    Nearest neighbours: points are divided into cells, and a point is compared with the points of the nearest cells.
graph
    Strengths of the edges between neighbours.
start
    First positions: principal components, smoothed over the graph.
layout
    The optimisation: neighbours attract each other and random points repel each other. Random draws are hashes.
ties
    A spanning tree that does not depend on which of equally long edges was found first.
"""

from typing import Any

__all__ = ["SeededUMAP"]


def __getattr__(name: str) -> Any:
    if name == "SeededUMAP":
        from seeded_umap.umap import SeededUMAP

        return SeededUMAP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
