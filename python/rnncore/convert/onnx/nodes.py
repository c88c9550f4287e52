"""Nodes that are ready to run, and bodies: what a graph, or one within a node, computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..budget import Budget
from .sizes import take

#: An array, or for a sequence a list of arrays.
Value: TypeAlias = Any
Function: TypeAlias = Callable[..., tuple[Value, ...]]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Have errors of a node's function name the node."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{where}: {error}") from error


@dataclass(frozen=True)
class Node:
    """One node: its function takes the values that `inputs` names, None where that is empty."""

    op: str
    where: str
    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def run(self, values: dict[str, Value], budget: Budget) -> None:
        """Add the outputs to the values; take from the budget what they need."""
        given = [values[name] if name else None for name in self.inputs]
        with naming(self.where), np.errstate(all="ignore"):  # a graph may divide by zero
            results = self.results(given, budget)
            if len(results) < len(self.outputs):
                raise ValueError(f"makes {len(results)} outputs, not {len(self.outputs)}")
        for name, result in zip(self.outputs, results, strict=False):
            if name:
                values[name] = result if isinstance(result, list) else np.asarray(result)

    def results(self, given: Sequence[Value], budget: Budget) -> tuple[Value, ...]:
        """What the function makes of its inputs."""
        take(budget, self.op, given, self.attributes)
        return self.function(*given)


@dataclass(frozen=True)
class Body:
    """The nodes of a graph in order, and the constants that they read, under the graph's names.

    free: the values of graphs around it that it reads and that are no constants.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, Value]
    free: tuple[str, ...] = ()

    def run(self, given: Mapping[str, Value], budget: Budget) -> tuple[Value, ...]:
        """Return the outputs; `given` has the inputs and the free values."""
        values = {**self.constants, **given}
        for node in self.nodes:
            node.run(values, budget)
        return tuple(values[name] for name in self.outputs)

    def spliced(self, where: str, prefix: str, outputs: Sequence[str]) -> Body:
        """This body as a part of the graph around it, its outputs under the names given.

        Other names of its own begin with the prefix.
        """
        own = {*self.constants, *(name for node in self.nodes for name in node.outputs if name)}
        names = {name: prefix + name for name in own}
        nodes = [
            replace(
                node,
                where=f"{where}: {node.where}",
                inputs=tuple(names.get(name, name) for name in node.inputs),
                outputs=tuple(names.get(name, name) for name in node.outputs),
            )
            for node in self.nodes
        ]
        constants = {names[name]: value for name, value in self.constants.items()}
        for inner, outer in zip(self.outputs, outputs, strict=True):
            if inner in self.constants:
                constants[outer] = self.constants[inner]
            else:
                read = (names.get(inner, inner),)
                nodes.append(Node("Identity", where, lambda x: (x,), read, (outer,), {}))
        return Body((), tuple(outputs), tuple(nodes), constants, self.free)
