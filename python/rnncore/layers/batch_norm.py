"""Batch normalisation."""

from __future__ import annotations

import math
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
    take_room,
)
from ..module import Module, Pullback, once
from ..parameters import Arrays
from ..widths import check_width
from .sums import summed


class BatchNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias (Ioffe and Szegedy 2015, algorithm 1).

    x: `(..., num_features)`; mean and variance are those of each feature over all other axes. A
    call uses the running ones, the buffers `running_mean` (at first zero) and `running_var` (one).
    `vjp` uses those of x, with the biased variance, and moves the running ones by `momentum`
    towards them, the variance being the unbiased one then, as in torch. The parameters are `weight`
    (at first one) and `bias` (zero), or none without `affine`.

    lengths: `(B,)` for x `(T, B, num_features)`, or `(B, T, num_features)` with `batch_first`,
    which must be given for them; what is past them does not count in the statistics, and is zero in
    y.
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
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"eps must be at least 0, got {eps}")
        self.momentum = check_number("momentum", momentum)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.affine = check_flag("affine", affine)
        self.batch_first = (
            batch_first if batch_first is None else check_flag("batch_first", batch_first)
        )
        take_room((self.num_features,))
        ones = np.ones(self.num_features, self.dtype)
        super().__init__({"weight": ones, "bias": np.zeros_like(ones)} if self.affine else {})
        self._buffers = Arrays({"running_mean": np.zeros_like(ones), "running_var": ones.copy()})

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.num_features)
        return self.num_features

    def folded(self) -> tuple[Array, Array]:
        """Return scale and shift of a call, y = x * scale + shift, both `(num_features,)`."""
        scale = self._scale(self._own(self._buffers, "running_var"))
        shift = -self._own(self._buffers, "running_mean") * scale
        return (scale, shift + self._own(self._params, "bias")) if self.affine else (scale, shift)

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return y for x, by the running statistics."""
        scale, shift = self.folded()
        x = self._taken(x)
        y: Array = x * scale
        y += shift
        return _cleared(y, self._counting(x, lengths))

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return y by the statistics of x, and the pullback from dy to dx; keeps x.

        Raises `ValueError` for a single row, which has no variance. Where there is none y is empty,
        and the running statistics stay.
        """
        x = self._taken(x)
        counts = self._counting(x, lengths)
        rows = x[counts] if counts is not None else x.reshape(-1, self.num_features)
        if len(rows) == 1:
            raise ValueError(f"x must have at least two rows to train on, got shape {x.shape}")
        mean, variance = _moments(rows)
        if len(rows):
            self._move(mean, variance * (len(rows) / (len(rows) - 1)))
        normal = _cleared((x - mean) / np.sqrt(variance + self.dtype.type(self.eps)), counts)
        scale = self._scale(variance)
        y = normal * self._own(self._params, "weight") if self.affine else normal
        if self.affine:
            y = _cleared(y + self._own(self._params, "bias"), counts)

        def pullback(dy: npt.ArrayLike) -> Array:
            d = _cleared(as_shape("dy", dy, y.dtype, y.shape), counts)
            flat, each = (a.reshape(-1, self.num_features) for a in (d, normal))
            bias, gain = summed(flat), summed(flat, each)
            if self.affine:
                self.grads["bias"] += bias
                self.grads["weight"] += gain
            inner = (bias + normal * gain) / max(len(rows), 1)
            dx: Array = (d - inner) * scale
            return _cleared(dx, counts)

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
        if x.ndim not in (2, 3):
            raise ValueError(f"lengths need x of two or three axes, got shape {x.shape}")
        if x.ndim == 3 and self.batch_first is None:  # T may be B
            raise ValueError("lengths need batch_first, True or False: give it to the BatchNorm")
        steps, batch = (len(x), 1) if x.ndim == 2 else x.shape[:2][:: -1 if self.batch_first else 1]
        ends = as_lengths(lengths, steps, batch)
        assert ends is not None
        alive: Array = np.arange(steps)[:, None] < ends
        return alive[:, 0] if x.ndim == 2 else alive.T if self.batch_first else alive

    def _scale(self, variance: Array) -> Array:
        """Return what a number less its mean is multiplied by."""
        scale: Array = 1 / np.sqrt(variance + self.dtype.type(self.eps))
        return scale * self._own(self._params, "weight") if self.affine else scale

    def _own(self, arrays: Arrays, name: str) -> Array:
        """Return an array that nobody has resized, which NumPy would spread over features."""
        array = arrays[name]
        if array.shape != (self.num_features,) or array.dtype != self.dtype:
            raise ValueError(
                f"{name} must stay the array that it was, {self.dtype} of shape "
                f"({self.num_features},), got {array.dtype} {array.shape}"
            )
        return array

    def _move(self, mean: Array, variance: Array) -> None:
        for name, now in (("running_mean", mean), ("running_var", variance)):
            kept = self._own(self._buffers, name)
            kept += self.dtype.type(self.momentum) * (now - kept)


def _moments(rows: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each column."""
    count = max(len(rows), 1)
    mean = summed(rows) / count
    centred = rows - mean
    return mean, summed(centred, centred) / count


def _cleared(rows: Array, counts: Array | None) -> Array:
    """Return rows with zeros where they do not count."""
    return rows if counts is None else np.where(counts[..., None], rows, rows.dtype.type(0))
