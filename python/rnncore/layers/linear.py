"""y = x W^T + b."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import Array, as_array, as_shape, check_size, float_dtype
from ..compiled import core
from ..init import Seed
from ..module import Pullback, once
from ..precision import HoldsWeights
from ..stream.stages import Stage, Stages
from ..widths import check_width


class Linear(HoldsWeights):
    """y = x W^T + b over the last axis: `(..., in_features)` to `(..., out_features)`.

    Parameters: `weight (out_features, in_features)` and, with `bias`, `bias (out_features,)`; at
    first uniform in +-1/sqrt(in_features), torch's default.
    """

    pointwise = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.bias, self.dtype = bias, float_dtype(dtype)
        rng, bound = np.random.default_rng(seed), 1 / math.sqrt(in_features)
        shapes: dict[str, tuple[int, ...]] = {"weight": (out_features, in_features)}
        if bias:
            shapes["bias"] = (out_features,)
        super().__init__(
            {name: init.uniform(rng, shape, bound, self.dtype) for name, shape in shapes.items()}
        )
        self._build()

    def _build(self) -> None:
        sizes = self.in_features, self.out_features
        self.kernels = core(self.dtype).Linear(
            *sizes, *self._arrays(), owned=True, weights=self._weights_in()
        )

    def _lend(self) -> None:
        self.kernels.lend()

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layer."""
        return Stages(self.in_features, None, [Stage(self.kernels)])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.in_features)
        return self.out_features

    def weights(self) -> tuple[Array, Array | None]:
        """Return weight and bias."""
        self._lend()
        return self._arrays()

    def _arrays(self) -> tuple[Array, Array | None]:
        params = self.float_params()
        return params["weight"], params.get("bias")

    def gradients(self) -> tuple[Array, Array | None]:
        """Return the gradients of weight and bias, to add to."""
        grads = self._own_grads()
        return grads["weight"], grads.get("bias")

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        rows, shape = self._rows(x)
        y: Array = self.kernels.forward(rows)
        return y.reshape(*shape, self.out_features)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x, and reads the weights again."""
        self._check_trains()
        rows, shape = self._rows(x)

        def pullback(dy: npt.ArrayLike) -> Array:
            dy = as_shape("dy", dy, self.dtype, (*shape, self.out_features))
            dy = dy.reshape(-1, self.out_features)
            dx: Array = self.kernels.backward(rows, dy, *self.gradients())
            return dx.reshape(*shape, self.in_features)

        return self.kernels.forward(rows).reshape(*shape, self.out_features), once(pullback)

    def _rows(self, x: npt.ArrayLike) -> tuple[Array, tuple[int, ...]]:
        x = as_array("x", x, self.dtype)
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have shape (..., {self.in_features}), got {x.shape}")
        return x.reshape(-1, self.in_features), x.shape[:-1]
