"""Graphs within nodes: what they hold, and what they read of the graphs around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def graphs_of(node: Any) -> dict[str, Any]:
    """The graphs that are attributes of a node, by name."""
    return {a.name: a.g for a in node.attribute if a.HasField("g")}


def reads(node: Any) -> set[str]:
    """The names of all that a node reads: its inputs, and what the graphs within it want."""
    names = set(node.input)
    for graph in graphs_of(node).values():
        names |= free_of(graph)
    return names - {""}


def free_of(graph: Any) -> set[str]:
    """The names that a graph reads and does not make."""
    read = {value.name for value in graph.output}
    made = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        read |= reads(node)
        made.update(node.output)
    return read - made


def tensors(graph: Any) -> Iterator[Any]:
    """All tensors of a graph, and of those within its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
        for inner in graphs_of(node).values():
            yield from tensors(inner)
