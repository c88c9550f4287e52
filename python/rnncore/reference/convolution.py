"""Convolutions over any number of axes, channels last, in the order of their formulas.

x (B, size, ..., C)          rows, or images
W (O, C / groups, taps, ...) weight of `convolve`; W (C, O / groups, taps, ...) of `spread`
b (O,)                       bias, or absent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array

#: NumPy's names of what is found beyond the ends of an axis.
_MODES: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


@dataclass(frozen=True)
class Along:
    """How windows lie along one axis."""

    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    mode: str = "zeros"

    def seen(self, tap: int, outputs: int) -> slice:
        """The places that this tap of all windows reads."""
        begin = tap * self.dilation
        return slice(begin, begin + (outputs - 1) * self.stride + 1, self.stride)


def convolve(
    x: Array, weight: Array, bias: Array | None, along: Sequence[Along], groups: int = 1
) -> Array:
    """y_p = b + sum over k of W_k x_(p * stride + k * dilation - before)."""
    pads = [(0, 0), *((axis.before, axis.after) for axis in along), (0, 0)]
    x = np.pad(x, pads, _MODES[along[0].mode])
    taps = weight.shape[2:]
    outputs = [
        (size - axis.dilation * (count - 1) - 1) // axis.stride + 1
        for size, count, axis in zip(x.shape[1:-1], taps, along, strict=True)
    ]
    y = np.zeros((len(x), *outputs, len(weight)), x.dtype)
    for k in np.ndindex(*taps):
        y += _grouped(x[_seen(along, k, outputs)], weight[(..., *k)], groups)
    return y if bias is None else y + bias


def spread(
    x: Array,
    weight: Array,
    bias: Array | None,
    along: Sequence[Along],
    groups: int = 1,
    more: Sequence[int] = (0,),
) -> Array:
    """y_(p * stride + k * dilation - before) += W_k^T x_p; `more` places at the ends of y."""
    taps = weight.shape[2:]
    sizes = [
        (size - 1) * axis.stride + axis.dilation * (count - 1) + 1
        for size, count, axis in zip(x.shape[1:-1], taps, along, strict=True)
    ]
    rows = [size + n for size, n in zip(sizes, more, strict=True)]
    y = np.zeros((len(x), *rows, weight.shape[1] * groups), x.dtype)
    for k in np.ndindex(*taps):
        parts = np.concatenate([w.T for w in np.split(weight[(..., *k)], groups)])
        y[_seen(along, k, x.shape[1:-1])] += _grouped(x, parts, groups)
    kept = (
        slice(axis.before, size - axis.after + n)
        for size, axis, n in zip(sizes, along, more, strict=True)
    )
    y = y[(slice(None), *kept)]
    return y if bias is None else y + bias


def _seen(along: Sequence[Along], tap: Sequence[int], outputs: Sequence[int]) -> tuple[slice, ...]:
    """Where in x the rows, or images, are that a tap reads."""
    cuts = (axis.seen(k, n) for axis, k, n in zip(along, tap, outputs, strict=True))
    return (slice(None), *cuts)


def _grouped(x: Array, weight: Array, groups: int) -> Array:
    """x W^T, W (O, C / groups), where each group of outputs sees its own inputs."""
    parts = zip(np.split(x, groups, axis=-1), np.split(weight, groups), strict=True)
    return np.concatenate([part @ w.T for part, w in parts], axis=-1)
