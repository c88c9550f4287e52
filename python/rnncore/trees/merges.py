"""Trees found by merging neighbours, whichever pair costs the least, in many sentences at once.

`parsing.search` merges along any edges, and would find the same trees; in a row links are quicker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..arrays import Array
from .forest import Forest


@dataclass
class Nodes:
    """Binary trees with a vector at each node.

    states `(N, size)`; children `(N, 2)`, -1 at leaves; leaves `(N,)`: how many there are below.
    """

    states: Array
    children: Array
    leaves: Array

    @classmethod
    def of(cls, forest: Forest, x: Array) -> Nodes:
        """The nodes of a binary forest, x at its leaves, zero elsewhere."""
        inner = np.flatnonzero(forest.child_count)
        if (forest.child_count[inner] != 2).any():
            node = int(inner[np.argmax(forest.child_count[inner] != 2)])
            raise ValueError(
                f"every node of the forest must have two children or none; "
                f"node {node} has {forest.child_count[node]}"
            )
        states = np.zeros((forest.nodes, x.shape[1]), x.dtype)
        states[forest.leaves] = x
        children = np.full((forest.nodes, 2), -1)
        siblings = np.argsort(forest.parent, kind="stable")
        children[inner] = siblings[len(forest) :].reshape(-1, 2)
        return cls(states, children, np.diff(forest.spans)[:, 0])


#: From nodes and pairs of them `(M, 2)` to what they merge into `(M, size)` and the costs `(M,)`.
Propose: TypeAlias = Callable[[Nodes, Array], tuple[Array, Array]]


def greedy(x: Array, lengths: Array, propose: Propose) -> Forest:
    """Merge the cheapest pair of neighbours of each sentence until it is one tree.

    x `(sum of lengths, size)`: the leaves, sentence after sentence. In a step every sentence merges
    once, and all new pairs, at most two in each, are proposed together. Of equal costs the first
    wins; NaN costs the most. Rows are in postorder, so leaves are in reading order.
    """
    search = _Search(x, lengths, propose)
    for done in range(lengths.max(initial=0) - 1):
        search.merge(np.flatnonzero(lengths > done + 1), done)
    return search.forest()


class _Search:
    """What stands where: each sentence has a slot for each leaf, a node stands in its first one.

    Slots are numbered `sentence * T + leaf`; beside the node in it, each knows those before and
    after, -1 where there is none, and what merging it with the one after would make and cost.
    """

    def __init__(self, x: Array, lengths: Array, propose: Propose) -> None:
        self.lengths, self.propose = lengths, propose
        self.begin = np.append(0, np.cumsum(2 * lengths - 1))
        self.sentence = np.repeat(np.arange(len(lengths)), 2 * lengths - 1)
        rows, self.steps = int(self.begin[-1]), int(lengths.max(initial=0))
        sentence = np.repeat(np.arange(len(lengths)), lengths)
        leaf = np.arange(len(x)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        leaves, slots = self.begin[sentence] + leaf, sentence * self.steps + leaf
        self.nodes = Nodes(
            np.zeros((rows, x.shape[1]), x.dtype), np.full((rows, 2), -1), np.ones(rows, np.int64)
        )
        self.nodes.states[leaves] = x
        self.start = np.zeros(rows, np.int64)
        self.start[leaves] = leaf

        size = len(lengths) * self.steps
        self.node, self.before, self.after = np.full((3, size), -1)
        self.made, self.cost = np.zeros((size, x.shape[1]), x.dtype), np.full(size, np.inf)
        self.node[slots] = leaves
        self.before[slots[leaf > 0]] = slots[leaf > 0] - 1
        inside = leaf < lengths[sentence] - 1
        self.after[slots[inside]] = slots[inside] + 1
        self._propose(slots[inside])

    def _propose(self, slots: Array) -> None:
        pairs = np.stack([self.node[slots], self.node[self.after[slots]]], axis=1)
        self.made[slots], cost = self.propose(self.nodes, pairs)
        self.cost[slots] = np.where(np.isnan(cost), np.inf, cost)

    def merge(self, sentences: Array, done: int) -> None:
        """Merge once in each of these sentences, all of which have merged `done` times."""
        # Where all costs are infinite the first slot is taken, which is never empty.
        best = self.cost.reshape(-1, self.steps)[sentences].argmin(axis=1)
        left = sentences * self.steps + best
        right = self.after[left]
        new = self.begin[sentences] + self.lengths[sentences] + done
        pairs = np.stack([self.node[left], self.node[right]], axis=1)
        self.nodes.children[new] = pairs
        self.nodes.leaves[new] = self.nodes.leaves[pairs].sum(axis=1)
        self.nodes.states[new] = self.made[left]
        self.start[new] = best

        self.node[left], self.after[left] = new, self.after[right]
        self.cost[left] = self.cost[right] = np.inf
        follows = self.after[left] >= 0
        self.before[self.after[left[follows]]] = left[follows]
        before = self.before[left]
        self._propose(np.concatenate([left[follows], before[before >= 0]]))

    def forest(self) -> Forest:
        """The trees, in postorder: by where a node ends, then from the smallest up."""
        leaves = self.nodes.leaves
        rows = np.lexsort((leaves, self.start + leaves, self.sentence))
        place = np.argsort(rows)
        parent = np.full(len(rows), -1)
        inner = np.flatnonzero(leaves > 1)
        parent[place[self.nodes.children[inner]]] = place[inner, None]
        return Forest(parent, self.begin)
