"""Largest numbers and means of windows, and of everything in space."""

from __future__ import annotations

import numpy as np

from ....arrays import Array
from .arguments import Operator, ends_of
from .windows import Given, Windows, view, windows_of


def _over_kernel(where: Windows) -> tuple[int, ...]:
    """The axes of a view that lie within its windows."""
    return tuple(range(-len(where.kernel), 0))


def _max_pool(
    x: Array,
    *,
    kernel_shape: Given,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Given = None,
    pads: Given = None,
    storage_order: int = 0,
    strides: Given = None,
) -> Array:
    where = windows_of(
        x.shape[2:],
        tuple(kernel_shape or ()),
        auto_pad=auto_pad,
        pads=pads,
        strides=strides,
        dilations=dilations,
        ceil_mode=ceil_mode,
    )
    y: Array = view(x, where, ends_of(x.dtype)[0]).max(_over_kernel(where))
    return y


def _average_pool(
    x: Array,
    *,
    kernel_shape: Given,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Given = None,
    pads: Given = None,
    strides: Given = None,
) -> Array:
    """Means over what lies in the input; with `count_include_pad` over its pads as well."""
    where = windows_of(
        x.shape[2:],
        tuple(kernel_shape or ()),
        auto_pad=auto_pad,
        pads=pads,
        strides=strides,
        dilations=dilations,
        ceil_mode=ceil_mode,
    )
    inside = np.ones((1, 1, *x.shape[2:]), x.dtype)
    counts = view(inside, where, edge=bool(count_include_pad)).sum(_over_kernel(where))
    y: Array = view(x, where).sum(_over_kernel(where)) / counts
    return y


def _over_space(function: Operator) -> Operator:
    return lambda x: function(x, axis=tuple(range(2, x.ndim)), keepdims=True)


OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _over_space(np.mean),
    "GlobalMaxPool": _over_space(np.max),
    "MaxPool": _max_pool,
}
