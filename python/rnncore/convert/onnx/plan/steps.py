"""Arrays that stay where they are, and the steps that lead from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....arrays import Array
from ....compiled import Program, core
from ..nodes import Node, naming
from .tracing import Trace

Step = Callable[[], Any]
#: Compiled convolutions with their weights, by the nodes that they are made of.
Layers = dict[Any, list[tuple[Array, Array, Any]]]


class Steps:
    """What a plan is made of: each value in an array of its own, or a part of another's.

    Neighbouring steps of the compiled core are one program; between them nodes run as they are.
    """

    def __init__(self, trace: Trace, dtype: np.dtype[Any], layers: Layers) -> None:
        self.trace, self.dtype, self.layers = trace, dtype, layers
        self.values: dict[str, Array] = {}
        self.steps: list[Step] = []
        self._program: Program | None = None

    def value(self, name: str) -> Array:
        """The array of a value, known or not."""
        known = self.trace.known(name)
        return self.values[name] if known is None else known

    def given(self, node: Node) -> list[Array | None]:
        """The arrays of a node's inputs."""
        return [self.value(name) if name else None for name in node.inputs]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        shape: tuple[int, ...] = self.trace.values[name].shape
        return shape

    @property
    def program(self) -> Program:
        """The program that compiled steps are added to now."""
        if self._program is None:
            self._program = core(self.dtype).Program()
            self.steps.append(self._program.run)
        return self._program

    def empty(self, shape: Sequence[int]) -> Array:
        """A new array of numbers."""
        return np.zeros(shape, self.dtype)

    def like(self, x: Array) -> Array:
        """A new array that lies as another one does, as far as that has no gaps."""
        return np.zeros_like(x, order="K")

    def contiguous(self, x: Array) -> Array:
        """The same numbers one after the other: the array itself, or a copy made at every run."""
        if x.flags.carray:  # one that broadcasts another must not be written
            return x
        y = self.empty(x.shape)
        self.program.copy(y, x)
        return y

    def interpret(self, node: Node) -> None:
        """Run a node as it is, between two programs."""
        self._program = None
        outputs = []
        for name in node.outputs:
            if name:
                self.values[name] = np.zeros_like(self.trace.values[name], order="C")
            outputs.append(self.values.get(name) if name else None)
        given, function = self.given(node), node.function

        def step() -> None:
            with naming(node.where):
                for to, value in zip(outputs, function(*given), strict=False):
                    if to is not None:
                        np.copyto(to, value)

        self.steps.append(step)
