"""Which classes lie next to each other in HDBSCAN's tree."""

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
