"""Convolutions and pooling in Keras's letters: kernels are (k, ..., C / groups, O), channels last.

y_p = f(b + sum over k of x_(p * strides + k * dilation_rate - before) W_k)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ..convolution import Along, convolve
from .pointwise import function

Settings = dict[str, Any]


def _paddings(
    config: Settings, sizes: Sequence[int], spans: Sequence[int]
) -> list[tuple[int, int]]:
    """How many places are added before and after: "same" makes ceil(size / stride) outputs."""
    found = []
    for size, span, stride in zip(sizes, spans, config["strides"], strict=True):
        more = {"valid": 0, "causal": span - 1}.get(config["padding"])
        if more is None:
            more = max((-(-size // stride) - 1) * stride + span - size, 0)
        before = more if config["padding"] == "causal" else more // 2
        found.append((before, more - before))
    return found


def _spans(config: Settings, taps: Sequence[int]) -> list[int]:
    dilation = config.get("dilation_rate") or (1,) * len(taps)
    return [rate * (count - 1) + 1 for rate, count in zip(dilation, taps, strict=True)]


def _windows(config: Settings, x: Array, fill: float) -> Iterator[Array]:
    """For each place in a window, what all windows find there: `(B, outputs, ..., C)`."""
    taps = config["pool_size"]
    pads = [(0, 0), *_paddings(config, x.shape[1:-1], taps), (0, 0)]
    x = np.pad(x, pads, constant_values=fill)
    counts = [
        (size - count) // stride + 1
        for size, count, stride in zip(x.shape[1:-1], taps, config["strides"], strict=True)
    ]
    for k in np.ndindex(*taps):
        along = zip(k, counts, config["strides"], strict=True)
        cuts = [slice(tap, tap + (n - 1) * stride + 1, stride) for tap, n, stride in along]
        yield x[(slice(None), *cuts)]


def convolution(config: Settings, weights: list[Array], x: Array) -> Array:
    """Conv1D, Conv2D."""
    kernel, *bias = weights
    spans = _spans(config, kernel.shape[:-2])
    along = [
        Along(stride, dilation, *pads)
        for stride, dilation, pads in zip(
            config["strides"],
            config["dilation_rate"],
            _paddings(config, x.shape[1:-1], spans),
            strict=True,
        )
    ]
    weight = np.moveaxis(kernel, (-1, -2), (0, 1))
    y = convolve(x, weight, bias[0] if bias else None, along, config["groups"])
    return function(config["activation"])(y)


def _max(config: Settings, _: list[Array], x: Array) -> Array:
    y: Array = np.max(list(_windows(config, x, -np.inf)), axis=0)
    return y


def _average(config: Settings, _: list[Array], x: Array) -> Array:
    """The mean of what lies in x: padding does not count."""
    total, count = (np.sum(list(_windows(config, a, 0)), axis=0) for a in (x, np.ones_like(x)))
    y: Array = total / count
    return y


def _over_all(how: Callable[..., Any]) -> Callable[..., Any]:
    def pool(config: Settings, _: list[Array], x: Array) -> Array:
        axes = tuple(range(1, x.ndim - 1))
        y: Array = how(x, axis=axes, keepdims=bool(config.get("keepdims")))
        return y

    return pool


KINDS: dict[str, Callable[..., Any]] = {
    f"{name}{axes}D": made
    for axes in (1, 2)
    for name, made in {
        "Conv": convolution,
        "MaxPooling": _max,
        "AveragePooling": _average,
        "GlobalMaxPooling": _over_all(np.max),
        "GlobalAveragePooling": _over_all(np.mean),
    }.items()
}
