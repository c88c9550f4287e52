"""Rectified units whose slope below zero is learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_number, check_size, float_dtype, take_room
from ..compiled import HoldsCompiled, core
from ..module import Module, Pullback, once
from ..stream.stages import Stage, Stages
from ..widths import check_width


class PReLU(HoldsCompiled, Module):
    """y = x where x > 0, else a x (He et al. 2015, equation 1): `(..., n)` to `(..., n)`.

    Parameter: `weight (num_parameters,)`, the slopes a, at first `init`: one for all numbers, or
    one for each of the last axis, which torch's layer has in its second.
    """

    pointwise = True

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: npt.DTypeLike = "float32"
    ) -> None:
        self.num_parameters = check_size("num_parameters", num_parameters)
        self.init, self.dtype = check_number("init", init), float_dtype(dtype)
        take_room((self.num_parameters,))
        super().__init__({"weight": np.full(self.num_parameters, self.init, self.dtype)})
        self._build()

    def _build(self) -> None:
        self.kernels = core(self.dtype).Slopes(self._params["weight"])

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layer."""
        width = self.num_parameters if self.num_parameters > 1 else None
        return Stages(width, None, [Stage(self.kernels)])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        if self.num_parameters == 1:
            return width
        check_width(width, self.num_parameters)
        return self.num_parameters

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        return self.kernels.forward(self._checked(x))

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x, and reads the slopes again."""
        x = self._checked(x)

        def pullback(dy: npt.ArrayLike) -> Array:
            # Summed in the order of the rows, however they lie in memory.
            dx, below = np.array(as_shape("dy", dy, self.dtype, x.shape), order="C"), ~(x > 0)
            given = np.ascontiguousarray(np.where(below, x, 0))
            rows, weight = (-1, self.num_parameters), self._params["weight"]
            self.grads["weight"] += np.einsum("ij,ij->j", dx.reshape(rows), given.reshape(rows))
            np.multiply(dx, weight.reshape(weight.shape[: x.ndim]), out=dx, where=below)
            return dx

        return self.kernels.forward(x), once(pullback)

    def _checked(self, x: npt.ArrayLike) -> Array:
        x = as_array("x", x, self.dtype)
        if self.num_parameters > 1 and x.shape[-1:] != (self.num_parameters,):
            raise ValueError(f"x must have shape (..., {self.num_parameters}), got {x.shape}")
        return x
