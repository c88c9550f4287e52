"""Reverse mode over a graph: nodes for the gradients of its leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from .graph import Graph, Node

#: Of one operation: yields which operand gets which gradient.
_Rule: TypeAlias = Callable[[Graph, int, tuple[int, ...], int], Iterator[tuple[int, int]]]


def gradients(graph: Graph, seeds: Sequence[tuple[int, int]]) -> dict[Node, int]:
    """Add nodes that are the gradients of the leaves, and return them by the leaf.

    seeds: pairs of a result and its gradient. A leaf that no result depends on, or only in
    comparisons, has none.
    """
    gradient: dict[int, int] = {}
    for result, seed in seeds:
        _take(graph, gradient, result, seed)
    found = {}
    for number in range(max(result for result, _ in seeds), -1, -1):
        if number not in gradient:
            continue
        node, operands = graph.nodes[number], graph.operands(number)
        if operands:
            for operand, part in _RULES[node[0]](graph, number, operands, gradient[number]):
                _take(graph, gradient, operand, part)
        elif node[0] != "constant":
            found[node] = gradient[number]
    return found


def _take(graph: Graph, gradient: dict[int, int], number: int, part: int) -> None:
    known = gradient.get(number)
    gradient[number] = part if known is None else graph.apply("add", known, part)


def _add(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    yield ab[0], d
    yield ab[1], d


def _subtract(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    yield ab[0], d
    yield ab[1], graph.apply("negative", d)


def _multiply(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    yield ab[0], graph.apply("multiply", d, ab[1])
    yield ab[1], graph.apply("multiply", d, ab[0])


def _divide(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    share = graph.apply("divide", d, ab[1])
    yield ab[0], share
    yield ab[1], graph.apply("negative", graph.apply("multiply", share, y))


def _larger(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    yield from _of_one(graph, (ab[1], ab[0]), ab, d)


def _smaller(graph: Graph, y: int, ab: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    yield from _of_one(graph, ab, ab, d)


def _of_one(
    graph: Graph, compared: tuple[int, ...], ab: tuple[int, ...], d: int
) -> Iterator[tuple[int, int]]:
    zero = graph.constant(0)
    yield ab[0], graph.apply("select_le", *compared, d, zero)
    yield ab[1], graph.apply("select_le", *compared, zero, d)


def _select(graph: Graph, y: int, abcd: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    kind, zero = graph.nodes[y][0], graph.constant(0)
    yield abcd[2], graph.apply(kind, *abcd[:2], d, zero)
    yield abcd[3], graph.apply(kind, *abcd[:2], zero, d)


def _absolute(graph: Graph, y: int, a: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    zero = graph.constant(0)
    below = graph.apply("select_lt", *a, zero, graph.apply("negative", d), zero)
    yield a[0], graph.apply("select_lt", zero, *a, d, below)


def _unary(slope: Callable[[Graph, int, int], int]) -> _Rule:
    """The rule of y = f(a), where `slope(graph, a, y)` is f'."""

    def rule(graph: Graph, y: int, a: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
        yield a[0], graph.apply("multiply", d, slope(graph, a[0], y))

    return rule


def _over(above: float) -> Callable[[Graph, int, int], int]:
    return lambda graph, a, y: graph.apply("divide", graph.constant(above), y)


def _activation(graph: Graph, y: int, a: tuple[int, ...], d: int) -> Iterator[tuple[int, int]]:
    slope = graph.apply("activation_slope", y, spec=graph.nodes[y][2:])
    yield a[0], graph.apply("multiply", d, slope)


_RULES: dict[str, _Rule] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "maximum": _larger,
    "minimum": _smaller,
    "select_le": _select,
    "select_lt": _select,
    "absolute": _absolute,
    "activation": _activation,
    "negative": lambda graph, y, a, d: iter([(a[0], graph.apply("negative", d))]),
    "reciprocal": _unary(
        lambda graph, a, y: graph.apply("negative", graph.apply("multiply", y, y))
    ),
    "sqrt": _unary(_over(0.5)),
    "exp": _unary(lambda graph, a, y: y),
    "log": _unary(lambda graph, a, y: graph.apply("reciprocal", a)),
    "sin": _unary(lambda graph, a, y: graph.apply("cos", a)),
    "cos": _unary(lambda graph, a, y: graph.apply("negative", graph.apply("sin", a))),
    "sigmoid": _unary(lambda graph, a, y: graph.apply("sigmoid_slope", y)),
    "tanh": _unary(lambda graph, a, y: graph.apply("tanh_slope", y)),
    "relu": _unary(lambda graph, a, y: graph.apply("relu_slope", y)),
    "softplus": _unary(lambda graph, a, y: graph.apply("sigmoid", a)),
}
