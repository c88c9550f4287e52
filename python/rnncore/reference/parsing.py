"""Parsing by scored merges, a tree at a time: trees are nested pairs of the numbers of leaves.

A search starts from a list of trees, at first the leaves, and merges two of them that are
neighbours: some edge (i, j) leads from a leaf of the first to a leaf of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np

from ..arrays import Array

#: The number of a leaf, or a pair of trees.
Tree: TypeAlias = Any
Leaves: TypeAlias = frozenset[int]
Edges: TypeAlias = Set[tuple[int, int]]


def leaves(tree: Tree) -> Leaves:
    """The leaves of a tree."""
    return leaves(tree[0]) | leaves(tree[1]) if isinstance(tree, tuple) else frozenset([tree])


def merges(tree: Tree) -> Iterator[tuple[Tree, Tree]]:
    """Yield the inner nodes of a tree."""
    if isinstance(tree, tuple):
        yield from merges(tree[0])
        yield from merges(tree[1])
        yield tree


class Scores:
    """h = phi(W x + b) at a leaf, p = phi(U_1 c_1 + U_2 c_2 + b) and s = w . p at a merge."""

    def __init__(
        self, params: Mapping[str, Array], x: Array, phi: Callable[[Array], Array] = np.tanh
    ) -> None:
        """params: those of a `Parser`; x `(leaves, I)`."""
        self._w, self._u = params["net.weight_ih"], params["net.weight_hh"]
        self._b, self._s = params["net.bias_ih"], params["scorer.weight"][0]
        self._x, self._phi = x, phi

    def vector(self, tree: Tree) -> Array:
        """The vector of a tree."""
        if not isinstance(tree, tuple):
            return self._phi(self._w @ self._x[tree] + self._b)
        left, right = map(self.vector, tree)
        return self._phi(self._u[0] @ left + self._u[1] @ right + self._b)

    def merge(self, tree: Tree) -> float:
        """The score of the topmost merge."""
        return float(self._s @ self.vector(tree))

    def tree(self, tree: Tree) -> float:
        """The sum over all merges of a tree."""
        return sum(map(self.merge, merges(tree)))


def in_a_row(count: int) -> Edges:
    """The edges of a sentence."""
    return {(at, at + 1) for at in range(count - 1)}


def steps(forest: tuple[Tree, ...], edges: Edges) -> Iterator[tuple[Tree, tuple[Tree, ...]]]:
    """Yield each merge of two neighbours, and the forest that it leaves."""
    for a, b in permutations(forest, 2):
        if any((i, j) in edges for i in leaves(a) for j in leaves(b)):
            yield (a, b), (*(tree for tree in forest if tree not in (a, b)), (a, b))


def greedy(scores: Scores, count: int, edges: Edges) -> Tree:
    """Make the merge that scores highest, again and again."""
    forest: tuple[Tree, ...] = tuple(range(count))
    while len(forest) > 1:
        _, forest = max(steps(forest, edges), key=lambda step: scores.merge(step[0]))
    return forest[0]


def all_trees(count: int, edges: Edges) -> set[Tree]:
    """Every tree that some order of merges leads to."""
    forests: set[frozenset[Tree]] = {frozenset(range(count))}
    for _ in range(count - 1):
        forests = {frozenset(f) for forest in forests for _, f in steps(tuple(forest), edges)}
    return {tree for forest in forests for tree in forest}


def crossing(span: Leaves, brackets: Iterable[Leaves]) -> bool:
    """Whether a span shares leaves with a bracket, and neither holds the other."""
    return any(span & other and span - other and other - span for other in brackets)


def margin(
    scores: Scores, trees: Iterable[Tree], wrong: Callable[[Tree], int], kappa: float
) -> float:
    """max over trees (score + kappa wrong) - max over those with nothing wrong (score)."""
    found = [(scores.tree(tree), wrong(tree)) for tree in trees]
    right = max(score for score, faults in found if not faults)
    return max(score + kappa * faults for score, faults in found) - right
