"""Structure learnt: trees over sentences or neighbouring regions, by a score for each merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_array, as_shape, check_size
from .forest import Forest
from .layers import Identity, Linear, Pullback, ReLU, Sigmoid, Tanh
from .merging import Guide, Merger, Nodes
from .module import Module, once
from .parse_search import Found, Task
from .recursive import RecursiveNet
from .spans import is_binary, truth

_ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "tanh": Tanh,
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "identity": Identity,
}
#: A binary forest, rows in postorder, and for each of its leaves the row of x.
Trees: TypeAlias = tuple[Forest, Array]


@dataclass(frozen=True)
class Parsed:
    """Trees found, sentence by sentence, of each the best first.

    forest: rows in postorder; score, sentence `(trees,)`: of each tree; leaves: for each leaf, in
    the order of `forest.leaves`, its row of x, so that any layer goes on with `x[leaves], forest`.
    """

    forest: Forest
    score: Array
    sentence: Array
    leaves: Array


class Parser(Module):
    """Trees whose merges score highest (Socher et al. 2010, 2011).

        h = phi(W x + b)                          a leaf
        p = phi(U_1 c_1 + U_2 c_2 + b)            the merge of two neighbours
        s = w . p                                 its score; a tree's is the sum of its merges'

    Parts: `net`, a `RecursiveNet` of arity two with inputs at leaves, and `scorer`, a `Linear`
    without bias. nonlinearity: "tanh", "relu", "sigmoid" or "identity".

    As a function it scores given trees: `score = parser(x, forest)`, x `(leaves, input_size)` in
    the order of `forest.leaves`, score `(trees,)` in float64. `parse` finds trees, `margin` is the
    loss to learn from.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        if nonlinearity not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"nonlinearity must be one of {known}, got {nonlinearity!r}")
        super().__init__()
        rng = np.random.default_rng(seed)
        self.nonlinearity = nonlinearity
        self.net = RecursiveNet(
            input_size, hidden_size, 2, nonlinearity, inputs="leaves", dtype=dtype, seed=rng
        )
        self.scorer = Linear(hidden_size, 1, bias=False, dtype=dtype, seed=rng)

    def __call__(self, x: npt.ArrayLike, forest: Forest) -> Array:
        """Return the score of each tree."""
        inner = np.flatnonzero(forest.child_count)
        return _sums(self.scorer(self.net(x, forest)[inner]), inner, forest)

    def vjp(self, x: npt.ArrayLike, forest: Forest) -> tuple[Array, Pullback]:
        """Return the scores and the pullback from their gradients to that of x."""
        inner = np.flatnonzero(forest.child_count)
        h, h_back = self.net.vjp(x, forest)
        s, s_back = self.scorer.vjp(h[inner])

        def pullback(dscore: npt.ArrayLike) -> Array:
            d = as_shape("dscore", dscore, np.dtype(float), (len(forest),)).astype(h.dtype)
            dh = np.zeros_like(h)
            dh[inner] = s_back(np.repeat(d, np.diff(forest.begin))[inner, None])
            return np.asarray(h_back(dh))

        return _sums(s, inner, forest), once(pullback)

    def parse(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike,
        *,
        method: str = "greedy",
        width: int | None = None,
        best: int = 1,
        adjacency: npt.ArrayLike | None = None,
    ) -> Parsed:
        """Find the `best` trees of each sentence, fewer where there are not as many.

        x `(N, input_size)`: the leaves of all sentences, one after the other; lengths
        `(sentences,)`: how many each has. method: "greedy" makes the merge that scores highest,
        again and again; "beam" keeps the `width` best partial forests, whatever the order of their
        merges; "chart" the `width` best trees of every span. width: 5 if not given.

        With adjacency `(E, 2)`, pairs of rows of x, whatever is adjacent may be merged, either of
        two first, and takes over the neighbours of both (Socher et al. 2011); greedy or beam.
        Raises `ValueError` where the neighbours of a sentence are not connected.
        """
        x, task = self._task(x, lengths, method, width, adjacency)
        if check_size("best", best) > task.width:
            raise ValueError(f"best must be at most the width, {task.width}, got {best}")
        parts = [self._parse(x, task, at, best) for at in task.parts()]
        arrays = zip(*((p.score, p.sentence, p.leaves) for p in parts), strict=True)
        return Parsed(_joined([p.forest for p in parts]), *map(np.concatenate, arrays))

    def _parse(self, x: Array, task: Task, sentences: slice, best: int) -> Parsed:
        """Find the best trees of some sentences."""
        leaves = task.leaves(sentences)
        nodes, found = self._search(x[leaves], task.part(sentences), None)
        rank = np.arange(len(found.roots)) - np.searchsorted(found.sentence, found.sentence)
        roots, sentence = found.roots[rank < best], found.sentence[rank < best]
        forest, rows = nodes.forest(roots)
        return Parsed(forest, nodes.score[roots], sentence + sentences.start, rows + leaves.start)

    def margin(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike,
        correct: Forest | npt.ArrayLike,
        *,
        kappa: float = 0.1,
        method: str = "greedy",
        width: int | None = None,
        adjacency: npt.ArrayLike | None = None,
    ) -> tuple[float, Pullback]:
        """Return the structured margin loss and the pullback from its gradient to that of x.

            mean over sentences of max(0, max over trees of (score + kappa wrong) - max over correct
            trees of score)

        (Taskar et al. 2004; Socher et al. 2011, equation 7), the maxima as found by `method`, see
        `parse`. wrong: how many of a tree's merges are in no correct tree. correct: one tree for
        each sentence; where it is not binary, all its binary forms are correct. With adjacency: a
        label for each row of x; those trees are correct that merge neighbours of one label into
        one region before that is merged with others.
        """
        x, task = self._task(x, lengths, method, width, adjacency)
        if isinstance(correct, Forest) and adjacency is not None:
            raise ValueError("correct must be labels where there is an adjacency, not a Forest")
        right_merges = truth(correct, task.begin, task.edges)
        if isinstance(correct, Forest) and is_binary(correct):
            right: Trees = correct, np.arange(len(x))
        else:
            right, _ = self._guided(x, task, Guide(right_merges, -np.inf))
        found, wrong = self._guided(x, task, Guide(right_merges, kappa))
        return self._hinge(x, task.begin, (found, right), kappa * wrong)

    def _task(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike,
        method: str,
        width: int | None,
        adjacency: npt.ArrayLike | None,
    ) -> tuple[Array, Task]:
        """Check what is to be parsed."""
        x, task = as_array("x", x, self.net.dtype), Task.of(lengths, method, width, adjacency)
        shape = int(task.begin[-1]), self.net.input_size
        if x.shape != shape:
            raise ValueError(f"x must have shape {shape}, a row for each leaf, got {x.shape}")
        return x, task

    def _search(self, x: Array, task: Task, guide: Guide | None) -> tuple[Nodes, Found]:
        """Find the best trees of each sentence, among the nodes that the search has made."""
        params, phi = self.net.params, _ACTIVATIONS[self.nonlinearity]()
        merger = Merger(params["weight_hh"], params["bias_ih"], self.scorer.params["weight"], phi)
        alone = Forest(np.full(len(x), -1), np.arange(len(x) + 1))
        nodes = Nodes(merger, self.net(x, alone), guide, int(task.room.sum()))
        return nodes, task.search(nodes)

    def _guided(self, x: Array, task: Task, guide: Guide) -> tuple[Trees, Array]:
        """Return the best tree of each sentence, and how many of its merges are wrong."""
        nodes, found = self._search(x, task, guide)
        roots = found.roots[np.unique(found.sentence, return_index=True)[1]]
        return nodes.forest(roots), nodes.wrong[roots]

    def _hinge(
        self, x: Array, begin: Array, pair: tuple[Trees, Trees], penalty: Array
    ) -> tuple[float, Pullback]:
        """Mean of max(0, score of found + penalty - score of right), over those that differ."""
        other = _differ(*pair, begin)
        rows, scale = np.repeat(other, np.diff(begin)), 1 / max(len(other), 1)
        found, right = (leaves[rows] for _, leaves in pair)
        forests = [forest.select(np.flatnonzero(other)) for forest, _ in pair]
        score, back = self.vjp(x[np.append(found, right)], _joined(forests))
        losses = np.maximum(np.subtract(*np.split(score, 2)) + penalty[other], 0)

        def pullback(dloss: float = 1.0) -> Array:
            d = np.where(losses > 0, float(dloss) * scale, 0)
            dx = np.zeros_like(x)
            for leaves, part in zip(
                (found, right), np.split(back(np.append(d, -d)), 2), strict=True
            ):
                dx[leaves] += part
            return dx

        return float(losses.sum()) * scale, once(pullback)


def _joined(forests: Sequence[Forest]) -> Forest:
    """Put forests one after the other; labels are left out."""
    rows = np.cumsum([0, *(forest.nodes for forest in forests)])
    parents = [
        np.where(f.parent < 0, -1, f.parent + at) for f, at in zip(forests, rows, strict=False)
    ]
    begins = [forest.begin[1:] + at for forest, at in zip(forests, rows, strict=False)]
    return Forest(np.concatenate(parents), np.concatenate([[0], *begins]))


def _sums(s: Array, inner: Array, forest: Forest) -> Array:
    """Sum the scores of inner nodes tree by tree."""
    all_nodes = np.zeros(forest.nodes)
    all_nodes[inner] = s[:, 0]
    return np.add.reduceat(all_nodes, forest.begin[:-1]) if len(forest) else all_nodes


def _differ(found: Trees, right: Trees, begin: Array) -> Array:
    """For each sentence whether two binary trees of it, rows in postorder, are different."""
    if len(begin) == 1:
        return np.zeros(0, bool)
    nodes = np.logical_or.reduceat(found[0].parent != right[0].parent, right[0].begin[:-1])
    return np.asarray(nodes | np.logical_or.reduceat(found[1] != right[1], begin[:-1]))
