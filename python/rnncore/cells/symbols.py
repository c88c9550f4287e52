"""What a time step is written with: symbols, and functions of them.

A symbol stands for one number of each hidden unit. Arithmetic with other symbols and with numbers
gives symbols; nothing is computed. Comparisons are for `where` alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn, TypeAlias

import numpy as np

from ..arrays import short
from ..nonlinearities import Activation, as_activation
from .graph import OPERATIONS, Graph

#: A symbol, or a number that stands for itself.
Value: TypeAlias = "Symbol | float"

_WHERE = "write where(a <= b, x, y), maximum(a, b) or minimum(a, b)"


class Symbol:
    """One number of each hidden unit, not known yet."""

    __slots__ = ("_graph", "_node")

    def __init__(self, graph: Graph, node: int) -> None:
        self._graph, self._node = graph, node

    def __repr__(self) -> str:
        return f"<symbol {self._node}: {short(self._graph.nodes[self._node])}>"

    def __add__(self, other: Value) -> Symbol:
        return _applied("add", self, other)

    def __radd__(self, other: Value) -> Symbol:
        return _applied("add", other, self)

    def __sub__(self, other: Value) -> Symbol:
        return _applied("subtract", self, other)

    def __rsub__(self, other: Value) -> Symbol:
        return _applied("subtract", other, self)

    def __mul__(self, other: Value) -> Symbol:
        return _applied("multiply", self, other)

    def __rmul__(self, other: Value) -> Symbol:
        return _applied("multiply", other, self)

    def __truediv__(self, other: Value) -> Symbol:
        return _applied("divide", self, other)

    def __rtruediv__(self, other: Value) -> Symbol:
        return _applied("divide", other, self)

    def __neg__(self) -> Symbol:
        return _applied("negative", self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return _applied("absolute", self)

    def __pow__(self, power: int) -> Symbol:
        if type(power) is not int or not 1 <= power <= 8:
            raise TypeError(
                f"a symbol has powers 1 to 8 alone, got {short(power)}: use exp and log"
            )
        found = self
        for _ in range(power - 1):
            found = found * self
        return found

    def __le__(self, other: Value) -> Comparison:
        return Comparison("select_le", self, other)

    def __lt__(self, other: Value) -> Comparison:
        return Comparison("select_lt", self, other)

    def __ge__(self, other: Value) -> Comparison:
        return Comparison("select_le", other, self)

    def __gt__(self, other: Value) -> Comparison:
        return Comparison("select_lt", other, self)

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError(f"symbols are not compared by == and !=: {_WHERE}")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        raise TypeError(f"a symbol is neither true nor false while a step is traced: {_WHERE}")

    def __float__(self) -> NoReturn:
        raise TypeError(
            "a symbol has no number yet: use the functions of rnncore.cells, not math's"
        )

    __int__ = __index__ = __float__

    def __iter__(self) -> NoReturn:
        raise TypeError("a symbol is one number of each hidden unit, and has no parts")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a symbol is no array: a step is written with the functions of rnncore.cells"
        )

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Symbol:
        written = _OPERATORS.get(function.__name__)
        if method == "__call__" and written and not options and len(inputs) == 2:
            a, b = (one if isinstance(one, Symbol) else _number(one) for one in inputs)
            return written(a, b)  # type: ignore[no-any-return]
        known = function.__name__ in OPERATIONS or function.__name__ in _NUMPY
        hint = _NUMPY.get(function.__name__, function.__name__)
        raise TypeError(
            f"np.{function.__name__} takes no symbols: use "
            + (f"rnncore.cells.{hint}" if known else "the functions of rnncore.cells, or where")
        )

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        raise TypeError(f"np.{function.__name__} takes no symbols: use where of rnncore.cells")


#: What NumPy's scalars call when they stand on the left.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "less_equal": operator.le,
    "less": operator.lt,
    "greater_equal": operator.ge,
    "greater": operator.gt,
}
_NUMPY = {"absolute": "absolute", "fabs": "absolute", "fmax": "maximum", "fmin": "minimum"}


class Comparison:
    """The condition of a `where`."""

    def __init__(self, operation: str, left: Value, right: Value) -> None:
        self._operation, self._sides = operation, (left, right)

    def __bool__(self) -> NoReturn:
        raise TypeError(f"a comparison has no outcome while a step is traced: {_WHERE}")


def _number(value: Any) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (Real, np.bool_)):
        return float(value)
    raise TypeError(f"a step is made of symbols and numbers, got {short(value)}")


def node_of(graph: Graph, value: Value) -> int:
    """Return the number of a value in a graph."""
    if not isinstance(value, Symbol):
        return graph.constant(_number(value))
    if value._graph is not graph:
        raise ValueError("a symbol of another step was used: a step reads its arguments alone")
    return value._node


def _applied(operation: str, *values: Value, spec: Any = None) -> Symbol:
    graph = next((value._graph for value in values if isinstance(value, Symbol)), None)
    if graph is None:
        raise TypeError(f"{operation} needs a symbol, got {short(values)}")
    nodes = (node_of(graph, value) for value in values)
    return Symbol(graph, graph.apply(operation, *nodes, spec=spec))


def _function(name: str, a: Value) -> Symbol:
    if not isinstance(a, Symbol):
        raise TypeError(f"{name} takes a symbol, got {short(a)}")
    return _applied(name, a)


def absolute(a: Symbol) -> Symbol:
    """|a|; its slope at zero is zero."""
    return _function("absolute", a)


def maximum(a: Value, b: Value) -> Symbol:
    """The larger; of equal ones the gradient is a's."""
    return _applied("maximum", a, b)


def minimum(a: Value, b: Value) -> Symbol:
    """The smaller; of equal ones the gradient is a's."""
    return _applied("minimum", a, b)


def exp(a: Symbol) -> Symbol:
    """e to the power of a."""
    return _function("exp", a)


def log(a: Symbol) -> Symbol:
    """The natural logarithm."""
    return _function("log", a)


def sqrt(a: Symbol) -> Symbol:
    """The square root."""
    return _function("sqrt", a)


def sin(a: Symbol) -> Symbol:
    """The sine."""
    return _function("sin", a)


def cos(a: Symbol) -> Symbol:
    """The cosine."""
    return _function("cos", a)


def sigmoid(a: Symbol) -> Symbol:
    """1 / (1 + exp(-a))."""
    return _function("sigmoid", a)


def tanh(a: Symbol) -> Symbol:
    """The hyperbolic tangent."""
    return _function("tanh", a)


def softplus(a: Symbol) -> Symbol:
    """log(1 + exp(a))."""
    return _function("softplus", a)


def relu(a: Symbol) -> Symbol:
    """a where it is positive, else 0."""
    return _function("relu", a)


def activation(kind: Activation, a: Symbol, *numbers: float) -> Symbol:
    """An activation of the library by its name; alpha and beta may follow a, or stand in kind."""
    given = (kind,) if isinstance(kind, str) else tuple(kind)
    name, alpha, beta = as_activation("kind", (*given, *numbers))  # type: ignore[arg-type]
    if name == "identity":
        return a
    if name in ("sigmoid", "tanh", "relu", "softplus"):
        return _function(name, a)
    if name == "exponential":
        return _function("exp", a)
    return _applied("activation", a, spec=(name, alpha, beta))


def where(condition: Comparison, x: Value, y: Value) -> Symbol:
    """x where a comparison of two values holds, else y; the comparison has no gradient."""
    if not isinstance(condition, Comparison):
        raise TypeError(f"where takes a comparison such as a <= b, got {short(condition)}")
    return _applied(condition._operation, *condition._sides, x, y)
