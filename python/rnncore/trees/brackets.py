"""Trees as bracketed strings, read and written without recursion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .forest import Forest

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_WORD = re.compile(r"[^\s()]+")


class Node(NamedTuple):
    """A node as it is closed: its label or None, and how many nodes before it are its own."""

    label: str | None
    children: int


def read(texts: Iterable[str], labelled: bool = False) -> Forest:
    """Make a forest of one bracketed tree in each string: "( ( a b ) c )".

    With `labelled`, the first word after a bracket is the label of the node that it opens, as in
    the Penn Treebank: "(S (NP (DT the) (NN cat)) (VP sat))". All other words are leaves, labelled
    by themselves. Rows are in postorder. Raises `ValueError` for unbalanced brackets, an empty node
    or anything after the tree, naming the tree.
    """
    parent: list[int] = []
    labels: list[str | None] = []
    begin = [0]
    for number, text in enumerate(texts):
        waiting: list[int] = []  # rows that have no parent yet
        for node in _nodes(text, labelled, number):
            for child in waiting[len(waiting) - node.children :]:
                parent[child] = len(parent)
            del waiting[len(waiting) - node.children :]
            waiting.append(len(parent))
            parent.append(-1)
            labels.append(node.label)
        begin.append(len(parent))
    return Forest(np.array(parent, np.int64), np.array(begin), labels)


def _nodes(text: str, labelled: bool, number: int) -> Iterator[Node]:
    """Yield the nodes of one tree, children before their parents."""
    open_nodes: list[list[str | int | None]] = []  # label, children so far
    done = wants_label = False
    for token in _TOKEN.findall(text):
        if done:
            raise ValueError(f"tree {number}: {token!r} stands after its end")
        if token == "(":
            open_nodes.append([None, 0])
            wants_label = labelled
            continue
        if wants_label and token != ")":
            open_nodes[-1][0], wants_label = token, False
            continue
        if token == ")":
            if not open_nodes:
                raise ValueError(f"tree {number}: a bracket is closed that was never opened")
            label, children = open_nodes.pop()
            if not children:
                raise ValueError(f"tree {number} holds an empty node")
            yield Node(label if isinstance(label, str) else None, int(children))
        else:
            yield Node(token, 0)
        if open_nodes:
            open_nodes[-1][1] = int(open_nodes[-1][1] or 0) + 1
        done = not open_nodes
        wants_label = False
    if not done:
        missing = f"{len(open_nodes)} brackets are never closed" if open_nodes else "it is empty"
        raise ValueError(f"tree {number}: {missing}")


def write(forest: Forest, labelled: bool = False) -> list[str]:
    """Return each tree as a bracketed string; leaves are written as their labels, or "*".

    With `labelled` inner nodes are, too: "(S (NP the cat) sat)". Raises `ValueError` for a label
    that would be read as something else.
    """
    names = [
        "*" if label is None else str(label) for label in forest.labels or [None] * forest.nodes
    ]
    for node, name in enumerate(names):
        if (labelled or not forest.child_count[node]) and not _WORD.fullmatch(name):
            raise ValueError(f"the label of node {node} must be one word, no bracket: {name!r}")
    return [_written(int(root), forest.children, names, labelled) for root in forest.roots]


def _written(root: int, children: list[list[int]], names: list[str], labelled: bool) -> str:
    words: list[str] = []
    pending: list[int | str] = [root]
    while pending:
        at = pending.pop()
        if isinstance(at, str):
            words.append(at)
        elif children[at]:
            words.append(f"({names[at]}" if labelled else "(")
            pending.append(")")
            pending.extend(reversed(children[at]))
        else:
            words.append(names[at])
    return " ".join(words)
