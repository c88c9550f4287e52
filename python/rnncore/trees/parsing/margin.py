"""How far a wrong tree is ahead of the correct one: the structured margin, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...arrays import Array
from ..forest import Forest
from .nodes import Nodes


@dataclass(frozen=True)
class Derivation:
    """A binary tree of each sentence, rows in postorder, and when its merges were made.

    Of each row, leaf: the row of x, -1 at merges; step: how many merges of its tree came before, -1
    at leaves; wrong: whether it is a merge that is in no correct tree. score: of each tree.
    """

    forest: Forest
    leaf: Array
    step: Array
    wrong: Array
    score: Array

    @classmethod
    def made(cls, nodes: Nodes, roots: Array) -> Derivation:
        """What a search has found."""
        forest, at = nodes.forest(roots)
        leaf = np.where(nodes.left[at] < 0, at, -1)
        return cls(forest, leaf, _ranks(forest, at), nodes.wrong[at], nodes.score[roots])

    @classmethod
    def best(cls, options: Sequence[Derivation]) -> Derivation:
        """Of several trees for each sentence take the one that scores highest."""
        if len(options) == 1:
            return options[0]
        score, forest = np.stack([option.score for option in options]), options[0].forest
        winner = np.argmax(score, axis=0)
        at = winner[_tree(forest)], np.arange(forest.nodes)
        columns = zip(*((o.forest.parent, o.leaf, o.step, o.wrong) for o in options), strict=True)
        parent, leaf, step, wrong = (np.stack(column)[at] for column in columns)
        best = score[winner, np.arange(len(forest))]
        return cls(Forest(parent, forest.begin), leaf, step, wrong, best)

    @property
    def leaves(self) -> Array:
        """For each leaf its row of x."""
        return self.leaf[self.leaf >= 0]

    def select(self, numbers: Array) -> Derivation:
        """Some of the trees."""
        rows, forest = self.forest.rows(numbers), self.forest.select(numbers)
        leaf, step, wrong = self.leaf[rows], self.step[rows], self.wrong[rows]
        return Derivation(forest, leaf, step, wrong, self.score[numbers])

    @property
    def faulty(self) -> Array:
        """The numbers of trees with a wrong merge."""
        return np.unique(_tree(self.forest)[self.wrong])

    def by_step(self, values: Array) -> Array:
        """Lay out what each merge has, `(N,)`, as `(trees, merges)`, zero after a tree's last."""
        merges, tree = self.step >= 0, _tree(self.forest)
        table = np.zeros((len(self.forest), int(self.step.max(initial=-1)) + 1))
        table[tree[merges], self.step[merges]] = values[merges]
        return table

    def until(self, last: Array) -> Array:
        """For each row whether it is a merge up to its tree's `last` one."""
        return np.asarray((self.step >= 0) & (self.step <= last[_tree(self.forest)]))


def _tree(forest: Forest) -> Array:
    return np.repeat(np.arange(len(forest)), np.diff(forest.begin))


def _ranks(forest: Forest, made: Array) -> Array:
    """Count the merges of each tree as they were made: -1 at leaves."""
    merges, tree = np.flatnonzero(forest.child_count), _tree(forest)
    merges = merges[np.lexsort((made[merges], tree[merges]))]
    ranks = np.full(forest.nodes, -1)
    ranks[merges] = np.arange(len(merges)) - np.searchsorted(tree[merges], tree[merges])
    return ranks


def hinge(
    found: Derivation, right: Derivation, scores: tuple[Array, Array], kappa: float, partial: bool
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return max(0, what found is ahead of right) of each tree, and the pullback to both scores.

    scores: of each row. With `partial` both are compared after as many merges as put found furthest
    ahead, otherwise after all.
    """
    ahead = found.by_step(scores[0] + kappa * found.wrong) - right.by_step(scores[1])
    sums, trees = np.cumsum(ahead, axis=1), np.arange(len(ahead))
    last = np.diff(found.forest.begin) // 2 - 1
    if partial and len(trees):
        sums[np.arange(sums.shape[1]) > last[:, None]] = -np.inf
        last = sums.argmax(axis=1)
    losses = np.maximum(sums[trees, last], 0)

    def pullback(dlosses: Array) -> tuple[Array, Array]:
        d = np.where(losses > 0, dlosses, 0)
        up, down = (d[_tree(side.forest)] * side.until(last) for side in (found, right))
        return up, -down

    return losses, pullback
