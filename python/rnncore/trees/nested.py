"""Trees as nested tuples or lists, taken apart and put together without recursion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def postorder(tree: Any, number: int) -> Iterator[tuple[Any, list[int]]]:
    """Yield (label, rows of the children) of each node, children before their parents.

    `number` is the tree's name in errors.
    """
    pending: list[tuple[Any, list[int] | None]] = [(tree, None)]
    finished: list[list[int]] = [[]]  # rows of the children seen so far, level by level
    row = 0
    while pending:
        node, children = pending.pop()
        inner = isinstance(node, (tuple, list))
        if inner and children is None:
            if not node:
                raise ValueError(
                    f"tree {number} holds an empty node: a node without children is a leaf"
                )
            finished.append([])
            pending.append((node, finished[-1]))
            pending.extend((child, None) for child in reversed(node))
            continue
        if inner:
            finished.pop()
        yield (None if inner else node), (children or [])
        finished[-1].append(row)
        row += 1


def nest(
    rows: Iterable[int], children: Sequence[Sequence[int]], labels: Sequence[Any]
) -> list[Any]:
    """Return each node as a tuple of its children, a leaf as its label; rows: children first."""
    nodes = list(labels)
    for row in rows:
        if children[row]:
            nodes[row] = tuple(nodes[child] for child in children[row])
    return nodes
