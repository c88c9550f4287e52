"""The parser: scores of trees, the trees that score highest, and what it learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...arrays import Array, as_leaves, as_shape, check_size
from ...layers.activations import Elementwise
from ...layers.linear import Linear
from ...module import Module, Pullback, once
from ...nonlinearities import Activation
from ..forest import Forest
from ..recursive import RecursiveNet
from .margin import Derivation, hinge
from .nodes import Guide, Merger, Nodes
from .search import Found, Task
from .spans import Brackets, Correct, Either, truths


@dataclass(frozen=True)
class Parsed:
    """Trees found, sentence by sentence, of each the best first.

    forest: rows in postorder; score, sentence `(trees,)`: of each tree; leaves: for each leaf, in
    the order of `forest.leaves`, its row of x, so that any layer goes on with `x[leaves], forest`.
    It is the leaf's label, too.
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
    without bias. nonlinearity: an activation, as of `Elementwise`.

    As a function it scores given trees: `score = parser(x, forest)`, x `(leaves, input_size)` in
    the order of `forest.leaves`, score `(trees,)` in float64. `parse` finds trees, `margin` is the
    loss to learn from.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Activation = "tanh",
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.nonlinearity = nonlinearity
        self.net = RecursiveNet(
            input_size, hidden_size, 2, nonlinearity, inputs="leaves", dtype=dtype, seed=rng
        )
        self.scorer = Linear(hidden_size, 1, bias=False, dtype=dtype, seed=rng)

    def __call__(self, x: npt.ArrayLike, forest: Forest) -> Array:
        """Return the score of each tree."""
        s = np.zeros(forest.nodes)
        inner = np.flatnonzero(forest.child_count)
        s[inner] = self.scorer(self.net(x, forest)[inner])[:, 0]
        return _sums(s, forest)

    def vjp(self, x: npt.ArrayLike, forest: Forest) -> tuple[Array, Pullback]:
        """Return the scores and the pullback from their gradients to that of x."""
        s, back = self._merges(x, forest)

        def pullback(dscore: npt.ArrayLike) -> Array:
            dscore = as_shape("dscore", dscore, np.dtype(float), (len(forest),))
            return back(np.repeat(dscore, np.diff(forest.begin)))

        return _sums(s, forest), once(pullback)

    def _merges(self, x: npt.ArrayLike, forest: Forest) -> tuple[Array, Callable[[Array], Array]]:
        """Return the score of each node `(N,)`, zero at leaves, and the pullback to x."""
        inner, s = np.flatnonzero(forest.child_count), np.zeros(forest.nodes)
        h, h_back = self.net.vjp(x, forest)
        merges, merges_back = self.scorer.vjp(h[inner])
        s[inner] = merges[:, 0]

        def pullback(ds: Array) -> Array:
            dh = np.zeros_like(h)
            dh[inner] = merges_back(ds[inner, None].astype(h.dtype))
            return np.asarray(h_back(dh))

        return s, pullback

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
        return Parsed(Forest.join([p.forest for p in parts]), *map(np.concatenate, arrays))

    def _parse(self, x: Array, task: Task, sentences: slice, best: int) -> Parsed:
        """Find the best trees of some sentences."""
        leaves = task.leaves(sentences)
        nodes, found = self._search(x[leaves], task.part(sentences), None)
        rank = np.arange(len(found.roots)) - np.searchsorted(found.sentence, found.sentence)
        roots, sentence = found.roots[rank < best], found.sentence[rank < best]
        forest, at = nodes.forest(roots)
        rows, labels = at[forest.leaves] + leaves.start, np.full(forest.nodes, None)
        labels[forest.leaves] = rows
        forest = Forest(forest.parent, forest.begin, list(labels))
        return Parsed(forest, nodes.score[roots], sentence + sentences.start, rows)

    def margin(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike,
        correct: Correct,
        *,
        kappa: float = 0.1,
        partial: bool = False,
        method: str = "greedy",
        width: int | None = None,
        adjacency: npt.ArrayLike | None = None,
    ) -> tuple[float, Pullback]:
        """Return the structured margin loss and the pullback from its gradient to that of x.

            mean over sentences of max(0, max over trees of (score + kappa wrong)
                                          - max over correct trees of score)

        (Taskar et al. 2004; Socher et al. 2011), the maxima as found by `method`, see `parse`.
        wrong: how many of a tree's merges are in no correct tree. correct: a forest, one tree for
        each sentence, where all binary forms of one that is not binary are correct; or several such
        forests; or, with adjacency in any case, a label for each row of x: then trees are correct
        that merge neighbours of one label into one region before that is merged with others.

        Greedy search and a narrow beam may well miss a tree that scores higher than the correct
        one, and then there is nothing to learn from. `partial` compares the two after as many
        merges as put the wrong one furthest ahead (Huang et al. 2012, "max-violation"): at the
        first wrong merge it is ahead.
        """
        if not 0 <= kappa < np.inf:
            raise ValueError(f"kappa must be at least 0 and finite, got {kappa}")
        kappa = float(kappa)
        x, task = self._task(x, lengths, method, width, adjacency)
        given = truths(correct, task.begin, task.edges)
        if isinstance(given[0], Brackets) and adjacency is not None:
            raise ValueError("correct must be labels where there is an adjacency, not a Forest")
        any_of = Either(given) if len(given) > 1 else given[0]
        found = self._derive(x, task, Guide(any_of, kappa))
        right = Derivation.best([self._derive(x, task, Guide(one, -np.inf)) for one in given])
        faulty = found.faulty  # all others lose nothing
        found, right = found.select(faulty), right.select(faulty)
        leaves, scale = np.append(found.leaves, right.leaves), 1 / max(len(task.begin) - 1, 1)
        s, s_back = self._merges(x[leaves], Forest.join([found.forest, right.forest]))
        first, second = np.split(s, 2)
        losses, back = hinge(found, right, (first, second), kappa, partial)

        def pullback(dloss: float = 1.0) -> Array:
            dleaves = s_back(np.concatenate(back(np.full(len(faulty), float(dloss) * scale))))
            dx = np.zeros_like(x)
            for rows, part in zip(np.split(leaves, 2), np.split(dleaves, 2), strict=True):
                dx[rows] += part
            return dx

        return float(losses.sum()) * scale, once(pullback)

    def _task(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike,
        method: str,
        width: int | None,
        adjacency: npt.ArrayLike | None,
    ) -> tuple[Array, Task]:
        """Check what is to be parsed."""
        x, counts = as_leaves(x, lengths, self.net.input_size, self.net.dtype)
        return x, Task.of(counts, method, width, adjacency)

    def _search(self, x: Array, task: Task, guide: Guide | None) -> tuple[Nodes, Found]:
        """Find the best trees of each sentence, among the nodes that the search has made."""
        params, phi = self.net.float_params(), Elementwise(self.nonlinearity)
        weights = self.net.weight_type or "", self.scorer.weight_type or ""
        w = self.scorer.float_params()["weight"]
        merger = Merger(params["weight_hh"], params["bias_ih"], w, phi, weights)
        alone = Forest(np.full(len(x), -1), np.arange(len(x) + 1))
        nodes = Nodes(merger, self.net(x, alone), guide, int(task.room.sum()))
        return nodes, task.search(nodes)

    def _derive(self, x: Array, task: Task, guide: Guide) -> Derivation:
        """Find the best tree of each sentence."""
        nodes, found = self._search(x, task, guide)
        roots = found.roots[np.unique(found.sentence, return_index=True)[1]]
        return Derivation.made(nodes, roots)


def _sums(s: Array, forest: Forest) -> Array:
    """Sum the scores of nodes tree by tree."""
    return np.add.reduceat(s, forest.begin[:-1]) if len(forest) else s
