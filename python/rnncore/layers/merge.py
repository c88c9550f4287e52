"""Several arrays made into one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_shape, check_choice, check_flag, check_integer, short
from ..module import Module, Pullback, once

#: What becomes of several arrays, and the pullback from its gradient to theirs.
Merged = tuple[Array, Callable[[Array], Sequence[Array]]]


class Merge(Module):
    """Several arrays made into one: `y = merge(a, b, ...)`, of one dtype and number of axes.

    how: "sum", "mean", "mul", "max" or "min" of all; "subtract", a - b of two; "concat", one after
    the other along `axis`. All but "concat" broadcast axes of size 1, as NumPy does. The pullback
    returns a tuple of gradients, one for each array; that of "max" and "min" goes to the first of
    equal numbers.
    """

    def __init__(self, how: str = "sum", axis: int = -1) -> None:
        super().__init__()
        self.how = check_choice("how", how, HOW)
        self.axis = check_integer("axis", axis)
        self.pointwise = self.keeps_steps = how != "concat" or axis == -1
        self.takes_lengths = None if self.pointwise else False

    def __call__(self, *arrays: npt.ArrayLike) -> Array:
        """Return y."""
        return self._merged(_alike(arrays))[0]

    def vjp(self, *arrays: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to a tuple of gradients; keeps the arrays."""
        given = _alike(arrays)
        y, unmerge = self._merged(given)

        def pullback(dy: npt.ArrayLike) -> tuple[Array, ...]:
            found = unmerge(as_shape("dy", dy, y.dtype, y.shape))
            return tuple(
                _summed_to(a.shape, np.asarray(d)) for a, d in zip(given, found, strict=True)
            )

        return y, once(pullback)

    def _merged(self, arrays: list[Array]) -> Merged:
        if self.how == "concat":
            return concatenated(arrays, self.axis)
        if self.how == "subtract" and len(arrays) != 2:
            raise ValueError(f"how='subtract' takes two arrays, got {len(arrays)}")
        shapes = [array.shape for array in arrays]
        if len({len(shape) for shape in shapes}) > 1:
            raise ValueError(f"the arrays must have the same number of axes, got shapes {shapes}")
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(
                f"the arrays must have shapes that go together, got {shapes}"
            ) from None
        return MERGES[self.how](arrays)


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
        given = _alike((x1, x2))
        rows, backs = zip(*map(self._rows, ("x1", "x2"), given, self.axes), strict=True)
        a, b = rows
        if len(a) != len(b) or a.shape[2] != b.shape[2]:
            shapes = f"{given[0].shape} and {given[1].shape}"
            raise ValueError(f"x1 and x2 must agree along the batch and axes {self.axes}: {shapes}")
        y = a @ b.swapaxes(1, 2)
        left = [n for x, axis in zip(given, self.axes, strict=True) for n in _without(x, axis)]
        shape = (len(a), *(left or [1]))

        def pullback(dy: npt.ArrayLike) -> tuple[Array, Array]:
            d = as_shape("dy", dy, a.dtype, shape).reshape(y.shape)
            return backs[0](d @ b), backs[1](d.swapaxes(1, 2) @ a)

        return y.reshape(shape), once(pullback)

    def _rows(self, name: str, x: Array, axis: int) -> tuple[Array, Callable[[Array], Array]]:
        """The vectors that are multiplied, `(B, n, K)`, and the pullback to x."""
        if not -x.ndim < axis < x.ndim or axis == 0:
            raise ValueError(f"{name} must have an axis {axis} behind the batch's, got {x.shape}")
        moved = np.moveaxis(x, axis, -1)
        rows = moved.reshape(len(x), -1 if x.size else _count(moved.shape[1:-1]), moved.shape[-1])
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


def _alike(arrays: Sequence[npt.ArrayLike]) -> list[Array]:
    """Arrays of floats, all of one dtype."""
    found = [as_float(f"array {at}", array) for at, array in enumerate(arrays)]
    if not found:
        raise ValueError("there must be at least one array")
    if len({array.dtype for array in found}) > 1:
        dtypes = ", ".join(str(array.dtype) for array in found)
        raise TypeError(f"the arrays must have one dtype, got {dtypes}")
    return found


def _summed_to(shape: tuple[int, ...], d: Array) -> Array:
    """The gradient of an array that was broadcast to that of `d`."""
    axes = tuple(at for at, (n, m) in enumerate(zip(shape, d.shape, strict=True)) if n != m)
    summed: Array = d.sum(axis=axes, keepdims=True) if axes else d
    return summed


def _without(x: Array, axis: int) -> tuple[int, ...]:
    """The sizes of the axes but the first and this one."""
    at = axis % x.ndim
    return (*x.shape[1:at], *x.shape[at + 1 :])


def _count(sizes: Sequence[int]) -> int:
    return math.prod(sizes)


def concatenated(arrays: list[Array], axis: int) -> Merged:
    """Arrays one after the other along an axis."""
    shapes = [array.shape for array in arrays]
    ndim = len(shapes[0])
    rest = {(*s[: axis % ndim], *s[axis % ndim + 1 :]) for s in shapes} if ndim else {()}
    if not -ndim <= axis < ndim or len(rest) > 1 or len({len(s) for s in shapes}) > 1:
        raise ValueError(f"the arrays must agree but for axis {axis}, got shapes {shapes}")
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return np.concatenate(arrays, axis), lambda dy: np.split(dy, ends, axis)


def _total(arrays: list[Array]) -> Array:
    y = arrays[0]
    for array in arrays[1:]:
        y = y + array
    return y


def _summed(arrays: list[Array]) -> Merged:
    return _total(arrays), lambda dy: [dy] * len(arrays)


def _averaged(arrays: list[Array]) -> Merged:
    count = len(arrays)
    return _total(arrays) / count, lambda dy: [dy / count] * count


def _subtracted(arrays: list[Array]) -> Merged:
    return arrays[0] - arrays[1], lambda dy: [dy, -dy]


def _multiplied(arrays: list[Array]) -> Merged:
    def unmerge(dy: Array) -> list[Array]:
        return [
            _product([dy, *arrays[:at], *arrays[at + 1 :]]) for at in range(len(arrays))
        ]  # no division: a factor may be zero

    return _product(arrays), unmerge


def _product(arrays: list[Array]) -> Array:
    y = arrays[0]
    for array in arrays[1:]:
        y = y * array
    return y


def _extreme(pick: Callable[..., Any]) -> Callable[[list[Array]], Merged]:
    def merge(arrays: list[Array]) -> Merged:
        stacked = np.stack(np.broadcast_arrays(*arrays))
        first = pick(stacked, axis=0)[None]
        y: Array = np.take_along_axis(stacked, first, axis=0)[0]
        owners = np.arange(len(arrays)).reshape(-1, *(1,) * y.ndim) == first
        return y, lambda dy: list(owners * dy)

    return merge


#: What becomes of arrays of one number of axes; those of size 1 are broadcast.
MERGES: dict[str, Callable[[list[Array]], Merged]] = {
    "sum": _summed,
    "mean": _averaged,
    "mul": _multiplied,
    "max": _extreme(np.argmax),
    "min": _extreme(np.argmin),
    "subtract": _subtracted,
}
HOW = (*MERGES, "concat")
