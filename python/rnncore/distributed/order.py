"""One order of sums for any number of ranks: a tree over shards, whose shape they alone tell.

The sum over shards lo..hi is the sum of its first half and that of its second half. A rank holds
shards that follow one another, and adds up all nodes of the tree that lie within. With 2, 4, 8...
ranks, and as many or twice, four times... as many shards, that is one node for each rank.

The gradient of N numbers is then cut into a slice for each rank. Each sends every other the slices
of its nodes (`alltoall`), adds up the rest of the tree for its own slice, and sends the sum to all
(`allgather`). With one node a rank that is 2 (size - 1) / size N numbers sent by each rank: what an
allreduce by rings sends, whose order of sums depends on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from .collective import Collective

#: Shards lo..hi, without hi.
Node = tuple[int, int]


def share(count: int, rank: int, size: int) -> range:
    """Return the shards that a rank holds, of so many."""
    return range(count * rank // size, count * (rank + 1) // size)


def nodes(node: Node, held: range) -> Iterator[Node]:
    """Yield the largest nodes below `node` that lie within the shards held."""
    first, last = node
    if held.start <= first and last <= held.stop:
        yield node
    elif first < held.stop and held.start < last:
        for half in halves(node):
            yield from nodes(half, held)


def halves(node: Node) -> tuple[Node, Node]:
    """Return the two nodes whose sum a node is."""
    first, last = node
    middle = (first + last) // 2
    return (first, middle), (middle, last)


def in_order(node: Node, known: Callable[[Node], Array | None]) -> Array:
    """Return the sum of a node, added up from those that are known, which it writes over."""
    found = known(node)
    if found is None:
        first, second = (in_order(half, known) for half in halves(node))
        found = np.add(first, second, out=first)
    return found


class Summing:
    """Gradients of shards added up over the ranks; buffers are kept for the next time."""

    def __init__(self, collective: Collective, length: int, dtype: npt.DTypeLike) -> None:
        self.collective, self.length, self.dtype = collective, length, np.dtype(dtype)
        #: How long the slice is that this rank adds up: rounded up, so that all are equal.
        self.slice = -(-length // collective.size)
        self._spare: list[Array] = []

    def take(self) -> Array:
        """Return an array for `length` numbers, to be handed to `over_ranks` or `give`."""
        if self._spare:
            return self._spare.pop()
        return np.zeros(self.slice * self.collective.size, self.dtype)

    def give(self, array: Array) -> None:
        """Take an array back."""
        self._spare.append(array)

    def over_ranks(self, count: int, mine: list[Array]) -> Array:
        """Return the sum over all `count` shards, from `take`n sums of the nodes held here.

        It holds until an array is taken again.
        """
        for array in mine:
            self.give(array)
        size = self.collective.size
        if size == 1:
            return mine[0]
        held = [list(nodes((0, count), share(count, r, size))) for r in range(size)]
        found = self.collective.alltoall(self._slices(mine, max(map(len, held))))
        known = {node: found[r, row] for r, own in enumerate(held) for row, node in enumerate(own)}
        return self.collective.allgather(in_order((0, count), known.get)).reshape(-1)

    def _slices(self, mine: list[Array], rows: int) -> Array:
        """Return what goes to each rank: its slice of all sums `(size, rows, slice)`."""
        shape = self.collective.size, rows, self.slice
        if len(mine) == rows == 1:
            return mine[0].reshape(shape)
        sent = np.zeros(shape, self.dtype)
        for row, array in enumerate(mine):
            sent[:, row] = array.reshape(-1, self.slice)
        return sent
