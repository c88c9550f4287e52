"""Windows of convolutions and pools: their sizes, steps and pads by axis, and views of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ....arrays import Array
from .arguments import Size
from .padding import padded

Given = Sequence[int] | None


class Windows(NamedTuple):
    """Of each axis in space: the kernel's size, steps from window to window, distances within one,
    pads before and behind, and how many windows there are.
    """

    kernel: Size
    strides: Size
    dilations: Size
    before: Size
    after: Size
    counts: Size

    @property
    def spans(self) -> Size:
        """From a window's first number to its last, both included."""
        return spans_of(self.kernel, self.dilations)


def spans_of(kernel: Size, dilations: Size) -> Size:
    """How far kernels reach whose numbers lie apart."""
    return tuple((size - 1) * gap + 1 for size, gap in zip(kernel, dilations, strict=True))


def ones_or(name: str, values: Given, count: int) -> Size:
    """Numbers of at least 1, one for each axis; by default 1."""
    given = (1,) * count if values is None or not len(values) else tuple(values)
    if len(given) != count or min(given, default=1) < 1:
        raise ValueError(f"{name} must be {count} numbers of at least 1, got {given}")
    return given


def pads_or_none(values: Given, count: int) -> tuple[Size, Size]:
    """Pads before and behind each axis; by default none."""
    given = (0,) * (2 * count) if values is None or not len(values) else tuple(values)
    if len(given) != 2 * count or min(given, default=0) < 0:
        raise ValueError(f"pads must be {2 * count} numbers of at least 0, got {given}")
    return given[:count], given[count:]


def halves(total: int, upper: bool) -> tuple[int, int]:
    """Pads that make up a total, the larger one behind (`SAME_UPPER`) or before."""
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def windows_of(
    sizes: Size,
    kernel: Size,
    *,
    auto_pad: str = "NOTSET",
    pads: Given = None,
    strides: Given = None,
    dilations: Given = None,
    ceil_mode: int = 0,
) -> Windows:
    """Where the windows lie over axes of these sizes; `ValueError` where there are none."""
    count = len(sizes)
    if len(kernel) != count or min(kernel, default=1) < 1:
        raise ValueError(f"kernel_shape must be {count} numbers of at least 1, got {kernel}")
    steps, gaps = ones_or("strides", strides, count), ones_or("dilations", dilations, count)
    before, after = pads_or_none(pads if auto_pad == "NOTSET" else None, count)
    spans = spans_of(kernel, gaps)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        counts = tuple(-(-size // step) for size, step in zip(sizes, steps, strict=True))
        missing = (
            max(0, (number - 1) * step + span - size)
            for number, step, span, size in zip(counts, steps, spans, sizes, strict=True)
        )
        both = [halves(total, auto_pad == "SAME_UPPER") for total in missing]
        before, after = tuple(first for first, _ in both), tuple(last for _, last in both)
        return Windows(kernel, steps, gaps, before, after, counts)
    if auto_pad not in ("NOTSET", "VALID"):
        raise ValueError(f"rnncore cannot represent auto_pad={auto_pad!r}")
    up = bool(ceil_mode) and auto_pad == "NOTSET"
    counts = tuple(
        _count(*axis, up) for axis in zip(sizes, spans, steps, before, after, strict=True)
    )
    return Windows(kernel, steps, gaps, before, after, counts)


def _count(size: int, span: int, step: int, before: int, after: int, up: bool) -> int:
    """How many windows fit; rounded up, the last must not begin in the pads behind."""
    room = size + before + after - span
    if room < 0:
        raise ValueError(f"a kernel that spans {span} does not fit {size} with its pads")
    if not up:
        return room // step + 1
    count = -(-room // step) + 1
    return count - ((count - 1) * step >= size + before)


def view(x: Array, where: Windows, fill: Any = 0, edge: Any = None) -> Array:
    """Windows of x `(N, C, *sizes)` as `(N, C, *counts, *kernel)`, of a copy with pads.

    edge: what the pads are filled with, if not like what a last window reads beyond them.
    """
    x = _spatially_padded(x, where.before, where.after, fill if edge is None else edge)
    ends = [
        (count - 1) * step + span
        for count, step, span in zip(where.counts, where.strides, where.spans, strict=True)
    ]
    beyond = tuple(max(0, end - size) for end, size in zip(ends, x.shape[2:], strict=True))
    x = _spatially_padded(x, (0,) * len(beyond), beyond, fill)
    every = np.lib.stride_tricks.sliding_window_view(x, where.spans, tuple(range(2, x.ndim)))
    taken = [
        slice(0, (count - 1) * step + 1, step)
        for count, step in zip(where.counts, where.strides, strict=True)
    ]
    within = [slice(None, None, gap) for gap in where.dilations]
    found: Array = every[(slice(None), slice(None), *taken, *within)]
    return found


def _spatially_padded(x: Array, before: Size, after: Size, fill: Any) -> Array:
    return padded(x, (0, 0, *before), (0, 0, *after), fill)
