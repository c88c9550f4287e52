"""Recursive layers beside their reference, and trees to walk."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from rnncore import ChildSumTreeLSTM, RecursiveNet, RecursiveTensorNet, TreeGRU, TreeLSTM
from rnncore.reference import trees
from rnncore.trees.forest import Forest

CELLS: dict[str, tuple[Any, trees.TreeCell]] = {
    "recursive net": (RecursiveNet, trees.RecursiveNet()),
    "tensor net": (RecursiveTensorNet, trees.RecursiveTensorNet()),
    "tree lstm": (TreeLSTM, trees.TreeLSTM()),
    "normalised": (partial(TreeLSTM, layer_norm=True), trees.NormalisedTreeLSTM()),
    "normalised by gate": (
        partial(TreeLSTM, layer_norm="gate"),
        trees.NormalisedTreeLSTM(each_gate=True),
    ),
    "child-sum": (ChildSumTreeLSTM, trees.ChildSumTreeLSTM()),
    "child-sum, normalised": (
        partial(ChildSumTreeLSTM, layer_norm=True),
        trees.NormalisedChildSumTreeLSTM(),
    ),
    "child-sum, normalised by gate": (
        partial(ChildSumTreeLSTM, layer_norm="gate"),
        trees.NormalisedChildSumTreeLSTM(each_gate=True),
    ),
    "tree gru": (TreeGRU, trees.TreeGRU()),
}
#: Those that take any number of children.
SUMS = [cell for cell in CELLS if cell.startswith("child-sum") or cell == "tree gru"]


def make(cell: str, width: int, hidden: int, arity: int, **options: Any) -> Any:
    """The layer; those that take any number of children have no arity.

    Gains of one would make chains of normalised sums chaotic, and rows of a kind alike.
    """
    places = () if cell in SUMS else (arity,)
    layer = CELLS[cell][0](width, hidden, *places, **options)
    if "norm" in layer.params:
        norm = layer.params["norm"]
        norm[...] = np.random.default_rng(0).uniform(-0.5, 0.5, norm.shape)
    return layer


def random_trees(rng: np.random.Generator, count: int, most: int, arity: int) -> Forest:
    """Trees of up to `most` nodes, rows in any order, up to `arity` children a node."""
    parents = []
    for _ in range(count):
        size = int(rng.integers(1, most + 1))
        parent, room = np.full(size, -1), [arity]
        for node in range(1, size):
            at = int(rng.choice(np.flatnonzero(room)))
            parent[node] = at
            room[at] -= 1
            room.append(arity)
        names = rng.permutation(size)
        shuffled = np.full(size, -1)
        shuffled[names] = np.where(parent < 0, -1, names[parent])
        parents.append(shuffled)
    return Forest.from_parents(parents)


def named(states: Any, names: str = "hc") -> dict[str, np.ndarray]:
    parts = states if isinstance(states, tuple) else (states,)
    return dict(zip(names, parts, strict=False))
