"""Convolutions over any number of axes, in NumPy: windows as columns, and products with them."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Operator, Size
from .quantised import centred
from .windows import Given, halves, ones_or, pads_or_none, spans_of, view, windows_of


def _check_kernel(w: Array, kernel_shape: Given, x: Array) -> Size:
    """The sizes of a kernel `(M, C / group, *kernel)`, which an attribute may repeat."""
    if w.ndim != x.ndim or w.ndim < 3:
        raise ValueError(f"W must have the {x.ndim} axes of X, at least 3, got shape {w.shape}")
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise ValueError(f"kernel_shape is {tuple(kernel_shape)}, but W has shape {w.shape}")
    return w.shape[2:]


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))


def conv(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Given = None,
    group: int = 1,
    kernel_shape: Given = None,
    pads: Given = None,
    strides: Given = None,
) -> Array:
    """X `(N, C, *sizes)`, W `(M, C / group, *kernel)`, B `(M,)` -> Y `(N, M, *counts)`."""
    kernel = _check_kernel(w, kernel_shape, x)
    n, channels = x.shape[:2]
    outputs, inputs = w.shape[:2]
    if group < 1 or channels != inputs * group or outputs % group:
        raise ValueError(f"W {w.shape} in {group} groups does not fit X {x.shape}")
    where = windows_of(
        x.shape[2:],
        kernel,
        auto_pad=auto_pad,
        pads=pads,
        strides=strides,
        dilations=dilations,
    )
    space, seen = len(kernel), view(x, where)
    parts = seen.reshape(n, group, inputs, *where.counts, *kernel)
    order = (0, 1, 2, *range(3 + space, 3 + 2 * space), *range(3, 3 + space))
    columns = parts.transpose(order).reshape(
        n, group, inputs * math.prod(kernel), math.prod(where.counts)
    )
    y = np.matmul(w.reshape(group, outputs // group, -1), columns)
    return _with_bias(y.reshape(n, outputs, *where.counts), bias)


def kept(
    grown: Size,
    plain: Size,
    *,
    auto_pad: str = "NOTSET",
    output_shape: Given = None,
    pads: Given = None,
) -> tuple[Size, Size]:
    """Of all that a transposed convolution reaches: where its output begins, and its sizes.

    plain: the sizes that `auto_pad` asks for.
    """
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    wanted = output_shape or (plain if same else None)
    if wanted is not None:
        left = tuple(wanted)[-len(grown) :]
        cuts = [
            halves(max(0, size - own), auto_pad == "SAME_UPPER")
            for size, own in zip(grown, left, strict=True)
        ]
        return tuple(first for first, _ in cuts), left
    before, after = pads_or_none(pads if auto_pad == "NOTSET" else None, len(grown))
    left = tuple(
        size - first - last for size, first, last in zip(grown, before, after, strict=True)
    )
    if min(left) < 0:
        raise ValueError(f"pads {before} and {after} leave nothing of {grown}")
    return before, left


def transposed_sizes(
    x: Array,
    w: Array,
    *,
    dilations: Given = None,
    output_padding: Given = None,
    strides: Given = None,
    **pads: Any,
) -> tuple[Size, Size, Size]:
    """Of ConvTranspose: the sizes that the kernels reach, and of the output, where it begins."""
    kernel, space = w.shape[2:], x.ndim - 2
    steps, gaps = ones_or("strides", strides, space), ones_or("dilations", dilations, space)
    axes = zip(x.shape[2:], steps, spans_of(kernel, gaps), strict=True)
    reach = tuple((size - 1) * step + span for size, step, span in axes)
    grown = tuple(map(operator.add, reach, output_padding or (0,) * space))
    plain = tuple(map(min, map(operator.mul, x.shape[2:], steps), grown))
    begin, sizes = kept(grown, plain, **pads)
    return tuple(map(max, reach, map(operator.add, begin, sizes))), begin, sizes


def conv_transpose(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Given = None,
    group: int = 1,
    kernel_shape: Given = None,
    output_padding: Given = None,
    output_shape: Given = None,
    pads: Given = None,
    strides: Given = None,
) -> Array:
    """X `(N, C, *sizes)`, W `(C, M / group, *kernel)`, B `(M,)` -> Y `(N, M, *sizes)`."""
    kernel = _check_kernel(w, kernel_shape, x)
    n, channels = x.shape[:2]
    if group < 1 or channels != w.shape[0] or channels % group:
        raise ValueError(f"W {w.shape} in {group} groups does not fit X {x.shape}")
    reach, begin, sizes = transposed_sizes(
        x,
        w,
        dilations=dilations,
        output_padding=output_padding,
        strides=strides,
        auto_pad=auto_pad,
        output_shape=output_shape,
        pads=pads,
    )
    rows = w.reshape(group, channels // group, -1).swapaxes(1, 2)
    parts = np.matmul(rows, x.reshape(n, group, channels // group, -1))
    parts = parts.reshape(n, group * w.shape[1], *kernel, *x.shape[2:])
    y = np.zeros((n, group * w.shape[1], *reach), parts.dtype)
    steps, gaps = (ones_or("", given, len(kernel)) for given in (strides, dilations))
    for tap in np.ndindex(kernel) if parts.size else ():
        places = [
            slice(at * gap, at * gap + (size - 1) * step + 1, step)
            for at, gap, step, size in zip(tap, gaps, steps, x.shape[2:], strict=True)
        ]
        y[(slice(None), slice(None), *places)] += parts[(slice(None), slice(None), *tap)]
    own = [slice(first, first + size) for first, size in zip(begin, sizes, strict=True)]
    return _with_bias(y[(slice(None), slice(None), *own)], bias)


def _conv_integer(
    x: Array,
    w: Array,
    x_zero: Array | None = None,
    w_zero: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Given = None,
    group: int = 1,
    kernel_shape: Given = None,
    pads: Given = None,
    strides: Given = None,
) -> Array:
    """Conv of whole numbers less their zero points; float64 holds such sums exactly."""
    y = conv(
        centred(x, x_zero, 1).astype(np.float64),
        centred(w, w_zero, 0).astype(np.float64),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return y.astype(np.int64).astype(np.int32)


OPERATORS: dict[str, Operator] = {
    "Conv": conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": conv_transpose,
}
