"""Layer normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_number, check_size, float_dtype, take_room
from ..compiled import HoldsCompiled, core
from ..module import Module, Pullback, once
from ..stream.stages import Stage, Stages
from ..widths import check_width


class LayerNorm(HoldsCompiled, Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016, equation 4).

    Mean and (biased) variance are taken over the last axes, whose shape is `normalized_shape`, and
    so is that of the parameters `weight` (at first one) and `bias` (zero).
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        *,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        several = isinstance(normalized_shape, (tuple, list))
        shape: Any = normalized_shape if several else (normalized_shape,)
        self.normalized_shape = tuple(check_size("normalized_shape", size) for size in shape)
        if not self.normalized_shape:
            raise ValueError("normalized_shape must name at least one axis")
        self.pointwise = len(self.normalized_shape) == 1
        self.eps, self.dtype = check_number("eps", eps), float_dtype(dtype)
        take_room(self.normalized_shape)
        ones = np.ones(self.normalized_shape, self.dtype)
        super().__init__({"weight": ones, "bias": np.zeros_like(ones)})
        self._build()

    def _build(self) -> None:
        weight, bias = self._params["weight"], self._params["bias"]
        self.kernels = core(self.dtype).Norm(weight, bias, self.eps)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layer."""
        if not self.pointwise:
            raise TypeError(f"LayerNorm cannot run as a stream over axes {self.normalized_shape}")
        return Stages(self.normalized_shape[0], None, [Stage(self.kernels)])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.normalized_shape[-1])
        return self.normalized_shape[-1]

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        x = as_array("x", x, self.dtype)
        if x.shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ValueError(f"x must end with axes {self.normalized_shape}, got shape {x.shape}")
        y: Array = self.kernels.forward(x.reshape(-1, math.prod(self.normalized_shape)))
        return y.reshape(x.shape)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        y, x = self(x), as_array("x", x, self.dtype)
        shape, size = x.shape, math.prod(self.normalized_shape)
        weight = self._params["weight"]

        def pullback(dy: npt.ArrayLike) -> Array:
            # Summed in the order of the rows, however they lie in memory.
            dy = np.ascontiguousarray(as_shape("dy", dy, self.dtype, shape)).reshape(-1, size)
            normal, scale = self._normalise(x.reshape(-1, size))
            self.grads["weight"] += np.einsum("ij,ij->j", dy, normal).reshape(weight.shape)
            self.grads["bias"] += _column_sums(dy).reshape(weight.shape)
            dx = dy * weight.reshape(-1)
            along = np.einsum("ij,ij->i", dx, normal) / size
            dx -= dx.mean(axis=-1, keepdims=True)
            dx -= normal * along[:, None]
            dx *= scale
            return dx.reshape(shape)

        return y, once(pullback)

    def _normalise(self, rows: Array) -> tuple[Array, Array]:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", centred, centred) / rows.shape[1]
        scale = (1 / np.sqrt(variance + self.eps))[:, None]
        centred *= scale
        return centred, scale


def _column_sums(rows: Array) -> Array:
    """Sum over the first axis, as a product: 2 to 4 times as fast and as accurate as `sum`."""
    return np.ones(len(rows), rows.dtype) @ rows
