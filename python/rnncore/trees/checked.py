"""Nodes of trees that are users' cells, in NumPy, and the check of such a cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, check_kind
from ..cells.definition import CellDefinition
from ..cells.evaluate import Checked, Leaves, Named, Products, compared
from ..cells.gradient import gradients
from ..cells.graph import Node as Leaf
from ..reference.cells import Params, Saved, State
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
    reference, params = Node(cell), {name: a for name, a in inputs.items() if name != "x"}
    x, hidden = inputs["x"], reference.hidden_size(params)
    states: list[Array] = [np.zeros((len(x), hidden), x.dtype) for _ in cell.states]
    saved: dict[int, Saved] = {}
    children = _children(order)
    for n in np.argsort(order.wave, kind="stable"):
        old: State = tuple(s[children[n]] for s in states)
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
            all_nodes[children[n]] += d
    return outputs, {"x": dx, **grads}


class Node(Products):
    """A cell's step at one node, and its backward: old states are those of its children."""

    def __init__(self, cell: CellDefinition) -> None:
        super().__init__(cell)
        form, self.graph = cell.in_trees, cell.in_trees.graph.copy()
        self.outputs, self.middle, self.each = form.outputs, form.middle, form.each
        new_h, *others = form.outputs
        seeds = [(new_h, self.graph.leaf("dh"))]
        seeds += [(node, self.graph.leaf("dstate", k)) for k, node in enumerate(others)]
        self._of_results = gradients(self.graph, seeds)
        self._of_middle = self._of_each = dict[Leaf, int]()
        if form.middle is not None:
            self._of_middle = gradients(self.graph, [(form.middle, self.graph.leaf("dmiddle"))])
        if form.each is not None:
            self._of_each = gradients(self.graph, [(form.each, self.graph.leaf("deach"))])
        names = [gate.each for _, gate in cell.slots]
        self.own = ("slot", names.index(True)) if True in names else ("each",)

    def forward(self, x: Array, old: State, params: Params) -> tuple[State, Saved]:
        """(x (1, columns), h (children, H), ...) -> h' (1, H), ..."""
        sums: State = tuple(s.sum(axis=0, keepdims=True) for s in old)
        x, leaves = self.given(x, sums, params)
        leaves |= self.sums(0, x, sums[0], params)
        of_each: Leaves = {}
        if self.each is not None:
            of_each = leaves | {("h",): old[0]}
            of_each |= {("state", k): s for k, s in enumerate(old[1:])}
            of_each[self.own] = self.sums(0, np.repeat(x, len(old[0]), 0), old[0], params)[self.own]
            (value,) = self._values(of_each, [self.each], old[0])
            leaves["each",] = value.sum(axis=0, keepdims=True)
        source = sums[0]
        if self.middle is not None:
            (source,) = self._values(leaves, [self.middle], sums[0])
            leaves |= self.sums(1, x, source, params)
        return tuple(self._values(leaves, self.outputs, sums[0])), (x, leaves, source, of_each)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' (1, H), ... -> dx (1, columns), dh (children, H), ..."""
        x, leaves, source, of_each = saved
        h, both = leaves["h",], (params, grads)
        leaves = leaves | {("dh",): dstate[0]}
        leaves |= {("dstate", k): d for k, d in enumerate(dstate[1:])}
        found = self._gradients(self._of_results, leaves, h)
        dx: Any = 0
        zero = np.zeros_like(h)
        if self.middle is not None:
            dx, leaves["dmiddle",] = self.sums_back(1, found, x, source, both)
            more = self._gradients(self._of_middle, leaves, h)
            found = {n: found.get(n, zero) + more.get(n, zero) for n in found | more}
        slots = {("slot", j): zero for j in range(len(self.cell.slots))}
        first, dh = self.sums_back(0, slots | found | {self.own: zero}, x, h, both)
        found["h",] = found.get(("h",), 0) + dh
        dx, dsums = self.given_back(dx + first, found, leaves, grads)
        if self.each is None:
            return dx, dsums
        deach = np.broadcast_to(found.get(("each",), zero), of_each["h",].shape)
        own = self._gradients(self._of_each, of_each | {("deach",): deach}, of_each["h",])
        none = np.zeros_like(of_each["h",])
        rows = np.repeat(x, len(none), 0)
        slots = dict.fromkeys(slots, none) | own
        more_dx, dh = self.sums_back(0, slots, rows, of_each["h",], both)
        own["h",] = own.get(("h",), 0) + dh
        _, dold = self.given_back(more_dx, own, of_each, grads)
        dx[:, : x.shape[1]] += more_dx.sum(axis=0)
        return dx, tuple(d + total for d, total in zip(dold, dsums, strict=True))

    def _values(self, leaves: Leaves, wanted: Sequence[int], like: Array) -> list[Array]:
        values = self.graph.evaluate(leaves.__getitem__, wanted)
        return [np.broadcast_to(values[n], like.shape).astype(like.dtype) for n in wanted]

    def _gradients(self, nodes: dict[Leaf, int], leaves: Leaves, like: Array) -> Leaves:
        return dict(zip(nodes, self._values(leaves, [*nodes.values()], like), strict=True))


def _children(order: Order) -> list[Array]:
    """Of each node the rows that it continues."""
    first = order.first
    return [] if first is None else np.split(order.prev, first[1:-1]) if len(first) > 1 else []
