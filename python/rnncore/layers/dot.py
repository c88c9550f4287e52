"""Scalar products of two arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_shape, check_flag, check_integer, short
from ..module import Module, Pullback, once
from .merge import alike


class Dot(Module):
    """Scalar products of two arrays, the batch first: `(B, ...)`, `(B, ...)` to `(B, ..., ...)`.

        y[b, i..., j...] = sum_k x1[b, i..., k] x2[b, j..., k]

    axes: the axis of each that is summed over, counted with that of the batch, or one number for
    both. What is left of x1 comes before what is left of x2; if nothing is, y is `(B, 1)`.
    normalize: each vector is divided by its length (at least 1e-6) first, so that y holds cosines.
    """

    batch_first = True
    takes_lengths = False
    keeps_steps = False

    def __init__(self, axes: int | Sequence[int] = -1, normalize: bool = False) -> None:
        super().__init__()
        several = isinstance(axes, (tuple, list))
        pair: Any = axes if several else (axes, axes)
        if len(pair) != 2:
            raise ValueError(f"axes must be an axis or a pair of axes, got {short(axes)}")
        self.axes = tuple(check_integer("axes", axis) for axis in pair)
        self.normalize = check_flag("normalize", normalize)

    def __call__(self, x1: npt.ArrayLike, x2: npt.ArrayLike) -> Array:
        """Return y."""
        return self.vjp(x1, x2)[0]

    def vjp(self, x1: npt.ArrayLike, x2: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to the pair of gradients; keeps both arrays."""
        given = alike((x1, x2))
        rows, backs = zip(*map(self._rows, ("x1", "x2"), given, self.axes), strict=True)
        a, b = rows
        if len(a) != len(b) or a.shape[2] != b.shape[2]:
            shapes = f"{given[0].shape} and {given[1].shape}"
            raise ValueError(f"x1 and x2 must agree along the batch and axes {self.axes}: {shapes}")
        y = a @ b.swapaxes(1, 2)
        left = [n for x, axis in zip(given, self.axes, strict=True) for n in _without(x, axis)]
        shape = (len(a), *(left or [1]))

        def pullback(dy: npt.ArrayLike) -> tuple[Array, Array]:
            d = np.ascontiguousarray(as_shape("dy", dy, a.dtype, shape)).reshape(y.shape)
            return backs[0](d @ b), backs[1](d.swapaxes(1, 2) @ a)

        return y.reshape(shape), once(pullback)

    def _rows(self, name: str, x: Array, axis: int) -> tuple[Array, Callable[[Array], Array]]:
        """The vectors that are multiplied, `(B, n, K)`, and the pullback to x."""
        if not -x.ndim < axis < x.ndim or axis == 0:
            raise ValueError(f"{name} must have an axis {axis} behind the batch's, got {x.shape}")
        moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))  # sums in one order
        rows = moved.reshape(
            len(x), -1 if x.size else math.prod(moved.shape[1:-1]), moved.shape[-1]
        )
        unit, back = _normalized(rows) if self.normalize else (rows, lambda d: d)
        return unit, lambda d: np.moveaxis(back(d).reshape(moved.shape), -1, axis)


def _normalized(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Vectors divided by their lengths, and the pullback."""
    squares = np.einsum("...k,...k->...", x, x)[..., None]
    short_ones, scale = squares < 1e-12, 1 / np.sqrt(np.maximum(squares, x.dtype.type(1e-12)))
    y: Array = x * scale

    def back(dy: Array) -> Array:
        along = np.einsum("...k,...k->...", dy, y)[..., None]
        dx: Array = scale * (dy - np.where(short_ones, x.dtype.type(0), along) * y)
        return dx

    return y, back


def _without(x: Array, axis: int) -> tuple[int, ...]:
    """The sizes of the axes but the first and this one."""
    at = axis % x.ndim
    return (*x.shape[1:at], *x.shape[at + 1 :])
