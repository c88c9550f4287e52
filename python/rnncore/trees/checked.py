"""Nodes of trees that are users' cells, in NumPy, and the check of such a cell."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..arrays import Array, check_kind
from ..cells.definition import CellDefinition
from ..cells.evaluate import Checked, Named, Reference, compared
from ..reference.cells import Saved, State
from .child_sum import ChildSumTree
from .forest import Forest
from .order import Order

#: Where `check_tree` is given none: a node of three children, chains, a tree of one node.
_PARENTS = [[3, 3, 3, 5, 5, -1], [1, 2, -1], [-1]]


def check_tree(
    cell: CellDefinition,
    forest: Forest | None = None,
    *,
    input_size: int = 3,
    hidden_size: int = 5,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Checked:
    """Compare a cell at the nodes of trees with NumPy and with central differences.

    As `rnncore.cells.check`, of the kernels of `rnncore.ChildSumTree`. forest: the trees, None: a
    few small ones. A leaf continues states of zero: a step that divides by one fails here.
    """
    check_kind("cell", cell, CellDefinition)
    forest = Forest.from_parents(_PARENTS) if forest is None else forest
    order, rng = check_kind("forest", forest, Forest).bottom_up(None), np.random.default_rng(seed)
    layer = ChildSumTree(cell, input_size, hidden_size, dtype="float64", seed=rng)
    x = rng.standard_normal((forest.nodes, layer.columns))
    x[:, input_size:] = rng.uniform(0.1, 1, x[:, input_size:].shape)
    inputs: Named = {"x": x, **layer.params}
    states, pullback = layer.vjp(x, order)
    parts = states if isinstance(states, tuple) else (states,)
    outputs = dict(zip(cell.states, parts, strict=True))
    upstream = {name: rng.standard_normal(part.shape) for name, part in outputs.items()}
    gradients = {"x": pullback(*upstream.values()), **layer.grads}
    found = outputs, gradients, upstream
    return compared(cell.name, inputs, found, partial(in_numpy, cell, order), tolerance, rng)


def in_numpy(
    cell: CellDefinition, order: Order, inputs: Named, upstream: Named | None
) -> tuple[Named, Named]:
    """Return the states of all nodes and, from their gradients, those of x and the parameters.

    inputs: `x (N, columns)` and the parameters of a `ChildSumTree`; order: one without places.
    """
    reference, params = Reference(cell), {f"{name}": a for name, a in inputs.items() if name != "x"}
    x, hidden = inputs["x"], reference.hidden_size(params)
    states: list[Array] = [np.zeros((len(x), hidden), x.dtype) for _ in cell.states]
    saved: dict[int, Saved] = {}
    children = _children(order)
    for n in np.argsort(order.wave, kind="stable"):
        old: State = tuple(s[children[n]].sum(axis=0, keepdims=True) for s in states)
        new, saved[n] = reference.forward(x[n : n + 1], old, params)
        for all_nodes, own in zip(states, new, strict=True):
            all_nodes[n] = own
    outputs = dict(zip(cell.states, states, strict=True))
    if upstream is None:
        return outputs, {}
    grads = {name: np.zeros_like(array) for name, array in params.items()}
    dx, dstates = np.zeros_like(x), [upstream[name].copy() for name in cell.states]
    for n in np.argsort(order.wave, kind="stable")[::-1]:
        given = tuple(d[n : n + 1] for d in dstates)
        dx[n], dold = reference.backward(given, saved[n], params, grads)
        for all_nodes, d in zip(dstates, dold, strict=True):
            np.add.at(all_nodes, children[n], d)
    return outputs, {"x": dx, **grads}


def _children(order: Order) -> list[Array]:
    """Of each node the rows that it continues."""
    first = order.first
    return [] if first is None else np.split(order.prev, first[1:-1]) if len(first) > 1 else []
