"""Products and recurrences of quantised models, as ONNX Runtime's quantiser has them.

What a file rounds by scales that it holds is computed as it says, by `operators.quantised`. Where
weights in 8 bits meet activations that are rounded as they come, our kernels for int8 compute:
`within` says which weights they take; others are made float32, and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...arrays import Array
from ...layers.linear import Linear
from ...precision import hold_int8
from .. import common
from ..common import refusal
from .operators.quantised import MICROSOFT, along, centred, dequantize_linear
from .recurrent import Recurrent
from .weights import read_weights

LSTM, PRODUCT = f"{MICROSOFT}DynamicQuantizeLSTM", f"{MICROSOFT}DynamicQuantizeMatMul"


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
        held = within(centred(b, zero, 1))
        if held is not None:
            scales = np.broadcast_to(along(scale, 0, 1), (b.shape[1],))
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
