"""Trees, many at once, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_indices, as_integers, check_kind
from . import picture
from .nested import nest, postorder
from .order import NOBODY, Order, check_rows, ranges


class Forest:
    """Trees of any arity, one after the other: node by node its parent, in the order of children.

    A node is a row; `parent (N,)` is the row of its parent, -1 at a root, and siblings stand in the
    order of their rows. begin `(trees + 1,)`: the first row of each tree. Both are copied, and
    read-only. labels: one for each node, or None.
    """

    def __init__(
        self, parent: npt.ArrayLike, begin: npt.ArrayLike, labels: Sequence[Any] | None = None
    ) -> None:
        self.parent = _kept("parent", parent)
        self.begin = _kept("begin", begin)
        self.labels = None if labels is None else list(labels)
        self._check()

    def _check(self) -> None:
        rows = len(self.parent)
        if self.labels is not None and len(self.labels) != rows:
            raise ValueError(f"labels must be {rows}, one for each node, got {len(self.labels)}")
        sizes = np.diff(self.begin)
        if not self.begin.size or self.begin[0] != 0 or self.begin[-1] != rows:
            raise ValueError(f"begin must go from 0 to {rows}, the number of nodes")
        if (sizes < 1).any():
            raise ValueError(f"tree {int(np.argmin(sizes))} is empty: a tree has at least one node")
        tree = np.repeat(np.arange(len(sizes)), sizes)
        roots = self.parent == -1
        low, high = self.begin[tree], self.begin[tree + 1]
        outside = ~roots & ((self.parent < low) | (self.parent >= high))
        if outside.any():
            node = int(np.argmax(outside))
            raise ValueError(
                f"parent[{node}] must be -1 or a row of its own tree, "
                f"{low[node]}..{high[node] - 1}; got {self.parent[node]}"
            )
        count = np.bincount(tree[roots], minlength=len(sizes))
        if (count != 1).any():
            wrong = int(np.argmax(count != 1))
            raise ValueError(
                f"tree {wrong} must have one root, a parent of -1; it has {count[wrong]}"
            )
        above = np.where(roots, np.arange(rows), self.parent)
        for _ in range(int(sizes.max(initial=0)).bit_length()):
            above = above[above]  # twice as far up
        if lost := int(np.count_nonzero(~roots[above])):
            raise ValueError(f"parents go round in a circle: no root is above {lost} nodes")

    @classmethod
    def from_parents(cls, parents: Iterable[npt.ArrayLike]) -> Forest:
        """Make a forest of one array for each tree: the node's parent in it, -1 at the root."""
        trees = [as_integers("parents", tree).astype(np.int64) for tree in parents]
        begin = np.concatenate([[0], np.cumsum([len(tree) for tree in trees])]).astype(np.int64)
        shifted = [np.where(t < 0, t, t + at) for t, at in zip(trees, begin, strict=False)]
        return cls(np.concatenate(shifted) if shifted else np.zeros(0, np.int64), begin)

    @classmethod
    def from_nested(cls, trees: Iterable[Any]) -> Forest:
        """Make a forest of nested tuples or lists; whatever else they hold are leaves, with labels.

        Rows are in postorder: children before their parents, the root last.
        """
        parent: list[int] = []
        labels: list[Any] = []
        begin = [0]
        for number, tree in enumerate(trees):
            for label, children in postorder(tree, number):
                for child in children:
                    parent[child + begin[-1]] = len(parent)
                parent.append(-1)
                labels.append(label)
            begin.append(len(parent))
        return cls(np.array(parent, np.int64), np.array(begin), labels)

    @classmethod
    def join(cls, forests: Sequence[Forest]) -> Forest:
        """Put several one after the other; labels are kept if all have some."""
        for at, forest in enumerate(forests):
            check_kind(f"forests[{at}]", forest, Forest)
        rows = np.cumsum([0, *(forest.nodes for forest in forests)])
        parents = [
            np.where(forest.parent < 0, -1, forest.parent + at)
            for forest, at in zip(forests, rows, strict=False)
        ]
        begins = [forest.begin[:-1] + at for forest, at in zip(forests, rows, strict=False)]
        labels = [label for forest in forests for label in forest.labels or ()]
        return cls(
            np.concatenate([np.zeros(0, np.int64), *parents]),
            np.concatenate([*begins, rows[-1:]]),
            labels if all(forest.labels is not None for forest in forests) else None,
        )

    def to_nested(self) -> list[Any]:
        """Return each tree as nested tuples, the inverse of `from_nested`: leaves are labels."""
        labels = self.labels or [None] * self.nodes
        rows = np.argsort(self.levels, kind="stable")
        nodes = nest(rows.tolist(), self.children, labels)
        return [nodes[root] for root in self.roots]

    def __len__(self) -> int:
        return len(self.begin) - 1

    def __repr__(self) -> str:
        return f"Forest({len(self)} trees, {self.nodes} nodes, arity {self.arity})"

    @property
    def nodes(self) -> int:
        """How many nodes all trees have."""
        return len(self.parent)

    @cached_property
    def roots(self) -> Array:
        """The root's row of each tree."""
        return np.flatnonzero(self.parent < 0)

    @cached_property
    def child_count(self) -> Array:
        """How many children each node has."""
        return np.bincount(self.parent[self.parent >= 0], minlength=self.nodes)

    @cached_property
    def leaves(self) -> Array:
        """The rows of nodes without children."""
        return np.flatnonzero(self.child_count == 0)

    @property
    def arity(self) -> int:
        """The most children that a node has."""
        return int(self.child_count.max(initial=0))

    @cached_property
    def position(self) -> Array:
        """The place of each node among its siblings, from 0; 0 at a root."""
        order = np.argsort(self.parent, kind="stable")
        parents = self.parent[order]
        first = np.searchsorted(parents, parents)
        position = np.zeros(self.nodes, np.int64)
        position[order] = np.arange(self.nodes) - first
        position[self.roots] = 0
        return position

    @cached_property
    def children(self) -> list[list[int]]:
        """For each node the rows of its children, in order."""
        lists: list[list[int]] = [[] for _ in range(self.nodes)]
        for row, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                lists[parent].append(row)
        return lists

    @cached_property
    def waves(self) -> list[Array]:
        """The rows of each height, from the leaves up."""
        waiting, ready, waves = self.child_count.copy(), self.leaves, []
        while ready.size:
            waves.append(ready)
            reached = self.parent[ready[self.parent[ready] >= 0]]
            np.subtract.at(waiting, reached, 1)
            reached = np.unique(reached)
            ready = reached[waiting[reached] == 0]
        return waves

    @cached_property
    def levels(self) -> Array:
        """The height of each node: 0 at leaves."""
        levels = np.zeros(self.nodes, np.int64)
        for height, rows in enumerate(self.waves):
            levels[rows] = height
        return levels

    @cached_property
    def spans(self) -> Array:
        """For each node its first leaf and its last + 1, `(N, 2)`.

        Leaves count from 0 in each tree, in reading order: from left to right along its foot.
        """
        leaves, waves = (self.child_count == 0).astype(np.int64), self.waves
        for rows in waves[:-1]:
            inner = rows[self.parent[rows] >= 0]
            np.add.at(leaves, self.parent[inner], leaves[inner])
        siblings = np.argsort(self.parent, kind="stable")
        before = np.cumsum(leaves[siblings]) - leaves[siblings]
        parents = self.parent[siblings]
        start = np.zeros(self.nodes, np.int64)
        start[siblings] = before - before[np.searchsorted(parents, parents)]
        start[self.roots] = 0
        for rows in reversed(waves):
            inner = rows[self.parent[rows] >= 0]
            start[inner] += start[self.parent[inner]]
        return np.stack([start, start + leaves], axis=1)

    def tree(self, number: int) -> slice:
        """The rows of one tree."""
        as_indices("number", number, len(self))
        return slice(int(self.begin[number]), int(self.begin[number + 1]))

    def rows(self, numbers: npt.ArrayLike) -> Array:
        """The rows of some trees, in the order of their numbers."""
        numbers = as_indices("numbers", numbers, len(self))
        return ranges(self.begin[numbers], self.begin[numbers + 1])

    def select(self, numbers: npt.ArrayLike) -> Forest:
        """Make a forest of some trees; its rows are this one's `rows(numbers)`."""
        rows, numbers = self.rows(numbers), as_indices("numbers", numbers, len(self))
        sizes = self.begin[numbers + 1] - self.begin[numbers]
        begin = np.append(0, np.cumsum(sizes))
        moved = np.repeat(begin[:-1] - self.begin[numbers], sizes)
        parent = np.where(self.parent[rows] < 0, -1, self.parent[rows] + moved)
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        return Forest(parent, begin, labels)

    def bottom_up(self, arity: int | None) -> Order:
        """Children before parents, each child in its own place; None: any number of them."""
        if arity is None:
            children = np.argsort(self.parent, kind="stable")[len(self) :]
            first = np.append(0, np.cumsum(self.child_count))
            return Order(self.begin, children, self.levels, first)
        if self.arity > arity:
            node = int(np.argmax(self.child_count))
            raise ValueError(
                f"node {node} has {self.arity} children, but this layer has places for {arity}"
            )
        prev = np.full((arity, self.nodes), NOBODY)
        inner = self.parent >= 0
        prev[self.position[inner], self.parent[inner]] = np.flatnonzero(inner)
        return Order(self.begin, prev, self.levels)

    def top_down(self) -> Order:
        """Parents before children."""
        prev = np.where(self.parent < 0, NOBODY, self.parent)[None]
        return Order.of(self.begin, prev, leaves=self.leaves)

    plot = picture.plot


def _kept(name: str, value: npt.ArrayLike) -> Array:
    """A copy that nobody writes to: much that is found out about a forest is remembered."""
    given = as_integers(name, value)
    if given.ndim != 1:
        raise ValueError(f"{name} must have one axis, got {given.shape}")
    check_rows(name, given)
    kept = given.astype(np.int64)
    kept.flags.writeable = False
    return kept
