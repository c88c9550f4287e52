"""Batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_array,
    as_lengths,
    as_shape,
    check_flag,
    check_number,
    check_size,
    float_dtype,
)
from ..module import Module, Pullback, check_width, once
from ..parameters import Arrays


class BatchNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias (Ioffe and Szegedy 2015, algorithm 1).

    x: `(..., num_features)`; mean and variance are those of each feature over all other axes. A
    call uses the running ones, the buffers `running_mean` (at first zero) and `running_var` (one).
    `vjp` uses those of x, with the biased variance, and moves the running ones by `momentum`
    towards them, the variance being the unbiased one then, as in torch. The parameters are `weight`
    (at first one) and `bias` (zero), or none without `affine`.

    lengths: `(B,)` for x `(T, B, num_features)`, or `(B, T, num_features)` with `batch_first`; what
    is past them does not count in the statistics.
    """

    pointwise = True
    takes_lengths = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        batch_first: bool | None = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        self.num_features = check_size("num_features", num_features)
        self.eps, self.dtype = check_number("eps", eps), float_dtype(dtype)
        self.momentum = check_number("momentum", momentum)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.affine = check_flag("affine", affine)
        self.batch_first = (
            batch_first if batch_first is None else check_flag("batch_first", batch_first)
        )
        ones = np.ones(self.num_features, self.dtype)
        super().__init__({"weight": ones, "bias": np.zeros_like(ones)} if self.affine else {})
        self._buffers = Arrays({"running_mean": np.zeros_like(ones), "running_var": ones.copy()})

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.num_features)
        return self.num_features

    def folded(self) -> tuple[Array, Array]:
        """Return scale and shift of a call, y = x * scale + shift, both `(num_features,)`."""
        mean, variance = self._buffers["running_mean"], self._buffers["running_var"]
        scale = 1 / np.sqrt(variance + self.dtype.type(self.eps))
        if not self.affine:
            return scale, -mean * scale
        scale = scale * self._params["weight"]
        return scale, self._params["bias"] - mean * scale

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return y for x, by the running statistics."""
        scale, shift = self.folded()
        y: Array = self._taken(x) * scale
        y += shift
        return y

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return y by the statistics of x, and the pullback from dy to dx; keeps x."""
        x = self._taken(x)
        counts = self._counting(x, lengths)
        rows = x[counts] if counts is not None else x.reshape(-1, self.num_features)
        if len(rows) < 2:
            raise ValueError(f"x must have at least two rows to train on, got shape {x.shape}")
        mean, variance = _moments(rows)
        self._move(mean, variance * (len(rows) / (len(rows) - 1)))
        scale = 1 / np.sqrt(variance + self.dtype.type(self.eps))
        normal = (x - mean) * scale
        weight = self._params["weight"] if self.affine else None
        y = normal if weight is None else normal * weight + self._params["bias"]

        def pullback(dy: npt.ArrayLike) -> Array:
            d = np.ascontiguousarray(as_shape("dy", dy, y.dtype, y.shape))
            every, flat = normal.reshape(-1, self.num_features), d.reshape(-1, self.num_features)
            bias, gain = np.einsum("ij->j", flat), np.einsum("ij,ij->j", flat, every)
            if self.affine:
                self.grads["bias"] += bias
                self.grads["weight"] += gain
            inner = bias / len(rows) + normal * (gain / len(rows))
            if counts is not None:
                inner[~counts] = 0
            dx: Array = (d - inner) * (scale if weight is None else scale * weight)
            return dx

        return y, once(pullback)

    def _taken(self, x: npt.ArrayLike) -> Array:
        x = as_array("x", x, self.dtype)
        if x.ndim < 1 or x.shape[-1] != self.num_features:
            raise ValueError(f"x must have shape (..., {self.num_features}), got {x.shape}")
        return x

    def _counting(self, x: Array, lengths: Any) -> Array | None:
        """Return which rows of x count in the statistics; None: all."""
        if lengths is None:
            return None
        if x.ndim != 3:
            raise ValueError(f"lengths need x of three axes, got shape {x.shape}")
        steps, batch = x.shape[:2][:: -1 if self.batch_first else 1]
        ends = as_lengths(lengths, steps, batch)
        assert ends is not None
        alive = np.arange(steps)[:, None] < ends
        return alive.T if self.batch_first else alive

    def _move(self, mean: Array, variance: Array) -> None:
        for name, now in (("running_mean", mean), ("running_var", variance)):
            kept = self._buffers[name]
            kept += self.dtype.type(self.momentum) * (now - kept)


def _moments(rows: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each column."""
    mean = np.einsum("ij->j", rows) / len(rows)
    centred = rows - mean
    return mean, np.einsum("ij,ij->j", centred, centred) / len(rows)
