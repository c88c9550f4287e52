"""How much a node makes of what it is given, known before it is run."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget

Given = Sequence[Array | None]
Size = tuple[int, ...]

#: Operators whose results are views of their inputs.
_VIEWS = frozenset(("Identity", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"))
_BROADCAST = (
    *("Add", "Clip", "Div", "Equal", "Less", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"),
    "Where",
)


def _broadcast(*given: Array | None, **_: float) -> Size:
    return np.broadcast_shapes(*(array.shape for array in given if array is not None))


def _product(a: Array, b: Array) -> Size:
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *rows, *columns)


def _integer_product(a: Array, b: Array, *_: Any) -> Size:
    """Both matrices and the sums as float64, in bytes."""
    return (8 * (a.size + b.size + 2 * math.prod(_product(a, b))),)


def _held_recurrence(x: Array, w: Any, r: Array, *_: Any, **__: Any) -> Size:
    return (*x.shape[:2], *r.shape[:2])


def _gemm(
    a: Array, b: Array, c: Any = None, *, transA: int = 0, transB: int = 0, **_: float
) -> Size:
    shape = a.shape[1 if transA else 0], b.shape[0 if transB else 1]
    return np.broadcast_shapes(shape, np.shape(c) if c is not None else ())


def _gather(x: Array, indices: Array, *, axis: int = 0) -> Size:
    rest = list(x.shape)
    del rest[axis]
    return (*indices.shape, *rest)


def _range(start: Array, limit: Array, delta: Array) -> Size:
    first, last, step = start.item(), limit.item(), delta.item()
    if not step or not all(map(math.isfinite, (first, last, step))):
        raise ValueError(f"there is no range from {first} to {last} in steps of {step}")
    return (max(0, math.ceil((last - first) / step)),)


def _recurrence(x: Array, w: Any, r: Any, *_: Any, **__: Any) -> Size:
    """The outputs in all directions, and the weights, which may have to be copied."""
    if not x.ndim == np.ndim(w) == np.ndim(r) == 3:
        return ()  # refused by name when it runs
    return (x.shape[0] * x.shape[1] * r.shape[0] * r.shape[2] + 2 * (w.size + r.size),)


#: The shape of the largest thing that an operator makes, where that is not some of its inputs.
SHAPES: dict[str, Callable[..., Size]] = {
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), _recurrence),
    **dict.fromkeys(("MatMulInteger", "com.microsoft.MatMulIntegerToFloat"), _integer_product),
    "com.microsoft.DynamicQuantizeLSTM": _held_recurrence,
    "com.microsoft.DynamicQuantizeMatMul": lambda x, b, *_: _product(x, b),
    "ConstantOfShape": lambda shape, **_: tuple(map(operator.index, shape)),
    "Expand": lambda x, shape: np.broadcast_shapes(x.shape, tuple(map(operator.index, shape))),
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _product,
    "Range": _range,
    "rnncore.Rows": lambda table, indices, *_: (2, *_gather(table, indices)),
}


def take(budget: Budget, op: str, given: Given, attributes: Mapping[str, Any]) -> None:
    """Take from a budget what a node is about to make; `ValueError` if that is too much."""
    arrays = [array for array in given if array is not None]
    if op in _VIEWS:
        return
    shape = SHAPES[op](*given, **attributes) if op in SHAPES else (sum(a.size for a in arrays),)
    typed = [*arrays, *(attributes[name] for name in ("to", "value") if name in attributes)]
    budget.take("an array", shape, max((value.itemsize for value in typed), default=1))
