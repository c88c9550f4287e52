"""What the nodes around a recurrence compute: a function each, inputs first, attributes by keyword.

An optional input that is left out is None. Where an attribute became an input in a later version of
an operator, both are taken.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ...arrays import Array
from ...compositions.ragged import reverse as reverse_within
from ...layers.activations import Elementwise, Softmax
from ...layers.layer_norm import LayerNorm
from . import quantised

Operator = Callable[..., Any]


def _axes(given: Array | None, axes: Sequence[int] | None) -> tuple[int, ...] | None:
    if given is not None:
        return tuple(map(operator.index, given))
    return None if axes is None else tuple(axes)


def _unary(name: str) -> Operator:
    layer = Elementwise(name)
    return lambda x: layer(x)


def _slope(name: str, default: float) -> Operator:
    return lambda x, *, alpha=default: Elementwise((name, alpha))(x)


def _hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return Elementwise(("hard_sigmoid", alpha, beta))(x)


def _celu(x: Array, *, alpha: float = 1.0) -> Array:
    a = x.dtype.type(alpha)
    y: Array = np.maximum(x, 0) + np.minimum(a * np.expm1(np.minimum(x, 0) / a), 0)
    return y


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.flat], x.dtype).reshape(x.shape)


def _gelu(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "tanh":
        inner = np.tanh(x.dtype.type(math.sqrt(2 / math.pi)) * (x + 0.044715 * x * x * x))
    else:
        inner = _erf(x * x.dtype.type(math.sqrt(0.5)))
    y: Array = x * (1 + inner) / 2
    return y


def _selu(x: Array, *, alpha: float = 1.67326319, gamma: float = 1.05070102) -> Array:
    y = gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return y.astype(x.dtype)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient: Array = np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)
    return quotient.astype(a.dtype)


def _clip(x: Array, low: Any = None, high: Any = None, **bounds: float) -> Array:
    low, high = bounds.get("min", low), bounds.get("max", high)
    return x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


def _gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    y: Array = np.matmul(a.T if transA else a, b.T if transB else b)
    y = y if alpha == 1 else y * y.dtype.type(alpha)
    return y if c is None else y + (c if beta == 1 else c * c.dtype.type(beta))


def _softmax(x: Array, *, axis: int = -1) -> Array:
    return Softmax(axis)(x)


def _log_softmax(x: Array, *, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def _flat(function: Operator) -> Operator:
    """Over all axes from `axis` on together, as it was before version 13."""
    return lambda x, *, axis=1: function(_flatten(x, axis=axis)).reshape(x.shape)


def _layer_normalization(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    layer = LayerNorm(x.shape[axis:], epsilon, dtype=x.dtype)
    layer.params["weight"] = np.broadcast_to(scale, x.shape[axis:])
    layer.params["bias"] = np.broadcast_to(0 if bias is None else bias, x.shape[axis:]).astype(
        x.dtype
    )
    return layer(x)


def _reshape(
    x: Array,
    given: Array | None = None,
    *,
    shape: Sequence[int] | None = None,
    allowzero: int = 0,
) -> Array:
    wanted = _axes(given, shape) or ()
    if not allowzero:
        wanted = tuple(x.shape[at] if size == 0 else size for at, size in enumerate(wanted))
    return x.reshape(wanted)


def _flatten(x: Array, *, axis: int = 1) -> Array:
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, math.prod(x.shape[axis:]))


def _squeeze(x: Array, given: Array | None = None, *, axes: Any = None) -> Array:
    return np.squeeze(x, _axes(given, axes))


def _unsqueeze(x: Array, given: Array | None = None, *, axes: Any = None) -> Array:
    return np.expand_dims(x, _axes(given, axes) or ())


def _slice(
    x: Array,
    starts_in: Array | None = None,
    ends_in: Array | None = None,
    axes_in: Array | None = None,
    steps: Array | None = None,
    *,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
) -> Array:
    first, last = _axes(starts_in, starts) or (), _axes(ends_in, ends) or ()
    along = _axes(axes_in, axes) or tuple(range(len(first)))
    every = _axes(steps, None) or (1,) * len(first)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, every, strict=True):
        size = x.shape[axis]
        if step < 0:  # in ONNX what is past the front begins with the first, or ends with it
            start, stop = max(start, -size), None if end < -size else end
        else:
            stop = end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _shape(x: Array, *, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[start:end], np.int64)


def _split(
    x: Array, given: Array | None = None, *, axis: int = 0, split: Any = None, outputs: int = 0
) -> tuple[Array, ...]:
    sizes = _axes(given, split)
    if sizes is None:
        each = -(-x.shape[axis] // outputs)
        return tuple(np.split(x, range(each, each * outputs, each), axis))
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def _gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    size = x.shape[axis]
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise ValueError(f"Gather: indices must be in {-size}..{size - 1}")
    return np.take(x, indices, axis)


def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(operator.index, shape))))


def _constant_of_shape(shape: Array, *, value: Any = None) -> Array:
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(tuple(map(operator.index, shape)), fill[0], fill.dtype)


def _cast(x: Array, *, to: Any, saturate: int = 1) -> Array:
    if np.dtype(to).kind not in "fiub" or np.dtype(to).type.__module__ != "numpy":
        raise ValueError(f"rnncore cannot represent a Cast to {np.dtype(to)}")
    return x.astype(to)


def _dropout(
    x: Array,
    ratio_in: Array | None = None,
    training: Array | None = None,
    *,
    ratio: float = 0.5,
    seed: int = 0,
) -> tuple[Array, Array]:
    if training is not None and np.any(training):
        raise ValueError("rnncore cannot represent Dropout with training_mode=True")
    return x, np.ones(x.shape, bool)


def _reduce(function: Operator) -> Operator:
    def reduce(
        x: Array,
        given: Array | None = None,
        *,
        axes: Any = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Array:
        along = _axes(given, axes) or None
        if along is None and noop_with_empty_axes:
            return x
        return np.asarray(function(x, axis=along, keepdims=bool(keepdims))).astype(x.dtype)

    return reduce


def _euclidean(x: Array, **options: Any) -> Any:
    return np.sqrt(np.sum(np.square(x), **options))


def _range(start: Array, limit: Array, delta: Array) -> Array:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _reverse_sequence(
    x: Array, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0
) -> Array:
    if (batch_axis, time_axis) == (0, 1):
        return reverse_within(x.swapaxes(0, 1), lengths).swapaxes(0, 1)
    return reverse_within(x, lengths)


def _top_k(
    x: Array,
    given: Array | None = None,
    *,
    k: int = 0,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[Array, Array]:
    """The first k in order, and where they were; of equals the first comes first."""
    count, size = k if given is None else int(given.item()), x.shape[axis]
    if not 0 <= count <= size:
        raise ValueError(f"k must be in 0..{size}, got {count}")
    if largest:  # a stable sort from the back, so that of equals the first comes last
        order = np.flip(size - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = np.take(order, range(count), axis)
    return np.take_along_axis(x, first, axis), first.astype(np.int64)


def _scatter_elements(
    x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    if reduction != "none":
        raise ValueError(f"rnncore cannot represent ScatterElements with reduction={reduction!r}")
    y = x.copy()
    if indices.shape != updates.shape:
        raise ValueError(f"indices {indices.shape} and updates {updates.shape} differ in shape")
    places = list(np.ogrid[tuple(map(slice, indices.shape))])
    places[axis] = indices
    y[tuple(places)] = updates
    return y


OPERATORS: dict[str, Operator] = {
    "Abs": lambda x: np.abs(x),
    "Add": lambda a, b: a + b,
    "Cast": _cast,
    "Celu": _celu,
    "Clip": _clip,
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _slope("elu", 1.0),
    "Equal": lambda a, b: np.equal(a, b),
    "Erf": _erf,
    "Exp": _unary("exponential"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1),
    "Identity": lambda x: x,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _slope("leaky_relu", 0.01),
    "Less": lambda a, b: np.less(a, b),
    "LogSoftmax": _log_softmax,
    "MatMul": lambda a, b: np.matmul(a, b),
    "Max": lambda *parts: reduce(np.maximum, parts),
    "Min": lambda *parts: reduce(np.minimum, parts),
    "Mish": lambda x: x * np.tanh(Elementwise("softplus")(x)),
    "Mul": lambda a, b: a * b,
    "Neg": lambda x: -x,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Range": _range,
    "ReduceL2": _reduce(_euclidean),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": _unary("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _unary("softplus"),
    "Softsign": _unary("softsign"),
    "Split": _split,
    "Sqrt": lambda x: np.sqrt(x),
    "Squeeze": _squeeze,
    "Sub": lambda a, b: a - b,
    "Sum": lambda *parts: reduce(np.add, parts),
    "Tanh": _unary("tanh"),
    "ThresholdedRelu": _slope("thresholded_relu", 1.0),
    "TopK": _top_k,
    "Transpose": lambda x, *, perm=None: np.transpose(x, perm),
    "Unsqueeze": _unsqueeze,
    "Where": lambda condition, a, b: np.where(condition, a, b),
    **quantised.OPERATORS,
}

#: Operators with several outputs, and how many we have of each.
OUTPUTS = {"Dropout": 2, "GRU": 2, "LSTM": 3, "RNN": 2, "Split": 1 << 30, "TopK": 2}
OUTPUTS |= {"DynamicQuantizeLinear": 3, quantised.LSTM: 3}

#: What operators were in versions before the one given.
EARLIER: dict[str, tuple[int, Operator]] = {
    "LogSoftmax": (13, _flat(_log_softmax)),
    "Softmax": (13, _flat(_softmax)),
}
