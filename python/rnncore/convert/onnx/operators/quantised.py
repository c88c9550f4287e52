"""Whole numbers with scales, as quantised models have them, computed as the standard says."""

from __future__ import annotations

import numpy as np

from ....arrays import Array
from .arguments import Operator, check_plain

MICROSOFT = "com.microsoft."
#: Rows of a table in few bits: no operator of ONNX's, but what `fusing` makes of several.
ROWS = "rnncore.Rows"

_TYPES = ("int8", "uint8", "int16", "uint16", "int32")


def along(values: Array, axis: int, ndim: int) -> Array:
    """A single value, or one for each place along an axis, so that it broadcasts."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim != 1:
        raise ValueError(f"scales and zero points must have one axis, got shape {values.shape}")
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def centred(x: Array, zero: Array | None, axis: int) -> Array:
    """Whole numbers without their zero point."""
    if x.dtype not in _TYPES:
        raise ValueError(f"rnncore cannot represent quantised numbers in {x.dtype}")
    wide = x.astype(np.int32)
    return wide if zero is None else wide - along(zero, axis, x.ndim).astype(np.int32)


def dequantize_linear(
    x: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """(x - zero) scale, in the type of the scale."""
    check_plain(block_size=block_size, output_dtype=output_dtype)
    whole = centred(x, zero, axis)
    y: Array = whole.astype(scale.dtype) * along(scale, axis, x.ndim)
    return y


def _quantize_linear(
    x: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    check_plain(block_size=block_size, output_dtype=output_dtype, precision=precision)
    zero = np.zeros((), np.uint8) if zero is None else zero
    if zero.dtype not in _TYPES[:-1]:
        raise ValueError(f"rnncore cannot represent quantised numbers in {zero.dtype}")
    whole = np.rint(x / along(scale, axis, x.ndim)) + along(zero, axis, x.ndim).astype(x.dtype)
    ends = np.iinfo(zero.dtype)
    y: Array = np.clip(whole, ends.min, ends.max).astype(zero.dtype)
    return y


def _dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """The numbers, their scale and zero point, so that 0 and all of x lie within 0..255."""
    low, high = x.min(initial=0), x.max(initial=0)
    scale = np.float32(high - low) / np.float32(255) if high > low else np.float32(1)
    zero = np.rint(np.clip(-low / scale, 0, 255)).astype(np.uint8)
    return _quantize_linear(x, np.asarray(scale), zero), np.asarray(scale), zero


def _matmul_integer(
    a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
) -> Array:
    rows, columns = centred(a, a_zero, -2), centred(b, b_zero, -1)
    # float64 holds sums of such products exactly, and has fast ones.
    y: Array = np.matmul(rows.astype(np.float64), columns.astype(np.float64))
    return y.astype(np.int64).astype(np.int32)


def _matmul_integer_to_float(
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero: Array | None = None,
    b_zero: Array | None = None,
    bias: Array | None = None,
) -> Array:
    sums = _matmul_integer(a, b, a_zero, b_zero)
    scale = along(a_scale, -2, sums.ndim) * along(b_scale, -1, sums.ndim)
    y: Array = sums.astype(np.float32) * scale
    return y if bias is None else y + bias


def rows(
    table: Array, indices: Array, scale: Array | None = None, zero: Array | None = None
) -> Array:
    """Rows of a table, as float32; scale: a single one, or one for each row `(N, 1)`."""
    size = len(table)
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise ValueError(f"indices must be in {-size}..{size - 1}")
    found = np.take(table, indices, 0)
    if scale is None:
        return found.astype(np.float32)
    if scale.size == 1:
        return dequantize_linear(found, scale, zero)
    y: Array = found.astype(np.float32) * np.take(scale, indices, 0)
    return y


OPERATORS: dict[str, Operator] = {
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize_linear,
    f"{MICROSOFT}MatMulIntegerToFloat": _matmul_integer_to_float,
    ROWS: rows,
}
