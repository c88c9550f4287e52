"""The order in which the kernels walk nodes: waves, and what each node continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_indices, as_integers

#: In place of a predecessor, for the kernels.
NOBODY = np.iinfo(np.int32).min
#: As what the kernels read each array of an order, and its axes; None: that of the cell.
_KEPT = {"begin": np.int64, "prev": np.int32, "wave": np.int32, "first": np.int32}


@dataclass(frozen=True)
class Order:
    """How nodes follow each other: what the kernels walk.

    begin `(trees + 1,)`: rows of each tree or other part that nothing leads out of; prev `(arity,
    N)`: the rows that a node continues, `NOBODY` where there is none; wave `(N,)`: 0 for nodes that
    continue nothing, for others one more than the highest of those they continue. With first `(N +
    1,)` a node continues any number of others: node n those in `prev[first[n]:first[n + 1]]`.
    leaves: the rows that have an input where inputs="leaves"; None: those of wave 0. All arrays are
    copied, and read-only.
    """

    begin: Array
    prev: Array
    wave: Array
    first: Array | None = None
    leaves: Array | None = None

    def __post_init__(self) -> None:
        for name, dtype in _KEPT.items():
            self._keep(name, dtype)
        rows, sizes = len(self.wave), np.diff(self.begin)
        if self.first is None:
            if self.prev.ndim != 2 or self.prev.shape[1] != rows:
                raise ValueError(f"prev must have shape (arity, {rows}), got {self.prev.shape}")
        elif self.prev.ndim != 1 or not _rises(self.first, rows, len(self.prev)):
            raise ValueError(f"first must rise from 0 to {len(self.prev)} in {rows + 1} entries")
        if not _rises(self.begin, len(self.begin) - 1, rows):
            raise ValueError(f"begin must rise from 0 to {rows}, the number of nodes")
        after, before = _edges(self.prev, self.first)
        low, high = (np.repeat(ends, sizes)[after] for ends in (self.begin[:-1], self.begin[1:]))
        if ((before < low) | (before >= high)).any():
            raise ValueError("prev must hold rows of the node's own part, or NOBODY")
        first = np.ones(rows, bool)
        first[after] = False
        if ((self.wave == 0) != first).any() or (self.wave[after] <= self.wave[before]).any():
            raise ValueError("wave must be 0 where nothing is continued, else above what is")
        if self.wave.max(initial=0) >= max(rows, 1):
            raise ValueError(f"wave must be below {rows}, the number of nodes")
        if self.leaves is not None:
            as_indices("leaves", self.leaves, rows)
            self._keep("leaves", np.int64)
            if len(np.unique(self.leaves)) < len(self.leaves):
                raise ValueError("leaves must differ from each other")

    def _keep(self, name: str, dtype: npt.DTypeLike) -> None:
        """Hold a copy that nobody writes to: the kernels trust what was checked."""
        if (given := getattr(self, name)) is None:
            return
        given = as_integers(name, given)
        if given.ndim != 1 and (name != "prev" or self.first is not None):
            raise ValueError(f"{name} must have one axis, got {given.shape}")
        check_rows(name, given)
        kept = given.astype(dtype, order="C")
        if (kept != given).any():
            raise ValueError(f"{name} must be numbers of nodes, got {given.max()}")
        kept.flags.writeable = False
        object.__setattr__(self, name, kept)

    @classmethod
    def of(
        cls,
        begin: npt.ArrayLike,
        prev: npt.ArrayLike,
        first: npt.ArrayLike | None = None,
        leaves: npt.ArrayLike | None = None,
    ) -> Order:
        """Sort into waves; raises `ValueError` where nodes go round in a circle."""
        prev = as_integers("prev", prev)
        first = None if first is None else as_integers("first", first)
        if prev.ndim != (2 if first is None else 1):
            raise ValueError(f"prev must have shape (arity, N), or (E,) with first: {prev.shape}")
        check_rows("prev", prev)
        rows = prev.shape[1] if first is None else len(first) - 1
        if first is not None and not _rises(first, rows, len(prev)):
            raise ValueError(f"first must rise from 0 to {len(prev)}, got {first}")
        after, before = _edges(prev, first)
        if ((before < 0) | (before >= rows)).any():
            raise ValueError(f"prev must hold rows in 0..{rows - 1}, or NOBODY")
        by_before = np.argsort(before, kind="stable")
        starts = np.searchsorted(before[by_before], np.arange(rows + 1))
        waiting = np.bincount(after, minlength=rows)
        wave, ready, done = np.zeros(rows, np.int32), np.flatnonzero(waiting == 0), 0
        number = 0
        while ready.size:
            wave[ready] = number
            done += ready.size
            reached = after[by_before[ranges(starts[ready], starts[ready + 1])]]
            np.subtract.at(waiting, reached, 1)
            ready = np.unique(reached)
            ready, number = ready[waiting[ready] == 0], number + 1
        if done < rows:
            raise ValueError(f"nodes go round in a circle: {rows - done} of {rows} wait for ever")
        return cls(begin, prev, wave, first, leaves)  # type: ignore[arg-type]

    @classmethod
    def join(cls, orders: Sequence[Order]) -> Order:
        """Put several of one arity one after the other."""
        if len({order.arity for order in orders}) != 1:
            raise ValueError("orders must be at least one, and have one arity to be joined")
        sizes = np.cumsum([0, *(len(order.wave) for order in orders)])
        begins = [order.begin[:-1] + at for order, at in zip(orders, sizes, strict=False)]
        prevs = [
            np.where(order.prev == NOBODY, NOBODY, order.prev + int(at)).astype(np.int32)
            for order, at in zip(orders, sizes, strict=False)
        ]
        leaves = None
        if any(order.leaves is not None for order in orders):
            rows = [order.input_rows + at for order, at in zip(orders, sizes, strict=False)]
            leaves = np.concatenate(rows)
        first = None
        if orders[0].first is not None:
            counts = [np.diff(order.first) for order in orders if order.first is not None]
            first = np.cumsum(np.concatenate([[0], *counts])).astype(np.int32)
        return cls(
            np.concatenate([*begins, sizes[-1:]]).astype(np.int64),
            np.concatenate(prevs, axis=-1),
            np.concatenate([order.wave for order in orders]),
            first,
            leaves,
        )

    @property
    def arity(self) -> int | None:
        """How many places a node has for those it continues; None for any number."""
        return len(self.prev) if self.first is None else None

    @cached_property
    def unplaced(self) -> Order:
        """The same nodes, each after any number of others."""
        if self.first is not None:
            return self
        node, place = np.nonzero(self.prev.T != NOBODY)
        first = np.searchsorted(node, np.arange(len(self.wave) + 1))
        return Order(self.begin, self.prev[place, node], self.wave, first, self.leaves)

    @cached_property
    def starts(self) -> Array:
        """The rows of nodes that continue nothing."""
        return np.flatnonzero(self.wave == 0)

    @property
    def input_rows(self) -> Array:
        """The rows that have an input where inputs="leaves"."""
        return self.starts if self.leaves is None else self.leaves


def check_rows(name: str, array: Array) -> None:
    """Raise `ValueError` if the last axis has more entries than the kernels can number."""
    most = np.iinfo(np.int32).max
    if array.ndim and array.shape[-1] > most:
        raise ValueError(f"{name} must have at most {most} entries, got {array.shape[-1]}")


def _rises(numbers: Array, count: int, last: int) -> bool:
    """Whether there are `count` + 1 numbers from 0 to `last`, none below the one before."""
    rising = len(numbers) == count + 1 > 0 and not numbers[0] and numbers[-1] == last
    return bool(rising and (np.diff(numbers) >= 0).all())


def _edges(prev: Array, first: Array | None) -> tuple[Array, Array]:
    """Return a node and one that it continues, for all such pairs."""
    if first is not None:
        return np.repeat(np.arange(len(first) - 1), np.diff(first)), prev
    place, after = np.nonzero(prev != NOBODY)
    return after, prev[place, after]


def ranges(starts: Array, ends: Array) -> Array:
    """The numbers from each start to its end, one range after the other."""
    sizes = ends - starts
    offsets = np.cumsum(sizes) - sizes
    return np.asarray(np.arange(sizes.sum()) + np.repeat(starts - offsets, sizes))


def grid(height: int, width: int, count: int = 1) -> Order:
    """Return `count` grids of nodes, row by row, each after its left and its upper neighbour.

    Walked by a layer of arity 2 this is the multi-dimensional recurrence of Graves et al. (2007).
    """
    node = np.arange(height * width).reshape(height, width)
    prev = np.full((2, height, width), NOBODY)
    prev[0, :, 1:], prev[1, 1:] = node[:, :-1], node[:-1]
    flat = prev.reshape(2, 1, -1)
    shift = height * width * np.arange(count)[:, None]
    many = np.where(flat == NOBODY, NOBODY, flat + shift).reshape(2, -1)
    return Order.of(height * width * np.arange(count + 1), many)
