"""Convolutions and pooling in Keras's letters: kernels are (k, ..., C / groups, O), channels last.

y_p = f(b + sum over k of x_(p * strides + k * dilation_rate - before) W_k)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
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


def _windows(
    config: Settings, x: Array, taps: Sequence[int], fill: float
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each tap, what all windows find there: `(B, outputs, ..., C)`."""
    dilation = config.get("dilation_rate") or (1,) * len(taps)
    spans = [rate * (count - 1) + 1 for rate, count in zip(dilation, taps, strict=True)]
    pads = [(0, 0), *_paddings(config, x.shape[1:-1], spans), (0, 0)]
    x = np.pad(x, pads, constant_values=fill)
    counts = [
        (size - span) // stride + 1
        for size, span, stride in zip(x.shape[1:-1], spans, config["strides"], strict=True)
    ]
    for k in np.ndindex(*taps):
        along = zip(k, dilation, counts, config["strides"], strict=True)
        cuts = [slice(tap * d, tap * d + (n - 1) * s + 1, s) for tap, d, n, s in along]
        yield k, x[(slice(None), *cuts)]


def convolution(config: Settings, weights: list[Array], x: Array) -> Array:
    """Conv1D, Conv2D."""
    kernel, *bias = weights
    groups = config.get("groups") or 1
    outputs = kernel.shape[-1] // groups
    y: Any = 0
    for k, seen in _windows(config, x, kernel.shape[:-2], 0):
        parts = np.split(seen, groups, axis=-1)
        columns = [kernel[k][:, at * outputs : (at + 1) * outputs] for at in range(groups)]
        y = y + np.concatenate([a @ b for a, b in zip(parts, columns, strict=True)], axis=-1)
    return function(config["activation"])(y + bias[0] if bias else y)


def _max(config: Settings, _: list[Array], x: Array) -> Array:
    y: Array = np.max([seen for _, seen in _windows(config, x, config["pool_size"], -np.inf)], 0)
    return y


def _average(config: Settings, _: list[Array], x: Array) -> Array:
    """The mean of what lies in x: padding does not count."""
    ones = np.ones_like(x)
    total, count = (
        np.sum([seen for _, seen in _windows(config, part, config["pool_size"], 0)], 0)
        for part in (x, ones)
    )
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
