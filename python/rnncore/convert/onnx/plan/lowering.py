"""Nodes as steps of the compiled core: parts of arrays, arithmetic, sums over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....arrays import Array
from ..nodes import Node
from ..weights import ACTIVATIONS
from .steps import Steps
from .tracing import Trace

#: Adds the steps of a node, or returns False where it cannot.
Lowering = Callable[[Steps, Node], bool]

_BINARY = {
    "Add": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Div": "divide",
    "Max": "maximum",
    "Min": "minimum",
}
_UNARY = {"Neg": "negative", "Abs": "absolute", "Sqrt": "square_root", "Reciprocal": "reciprocal"}
_POWERS = {2.0: "square", 0.5: "square_root", -1.0: "reciprocal"}
_REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceL2": "norm",
}
#: ONNX's activations: our names, and what alpha and beta are where a node does not say.
_ACTIVATIONS: dict[str, tuple[str, float, float]] = {
    written: (ours, 0.0, 0.0) for ours, (written, count) in ACTIVATIONS.items() if not count
}
_ACTIVATIONS |= {
    "Elu": ("elu", 1.0, 0.0),
    "Exp": ("exponential", 0.0, 0.0),
    "HardSigmoid": ("hard_sigmoid", 0.2, 0.5),
    "LeakyRelu": ("leaky_relu", 0.01, 0.0),
    "ThresholdedRelu": ("thresholded_relu", 1.0, 0.0),
}
#: What moves numbers and changes none.
_MOVES = (
    *("Cast", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
    *("Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)


def activation_of(node: Node) -> tuple[str, float, float] | None:
    """The activation that a node is: our name, alpha and beta."""
    found = _ACTIVATIONS.get(node.op)
    if found is None:
        return None
    name, alpha, beta = found
    return name, node.attributes.get("alpha", alpha), node.attributes.get("beta", beta)


def affine_of(trace: Trace, node: Node) -> tuple[Array, Array] | None:
    """Scale and shift `(C,)` of a BatchNormalization whose statistics are known."""
    known = [trace.known(name) for name in node.inputs[1:5]]
    if any(array is None for array in known) or any(node.outputs[1:]):
        return None
    scale, bias, mean, variance = known
    if any(array.shape != trace.values[node.inputs[0]].shape[1:2] for array in known):
        return None
    scale = scale / np.sqrt(variance + scale.dtype.type(node.attributes.get("epsilon", 1e-5)))
    return scale, bias - mean * scale


def _normalise(steps: Steps, node: Node) -> bool:
    x, affine = steps.value(node.inputs[0]), affine_of(steps.trace, node)
    if affine is None:
        return False
    scale, shift = (
        np.broadcast_to(array.reshape(-1, *[1] * (x.ndim - 2)), x.shape) for array in affine
    )
    y, z = steps.like(x), steps.like(x)
    steps.program.combine(y, x, scale, "multiply")
    steps.program.combine(z, y, shift, "add")
    steps.values[node.outputs[0]] = z
    return True


def _activate(steps: Steps, node: Node) -> bool:
    x, activation = steps.value(node.inputs[0]), activation_of(node)
    assert activation is not None
    y = steps.values[node.outputs[0]] = steps.like(x)
    steps.program.activate(y, x, *activation)
    return True


def _apply(steps: Steps, node: Node) -> bool:
    x = steps.value(node.inputs[0])
    y = steps.values[node.outputs[0]] = steps.like(x)
    steps.program.apply(y, x, _UNARY[node.op])
    return True


def _power(steps: Steps, node: Node) -> bool:
    x, power = steps.value(node.inputs[0]), steps.trace.known(node.inputs[1])
    function = _POWERS.get(power.item()) if power is not None and power.size == 1 else None
    if function is None or steps.shape(node.outputs[0]) != x.shape:
        return False
    y = steps.values[node.outputs[0]] = steps.like(x)
    steps.program.apply(y, x, function)
    return True


def _combine(steps: Steps, node: Node) -> bool:
    if len(node.inputs) != 2:
        return False
    given = [steps.value(name) for name in node.inputs]
    shape = steps.shape(node.outputs[0])
    alike = next((array for array in given if array.shape == shape), None)
    y = steps.empty(shape) if alike is None else steps.like(alike)
    a, b = (np.broadcast_to(array, shape) for array in given)
    steps.program.combine(y, a, b, _BINARY[node.op])
    steps.values[node.outputs[0]] = y
    return True


def _clip(steps: Steps, node: Node) -> bool:
    x, static = steps.value(node.inputs[0]), steps.trace.static
    names = (*node.inputs, "", "")[1:3]
    if not static.issuperset(filter(None, names)):
        return False
    bounds = (("min", names[0], "maximum"), ("max", names[1], "minimum"))
    for attribute, name, operation in bounds:
        bound = steps.value(name) if name else node.attributes.get(attribute)
        if bound is not None:
            y = steps.like(x)
            limit = np.broadcast_to(np.asarray(bound, x.dtype), x.shape)
            steps.program.combine(y, x, limit, operation)
            x = y
    steps.values[node.outputs[0]] = x
    return True


def _move(steps: Steps, node: Node) -> bool:
    """A part of the array, where NumPy finds one; else its numbers one by one."""
    x, *others = steps.given(node)
    if x is None or not steps.trace.static.issuperset(filter(None, node.inputs[1:])):
        return False
    parts = node.function(x, *others)
    for at, (name, part) in enumerate(zip(node.outputs, parts, strict=False)):
        if not name:
            continue
        if part.dtype != x.dtype:
            return False
        if np.may_share_memory(part, x):
            steps.values[name] = part
            continue
        places = np.arange(x.size).reshape(x.shape)
        index = np.ascontiguousarray(node.function(places, *others)[at], np.int64)
        y = steps.values[name] = steps.empty(part.shape)
        steps.program.gather(y, steps.contiguous(x), index)
    return True


def _concatenate(steps: Steps, node: Node) -> bool:
    y = steps.values[node.outputs[0]] = steps.empty(steps.shape(node.outputs[0]))
    axis, begin = node.attributes["axis"], 0
    for name in node.inputs:
        x = steps.value(name)
        part = np.moveaxis(y, axis, 0)[begin : begin + x.shape[axis]]
        begin += x.shape[axis]
        if name in steps.trace.static:
            np.moveaxis(part, 0, axis)[...] = x
        elif x.size:
            steps.program.copy(np.moveaxis(part, 0, axis), x)
    return True


def _pad(steps: Steps, node: Node) -> bool:
    """A constant border is written once; numbers of others are found where they come from."""
    x, *others = steps.given(node)
    if x is None or not steps.trace.static.issuperset(filter(None, node.inputs[1:])):
        return False
    index = node.function(np.arange(x.size).reshape(x.shape) + 1, *_without_fill(others))[0]
    if node.attributes.get("mode", "constant") != "constant":
        y = steps.values[node.outputs[0]] = steps.empty(index.shape)
        steps.program.gather(y, steps.contiguous(x), np.ascontiguousarray(index - 1, np.int64))
        return True
    y = steps.values[node.outputs[0]] = steps.empty(index.shape)
    inner = _box(index > 0)
    if inner is None:
        return False
    y[...] = node.function(np.zeros_like(x), *others)[0]
    first = index[tuple(part.start for part in inner)] - 1
    begins = np.unravel_index(first, x.shape)
    sizes = [part.stop - part.start for part in inner]
    source = x[tuple(slice(a, a + n) for a, n in zip(begins, sizes, strict=True))]
    steps.program.copy(y[inner], source)
    return True


def _without_fill(others: list[Any]) -> list[Any]:
    """Of the inputs behind x: pads and axes."""
    return [None if at == 1 else other for at, other in enumerate(others)]


def _box(mask: Array) -> tuple[slice, ...] | None:
    """Where a mask is true, which is a box; None where it is nowhere."""
    if not mask.any():
        return None
    along = (np.flatnonzero(mask.any(tuple(set(range(mask.ndim)) - {a}))) for a in range(mask.ndim))
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in along)


def _reduce(steps: Steps, node: Node) -> bool:
    x = steps.value(node.inputs[0])
    axes = node.attributes.get("axes")
    if len(node.inputs) > 1 and node.inputs[1]:
        known = steps.trace.known(node.inputs[1])
        if known is None:
            return False
        axes = known.reshape(-1).tolist()
    axes = range(x.ndim) if axes is None or not len(axes) else axes
    gone = sorted(axis % x.ndim for axis in axes)
    if node.attributes.get("noop_with_empty_axes") or not x.size:
        return False
    kept = [axis for axis in range(x.ndim) if axis not in gone]
    y = steps.empty([x.shape[axis] for axis in kept])
    steps.program.reduce(y, x.transpose(*kept, *gone), _REDUCTIONS[node.op])
    steps.values[node.outputs[0]] = y.reshape(steps.shape(node.outputs[0]))
    return True


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_ACTIVATIONS, _activate),
    **dict.fromkeys(_UNARY, _apply),
    **dict.fromkeys(_BINARY, _combine),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_MOVES, _move),
    "BatchNormalization": _normalise,
    "Clip": _clip,
    "Concat": _concatenate,
    "Pad": _pad,
    "Pow": _power,
}
