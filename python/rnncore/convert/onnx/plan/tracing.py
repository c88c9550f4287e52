"""A run of a graph that notes what depends on the inputs' numbers, and what on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ....arrays import Array
from ...budget import Budget
from ..control import If
from ..nodes import Body, Node, Value
from ..sizes import take

#: What is known of a value when its shape is.
_OF_SHAPES = frozenset(("Shape", "Size"))
#: Inputs on whose numbers the shape of an output depends.
_SHAPING: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
#: Outputs whose shapes depend on numbers, or that are no arrays.
_OPEN = frozenset(("Compress", "If", "Loop", "NonZero", "Scan", "Unique"))
#: Operators that see each row of the first input by itself, and take long in NumPy.
_BY_ROW = frozenset(("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "MaxPool"))


class Unknown(Exception):
    """A shape depends on numbers: there is nothing to be compiled."""


class Trace:
    """One run. `nodes` are those whose outputs depend on numbers, `values` all that came to be.

    static: the names of values that are the same whenever the inputs have these shapes. given: the
    inputs, of which those that are whole numbers without axes count as static. Of others the shape
    and the type count alone: what convolutions and pools make of them is zero here.
    """

    def __init__(self, body: Body, given: Mapping[str, Array], budget: Budget) -> None:
        self.inputs, self.outputs = tuple(given), body.outputs
        self.values: dict[str, Value] = {**body.constants, **given}
        self.static = {*body.constants, *(name for name in given if is_choice(given[name]))}
        self.nodes: list[Node] = []
        self._branches = 0
        self._run(body.nodes, budget)

    def known(self, name: str) -> Any:
        """A value that is the same in every run, None for others and for none."""
        return self.values[name] if name in self.static else None

    def _run(self, nodes: tuple[Node, ...], budget: Budget) -> None:
        for node in nodes:
            if isinstance(node.function, If) and node.inputs[0] in self.static:
                self._take_branch(node, node.function, budget)
                continue
            self._take_step(node, budget)
            if node.op in _OF_SHAPES or self.static.issuperset(filter(None, node.inputs)):
                self.static.update(filter(None, node.outputs))
            else:
                self._check(node)
                self.nodes.append(node)

    def _take_branch(self, node: Node, control: If, budget: Budget) -> None:
        chosen = control.bodies[0 if self.values[node.inputs[0]].item() else 1]
        self._branches += 1
        part = chosen.spliced(node.where, f"branch {self._branches}: ", node.outputs)
        self.values.update(part.constants)
        self.static.update(part.constants)
        # What the branch reads of graphs around it, this node has been given, under any names.
        around = dict(zip(control.free, node.inputs[-len(control.free) :], strict=False))
        self._run(tuple(_renamed(inner, around) for inner in part.nodes), budget)

    def _take_step(self, node: Node, budget: Budget) -> None:
        """Run a node, or have zeros of the shapes of its outputs, which it tells of no rows."""
        x: Any = self.values.get(node.inputs[0]) if node.op in _BY_ROW else None
        if not np.ndim(x) or node.inputs[0] in self.static:
            node.run(self.values, budget)
            return
        given = {name: self.values[name] for name in node.inputs if name}
        take(budget, node.op, [given.get(name) for name in node.inputs], node.attributes)
        node.run(made := given | {node.inputs[0]: x[:0]}, budget)
        for name in filter(None, node.outputs):
            shape, zero = made[name].shape, np.zeros((), made[name].dtype)
            self.values[name] = np.broadcast_to(zero, (len(x), *shape[1:]))

    def _check(self, node: Node) -> None:
        """Refuse a node the shapes of whose outputs are not known."""
        shaping = [node.inputs[at] for at in _SHAPING.get(node.op, ()) if at < len(node.inputs)]
        arrays = all(isinstance(self.values[n], np.ndarray) for n in node.outputs if n)
        if node.op in _OPEN or not arrays or not self.static.issuperset(filter(None, shaping)):
            raise Unknown(node.where)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def is_choice(value: Array) -> bool:
    """Whether an input is a whole number by itself, such as a rate: plans are made for each."""
    return value.ndim == 0 and value.dtype.kind in "iub"
