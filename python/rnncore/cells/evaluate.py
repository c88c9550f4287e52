"""A definition evaluated in NumPy: an oracle of the kernels, and the check of a user's cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..reference.cells import Params, Saved, State
from .definition import CellDefinition, GateFacts
from .gradient import gradients
from .graph import Node

#: Arrays by the leaf that they are the values, or the gradients, of.
Leaves = dict[Node, Array]


class Products:
    """The products of a cell's time step, with the parameters of one layer and direction."""

    def __init__(self, cell: CellDefinition) -> None:
        self.cell = cell
        self.unit_name = "weight_ch" if cell.recurrent else "weight_hh"
        self._rows = {
            part: {gate: at for at, gate in enumerate(g for g in cell.gates if getattr(g, part))}
            for part in ("input", "recurrent")
        }

    def hidden_size(self, params: Params) -> int:
        """H, as the weights have it."""
        return len(params["weight_ih"]) // len(self._rows["input"])

    def widths(self, params: Params) -> tuple[int, ...]:
        """H for each state."""
        return (self.hidden_size(params),) * len(self.cell.states)

    def given(self, x: Array, state: State, params: Params) -> tuple[Array, Leaves]:
        """Split x into features and the leaves of a step, beside old states and units' numbers."""
        hidden, (scalars, vectors) = self.hidden_size(params), self.cell.width_beside
        features = params["weight_ih"].shape[1]
        leaves: Leaves = {("h",): state[0]}
        leaves |= {("state", k): s for k, s in enumerate(state[1:])}
        leaves |= {("unit", k): params[self.unit_name][k] for k in range(len(self.cell.units))}
        rest = x[:, features:]
        leaves |= {("scalar", e): rest[:, e : e + 1] for e in range(scalars)}
        for v in range(vectors):
            start = scalars + v * hidden
            leaves["vector", v] = rest[:, start : start + hidden]
        return x[:, :features], leaves

    def sums(self, stage: int, x: Array, source: Array, params: Params) -> Leaves:
        """The sums of one stage: products with x, and with what the recurrent weights multiply."""
        found: Leaves = {}
        for slot, gate, parts in self._slots(stage):
            sums = [
                self._rows_of(params, f"weight_{side}", gate, part) for part, side in parts
            ]
            inputs = [x if part == "input" else source for part, _ in parts]
            total: Any = sum(a @ w.T for a, w in zip(inputs, sums, strict=True))
            for part, side in parts:
                if f"bias_{side}" in params:
                    total = total + self._rows_of(params, f"bias_{side}", gate, part)
            found["slot", slot] = total
        return found

    def sums_back(
        self, stage: int, gradients: Leaves, x: Array, source: Array, both: tuple[Params, Params]
    ) -> tuple[Array, Array]:
        """Undo `sums`: add to the second of `both`, parameters and gradients; dx and dsource."""
        params, grads = both
        dx, dsource = np.zeros_like(x), np.zeros_like(source)
        for slot, gate, parts in self._slots(stage):
            d = gradients["slot", slot]
            for part, side in parts:
                a, da = (x, dx) if part == "input" else (source, dsource)
                da += d @ self._rows_of(params, f"weight_{side}", gate, part)
                weight = self._rows_of(grads, f"weight_{side}", gate, part)
                weight += d.T @ a
                if f"bias_{side}" in params:
                    bias = self._rows_of(grads, f"bias_{side}", gate, part)
                    bias += d.sum(axis=0)
        return dx, dsource

    def given_back(
        self, dx: Array, gradients: Leaves, saved: Leaves, grads: Params
    ) -> tuple[Array, State]:
        """Undo `given`: gradients of the whole x and of the old states; those of units are added."""
        h = saved["h",]
        zero = np.zeros_like(h)
        for k in range(len(self.cell.units)):
            d = gradients.get(("unit", k), zero)
            grads[self.unit_name][k] += np.broadcast_to(d, h.shape).sum(axis=0)
        scalars, vectors = self.cell.width_beside
        beside = [
            np.broadcast_to(gradients.get(("scalar", e), zero), h.shape).sum(1, keepdims=True)
            for e in range(scalars)
        ]
        beside += [gradients.get(("vector", v), zero) + zero for v in range(vectors)]
        old = [gradients.get(("h",), zero) + zero]
        old += [gradients.get(("state", k), zero) + zero for k in range(len(self.cell.states) - 1)]
        return np.concatenate([dx, *beside], axis=1), tuple(old)

    def _slots(self, stage: int) -> list[tuple[int, GateFacts, Sequence[tuple[str, str]]]]:
        """Of one stage: slots, their gates, and the parts that a slot adds up."""
        sides = {"input": "ih", "recurrent": "hh"}
        found, slot = [], 0
        for gate in self.cell.gates:
            parts = [(p, side) for p, side in sides.items() if getattr(gate, p)]
            for own in [[part] for part in parts] if gate.apart else [parts]:
                if int(gate.second) == stage:
                    found.append((slot, gate, own))
                slot += 1
        return found

    def _rows_of(self, params: Params, name: str, gate: GateFacts, part: str) -> Array:
        """A view of the rows of one gate."""
        rows = self._rows[part]
        hidden = len(params[name]) // len(rows)
        return params[name][rows[gate] * hidden : (rows[gate] + 1) * hidden]


class Reference(Products):
    """A cell's time step and its backward, in NumPy, as `rnncore.reference` walks it over time."""

    def __init__(self, cell: CellDefinition) -> None:
        super().__init__(cell)
        self.graph = cell.graph.copy()
        new_h, *others = cell.outputs
        seeds = [(new_h, self.graph.leaf("dh"))]
        seeds += [(node, self.graph.leaf("dstate", k)) for k, node in enumerate(others)]
        self._last = gradients(self.graph, seeds)
        self._first: dict[Node, int] = {}
        if cell.middle is not None:
            self._first = gradients(self.graph, [(cell.middle, self.graph.leaf("dmiddle"))])

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h, ...) -> h', ..."""
        cell, h = self.cell, state[0]
        x, leaves = self.given(x, state, params)
        leaves |= self.sums(0, x, h, params)
        source = h
        if cell.middle is not None:
            source = self._values(leaves, [cell.middle])[0]
            leaves |= self.sums(1, x, source, params)
        return tuple(self._values(leaves, cell.outputs)), (x, leaves, source)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh', ... -> dx, dh, ..."""
        x, leaves, source = saved
        h, both = leaves["h",], (params, grads)
        leaves = leaves | {("dh",): dstate[0]}
        leaves |= {("dstate", k): d for k, d in enumerate(dstate[1:])}
        found = self._gradients(self._last, leaves)
        dx: Any = 0
        if self.cell.middle is not None:
            dx, leaves["dmiddle",] = self.sums_back(1, found, x, source, both)
            more = self._gradients(self._first, leaves)
            found = {node: found[node] + more[node] for node in found}
        first, dh = self.sums_back(0, found, x, h, both)
        found["h",] = found["h",] + dh
        return self.given_back(dx + first, found, leaves, grads)

    def _values(self, leaves: Leaves, wanted: Sequence[int]) -> list[Array]:
        values = self.graph.evaluate(leaves.__getitem__, wanted)
        shape = leaves["h",].shape
        return [np.broadcast_to(values[n], shape).astype(leaves["h",].dtype) for n in wanted]

    def _gradients(self, nodes: dict[Node, int], leaves: Leaves) -> Leaves:
        """The gradients of all leaves, zero for those that have no node."""
        found = dict(zip(nodes, self._values(leaves, list(nodes.values())), strict=True))
        zero = np.zeros_like(leaves["h",])
        mine = {node for node in leaves if node[0] not in ("dh", "dstate", "dmiddle")}
        mine |= {("slot", slot) for stage in (0, 1) for slot, _, _ in self._slots(stage)}
        return {node: found.get(node, zero) for node in mine}
