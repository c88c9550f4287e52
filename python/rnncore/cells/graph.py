"""The expressions of a time step as a graph: nodes that refer to earlier nodes alone.

A node is a tuple: its operation, then the numbers of its operands, then what else the operation
needs. A leaf is what a time step is handed: `("slot", j)`, a sum; `("h",)`, the old h; `("state",
k)`, another old state; `("unit", k)`; `("scalar", e)` and `("vector", v)`, inputs at each step;
`("keep_h",)` and `("keep_state",)`, the shares of old states that zoneout keeps; `("each",)`, what
a gate has of all predecessors; `("offer",)`, a predecessor's part of it; `("constant", value)`.
Equal nodes are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array, short
from ..nonlinearities import ACTIVATIONS, ActivationSpec, as_activation
from ..reference import activations as reference

Node: TypeAlias = tuple[Any, ...]

#: More than any cell of a paper has, by a factor of ten: what a file may make is bounded by it.
MOST_NODES = 1000


class Operation(NamedTuple):
    """How many operands an operation has, what it computes, and how long that takes."""

    operands: int
    value: Callable[..., Any]
    cost: int = 1  # as a multiple of an addition, roughly


#: How many of alpha and beta an activation has.
_PARAMETERS = {"affine": 2, "scaled_tanh": 2, "hard_sigmoid": 2} | dict.fromkeys(
    ("leaky_relu", "thresholded_relu", "elu"), 1
)


def _activation(name: str, *numbers: float) -> reference.Activation:
    return reference.ACTIVATIONS[name](*numbers[: _PARAMETERS.get(name, 0)])


#: The operations, by the names that the compiled core has for them.
OPERATIONS: dict[str, Operation] = {
    "add": Operation(2, np.add),
    "subtract": Operation(2, np.subtract),
    "multiply": Operation(2, np.multiply),
    "divide": Operation(2, np.divide, 4),
    "reciprocal": Operation(1, lambda a: 1 / a, 4),
    "negative": Operation(1, np.negative),
    "absolute": Operation(1, np.abs),
    "maximum": Operation(2, np.maximum),
    "minimum": Operation(2, np.minimum),
    "sqrt": Operation(1, np.sqrt, 4),
    "exp": Operation(1, np.exp, 8),
    "log": Operation(1, np.log, 10),
    "sin": Operation(1, np.sin, 10),
    "cos": Operation(1, np.cos, 10),
    "sigmoid": Operation(1, reference.LOGISTIC.value, 10),
    "tanh": Operation(1, reference.TANH.value, 10),
    "softplus": Operation(1, reference.SOFTPLUS.value, 20),
    "relu": Operation(1, reference.RELU.value),
    "select_le": Operation(4, lambda a, b, c, d: np.where(a <= b, c, d)),
    "select_lt": Operation(4, lambda a, b, c, d: np.where(a < b, c, d)),
    "sigmoid_slope": Operation(1, reference.SIGMOID.slope),
    "tanh_slope": Operation(1, reference.TANH.slope),
    "relu_slope": Operation(1, reference.RELU.slope),
    "activation": Operation(1, lambda a, *spec: _activation(*spec).value(a), 10),
    "activation_slope": Operation(1, lambda y, *spec: _activation(*spec).slope(y), 3),
}
#: Operations that derive from others: no user writes them.
SLOPES = frozenset(name for name in OPERATIONS if name.endswith("_slope"))
#: Leaves that have a number.
NUMBERED = frozenset(("slot", "state", "unit", "scalar", "vector", "dstate"))
#: Leaves that have none; the gradients of new states are those of a backward pass.
ALONE = frozenset(("h", "dh", "dmiddle", "each"))
_COMMUTES = frozenset(("add", "multiply"))


class Graph:
    """Nodes in order, each once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, int] = {}

    def copy(self) -> Graph:
        """Return a graph with the same nodes, to which others may be added."""
        made = Graph()
        made.nodes, made._known = self.nodes[:], self._known.copy()
        return made

    def leaf(self, *node: Any) -> int:
        """Return the number of a leaf."""
        return self._add(node)

    def constant(self, value: float) -> int:
        """Return the number of a constant, which must be finite."""
        if not math.isfinite(value):
            raise ValueError(f"constants of a cell must be finite, got {value}")
        return self._add(("constant", float(value)))

    def apply(self, operation: str, *operands: int, spec: ActivationSpec | None = None) -> int:
        """Return the number of a node that computes `operation`, or of a simpler one like it."""
        simple = self._simplified(operation, operands)
        if simple is not None:
            return simple
        values = [self._value(n) for n in operands]
        if all(value is not None for value in values):
            with np.errstate(all="ignore"):
                folded = float(OPERATIONS[operation].value(*map(np.float64, values), *(spec or ())))
            if math.isfinite(folded):
                return self.constant(folded)
        if operation in _COMMUTES:
            operands = tuple(sorted(operands))
        return self._add((operation, *operands, *(spec or ())))

    def operands(self, number: int) -> tuple[int, ...]:
        """Return the numbers of a node's operands; a leaf has none."""
        operation, *others = self.nodes[number]
        found = OPERATIONS.get(operation)
        return tuple(others[: found.operands]) if found else ()

    def reached(self, roots: Iterable[int], held: Iterable[int] = ()) -> set[int]:
        """Return the nodes that `roots` need, where those in `held` are there already."""
        found, stop = set[int](), set(held)
        waiting = list(roots)
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                if number not in stop:
                    waiting += self.operands(number)
        return found

    def compact(self, roots: Iterable[int]) -> tuple[list[Node], dict[int, int]]:
        """Return the nodes that `roots` need, and which of them each one is."""
        kept = sorted(self.reached(roots))
        places = {number: at for at, number in enumerate(kept)}
        nodes = []
        for number in kept:
            operands = self.operands(number)
            name, *given = self.nodes[number]
            nodes.append((name, *(places[n] for n in operands), *given[len(operands) :]))
        return nodes, places

    def rewrite(self, made: Graph, roots: Iterable[int], leaves: Mapping[Node, int]) -> list[int]:
        """Add what `roots` need to another graph; return them there.

        leaves: nodes of that graph which stand there for some leaves.
        """
        roots, places = list(roots), dict[int, int]()
        for number in sorted(self.reached(roots)):
            node, operands = self.nodes[number], self.operands(number)
            if node in leaves:
                places[number] = leaves[node]
            elif operands:
                rest = node[1 + len(operands) :]
                moved = (places[n] for n in operands)
                places[number] = made.apply(node[0], *moved, spec=rest or None)
            else:
                places[number] = made.leaf(*node)
        return [places[root] for root in roots]

    def evaluate(self, leaf: Callable[[Node], Array], wanted: Sequence[int]) -> dict[int, Array]:
        """Return the values of what `wanted` needs; `leaf` gives those of leaves."""
        values: dict[int, Any] = {}
        for number in sorted(self.reached(wanted)):
            node, operands = self.nodes[number], self.operands(number)
            found = OPERATIONS.get(node[0])
            if found is None:
                values[number] = node[1] if node[0] == "constant" else leaf(node)
            else:
                rest = node[1 + found.operands :]
                values[number] = found.value(*(values[n] for n in operands), *rest)
        return values

    def _add(self, node: Node) -> int:
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def _value(self, number: int) -> float | None:
        node = self.nodes[number]
        return node[1] if node[0] == "constant" else None

    def _inner(self, number: int, operation: str) -> int | None:
        """The operand of a node, if that is its operation."""
        node = self.nodes[number]
        return node[1] if node[0] == operation else None

    def _simplified(self, operation: str, operands: tuple[int, ...]) -> int | None:
        """The number of a node with the same value, where there is a shorter way to it."""
        if operation == "negative":
            return self._inner(operands[0], "negative")
        if operation in ("select_le", "select_lt") and operands[2] == operands[3]:
            return operands[2]
        if len(operands) != 2:
            return None
        (a, b), (x, y) = operands, map(self._value, operands)
        if operation == "multiply":
            return self._product(a, b, x, y)
        if operation == "add":
            return self._sum(a, b, x, y)
        if operation == "subtract":
            minus = self._inner(b, "negative")
            return a if y == 0 else None if minus is None else self.apply("add", a, minus)
        if operation == "divide":
            return a if y == 1 else self.apply("reciprocal", b) if x == 1 else None
        return None

    def _product(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        for value, other in ((x, b), (y, a)):
            if value == 1:
                return other
            if value == -1:
                return self.apply("negative", other)
        for one, other in ((a, b), (b, a)):
            minus = self._inner(one, "negative")
            if minus is not None:
                return self.apply("negative", self.apply("multiply", minus, other))
        return None

    def _shared_out(self, a: int, b: int) -> int | None:
        """What two selections by one comparison share out: x and 0, 0 and x."""
        one, other = self.nodes[a], self.nodes[b]
        if one[0] not in ("select_le", "select_lt") or one[:3] != other[:3]:
            return None
        if one[3:] != other[:2:-1] or 0 not in map(self._value, one[3:]):
            return None
        return int(one[3] if self._value(one[4]) == 0 else one[4])

    def _sum(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        if x == 0 or y == 0:
            return b if x == 0 else a
        shared = self._shared_out(a, b)
        if shared is not None:
            return shared
        for one, other in ((a, b), (b, a)):
            minus = self._inner(one, "negative")
            if minus is not None:
                return self.apply("subtract", other, minus)
        return None


def read_graph(nodes: Any, leaves: dict[str, int]) -> tuple[Graph, list[int]]:
    """Return the graph of nodes that came from anywhere, and the number of each in it.

    leaves: how many there are of each kind. Raises `ValueError` saying what is wrong.
    """
    if not isinstance(nodes, (tuple, list)) or len(nodes) > MOST_NODES:
        raise ValueError(f"nodes must be a list of at most {MOST_NODES}, got {short(nodes)}")
    graph, numbers = Graph(), list[int]()
    for at, node in enumerate(nodes):
        try:
            numbers.append(_read(graph, node, numbers, leaves))
        except ValueError as error:
            raise ValueError(f"node {at}: {error}") from None
    return graph, numbers


def _read(graph: Graph, node: Any, numbers: list[int], leaves: dict[str, int]) -> int:
    if not isinstance(node, (tuple, list)) or not node or not isinstance(node[0], str):
        raise ValueError(f"it must be a name and its arguments, got {short(node)}")
    name, *given = node
    if name == "constant":
        if len(given) != 1 or type(given[0]) not in (int, float):
            raise ValueError(f"a constant has one number, got {short(given)}")
        return graph.constant(_finite(given[0]))
    if name in leaves:
        numbered = name in NUMBERED
        if len(given) != numbered or not all(_within(n, leaves[name]) for n in given):
            raise ValueError(f"there is no {name} {short(given)}; there are {leaves[name]}")
        return graph.leaf(name, *given)
    if name not in OPERATIONS or name in SLOPES:
        raise ValueError(f"there is no operation {short(name)}")
    count = OPERATIONS[name].operands
    if len(given) < count or not all(_within(n, len(numbers)) for n in given[:count]):
        raise ValueError(f"{name} has {count} operands, which stand before it; got {short(given)}")
    operands = [numbers[n] for n in given[:count]]
    spec = _read_spec(given[count:]) if name == "activation" else None
    if spec is None and len(given) != count:
        raise ValueError(f"{name} has {count} operands, got {short(given)}")
    return graph.apply(name, *operands, spec=spec)


def _read_spec(given: list[Any]) -> ActivationSpec:
    if len(given) != 3 or given[0] not in list(ACTIVATIONS):
        raise ValueError(f"an activation has a name, alpha and beta, got {short(given)}")
    kind, *numbers = given
    if any(type(n) not in (int, float) for n in numbers):
        raise ValueError(f"alpha and beta are numbers, got {short(numbers)}")
    alpha, beta = map(_finite, numbers)
    return as_activation("activation", (kind, alpha, beta))


def _finite(number: float) -> float:
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"constants must be finite, got {short(number)}")
    return value


def _within(number: Any, count: int) -> bool:
    return type(number) is int and 0 <= number < count
