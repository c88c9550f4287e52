"""Two nodes merged into one, many pairs at a time, and what a search has to know of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...arrays import Array
from ...compiled import core
from ..forest import Forest
from .spans import Truth

#: Scores that the searches compare lie within this, NaN at its lower end: sums stay finite.
_MOST = 1e30
#: Numbers that a block of candidates holds at most.
_BLOCK = 1 << 18


class Merger:
    """p = phi(U_1 a + U_2 b + bias) and its score s = w . p, for many pairs.

    A candidate costs no product with U: `halves` takes both of each node, once. weights: the types
    of U and w where they are rounded ones.
    """

    def __init__(
        self,
        u: Array,
        bias: Array,
        w: Array,
        phi: Callable[[Array], Array],
        weights: tuple[str, str],
    ) -> None:
        self.size, self._bias, self._phi = u.shape[-1], bias, phi
        linear = core(u.dtype).Linear
        self._u = linear(
            self.size, 2 * self.size, u.reshape(-1, self.size), None, weights=weights[0]
        )
        self._w = linear(self.size, 1, w, None, weights=weights[1])

    def halves(self, p: Array) -> Array:
        """Return U_1 p + bias and U_2 p: `(N, H)` to `(N, 2, H)`."""
        halves = self._u.forward(p).reshape(-1, 2, self.size)
        halves[:, 0] += self._bias
        return halves

    def merge(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Return p `(N, H)` and s `(N,)` of pairs: U_1 a + bias and U_2 b."""
        p = self._phi(left + right)
        return p, self._w.forward(p)[:, 0]


class Guide(NamedTuple):
    """What a search is told of the correct trees: what a wrong merge adds to its score.

    That is kappa for a loss-augmented search, and minus infinity for one among correct trees.
    """

    truth: Truth
    wrong: float


class Nodes:
    """The leaves of all sentences, then the merges that a search has made, a row each.

    left, right: the rows merged, -1 at leaves; wrong: whether it is a wrong merge; leaves: how many
    are below; score: the sum of s below; value: what the search has summed up; key: equal for equal
    trees only.
    """

    def __init__(self, merger: Merger, h: Array, guide: Guide | None, room: int) -> None:
        """h: the leaves' vectors; room: merges that will be made at most."""
        self._merger, self.count = merger, len(h)
        self._truth = guide.truth if guide else None
        self._wrong = guide.wrong if guide else 0.0
        rows = len(h) + room
        self.left, self.right = np.full((2, rows), -1)
        self.leaves, self.wrong = np.ones(rows, np.int64), np.zeros(rows, bool)
        self.score, self.value = np.zeros((2, rows))
        self.key = _mixed(np.arange(rows, dtype=np.uint64))
        self._halves = np.empty((rows, 2, merger.size), h.dtype)
        self._halves[: len(h)] = merger.halves(h)
        if self._truth is not None:
            self._facts = np.empty((rows, self._truth.leaves.shape[1]), np.int64)
            self._facts[: len(h)] = self._truth.leaves

    def gains(self, a: Array, b: Array) -> Array:
        """Return what the search would gain by merging each pair of nodes."""
        gains, right = np.full(len(a), -np.inf), self._right(a, b)[1]
        allowed = np.flatnonzero(right | (self._wrong > -np.inf))  # others need no score
        block = max(1, _BLOCK // self._merger.size)
        for at in range(0, len(allowed), block):
            part = allowed[at : at + block]
            gains[part] = self._gain(self._merge(a[part], b[part])[1], right[part])
        return gains

    def add(self, a: Array, b: Array) -> Array:
        """Merge each pair; return the new rows."""
        new = slice(self.count, self.count + len(a))
        self.count += len(a)
        p, score = self._merge(a, b)
        facts, right = self._right(a, b)
        self._halves[new] = self._merger.halves(p)
        if facts is not None:
            self._facts[new] = facts
        self.left[new], self.right[new], self.key[new] = a, b, self.pair_key(a, b)
        self.leaves[new] = self.leaves[a] + self.leaves[b]
        self.wrong[new] = ~right
        self.score[new] = self.score[a] + self.score[b] + score
        self.value[new] = self.value[a] + self.value[b] + self._gain(score, right)
        return np.arange(new.start, new.stop)

    def pair_key(self, a: Array, b: Array) -> Array:
        """Return the key that the merge of each pair has."""
        return _mixed(np.asarray(self.key[a] * np.uint64(0x9E3779B97F4A7C15) + self.key[b]))

    def _merge(self, a: Array, b: Array) -> tuple[Array, Array]:
        return self._merger.merge(self._halves[a, 0], self._halves[b, 1])

    def _right(self, a: Array, b: Array) -> tuple[Array | None, Array]:
        if self._truth is None:
            return None, np.ones(len(a), bool)
        return self._truth.join(self._facts[a], self._facts[b])

    def _gain(self, score: Array, right: Array) -> Array:
        gain = np.clip(score.astype(float), -_MOST, _MOST)
        gain[np.isnan(gain)] = -_MOST
        gain[~right] += self._wrong
        return np.asarray(gain)

    def forest(self, roots: Array) -> tuple[Forest, Array]:
        """Return the trees below some nodes, rows in postorder, and the node of each row."""
        begin = np.append(0, np.cumsum(2 * self.leaves[roots] - 1))
        parent, nodes = np.full((2, begin[-1]), -1)
        node, row = roots, begin[1:] - 1
        while node.size:
            nodes[row] = node
            inner = self.left[node] >= 0
            node, row = node[inner], row[inner]
            left, right = self.left[node], self.right[node]
            rows = row - 2 * self.leaves[right], row - 1
            parent[rows[0]] = parent[rows[1]] = row
            node, row = np.append(left, right), np.append(*rows)
        return Forest(parent, begin), nodes


def _mixed(key: Array) -> Array:
    """Spread keys over all 64 bits (the finalizer of Steele et al. 2014, SplitMix)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(key ^ (key >> np.uint64(31)))
