"""Operators of quantised models: whole numbers with scales, as ONNX Runtime's quantiser has them.

What a file rounds by scales that it holds is computed as it says. Where weights in 8 bits meet
activations that are rounded as they come, our kernels for int8 compute: `within` says which weights
they take; others are made float32, and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...arrays import Array
from ...layers.linear import Linear
from ...precision import hold_int8
from .. import common
from ..common import refusal
from .recurrent import Recurrent
from .weights import read_weights

MICROSOFT = "com.microsoft."
LSTM, PRODUCT = f"{MICROSOFT}DynamicQuantizeLSTM", f"{MICROSOFT}DynamicQuantizeMatMul"
#: Rows of a table in few bits: no operator of ONNX's, but what `fusing` makes of several.
ROWS = "rnncore.Rows"

_TYPES = ("int8", "uint8", "int16", "uint16", "int32")


def _along(values: Array, axis: int, ndim: int) -> Array:
    """A single value, or one for each place along an axis, so that it broadcasts."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim != 1:
        raise ValueError(f"scales and zero points must have one axis, got shape {values.shape}")
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def _centred(x: Array, zero: Array | None, axis: int) -> Array:
    """Whole numbers without their zero point."""
    if x.dtype not in _TYPES:
        raise ValueError(f"rnncore cannot represent quantised numbers in {x.dtype}")
    wide = x.astype(np.int32)
    return wide if zero is None else wide - _along(zero, axis, x.ndim).astype(np.int32)


def _check_plain(**options: int) -> None:
    for name, value in options.items():
        if value:
            raise ValueError(f"rnncore cannot represent {name}={value}")


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
    _check_plain(block_size=block_size, output_dtype=output_dtype)
    whole = _centred(x, zero, axis)
    y: Array = whole.astype(scale.dtype) * _along(scale, axis, x.ndim)
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
    _check_plain(block_size=block_size, output_dtype=output_dtype, precision=precision)
    zero = np.zeros((), np.uint8) if zero is None else zero
    if zero.dtype not in _TYPES[:-1]:
        raise ValueError(f"rnncore cannot represent quantised numbers in {zero.dtype}")
    whole = np.rint(x / _along(scale, axis, x.ndim)) + _along(zero, axis, x.ndim).astype(x.dtype)
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
    rows, columns = _centred(a, a_zero, -2), _centred(b, b_zero, -1)
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
    scale = _along(a_scale, -2, sums.ndim) * _along(b_scale, -1, sums.ndim)
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


OPERATORS: dict[str, Callable[..., Any]] = {
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize_linear,
    f"{MICROSOFT}MatMulIntegerToFloat": _matmul_integer_to_float,
    ROWS: rows,
}


def within(whole: Array) -> Array | None:
    """Weights without their zero point as int8, if a scale a row of ours is no coarser than theirs.

    None where one is beyond +-127: of numbers without a sign that need all of 0..255, half would be
    lost.
    """
    if np.abs(whole).max(initial=0) > 127:
        return None
    return whole.astype(np.int8)


class Product:
    """A node `DynamicQuantizeMatMul`: X, B, its scales, zero points and a bias -> X B + bias."""

    def __init__(self, where: str, b: Array, scale: Array, zero: Array | None) -> None:
        if b.ndim != 2 or b.dtype not in ("int8", "uint8") or not b.size:
            raise refusal("rnncore", f"{where}: weights in {b.dtype} of shape {b.shape}")
        self.linear = Linear(b.shape[0], b.shape[1], bias=False)
        common.filled(self.linear, {"weight": dequantize_linear(b, scale, zero).T})
        held = within(_centred(b, zero, 1))
        if held is not None:
            scales = np.broadcast_to(_along(scale, 0, 1), (b.shape[1],))
            hold_int8(self.linear, {"weight": (held.T, scales)})

    def __call__(
        self, x: Array, b: Array, scale: Array, zero: Any = None, bias: Array | None = None
    ) -> tuple[Array]:
        """Return y alone: the weights are those that it was made with."""
        y = self.linear(x)
        return (y if bias is None else y + bias,)


class QuantisedLSTM(Recurrent):
    """A node `DynamicQuantizeLSTM`, whose weights lie as X meets them: `(D, I, 4 H)`."""

    def __init__(
        self, where: str, attributes: Mapping[str, Any], given: list[Array | None]
    ) -> None:
        w, r, b, p, w_scale, w_zero, r_scale, r_zero = given
        if w is None or r is None or w_scale is None or r_scale is None:
            raise ValueError(f"{where}: W, R and their scales must be there")
        whole, scales = [], []
        for array, scale, zero in ((w, w_scale, w_zero), (r, r_scale, r_zero)):
            if array.ndim != 3 or array.dtype not in ("int8", "uint8"):
                raise refusal("rnncore", f"{where}: weights in {array.dtype}, {array.ndim} axes")
            turned = array.swapaxes(1, 2)
            zeros = 0 if zero is None else _of_rows(where, zero, turned.shape).astype(np.int16)
            whole.append(turned.astype(np.int16) - zeros)
            scales.append(_of_rows(where, scale, turned.shape))
        floats = [q.astype(np.float32) * s for q, s in zip(whole, scales, strict=True)]
        super().__init__(where, "LSTM", attributes, [*floats, b, p])
        held = [within(q) for q in whole]
        if held[0] is not None and held[1] is not None:
            self._hold(held, scales)

    def _hold(self, held: list[Any], scales: list[Array]) -> None:
        ints, steps = (
            [
                read_weights(self.kind, self.coupled, w, r, None, None)
                for w, r in zip(*pair, strict=True)
            ]
            for pair in (held, scales)
        )
        for part, named, of_rows in zip(
            self.parts, self.by_part(ints), self.by_part(steps), strict=True
        ):
            hold_int8(part.layer, {n: (array, of_rows[n][:, 0]) for n, array in named.items()})


def _of_rows(where: str, values: Array, shape: tuple[int, ...]) -> Array:
    """Scales or zero points, one a direction or one a row: `(D, 4 H, 1)`."""
    count, gates = shape[:2]
    if values.size != count and values.shape != (count, gates):
        raise ValueError(
            f"{where}: scales and zero points must be {(count,)} or {(count, gates)}, "
            f"got {values.shape}"
        )
    return np.broadcast_to(values.reshape(count, -1, 1), (count, gates, 1))
