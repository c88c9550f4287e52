"""Shapes, parts and pads, which leave numbers as they are, and arrays made of nothing."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Operator, axes_of, whole
from .padding import pad


def _reshape(
    x: Array,
    given: Array | None = None,
    *,
    shape: Sequence[int] | None = None,
    allowzero: int = 0,
) -> Array:
    wanted = axes_of(given, shape) or ()
    if not allowzero:
        wanted = tuple(x.shape[at] if size == 0 else size for at, size in enumerate(wanted))
    return x.reshape(wanted)


def flatten(x: Array, *, axis: int = 1) -> Array:
    """All axes before one as rows, the others as columns."""
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, math.prod(x.shape[axis:]))


def _squeeze(x: Array, given: Array | None = None, *, axes: Any = None) -> Array:
    return np.squeeze(x, axes_of(given, axes))


def _unsqueeze(x: Array, given: Array | None = None, *, axes: Any = None) -> Array:
    return np.expand_dims(x, axes_of(given, axes) or ())


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
    first, last = axes_of(starts_in, starts) or (), axes_of(ends_in, ends) or ()
    along = axes_of(axes_in, axes) or tuple(range(len(first)))
    every = axes_of(steps, None) or (1,) * len(first)
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
    sizes = axes_of(given, split)
    if sizes is None:
        each = -(-x.shape[axis] // outputs)
        return tuple(np.split(x, range(each, each * outputs, each), axis))
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, whole(shape)))


def _tile(x: Array, repeats: Array) -> Array:
    counts = whole(repeats)
    if len(counts) != x.ndim or min(counts, default=0) < 0:
        raise ValueError(f"repeats must be {x.ndim} numbers of at least 0, got {counts}")
    spread = [size for pair in zip((1,) * x.ndim, x.shape, strict=True) for size in pair]
    wanted = [size for pair in zip(counts, x.shape, strict=True) for size in pair]
    shape = tuple(map(operator.mul, counts, x.shape))
    return np.broadcast_to(x.reshape(spread), wanted).reshape(shape)


def _constant_of_shape(shape: Array, *, value: Any = None) -> Array:
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(whole(shape), fill[0], fill.dtype)


def _range(start: Array, limit: Array, delta: Array) -> Array:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _eye_like(x: Array, *, dtype: Any = None, k: int = 0) -> Array:
    if x.ndim != 2:
        raise ValueError(f"the input must have two axes, got shape {x.shape}")
    rows, columns = x.shape
    y: Array = np.eye(rows, columns, k, dtype=x.dtype if dtype is None else dtype)
    return y


def _trilu(x: Array, k: Array | None = None, *, upper: int = 1) -> Array:
    cut = np.triu if upper else np.tril
    return cut(x, 0 if k is None else int(k.item()))


def _depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """(N, B B C, H, W) to (N, C, H B, W B); mode: whether B B or C comes first in the channels."""
    n, channels, height, width = x.shape
    b, c = blocksize, channels // blocksize**2
    if mode == "DCR":
        parts = x.reshape(n, b, b, c, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c, b, b, height, width).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c, height * b, width * b)


def _space_to_depth(x: Array, *, blocksize: int) -> Array:
    n, c, height, width = x.shape
    b = blocksize
    parts = x.reshape(n, c, height // b, b, width // b, b).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, b * b * c, height // b, width // b)


OPERATORS: dict[str, Operator] = {
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": flatten,
    "Pad": pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda x: np.array(x.size, np.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": lambda x, *, perm=None: np.transpose(x, perm),
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
