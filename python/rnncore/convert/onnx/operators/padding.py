"""Pads around an array, which may be negative: then they cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Size, axes_of

_MODES = ("constant", "reflect", "edge", "wrap")


def pads_of(
    x: Array,
    given: Array | None,
    axes: Array | None,
    pads: Sequence[int] | None,
) -> tuple[Size, Size]:
    """How much comes before and behind each axis."""
    both = axes_of(given, pads) or ()
    along = axes_of(axes, None)
    along = tuple(range(x.ndim)) if along is None else along
    if len(both) != 2 * len(along):
        raise ValueError(f"pads must be {2 * len(along)} numbers, got {len(both)}")
    before, after = [0] * x.ndim, [0] * x.ndim
    for at, axis in enumerate(along):
        before[axis], after[axis] = both[at], both[at + len(along)]
    return tuple(before), tuple(after)


def pad(
    x: Array,
    given: Array | None = None,
    fill: Array | None = None,
    axes: Array | None = None,
    *,
    mode: str = "constant",
    pads: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    value: float = 0.0,
) -> Array:
    """The operator Pad; `pads`, once `paddings`, and `value` were attributes before version 11."""
    if mode not in _MODES:
        raise ValueError(f"rnncore cannot represent Pad with mode={mode!r}")
    before, after = pads_of(x, given, axes, pads if paddings is None else paddings)
    number = value if fill is None or not fill.size else fill.reshape(-1)[0]
    return padded(x, before, after, number, mode)


def padded(x: Array, before: Size, after: Size, fill: Any = 0, mode: str = "constant") -> Array:
    """Cut off what negative pads say, then add what the others say."""
    inner = tuple(
        slice(max(0, -front), max(0, size + min(0, back)))
        for size, front, back in zip(x.shape, before, after, strict=True)
    )
    x = x[inner]
    widths = [(max(0, front), max(0, back)) for front, back in zip(before, after, strict=True)]
    if not any(map(any, widths)):
        return x
    options = {"constant_values": np.asarray(fill, x.dtype)} if mode == "constant" else {}
    return np.pad(x, widths, mode, **options)  # type: ignore[call-overload, no-any-return]
