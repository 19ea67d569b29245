"""Which classes lie next to each other in HDBSCAN's tree, and which belong to one group."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rarezoo import tables


@dataclass(frozen=True)
class Group:
    """A superclass: a node of the tree that stands apart more than noise would, and so do classes within it.

    Attributes:
        node: of the tree.
        size: galaxies, those of no class included.
        classes: ids of the classes within it.
    """

    node: int
    size: int
    classes: tuple[int, ...]


def groups(classes: pa.Table, *, tree: pa.Table) -> dict[int, Group]:
    """The smallest group of each class that has one, with all classes within it; alone in it is in no group.

    Args:
        classes: CLASSES table.
        tree: TREE table.
    """
    parent_of, size_of = (_by_node(tree, column=column) for column in (tables.PARENT, tables.CHILD_SIZE))
    lines = {row[tables.CLASS_ID]: _ancestors(row[tables.NODE], parent_of) for row in classes.to_pylist()}
    found = {}
    for row in classes.to_pylist():
        class_id, node = row[tables.CLASS_ID], row[tables.GROUP]
        inside = tuple(one for one, line in lines.items() if node in line)
        if len(inside) > 1 and class_id in inside:
            found[class_id] = Group(node, size_of[node], inside)
    return found


def relatives(classes: pa.Table, *, tree: pa.Table) -> dict[int, list[int]]:
    """For each class the other classes that share its deepest branch: those that a lower density would join it with.

    Args:
        classes: CLASSES table.
        tree: TREE table.
    """
    parent_of = _by_node(tree, column=tables.PARENT)
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


def _by_node(tree: pa.Table, *, column: str) -> dict[int, int]:
    """A column of TREE by node, for every node but the root."""
    nodes = tree.filter(pa.compute.greater(tree.column(tables.CHILD_SIZE), 1))
    return dict(zip(nodes.column(tables.CHILD).to_pylist(), nodes.column(column).to_pylist(), strict=True))


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
