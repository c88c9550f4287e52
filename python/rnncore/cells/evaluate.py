"""A definition evaluated in NumPy: an oracle of the kernels, and the check of a user's cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import reference
from ..arrays import Array
from ..reference.cells import Params, Saved, State
from .definition import CellDefinition, GateFacts
from .gradient import gradients
from .graph import Node
from .layer import Recurrent

#: Arrays by the leaf that they are the values, or the gradients, of.
Leaves = dict[Node, Array]
#: Inputs and parameters, outputs, or gradients, by name.
Named = dict[str, Array]


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
            sums = [self._rows_of(params, f"weight_{side}", gate, part) for part, side in parts]
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
        """Undo `given`: gradients of all of x and of the old states; those of units are added."""
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

    def _slots(self, stage: int) -> list[tuple[int, GateFacts, list[tuple[str, str]]]]:
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


class Checked(NamedTuple):
    """The largest differences that `check` found, as shares of the largest number of an array."""

    kernel: float  # of the compiled kernels from NumPy, outputs and gradients
    gradient: float  # of gradients from central differences


def check(
    cell: CellDefinition,
    *,
    steps: int = 4,
    batch: int = 3,
    input_size: int = 3,
    hidden_size: int = 5,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Checked:
    """Compare a cell's kernels in float64 with NumPy, and its gradients with central differences.

    x is normal; inputs, vectors and the first states are uniform in 0.1..1, as time gaps are, and
    what is divided by. Returns how far they are apart; raises `ValueError` naming the array that is
    further off than `tolerance`, which for a kernel is a fault of the library, for a central
    difference most often a step that jumps, or is near a kink.
    """
    rng = np.random.default_rng(seed)
    layer = Recurrent(cell, input_size, hidden_size, dtype="float64", seed=rng)
    x = rng.standard_normal((steps, batch, layer.columns))
    x[..., input_size:] = rng.uniform(0.1, 1, x[..., input_size:].shape)
    state = tuple(rng.uniform(0.1, 1, (1, batch, hidden_size)) for _ in cell.states)
    inputs: Named = {"x": x, **dict(zip(cell.states, state, strict=True)), **layer.params}
    found = _kernel(layer, inputs, rng)
    return compared(cell.name, inputs, found, partial(_in_numpy, cell), tolerance, rng)


def compared(
    name_of: str,
    inputs: Named,
    kernels: tuple[Named, Named, Named],
    in_numpy: Callable[[Named, Named | None], tuple[Named, Named]],
    tolerance: float,
    rng: np.random.Generator,
) -> Checked:
    """Compare what kernels found of some inputs with NumPy, and both with central differences.

    kernels: outputs, gradients of the inputs, and the gradients of the outputs that were given;
    in_numpy: from inputs and those to outputs and gradients.
    """
    outputs, gradients, upstream = kernels
    if not all(np.isfinite(a).all() for a in (*outputs.values(), *gradients.values())):
        raise ValueError(f"{name_of} gives numbers that are not finite: change the step or seed")
    expected, derived = in_numpy(inputs, upstream)
    kernel = max(
        _difference(f"{name_of}: {name}", found, other[name], tolerance, "NumPy")
        for mine, other in ((outputs, expected), (gradients, derived))
        for name, found in mine.items()
    )

    def loss() -> float:
        found, _ = in_numpy(inputs, None)
        return float(sum(np.vdot(upstream[name], array) for name, array in found.items()))

    gradient = max(
        _difference(
            f"{name_of}: the gradient of {name}",
            np.vdot(gradients[name], direction) / np.linalg.norm(gradients[name]),
            _along(loss, array, direction) / np.linalg.norm(gradients[name]),
            tolerance,
            "central differences",
            1.0,
        )
        for name, array in inputs.items()
        if gradients[name].any()
        for direction in rng.standard_normal((2, *array.shape))
    )
    return Checked(kernel, gradient)


def _kernel(
    layer: Recurrent, inputs: Named, rng: np.random.Generator
) -> tuple[Named, Named, Named]:
    """Outputs, gradients and the gradients that were given, by the compiled kernels."""
    states = layer.definition.states
    first = tuple(inputs[name] for name in states)
    (y, final), pullback = layer.vjp(inputs["x"], first if len(first) > 1 else first[0])
    ends = final if isinstance(final, tuple) else (final,)
    outputs = {"y": y, **{f"{name}_n": end for name, end in zip(states, ends, strict=True)}}
    upstream = {name: rng.standard_normal(array.shape) for name, array in outputs.items()}
    dy, *dends = upstream.values()
    dx, dfirst = pullback(dy, tuple(dends) if len(dends) > 1 else dends[0])
    dstates = dfirst if isinstance(dfirst, tuple) else (dfirst,)
    return outputs, {"x": dx, **dict(zip(states, dstates, strict=True)), **layer.grads}, upstream


def _in_numpy(cell: CellDefinition, inputs: Named, upstream: Named | None) -> tuple[Named, Named]:
    """Outputs, and gradients where those of outputs are given, by the trace."""
    params = {name: a for name, a in inputs.items() if name.endswith("_l0")}
    first = tuple(inputs[name] for name in cell.states)
    y, final, tape = reference.forward(Reference(cell), params, inputs["x"], first)
    ends = final if isinstance(final, tuple) else (final,)
    outputs = {"y": y, **{f"{n}_n": end for n, end in zip(cell.states, ends, strict=True)}}
    if upstream is None:
        return outputs, {}
    dy, *dends = upstream.values()
    dx, dfirst, grads = reference.backward(tape, dy, tuple(dends))
    dstates = dfirst if isinstance(dfirst, tuple) else (dfirst,)
    return outputs, {"x": dx, **dict(zip(cell.states, dstates, strict=True)), **grads}


def _along(loss: Callable[[], float], array: Array, direction: Array) -> float:
    """The central difference of fourth order along a direction; the array is put back."""
    kept, step = array.copy(), 1e-4

    def at(multiple: float) -> float:
        array[...] = kept + multiple * step * direction
        found = loss()
        array[...] = kept
        return found

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


def _difference(
    name: str, found: Any, expected: Any, tolerance: float, by: str, largest: float | None = None
) -> float:
    """How far two arrays are apart, as a share of the largest number, or raise."""
    scale = np.abs(expected).max(initial=1e-12) if largest is None else largest
    error = float(np.abs(found - expected).max(initial=0) / scale)
    if not error <= tolerance:
        raise ValueError(f"{name} is off by {error:.2g} from {by}, more than {tolerance:g}")
    return error
