"""The order in which the kernels walk nodes: waves, and what each node continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array

#: In place of a predecessor, for the kernels.
NOBODY = np.iinfo(np.int32).min


@dataclass(frozen=True)
class Order:
    """How nodes follow each other: what the kernels walk.

    begin `(trees + 1,)`: rows of each tree or other part that nothing leads out of; prev `(arity,
    N)`: the rows that a node continues, `NOBODY` where there is none; wave `(N,)`: 0 for nodes that
    continue nothing, for others one more than the highest of those they continue. leaves: the rows
    that have an input where inputs="leaves"; None: those of wave 0.
    """

    begin: Array
    prev: Array
    wave: Array
    leaves: Array | None = None

    def __post_init__(self) -> None:
        rows, sizes = len(self.wave), np.diff(self.begin)
        if self.prev.ndim != 2 or self.prev.shape[1] != rows:
            raise ValueError(f"prev must have shape (arity, {rows}), got {self.prev.shape}")
        if (sizes < 0).any() or not len(self.begin) or self.begin[0] or self.begin[-1] != rows:
            raise ValueError(f"begin must rise from 0 to {rows}, the number of nodes")
        place, after = np.nonzero(self.prev != NOBODY)
        before = self.prev[place, after]
        low, high = (np.repeat(ends, sizes)[after] for ends in (self.begin[:-1], self.begin[1:]))
        if ((before < low) | (before >= high)).any():
            raise ValueError("prev must hold rows of the node's own part, or NOBODY")
        first = np.ones(rows, bool)
        first[after] = False
        if ((self.wave == 0) != first).any() or (self.wave[after] <= self.wave[before]).any():
            raise ValueError("wave must be 0 where nothing is continued, else above what is")

    @property
    def input_rows(self) -> Array:
        """The rows that have an input where inputs="leaves"."""
        return np.flatnonzero(self.wave == 0) if self.leaves is None else self.leaves

    @classmethod
    def of(cls, begin: Array, prev: Array, leaves: Array | None = None) -> Order:
        """Sort into waves; raises `ValueError` where nodes go round in a circle."""
        rows = prev.shape[1]
        edges = np.argwhere(prev != NOBODY)
        after, before = edges[:, 1], prev[edges[:, 0], edges[:, 1]]
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
        prev = np.ascontiguousarray(prev, np.int32)
        return cls(np.ascontiguousarray(begin, np.int64), prev, wave, leaves)

    @classmethod
    def join(cls, orders: Sequence[Order]) -> Order:
        """Put several of one arity one after the other."""
        sizes = np.cumsum([0, *(len(order.wave) for order in orders)])
        prevs = [
            np.where(order.prev == NOBODY, NOBODY, order.prev + int(at)).astype(np.int32)
            for order, at in zip(orders, sizes, strict=False)
        ]
        begins = [order.begin[:-1] + at for order, at in zip(orders, sizes, strict=False)]
        leaves = None
        if any(order.leaves is not None for order in orders):
            leaves = [order.input_rows + at for order, at in zip(orders, sizes, strict=False)]
        return cls(
            np.concatenate([*begins, sizes[-1:]]).astype(np.int64),
            np.concatenate(prevs, axis=1),
            np.concatenate([order.wave for order in orders]),
            None if leaves is None else np.concatenate(leaves),
        )


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
