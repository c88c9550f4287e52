"""Resize and Upsample: the nearest numbers, or straight lines between neighbours, axis by axis.

Places are computed in float32, as ONNX Runtime and PyTorch do: where a number stands in the middle,
or on the edge of the next, the rounding decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Operator, Size, check_plain, whole

_Places = Callable[[Any, Any, Any, Any], Any]
_HALF = np.float32(0.5)

#: Where the numbers 0.. of an output lie in the input, by the scale and both sizes.
_COORDINATES: dict[str, _Places] = {
    "half_pixel": lambda at, scale, old, new: (at + _HALF) / scale - _HALF,
    "pytorch_half_pixel": lambda at, scale, old, new: (
        (at + _HALF) / scale - _HALF if new > 1 else at * 0
    ),
    "half_pixel_symmetric": lambda at, scale, old, new: (
        np.float32(old / 2 * (1 - new / (scale * old))) + (at + _HALF) / scale - _HALF
    ),
    "asymmetric": lambda at, scale, old, new: at / scale,
    "align_corners": lambda at, scale, old, new: (
        at * np.float32(old - 1) / np.float32(new - 1) if new > 1 else at * 0
    ),
}
_ROUNDED: dict[str, Callable[[Any], Any]] = {
    "round_prefer_floor": lambda place: np.ceil(place - _HALF),
    "round_prefer_ceil": lambda place: np.floor(place + _HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resized_sizes(x: Array, scales: Any, sizes: Any, axes: Any) -> tuple[Size, list[Any]]:
    """The sizes of an output by axis, and the scales that lead there."""
    along = range(x.ndim) if axes is None else [axis % x.ndim for axis in whole(axes)]
    named = sizes if sizes is not None and np.size(sizes) else scales
    if named is None or len(named) != len(along):
        raise ValueError(f"scales or sizes must be {len(along)} numbers")
    new, factors = list(x.shape), [np.float32(1)] * x.ndim
    for axis, value in zip(along, named, strict=True):
        old = x.shape[axis]
        if named is sizes:
            new[axis] = int(value)
            factors[axis] = np.float32(new[axis] / old if old else 1)
        else:
            factors[axis] = np.float32(value)
            new[axis] = int(np.floor(np.float32(old) * factors[axis]))
    if min(new, default=0) < 0 or min(factors, default=1) <= 0:
        raise ValueError(f"scales must be above 0, sizes at least 0, got {list(named)!s:.80}")
    return tuple(new), factors


def _resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    axes: Sequence[int] | None = None,
    antialias: int = 0,
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
) -> Array:
    if mode not in ("nearest", "linear") or coordinate_transformation_mode not in _COORDINATES:
        raise ValueError(
            f"rnncore cannot represent Resize with mode={mode!r}, "
            f"coordinate_transformation_mode={coordinate_transformation_mode!r}"
        )
    if keep_aspect_ratio_policy != "stretch":
        check_plain(keep_aspect_ratio_policy=keep_aspect_ratio_policy)
    check_plain(antialias=antialias)
    rounded = _ROUNDED[nearest_mode] if mode == "nearest" else None
    new, factors = resized_sizes(x, scales, sizes, axes)
    for axis, size in enumerate(new):
        if size != x.shape[axis] or factors[axis] != 1:
            at = np.arange(size, dtype=np.float32)
            places = _COORDINATES[coordinate_transformation_mode](
                at, factors[axis], x.shape[axis], size
            )
            x = _along(x, axis, places, rounded)
    return x


def _along(x: Array, axis: int, places: Array, rounded: Callable[[Any], Any] | None) -> Array:
    """Numbers of one axis at places between them."""
    last = x.shape[axis] - 1
    if rounded is not None:
        nearest: Array = np.take(x, np.clip(rounded(places), 0, last).astype(np.int64), axis)
        return nearest
    places = np.clip(places, 0, last)
    low = np.floor(places).astype(np.int64)
    share = (places - low).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    below, above = (np.take(x, np.minimum(at, last), axis) for at in (low, low + 1))
    y: Array = below * (1 - share) + above * share
    return y.astype(x.dtype)


def _upsample(
    x: Array,
    given: Array | None = None,
    *,
    mode: str = "nearest",
    scales: Sequence[float] | None = None,
) -> Array:
    """What Resize was before version 11."""
    factors = np.asarray(scales if given is None else given, np.float32)
    return _resize(
        x,
        scales=factors,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


OPERATORS: dict[str, Operator] = {"Resize": _resize, "Upsample": _upsample}

#: What operators were called here in versions before the one given.
EARLIER = {"Resize": (11, "Upsample")}
