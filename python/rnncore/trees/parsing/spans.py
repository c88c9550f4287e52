"""Spans of leaves: which of them agree with a correct tree, and how many were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ...arrays import Array, read
from ..forest import Forest


@dataclass(frozen=True)
class Bracketing:
    """How many spans of two leaves and more each tree has: found, correct, and both.

    Precision is the share of what was found that is correct, recall the share of what is correct
    that was found, F1 their harmonic mean; over the whole corpus every span counts the same. Where
    there is nothing to find, they are 1.
    """

    found: Array
    correct: Array
    matched: Array

    @property
    def precision(self) -> float:
        """Matched of found, over all trees."""
        return float(_share(self.matched.sum(), self.found.sum()))

    @property
    def recall(self) -> float:
        """Matched of correct, over all trees."""
        return float(_share(self.matched.sum(), self.correct.sum()))

    @property
    def f1(self) -> float:
        """Twice matched of found and correct, over all trees."""
        return float(_share(2 * self.matched.sum(), self.found.sum() + self.correct.sum()))

    def per_tree(self) -> tuple[Array, Array, Array]:
        """Precision, recall and F1 of each tree."""
        return (
            _share(self.matched, self.found),
            _share(self.matched, self.correct),
            _share(2 * self.matched, self.found + self.correct),
        )


def _share(part: Array, whole: Array) -> Array:
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))


def bracketing(found: Forest, correct: Forest, *, whole: bool = True) -> Bracketing:
    """Compare the spans of two forests' inner nodes, tree by tree.

    A span counts once, and only with two leaves or more: unary nodes add nothing. The span of a
    whole tree is right in any case; it counts as in PARSEVAL (Black et al. 1991) unless `whole` is
    False. Raises `ValueError` where trees differ in their number of leaves.
    """
    begin = leaf_begin(found)
    if len(found) != len(correct) or (begin != leaf_begin(correct)).any():
        raise ValueError(
            "found and correct must be as many trees, each of as many leaves; got "
            f"{found!r} with {len(found.leaves)} leaves, {correct!r} with {len(correct.leaves)}"
        )
    ours, theirs = (_distinct(forest, begin, whole) for forest in (found, correct))
    both = np.intersect1d(ours, theirs, assume_unique=True)
    base = begin[-1] + 1
    counts = (
        np.bincount(np.searchsorted(begin, key // base, "right") - 1, minlength=len(found))
        for key in (ours, theirs, both)
    )
    return Bracketing(*counts)


def _distinct(forest: Forest, begin: Array, whole: bool) -> Array:
    """The spans that count, each as one number."""
    first, last = forest.spans.T
    start, size = (np.repeat(each, np.diff(forest.begin)) for each in (begin[:-1], np.diff(begin)))
    counts = (last - first > 1) & (whole | (last - first < size))
    return np.unique((start + first)[counts] * (begin[-1] + 1) + (start + last)[counts])


def leaf_begin(forest: Forest) -> Array:
    """Return `(trees + 1,)`: the first leaf of each tree."""
    before = np.append(0, np.cumsum(forest.child_count == 0))
    return np.asarray(before[forest.begin])


#: Correct trees, or several for each sentence, or a label for each leaf.
Correct: TypeAlias = Forest | Sequence[Forest] | npt.ArrayLike


class Truth(Protocol):
    """Which merges agree with the correct trees, told from a few numbers of what is merged."""

    @property
    def leaves(self) -> Array:
        """The numbers of each leaf, `(leaves, numbers)`."""

    def join(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Return the numbers `(N, ...)` of the merges of a and b, and which of them are right."""


@dataclass(frozen=True)
class Brackets:
    """A span is right if it crosses none of the given tree's: any binary form of that is correct.

    gaps `(leaves + 1,)`: the height of the lowest node above both leaves beside a gap, unlimited
    between trees. Of a span: its first gap, its last, and the highest between, the height of the
    lowest node above it. No child of that node is cut where the gaps at both ends are as high.
    """

    gaps: Array
    leaves: Array

    @classmethod
    def of(cls, forest: Forest) -> Brackets:
        """Read them off the correct trees, which may have any arity."""
        begin, count = leaf_begin(forest), len(forest.leaves)
        gaps = np.full(count + 1, np.iinfo(np.int64).max)
        later = np.flatnonzero(forest.position > 0)
        tree = np.searchsorted(forest.begin, later, "right") - 1
        gaps[begin[tree] + forest.spans[later, 0]] = forest.levels[forest.parent[later]]
        at = np.arange(count)
        return cls(gaps, np.stack([at, at + 1, np.zeros(count, np.int64)], axis=1))

    def join(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Put neighbouring spans together."""
        begin, end = a[:, 0], b[:, 1]
        height = np.maximum(np.maximum(a[:, 2], b[:, 2]), self.gaps[b[:, 0]])
        right = (self.gaps[begin] >= height) & (self.gaps[end] >= height)
        return np.stack([begin, end, height], axis=1), right


@dataclass(frozen=True)
class Segments:
    """A merge is right if it makes one segment whole before that is merged with others.

    As in Socher et al. (2011): neighbours with equal labels belong to a segment, and above a wrong
    merge all are wrong. sizes: leaves of each segment. Of a node: its segment, -1 if it is
    one or several whole ones; its leaves; whether all below it is right.
    """

    sizes: Array
    leaves: Array

    @classmethod
    def of(cls, labels: Array, edges: Array) -> Segments:
        """Find the segments: labels `(leaves,)`, edges `(E, 2)` between neighbours."""
        segment = components(len(labels), edges[labels[edges[:, 0]] == labels[edges[:, 1]]])
        sizes = np.bincount(segment, minlength=len(labels))
        one = np.ones(len(labels), np.int64)
        return cls(sizes, np.stack([np.where(sizes[segment] == 1, -1, segment), one, one], axis=1))

    def join(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Put neighbouring regions together."""
        right = (a[:, 0] == b[:, 0]) & (a[:, 2] & b[:, 2]).astype(bool)
        segment, size = a[:, 0], a[:, 1] + b[:, 1]
        segment = np.where(size == self.sizes[segment], -1, segment)
        return np.stack([segment, size, right], axis=1), right


@dataclass(frozen=True)
class Either:
    """A merge is right if any of several says so."""

    truths: Sequence[Truth]

    @property
    def leaves(self) -> Array:
        """The numbers of all, one after the other."""
        return np.concatenate([truth.leaves for truth in self.truths], axis=1)

    def join(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Ask all of them."""
        cuts = np.cumsum([truth.leaves.shape[1] for truth in self.truths])[:-1]
        sides = (np.split(side, cuts, axis=1) for side in (a, b))
        joined = [truth.join(*pair) for truth, *pair in zip(self.truths, *sides, strict=True)]
        numbers, right = zip(*joined, strict=True)
        return np.concatenate(numbers, axis=1), np.logical_or.reduce(right)


def truths(correct: Correct, begin: Array, edges: Array) -> list[Truth]:
    """Read the correct trees: brackets, of which there may be several, or labels of segments."""
    if isinstance(correct, Forest):
        correct = [correct]
    if isinstance(correct, (list, tuple)) and any(isinstance(one, Forest) for one in correct):
        for forest in correct:
            if not isinstance(forest, Forest):
                raise TypeError(f"correct must hold nothing but Forests, got {forest!r}")
            ours = leaf_begin(forest)
            if len(ours) != len(begin) or (ours != begin).any():
                raise ValueError(
                    f"correct must have trees of {np.diff(begin)} leaves, got {np.diff(ours)}"
                )
        return [Brackets.of(forest) for forest in correct]
    labels, _ = read("correct", correct)
    if labels.shape != (begin[-1],):
        raise ValueError(
            f"correct must have shape ({begin[-1]},), a label for each leaf, "
            f"or be a Forest; got {labels.shape}"
        )
    return [Segments.of(labels, edges)]


def components(nodes: int, edges: Array) -> Array:
    """Return for each node the lowest one that edges `(E, 2)` connect it with."""
    lowest = np.arange(nodes)
    while True:
        ends = lowest[edges]
        low = ends.min(axis=1)
        if (ends == low[:, None]).all():
            return lowest
        np.minimum.at(lowest, ends.ravel(), np.repeat(low, 2))
        while (lowest != lowest[lowest]).any():
            lowest = lowest[lowest]
