"""A part of a graph as a model of its own: from some of its values to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..common import shown
from .nested import reads

#: The names of the values that are given, and of those that are wanted.
Part: TypeAlias = tuple[list[str], list[str]]


def cut(onnx: Any, proto: Any, part: Part) -> Any:
    """Return a model of the nodes between values of a graph; of the outputs only names are known.

    Raises `ValueError` for names that the graph does not have, for an output that needs what is
    neither given nor held by the file, and for an input that no output needs.
    """
    inputs, outputs = part
    graph = proto.graph
    held = {tensor.name for tensor in graph.initializer}
    fed = {value.name for value in graph.input} - held
    made = {name for node in graph.node for name in node.output if name}
    _check_known(inputs, outputs, held | fed | made)
    nodes, wanted = _leading_to(onnx, graph, set(inputs), set(outputs))
    if needed := sorted(wanted & fed - set(inputs)):
        raise ValueError(
            f"part: {_listed(outputs)} cannot be had of {_listed(inputs)} alone, but needs the "
            f"input {_listed(needed)}"
        )
    if idle := [name for name in inputs if name not in wanted]:
        raise ValueError(f"part: {_listed(outputs)} does not need {_listed(idle)}")
    kept = onnx.GraphProto(
        name=graph.name or "part",
        node=nodes,
        initializer=[t for t in graph.initializer if t.name in wanted.difference(inputs)],
        sparse_initializer=graph.sparse_initializer,
        input=_described(onnx, proto, inputs),
        output=[onnx.ValueInfoProto(name=name) for name in outputs],
    )
    return onnx.ModelProto(
        ir_version=proto.ir_version,
        opset_import=proto.opset_import,
        functions=proto.functions,
        graph=kept,
    )


def part_of(part: Any) -> Part:
    """Both lists of names of what `part=` was given, which may be single names."""
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise TypeError(f"part must be (inputs, outputs), got {shown(part)}")
    lists = [[names] if isinstance(names, str) else names for names in part]
    for kind, names in zip(("inputs", "outputs"), lists, strict=True):
        fits = isinstance(names, (tuple, list)) and len(names) > 0
        if not fits or not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"part: {kind} must be a name or a list of names, got {shown(names)}")
        if len(set(names)) < len(names):
            raise ValueError(f"part: {kind} names a value twice: {_listed(names)}")
    return list(lists[0]), list(lists[1])


def _check_known(inputs: list[str], outputs: list[str], known: set[str]) -> None:
    if strange := [name for name in (*inputs, *outputs) if name not in known]:
        raise ValueError(f"part: the graph has no value {_listed(strange)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))


def _leading_to(
    onnx: Any, graph: Any, inputs: set[str], outputs: set[str]
) -> tuple[list[Any], set[str]]:
    """The nodes that outputs need, in order, but what makes the inputs; and all that is read."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output) - inputs:
            wanted |= reads(node)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.output[:] = ["" if name in inputs else name for name in node.output]
            kept.append(copy)
    return kept[::-1], wanted


def _described(onnx: Any, proto: Any, names: list[str]) -> list[Any]:
    """What is known of values: from the file, or else as onnx derives it; maybe the name alone."""
    found = _described_in(proto)
    if not all(name in found for name in names):
        found = _described_in(onnx.shape_inference.infer_shapes(proto)) | found
    return [found.get(name, onnx.ValueInfoProto(name=name)) for name in names]


def _described_in(proto: Any) -> dict[str, Any]:
    graph = proto.graph
    return {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
