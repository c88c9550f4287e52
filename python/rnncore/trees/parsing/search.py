"""Which nodes to merge into a tree: the searches of a parser, all sentences side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...arrays import Array, as_indices, check_size
from .nodes import Nodes
from .spans import components

#: Candidates that a block of the chart compares at a time.
_BLOCK = 1 << 18


#: Nodes that a search of many sentences holds, about.
_NODES = 1 << 17
#: A beam of this width keeps all trees that there is memory for.
_WIDEST = 1 << 31


class Found(NamedTuple):
    """Roots `(trees,)` and the sentence of each; of a sentence the best first."""

    roots: Array
    sentence: Array


@dataclass(frozen=True)
class Task:
    """What is to be parsed, and how.

    begin `(sentences + 1,)`: the first leaf of each sentence; edges `(E, 2)`: which leaf may be
    merged with which after it, sorted.
    """

    begin: Array
    edges: Array
    method: str
    width: int

    @classmethod
    def of(
        cls,
        lengths: Array,
        method: str,
        width: int | None,
        adjacency: npt.ArrayLike | None,
    ) -> Task:
        """Check the arguments of a parser; lengths, those of `as_leaves`, are checked."""
        if method not in ("greedy", "beam", "chart"):
            raise ValueError(f"method must be 'greedy', 'beam' or 'chart', got {method!r}")
        if method == "greedy" and width not in (None, 1):
            raise ValueError(f"width must be 1 with method='greedy', got {width}")
        if method == "chart" and adjacency is not None:
            raise ValueError("method='chart' parses sequences only, not an adjacency")
        if width is None:
            width = 1 if method == "greedy" else 5
        begin = np.append(0, np.cumsum(lengths))
        edges = _in_a_row(begin) if adjacency is None else _both_ways(adjacency, begin)
        return cls(begin, edges, method, min(check_size("width", width), _WIDEST))

    @property
    def room(self) -> Array:
        """For each sentence the merges that a search makes at most."""
        size = np.diff(self.begin)
        return self.width * (size * (size - 1) // 2 if self.method == "chart" else size - 1)

    def search(self, nodes: Nodes) -> Found:
        """Find the best trees."""
        if self.method == "chart":
            return chart(nodes, self.begin, self.width)
        return neighbours(nodes, self.begin, self.edges, self.width)

    def parts(self) -> list[slice]:
        """Cut into runs of sentences whose search takes a bounded room, or that are one."""
        group = np.cumsum(self.room) // _NODES
        cuts = [0, *(np.flatnonzero(np.diff(group)) + 1), len(group)]
        return [slice(*map(int, ends)) for ends in pairwise(cuts)]

    def leaves(self, sentences: slice) -> slice:
        """The leaves of a run of sentences."""
        return slice(int(self.begin[sentences.start]), int(self.begin[sentences.stop]))

    def part(self, sentences: slice) -> Task:
        """A run of the sentences by itself."""
        leaves = self.leaves(sentences)
        edges = slice(*np.searchsorted(self.edges[:, 0], [leaves.start, leaves.stop]))
        begin = self.begin[sentences.start : sentences.stop + 1] - leaves.start
        return replace(self, begin=begin, edges=self.edges[edges] - leaves.start)


def _in_a_row(begin: Array) -> Array:
    """Each leaf with the next of its sentence."""
    at = np.delete(np.arange(begin[-1]), begin[1:] - 1)
    return np.stack([at, at + 1], axis=1)


def _both_ways(adjacency: npt.ArrayLike, begin: Array) -> Array:
    """Each pair of neighbours in both orders, once; refuses what does not hang together."""
    leaves = int(begin[-1])
    pairs = as_indices("adjacency", adjacency, leaves)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise ValueError(f"adjacency must have shape (E, 2), got {pairs.shape}")
    pairs = pairs.reshape(-1, 2)
    sentence = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    wrong = (pairs[:, 0] == pairs[:, 1]) | (sentence[pairs[:, 0]] != sentence[pairs[:, 1]])
    if wrong.any():
        pair = pairs[np.argmax(wrong)].tolist()
        raise ValueError(f"adjacency must join two leaves of one sentence, got {pair}")
    apart = components(leaves, pairs) != begin[sentence]
    if apart.any():
        leaf = int(np.argmax(apart))
        raise ValueError(
            f"adjacency is not connected: no path leads from leaf {begin[sentence[leaf]]} "
            f"to leaf {leaf} of sentence {sentence[leaf]}"
        )
    return np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)


def neighbours(nodes: Nodes, begin: Array, edges: Array, width: int) -> Found:
    """Merge neighbours until one node is left, keeping the `width` best partial forests.

    begin `(sentences + 1,)`: the first leaf of each; edges `(E, 2)`: which leaf may be merged with
    which after it, sorted, all leaves of a sentence connected. Of equal scores the first edge wins.
    What is the same but for the order of merges is kept once.
    """
    merges = np.diff(begin) - 1  # a sentence's
    single = np.flatnonzero(merges == 0)
    roots, sentences = [begin[single]], [single]
    states, step = _States.first(nodes, begin, edges), 0
    while len(states.sentence):
        new = states.merge(nodes, *states.best(nodes, width))
        step += 1
        over = merges[states.sentence] == step
        if over.any():
            roots.append(new[over])
            sentences.append(states.sentence[over])
            states.keep(~over)
    root, sentence = np.concatenate(roots), np.concatenate(sentences)
    order = np.lexsort((-nodes.value[root], sentence))
    return Found(root[order], sentence[order])


@dataclass
class _States:
    """Partial forests, a row each, sentence by sentence: which nodes are neighbours in it.

    source, target `(states, E)`: the nodes at the ends of each edge, the same where the edge is no
    more; gain: what merging them would add to `total`; key: equal for equal forests only.
    """

    sentence: Array
    total: Array
    key: Array
    source: Array
    target: Array
    gain: Array

    @classmethod
    def first(cls, nodes: Nodes, begin: Array, edges: Array) -> _States:
        """Nothing is merged yet; sentences of one leaf are left out."""
        start = np.searchsorted(edges[:, 0], begin)
        sentence = np.flatnonzero(np.diff(start))
        size = np.diff(start)[sentence]
        row = np.repeat(np.arange(len(sentence)), size)
        place = np.arange(len(edges)) - np.repeat(start[sentence], size)
        shape = len(sentence), int(size.max(initial=0))
        source, target = np.zeros((2, *shape), np.int64)
        gain = np.full(shape, -np.inf)
        source[row, place], target[row, place] = edges.T
        gain[row, place] = nodes.gains(*edges.T)
        key = np.zeros(len(sentence), np.uint64)
        return cls(sentence, np.zeros(len(sentence)), key, source, target, gain)

    def keep(self, which: Array) -> None:
        """Forget all others."""
        for name, value in vars(self).items():
            setattr(self, name, value[which])

    def best(self, nodes: Nodes, width: int) -> tuple[Array, Array]:
        """Choose the next states: the row that each continues, and by which edge."""
        if width == 1:
            return np.arange(len(self.gain)), self.gain.argmax(axis=1)
        edges = np.argsort(-self.gain, axis=1, kind="stable")[:, :width]
        row, edge = np.repeat(np.arange(len(edges)), edges.shape[1]), edges.ravel()
        value = self.total[row] + self.gain[row, edge]
        order = np.lexsort((-value, self.sentence[row]))
        order = order[value[order] > -np.inf]
        row, edge = row[order], edge[order]
        key = self.key[row] + nodes.pair_key(self.source[row, edge], self.target[row, edge])
        once = np.sort(np.unique(key, return_index=True)[1])
        row, edge = row[once], edge[once]
        sentence = self.sentence[row]
        rank = np.arange(len(row)) - np.searchsorted(sentence, sentence)
        return row[rank < width], edge[rank < width]

    def merge(self, nodes: Nodes, row: Array, edge: Array) -> Array:
        """Become the states that `best` has chosen; return the node that each has made."""
        gain = self.gain[row, edge]
        if len(row) != len(self.sentence) or (row != np.arange(len(row))).any():
            self.keep(row)
        each = np.arange(len(row))
        a, b = self.source[each, edge], self.target[each, edge]
        new = nodes.add(a, b)
        self.total += gain
        self.key += nodes.key[new]
        touched = np.zeros(self.gain.shape, bool)
        for ends in (self.source, self.target):
            mine = (ends == a[:, None]) | (ends == b[:, None])
            np.copyto(ends, new[:, None], where=mine)
            touched |= mine
        self._score(nodes, *np.nonzero(touched))
        return new

    def _score(self, nodes: Nodes, row: Array, edge: Array) -> None:
        """Score edges anew; one that joins a node with itself, or is there twice, is no more."""
        source, target = self.source[row, edge], self.target[row, edge]
        pairs = (row * nodes.count + source) * nodes.count + target
        alive = np.zeros(len(row), bool)
        alive[np.unique(pairs, return_index=True)[1]] = True
        alive &= source != target
        gain = np.full(len(row), -np.inf)
        gain[alive] = nodes.gains(source[alive], target[alive])
        self.gain[row, edge] = gain
        self.target[row[~alive], edge[~alive]] = source[~alive]


def chart(nodes: Nodes, begin: Array, width: int) -> Found:
    """Keep the `width` best trees of every span, from short spans to long ones (CKY).

    Trees of one span have different vectors, so even the best tree of a sentence is surely found
    only where all trees of the spans in it are kept.
    """
    leaves, sizes = int(begin[-1]), np.diff(begin)
    end = np.repeat(begin[1:], sizes)
    cells = [np.zeros((leaves, 0), np.int64), np.arange(leaves)[:, None]]
    for span in range(2, int(sizes.max(initial=0)) + 1):
        first = np.flatnonzero(np.arange(leaves) + span <= end)
        ways = sum(cells[k].shape[1] * cells[span - k].shape[1] for k in range(1, span))
        block = max(1, _BLOCK // max(1, ways))
        cell = np.full((leaves, width), -1)
        for at in range(0, len(first), block):
            part = first[at : at + block]
            cell[part] = _cell(nodes, cells, part, width)
        cells.append(cell[:, : int((cell >= 0).sum(axis=1).max())])
    roots = [cells[size][at][cells[size][at] >= 0] for size, at in zip(sizes, begin, strict=False)]
    sentence = np.repeat(np.arange(len(sizes)), [len(root) for root in roots])
    return Found(np.concatenate([np.zeros(0, np.int64), *roots]), sentence)


def _cell(nodes: Nodes, cells: list[Array], first: Array, width: int) -> Array:
    """Return the best nodes of the next longer spans that begin at `first`, -1 for none."""
    span, rows = len(cells), len(first)
    splits = [
        np.broadcast_arrays(cells[k][first][:, :, None], cells[span - k][first + k][:, None])
        for k in range(1, span)
    ]
    a, b = (np.concatenate([s[side].reshape(rows, -1) for s in splits], axis=1) for side in (0, 1))
    value, there = np.full(a.shape, -np.inf), (a >= 0) & (b >= 0)
    left, right = a[there], b[there]
    value[there] = nodes.value[left] + nodes.value[right] + nodes.gains(left, right)
    order = np.argsort(-value, axis=1, kind="stable")[:, :width]
    row, rank = np.nonzero(np.take_along_axis(value, order, axis=1) > -np.inf)
    chosen = order[row, rank]
    cell = np.full((rows, width), -1)
    cell[row, rank] = nodes.add(a[row, chosen], b[row, chosen])
    return cell
