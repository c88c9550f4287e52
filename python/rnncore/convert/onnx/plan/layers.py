"""Convolutions, pools, products and recurrences as steps of the compiled core."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....arrays import Array
from ....compiled import Windows as Compiled
from ....compiled import core
from ....layers.activations import softmax
from ..nodes import Node
from ..operators.windows import Windows, windows_of
from ..quantised import Product
from ..recurrent import Recurrent
from .batching import Batch
from .fusing import Fused
from .lowering import LOWERINGS, Lowering
from .steps import Steps

#: What padding is to the kernels' windows: zeros.
_ZEROS = 0
_STILL = (1, 1, 1, 1, 1, 0, 0, _ZEROS)


def _last(steps: Steps, x: Array) -> Array:
    """x `(N, C, *sizes)` with one axis or two in space as `(N, size, size, C)`, without gaps."""
    turned = np.moveaxis(x, 1, -1)
    turned = turned[:, None] if x.ndim == 3 else turned
    return steps.contiguous(turned)


def _first(y: Array, axes: int) -> Array:
    """The way back: y as `(N, C, *sizes)`."""
    return np.moveaxis(y[:, 0] if axes == 3 else y, -1, 1)


def _windows(shape: tuple[int, ...], where: Windows) -> Compiled:
    """Windows over x `(N, C, *sizes)` as the kernels take them."""
    axes = [
        (size, *numbers, _ZEROS)
        for size, *numbers in zip(
            shape[2:],
            where.counts,
            where.kernel,
            where.strides,
            where.dilations,
            where.before,
            where.after,
            strict=True,
        )
    ]
    first, second = axes if len(axes) == 2 else (_STILL, axes[0])
    return Compiled(shape[0], shape[1], first, second)


def _where(attributes: dict[str, Any], sizes: tuple[int, ...], kernel: Any) -> Windows:
    names = ("auto_pad", "pads", "strides", "dilations", "ceil_mode")
    given = {name: attributes[name] for name in names if name in attributes}
    return windows_of(sizes, tuple(kernel), **given)


def convolve(steps: Steps, fused: Fused) -> None:
    """Add the step of a convolution and what follows it."""
    shape, weight = steps.shape(fused.x), fused.weight
    where = _where(fused.node.attributes, shape[2:], weight.shape[2:])
    counts = where.counts if len(shape) == 4 else (1, *where.counts)
    y = steps.empty((shape[0], *counts, len(weight)))
    add = _last(steps, steps.value(fused.add)) if fused.add else None
    x = _last(steps, steps.value(fused.x))
    windows = _windows(shape, where)
    layer = _layer(steps, fused, shape[1])
    steps.program.convolve(y, x, layer, windows, add, fused.activation, fused.gated)
    steps.values[fused.output] = _first(y, len(shape))


def _layer(steps: Steps, fused: Fused, inputs: int) -> Any:
    """The compiled convolution: one for all plans in which its weights are the same."""
    key = fused.node.where, fused.output, steps.dtype
    for weight, bias, layer in steps.layers.get(key, ()):
        if np.array_equal(weight, fused.weight) and np.array_equal(bias, fused.bias):
            return layer
    weight, bias = (np.array(a, order="C") for a in (fused.weight, fused.bias))
    groups, kernel = fused.node.attributes.get("group", 1), weight.shape[2:]
    taps = kernel if len(kernel) == 2 else (1, *kernel)
    # Few inputs are not worth being rounded.
    rounded = fused.rounded and groups == 1 and inputs >= 16 and steps.dtype == np.float32
    lies = np.ascontiguousarray(np.moveaxis(weight, 1, -1)) if rounded else weight
    layer = core(steps.dtype).Convolution(
        inputs, len(weight), groups, taps, lies, bias, weights="int8" if rounded else ""
    )
    steps.layers.setdefault(key, []).append((weight, bias, layer))
    return layer


def _pool(steps: Steps, node: Node) -> bool:
    shape, attributes = steps.shape(node.inputs[0]), node.attributes
    if len(shape) not in (3, 4) or 0 in shape or any(node.outputs[1:]):
        return False
    where = _where(attributes, shape[2:], attributes["kernel_shape"])
    padded = bool(attributes.get("count_include_pad", 0))
    layer = core(steps.dtype).Pooling(node.op == "MaxPool", padded)
    counts = where.counts if len(shape) == 4 else (1, *where.counts)
    y = steps.empty((shape[0], *counts, shape[1]))
    x = _last(steps, steps.value(node.inputs[0]))
    steps.program.pool(y, x, layer, _windows(shape, where))
    steps.values[node.outputs[0]] = _first(y, len(shape))
    return True


def _global_pool(steps: Steps, node: Node) -> bool:
    x = steps.value(node.inputs[0])
    if x.ndim < 3 or not x.size:
        return False
    y = steps.empty(x.shape[:2])
    steps.program.reduce(y, x, "mean" if node.op == "GlobalAveragePool" else "max")
    steps.values[node.outputs[0]] = y.reshape(steps.shape(node.outputs[0]))
    return True


def _multiply(steps: Steps, node: Node) -> bool:
    """A product with a matrix that the file holds, and a bias."""
    linear = node.function.linear  # type: ignore[attr-defined]
    if linear.dtype != steps.dtype:
        return False
    y = steps.empty(steps.shape(node.outputs[0]))
    x = steps.contiguous(steps.value(node.inputs[0]))
    steps.program.linear(y, x, linear.kernels)
    steps.values[node.outputs[0]] = y
    _add_bias(steps, node)
    return True


def multiply_together(steps: Steps, batch: Batch) -> bool:
    """Add one product for the rows of several; False where not all are compiled."""
    linear = batch.nodes[0].function.linear  # type: ignore[attr-defined]
    xs = [steps.value(node.inputs[0]) for node in batch.nodes]
    if linear.dtype != steps.dtype or any(x.dtype != steps.dtype or not x.size for x in xs):
        return False
    counts = [x.size // x.shape[-1] for x in xs]
    rows = steps.empty((sum(counts), linear.in_features))
    y, begin = steps.empty((len(rows), linear.out_features)), 0
    for node, x, count in zip(batch.nodes, xs, counts, strict=True):
        own = slice(begin, begin + count)
        begin += count
        steps.program.copy(rows[own].reshape(x.shape), x)
        steps.values[node.outputs[0]] = y[own].reshape(steps.shape(node.outputs[0]))
    steps.program.linear(y, rows, linear.kernels)
    for node in batch.nodes:
        _add_bias(steps, node)
    return True


def _add_bias(steps: Steps, node: Node) -> None:
    """Add what a product has for a bias."""
    at = 4 if isinstance(node.function, Product) else 2
    bias = (*node.inputs, *[""] * 5)[at]
    if bias:
        y = steps.values[node.outputs[0]]
        z = steps.values[node.outputs[0]] = steps.empty(y.shape)
        steps.program.combine(z, y, np.broadcast_to(steps.value(bias), y.shape), "add")


def _recur(steps: Steps, node: Node) -> bool:
    """A recurrent layer over sequences of equal length, in one direction or in both."""
    recurrent = node.function
    names = (*node.inputs, *[""] * 8)[:8]
    assert isinstance(recurrent, Recurrent)
    plain = recurrent.fixed and recurrent.time_major and len(recurrent.parts) == 1
    if not plain or recurrent.directions == [True] or names[4] or names[7]:
        return False
    layer: Any = recurrent.parts[0].layer
    directions = len(recurrent.directions)
    x = steps.contiguous(steps.value(names[0]))
    if layer.dtype != steps.dtype or not x.size:
        return False
    time, batch = x.shape[:2]
    states = [steps.empty((directions, batch, layer.hidden_size)) for _ in range(2)]
    for state, name in zip(states, names[5:7], strict=True):
        first = steps.value(name) if name else np.zeros((), steps.dtype)
        steps.program.copy(state, np.broadcast_to(first, state.shape))
    h, c = states
    y = steps.empty((time, batch, directions * layer.hidden_size))
    steps.program.recur(y, x, layer.kernels[0], h, c if recurrent.kind == "lstm" else None)
    every = y.reshape(time, batch, directions, -1).swapaxes(1, 2)
    for name, value in zip(node.outputs, (every, h, c), strict=False):
        if name:
            steps.values[name] = value
    return True


def _softmax(steps: Steps, node: Node) -> bool:
    x = steps.value(node.inputs[0])
    if node.attributes.get("axis", -1) not in (-1, x.ndim - 1) or not x.size:
        return False
    y = steps.values[node.outputs[0]] = steps.empty(x.shape)
    steps.program.pointwise(y, steps.contiguous(x), softmax(steps.dtype))
    return True


_LAYERS: dict[str, Lowering] = {
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    "Softmax": _softmax,
}


def lower(steps: Steps, node: Node) -> bool:
    """Add the steps of a node; False where it has to run as it is."""
    if isinstance(node.function, Recurrent):
        return _recur(steps, node)
    if hasattr(node.function, "linear"):
        return _multiply(steps, node)
    lowering = _LAYERS.get(node.op) or LOWERINGS.get(node.op)
    return lowering is not None and lowering(steps, node)
