"""Several arrays made into one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_shape, check_choice, check_integer
from ..module import Module, Pullback, once

#: What becomes of several arrays, and the pullback from its gradient to theirs.
Merged: TypeAlias = tuple[Array, Callable[[Array], tuple[Array, ...]]]


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
        return self._merged(alike(arrays))[0]

    def vjp(self, *arrays: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to a tuple of gradients; keeps the arrays."""
        given = alike(arrays)
        y, unmerge = self._merged(given)

        def pullback(dy: npt.ArrayLike) -> tuple[Array, ...]:
            d = np.ascontiguousarray(as_shape("dy", dy, y.dtype, y.shape))  # sums in one order
            found = unmerge(d)
            return tuple(
                _summed_to(a.shape, np.asarray(d)) for a, d in zip(given, found, strict=True)
            )

        return y, once(pullback)

    def _merged(self, arrays: Sequence[Array]) -> Merged:
        if self.how == "concat":
            return joined("concat", arrays, self.axis)
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
        return joined(self.how, arrays)


def alike(arrays: Sequence[npt.ArrayLike]) -> list[Array]:
    """Return arrays of floats, all of one dtype."""
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


def joined(how: str, arrays: Sequence[Array], axis: int = -1) -> Merged:
    """Return what arrays of shapes that go together become, and the pullback."""
    return _concatenated(arrays, axis) if how == "concat" else _MERGES[how](arrays)


def _concatenated(arrays: Sequence[Array], axis: int) -> Merged:
    shapes = [array.shape for array in arrays]
    ndim = len(shapes[0])
    rest = {(*s[: axis % ndim], *s[axis % ndim + 1 :]) for s in shapes} if ndim else {()}
    if not -ndim <= axis < ndim or len(rest) > 1 or len({len(s) for s in shapes}) > 1:
        raise ValueError(f"the arrays must agree but for axis {axis}, got shapes {shapes}")
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return np.concatenate(arrays, axis), lambda dy: tuple(np.split(dy, ends, axis))


def _summed(arrays: Sequence[Array]) -> Merged:
    return functools.reduce(operator.add, arrays), lambda dy: (dy,) * len(arrays)


def _averaged(arrays: Sequence[Array]) -> Merged:
    total, count = functools.reduce(operator.add, arrays), len(arrays)
    return total / count, lambda dy: (dy / count,) * count


def _subtracted(arrays: Sequence[Array]) -> Merged:
    return arrays[0] - arrays[1], lambda dy: (dy, -dy)


def _multiplied(arrays: Sequence[Array]) -> Merged:
    product = functools.reduce(operator.mul, arrays)
    return (
        product,
        lambda dy: tuple(  # no division: a factor may be zero
            functools.reduce(operator.mul, (*arrays[:at], *arrays[at + 1 :]), dy)
            for at in range(len(arrays))
        ),
    )


def _extreme(pick: Callable[..., Any]) -> Callable[[Sequence[Array]], Merged]:
    def merge(arrays: Sequence[Array]) -> Merged:
        stacked = np.stack(np.broadcast_arrays(*arrays))
        first = pick(stacked, axis=0)[None]
        y: Array = np.take_along_axis(stacked, first, axis=0)[0]
        owners = np.arange(len(arrays)).reshape(-1, *(1,) * y.ndim) == first
        return y, lambda dy: tuple(owners * dy)

    return merge


_MERGES: dict[str, Callable[[Sequence[Array]], Merged]] = {
    "sum": _summed,
    "mean": _averaged,
    "mul": _multiplied,
    "max": _extreme(np.argmax),
    "min": _extreme(np.argmin),
    "subtract": _subtracted,
}
HOW = (*_MERGES, "concat")
