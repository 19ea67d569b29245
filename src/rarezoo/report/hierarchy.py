"""Which classes lie next to each other in HDBSCAN's tree."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from rarezoo import tables


def relatives(classes: pa.Table, *, tree: pa.Table) -> dict[int, list[int]]:
    """For each class the other classes that share its deepest branch: those that a lower density would join it with.

    Args:
        classes: CLASSES table.
        tree: TREE table.
    """
    branches = tree.filter(pa.compute.greater(tree.column(tables.CHILD_SIZE), 1))
    parent_of = dict(
        zip(branches.column(tables.CHILD).to_pylist(), branches.column(tables.PARENT).to_pylist(), strict=True)
    )
    lines = {
        class_id: _ancestors(node, parent_of)
        for class_id, node in zip(
            classes.column(tables.CLASS_ID).to_pylist(), classes.column(tables.NODE).to_pylist(), strict=True
        )
    }
    return {class_id: _nearest(class_id, lines) for class_id in lines}


def branches(tree: pa.Table, *, nodes: Mapping[int | None, int]) -> dict[str, list[int] | list[float]]:
    """The tree without single galaxies, as columns: node, parent (−1: the root's), birth and death λ, size, class.

    Args:
        tree: TREE table.
        nodes: class id by node.
    """
    parents, children, density, sizes = (
        tree.column(name).to_numpy() for name in (tables.PARENT, tables.CHILD, tables.LAMBDA, tables.CHILD_SIZE)
    )
    last = int(max(parents.max(), children.max())) if len(parents) else -1
    deaths = np.zeros(last + 1)
    np.maximum.at(deaths, parents, density)
    inner = sizes > 1
    root = np.setdiff1d(parents, children)
    below = [int(sizes[parents == one].sum()) for one in root]
    births = [float(density[parents == one].min()) for one in root]
    found = [*root.tolist(), *children[inner].tolist()]
    return {
        "node": found,
        "parent": [-1] * len(root) + parents[inner].tolist(),
        "birth": births + density[inner].tolist(),
        "death": [
            max(float(deaths[node]), birth) for node, birth in zip(found, births + density[inner].tolist(), strict=True)
        ],
        "size": below + sizes[inner].tolist(),
        "class": [nodes.get(node, tables.NO_CLASS) for node in found],
    }


def _ancestors(node: int, parent_of: dict[int, int]) -> list[int]:
    """A node's parent, its parent's parent, and so on to the root."""
    line = []
    while node in parent_of:
        node = parent_of[node]
        line.append(node)
    return line


def _nearest(class_id: int, lines: dict[int, list[int]]) -> list[int]:
    for ancestor in lines[class_id]:
        shared = [other for other, line in lines.items() if other != class_id and ancestor in line]
        if shared:
            return shared
    return []
