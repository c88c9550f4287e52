"""How much a node makes of what it is given, known before it is run."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget
from .operators.arguments import Size, whole
from .operators.convolution import transposed_sizes
from .operators.padding import pads_of
from .operators.resizing import resized_sizes
from .operators.windows import windows_of

Given = Sequence[Any]

#: Operators whose results are views of their inputs.
_VIEWS = frozenset(
    (
        *("Identity", "SequenceAt", "SequenceLength", "Shape", "Size", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    )
)
_BROADCAST = (
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu"),
    *("Pow", "Sub", "Sum", "Where", "Xor"),
)
#: The bytes of an array beside its numbers, and of its place in a sequence.
_ARRAY, _PLACE = 256, 8


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


def _gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Size:
    return (*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :])


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


def _einsum(*parts: Array, equation: str) -> Size:
    """What the letters of the result span, and the inputs, which may be copied."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    letters: dict[str, int] = {}
    around: list[Size] = []
    for term, part in zip(terms.split(","), parts, strict=True):
        front, dots, back = term.partition("...")
        inner = slice(len(front), part.ndim - len(back))
        around += [part.shape[inner]] if dots else []
        outer = (*part.shape[: len(front)], *part.shape[inner.stop :])
        for name, size in zip(front + back, outer, strict=True):
            letters[name] = max(size, letters.get(name, 0))
    result = result if arrow else "".join(name for name in letters if terms.count(name) < 2)
    kept = [size for name, size in letters.items() if name in result]
    return (math.prod((*kept, *np.broadcast_shapes(*around))) + sum(part.size for part in parts),)


def _windows(x: Array, **options: Any) -> tuple[int, int, Size]:
    """The numbers of x with its pads, and of one channel's windows, their count by axis."""
    where = windows_of(x.shape[2:], **options)
    padded = [
        max(size + before + after, (count - 1) * step + span)
        for size, before, after, count, step, span in zip(
            x.shape[2:], where.before, where.after, where.counts, where.strides, where.spans,
            strict=True,
        )
    ]  # fmt: skip
    seen = math.prod(where.kernel) * math.prod(where.counts)
    return math.prod(_full((*x.shape[:2], *padded))), seen, where.counts


def _conv(
    x: Array, w: Array, *_: Any, group: int = 1, kernel_shape: Any = None, **options: Any
) -> Size:
    """x with its pads, its windows as columns, and the outputs."""
    padded, seen, counts = _windows(x, kernel=w.shape[2:], **options)
    columns = math.prod(x.shape[:2]) * seen
    return (padded + columns + 2 * math.prod((x.shape[0], w.shape[0], *counts)),)


def _conv_integer(*given: Any, **options: Any) -> Size:
    """In bytes: all as float64, and sums as whole numbers."""
    return (16 * _conv(*given, **options)[0],)


def _conv_transpose(
    x: Array, w: Array, *_: Any, group: int = 1, kernel_shape: Any = None, **options: Any
) -> Size:
    """What each number of x makes, and where all that is summed, with and without a bias."""
    reach, _, _ = transposed_sizes(x, w, **options)
    outputs = math.prod(_full((x.shape[0], w.shape[1], group)))
    parts = math.prod((*w.shape[2:], *x.shape[2:]))
    return (outputs * (parts + 2 * math.prod(reach)),)


def _pool(
    x: Array,
    *,
    kernel_shape: Size,
    count_include_pad: int = 0,
    storage_order: int = 0,
    **options: Any,
) -> Size:
    """x with its pads, twice, and the outputs."""
    padded, _, counts = _windows(x, kernel=tuple(kernel_shape), **options)
    return (2 * padded + 2 * math.prod((*x.shape[:2], *counts)),)


def _pad(x: Array, given: Any = None, fill: Any = None, axes: Any = None, **options: Any) -> Size:
    pads = options.get("paddings", options.get("pads"))
    before, after = pads_of(x, given, axes, pads)
    return tuple(
        max(0, size + front + back)
        for size, front, back in zip(x.shape, before, after, strict=True)
    )


def _resize(
    x: Array, roi: Any = None, scales: Any = None, sizes: Any = None, *, axes: Any = None, **_: Any
) -> Size:
    """Three arrays as large as the larger of both by every axis."""
    new, _factors = resized_sizes(x, scales, sizes, axes)
    return (3, *map(max, x.shape, new))


def _upsample(x: Array, given: Any = None, *, scales: Any = None, **_: Any) -> Size:
    return _resize(x, scales=scales if given is None else given)


def _split_to_sequence(x: Array, given: Any = None, *, axis: int = 0, **_: Any) -> Size:
    """In bytes, at most a part for each entry."""
    return (_ARRAY * (x.shape[axis] + (0 if given is None else given.size)),)


def _places(*given: Any, **_: Any) -> Size:
    """In bytes, a list of as many places as there are, and one more."""
    return (_PLACE * sum(len(value) + 1 if isinstance(value, list) else 1 for value in given),)


#: The shape of the largest thing that an operator makes, where that is not some of its inputs.
SHAPES: dict[str, Callable[..., Size]] = {
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), _recurrence),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    "com.microsoft.DynamicQuantizeLSTM": _held_recurrence,
    "com.microsoft.DynamicQuantizeMatMul": lambda x, b, *_: _product(x, b),
    "ConstantOfShape": lambda shape, **_: whole(shape),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Expand": lambda x, shape: np.broadcast_shapes(x.shape, whole(shape)),
    "Gather": _gather,
    "GatherElements": lambda x, indices, **_: indices.shape,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _product,
    "OneHot": lambda indices, depth, values, **_: (2, *indices.shape, max(0, int(depth.item()))),
    "Pad": _pad,
    "Range": _range,
    "Resize": _resize,
    "rnncore.Rows": lambda table, indices, *_: (2, *_gather(table, indices)),
    "Tile": lambda x, repeats: tuple(map(operator.mul, x.shape, whole(repeats))),
    "Upsample": _upsample,
}

#: Instead of a shape the bytes of what an operator makes.
BYTES: dict[str, Callable[..., Size]] = {
    **dict.fromkeys(("MatMulInteger", "com.microsoft.MatMulIntegerToFloat"), _integer_product),
    **dict.fromkeys(("SequenceConstruct", "SequenceErase", "SequenceInsert"), _places),
    **dict.fromkeys(("ArgMax", "ArgMin"), lambda x, **_: (8 * x.size,)),
    "ConvInteger": _conv_integer,
    "NonZero": lambda x: (16 * x.ndim * np.count_nonzero(x) + x.size,),
    "SplitToSequence": _split_to_sequence,
    "TopK": lambda x, *_, **__: (24 * x.size,),
}


def take(budget: Budget, op: str, given: Given, attributes: Mapping[str, Any]) -> None:
    """Take from a budget what a node is about to make; `ValueError` if that is too much."""
    if op in _VIEWS:
        return
    arrays = list(_arrays(given))
    for array in arrays:
        if not array.size:
            budget.check("an array", _full(array.shape))
    if op in BYTES:
        budget.take("an array", BYTES[op](*given, **attributes))
        return
    shape = SHAPES[op](*given, **attributes) if op in SHAPES else (sum(a.size for a in arrays),)
    names = ("to", "value", "dtype")
    typed = [*arrays, *(attributes[name] for name in names if name in attributes)]
    sizes = [value.itemsize for value in typed if hasattr(value, "itemsize")]
    budget.take("an array", _full(shape), max(sizes, default=1))


def _full(shape: Iterable[int]) -> Size:
    """A shape without empty axes: beside one the others may have any size, but are walked along."""
    return tuple(size or 1 for size in shape)


def _arrays(given: Given) -> Iterator[Array]:
    """All arrays of a node's inputs, those of sequences too."""
    for value in given:
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value
