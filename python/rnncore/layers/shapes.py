"""Arrays with the batch first, their other axes put into another order, shape or length.

None of these computes anything: a pullback undoes what the call did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_shape, check_count, check_integer, short
from ..module import Module, Pullback, once


class _Rearranged(Module):
    """A module whose output holds the numbers of its input, zeros beside them, in other places."""

    batch_first = True
    takes_lengths = False
    keeps_steps = False

    def _run(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return y for x `(B, ...)`, and the pullback."""
        raise NotImplementedError

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x `(B, ...)`."""
        return self._run(as_float("x", x))[0]

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx."""
        y, back = self._run(as_float("x", x))
        dtype, shape = y.dtype, y.shape
        return y, once(lambda dy: back(as_shape("dy", dy, dtype, shape)))


class Reshape(_Rearranged):
    """The numbers of each item in another shape: `(B, ...)` to `(B, *shape)`.

    One size may be -1: what is left for it. `Reshape(-1)` makes one row of each item.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = tuple(check_integer("shape", size) for size in shape)
        if min(self.shape, default=0) < -1 or self.shape.count(-1) > 1:
            raise ValueError(f"shape must be sizes, of which one may be -1, got {short(shape)}")

    def _run(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        item = np.broadcast_to(np.int8(0), x.shape[1:])  # of a batch of none, too
        try:
            shape = item.reshape(self.shape).shape if x.ndim else None
        except ValueError:
            shape = None
        if shape is None:
            raise ValueError(f"x must be items that fill {self.shape}, got shape {x.shape}")
        return x.reshape(len(x), *shape), lambda dy: dy.reshape(x.shape)


class Permute(_Rearranged):
    """The axes of each item in another order: `Permute(2, 1)` swaps those behind the batch's.

    axes: for each axis of y which of x it is, counted from 1; that of the batch stays.
    """

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = tuple(check_integer("axes", axis) for axis in axes)
        if sorted(self.axes) != list(range(1, len(axes) + 1)):
            raise ValueError(f"axes must be 1..{len(axes)} in some order, got {short(axes)}")

    def _run(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        order = (0, *self.axes)
        if x.ndim != len(order):
            raise ValueError(f"x must have {len(order)} axes, got shape {x.shape}")
        back = tuple(np.argsort(order))
        return x.transpose(order), lambda dy: dy.transpose(back)


class RepeatVector(_Rearranged):
    """Each row n times, as a sequence: `(B, F)` to `(B, n, F)`."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = check_count("n", n)

    def _run(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        if x.ndim != 2:
            raise ValueError(f"x must have shape (B, F), got {x.shape}")
        repeated = np.repeat(x[:, None], self.n, axis=1)
        return repeated, lambda dy: np.ascontiguousarray(dy).sum(axis=1)


class ZeroPad(_Rearranged):
    """Zeros before and after, along the axes behind the batch's: `ZeroPad((2, 0))` pads time.

    pads: a pair (before, after) for each of the first axes of an item; the others stay.
    """

    def __init__(self, *pads: tuple[int, int]) -> None:
        super().__init__()
        for pair in pads:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"pads must be pairs (before, after), got {short(pair)}")
        pairs: Any = [tuple(check_count("pads", n, 0) for n in pair) for pair in pads]
        self.pads: tuple[tuple[int, int], ...] = tuple(pairs)

    def _run(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        if x.ndim <= len(self.pads):
            raise ValueError(f"x must have more than {len(self.pads)} axes, got shape {x.shape}")
        pads = [(0, 0), *self.pads, *[(0, 0)] * (x.ndim - 1 - len(self.pads))]
        inner = tuple(
            slice(before, before + n) for (before, _), n in zip(pads, x.shape, strict=True)
        )
        return np.pad(x, pads), lambda dy: dy[inner]
