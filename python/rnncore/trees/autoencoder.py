"""Recursive autoencoders: a sentence folded into one vector, along a given tree or one found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_integers, as_leaves, as_shape, check_flag, check_size, float_dtype
from ..compositions.chain import Chain
from ..compositions.composition import run
from ..layers.activations import Elementwise
from ..layers.embedding import add_rows
from ..layers.linear import Linear
from ..losses import SoftmaxCrossEntropy
from ..module import Module, Pullback, once
from ..nonlinearities import Activation, as_activation
from .forest import Forest
from .merges import Nodes, greedy

#: From the gradients of pairs' errors to those of their codes; adds the states' own to the second.
_ErrorsBack: TypeAlias = Callable[[Array, Array], Array]


class UnitLength(Module):
    """y = x / ||x|| along the last axis; zero stays zero."""

    def __call__(self, x: Array) -> Array:
        """Return y."""
        return self.vjp(x)[0]

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps y."""
        length = np.sqrt(np.einsum("...i,...i->...", x, x))[..., None]
        length = np.where(length == 0, x.dtype.type(1), length)
        y = x / length

        def pullback(dy: Array) -> Array:
            along = np.einsum("...i,...i->...", dy, y)[..., None]
            return np.asarray((dy - y * along) / length)

        return y, once(pullback)


class RecursiveAutoencoder(Module):
    """Two neighbours after the other become one vector, from which they can be restored.

        p = phi(W [c1; c2] + b)        divided by ||p|| with `normalise`
        [c1'; c2'] = psi(W' p + b')
        error(p) = (n1 ||c1 - c1'||^2 + n2 ||c2 - c2'||^2) / (n1 + n2)      n: leaves below c

    (Socher et al. 2011, "Semi-Supervised Recursive Autoencoders"). With `unfolding` what is
    restored is restored further down to the leaves x, and error(p) = sum ||x - x'||^2 over those
    below p (Socher et al. 2011, "Dynamic Pooling and Unfolding Recursive Autoencoders"). That takes
    a product's row for every two nodes of which one is above the other.

    With `num_classes` a softmax stands at the nodes; the loss is the sum over nodes of alpha *
    error + (1 - alpha) * cross-entropy, without classes that of the errors; the mean over trees.

    x `(leaves, size)` has a row for each leaf. Either `lengths` says how many each sentence has,
    and trees are found: of each sentence's neighbours those with the smallest error are merged,
    until one is left. Or `forest` gives binary trees, and x is in the order of `forest.leaves`.

    nonlinearity (phi), reconstruction (psi): activations, as of `Elementwise`. Parameters:
    `encoder.0.weight (size, 2 size)`, `decoder.0.weight (2 size, size)`, `classifier.weight
    (num_classes, size)`, and the same with `bias`.
    """

    def __init__(
        self,
        size: int,
        num_classes: int = 0,
        *,
        nonlinearity: Activation = "tanh",
        reconstruction: Activation = "identity",
        normalise: bool = True,
        unfolding: bool = False,
        alpha: float = 0.2,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.size, self.dtype = check_size("size", size), float_dtype(dtype)
        self.unfolding, self.num_classes = unfolding, num_classes
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        self.alpha = float(alpha) if num_classes else 1.0
        rng = np.random.default_rng(seed)
        parts: list[Module] = [Linear(2 * size, size, dtype=dtype, seed=rng)]
        parts.append(Elementwise(as_activation("nonlinearity", nonlinearity)))
        self.encoder = Chain(*parts, *[UnitLength()] * check_flag("normalise", normalise))
        self.decoder = Chain(
            Linear(size, 2 * size, dtype=dtype, seed=rng),
            Elementwise(as_activation("reconstruction", reconstruction)),
        )
        if num_classes:
            self.classifier = Linear(size, num_classes, dtype=dtype, seed=rng)

    def encode(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        forest: Forest | None = None,
    ) -> tuple[Array, Forest]:
        """Return the vectors of all nodes `(N, size)` in the forest's order, and the forest."""
        x, forest = self._inputs(x, lengths, forest)
        return self._fold(x, forest, False)[0].states, forest

    def errors(self, x: npt.ArrayLike, forest: Forest) -> Array:
        """Return the error of each node `(N,)`, zero at leaves."""
        x, forest = self._inputs(x, None, forest)
        nodes, errors = self._fold(x, forest, False)[0], np.zeros(forest.nodes)
        inner = np.flatnonzero(forest.child_count)
        errors[inner], _ = self._errors(nodes, nodes.states[inner], nodes.children[inner], False)
        return errors

    def __call__(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        forest: Forest | None = None,
        targets: npt.ArrayLike | None = None,
    ) -> float:
        """Return the loss."""
        return self._loss(False, x, lengths, forest, targets)[0]

    def vjp(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        forest: Forest | None = None,
        targets: npt.ArrayLike | None = None,
    ) -> tuple[float, Callable[..., Array]]:
        """Return the loss and the pullback from dloss (1 if not given) to dx.

        targets: the classes, `(trees,)`, of all a tree's nodes with children and of its root, or
        `(N,)`, of each node; -1 where there is none. Trees that are found count as if given.
        """
        loss, pullback = self._loss(True, x, lengths, forest, targets)
        return loss, once(pullback)

    def _loss(
        self,
        record: bool,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        forest: Forest | None,
        targets: npt.ArrayLike | None,
    ) -> tuple[float, Callable[..., Array]]:
        x, forest = self._inputs(x, lengths, forest)
        labels = self._labels(targets, forest)
        nodes, unfold = self._fold(x, forest, record)
        inner = np.flatnonzero(forest.child_count)
        codes, pairs = nodes.states[inner], nodes.children[inner]
        errors, errors_back = self._errors(nodes, codes, pairs, record)
        wrong, wrong_back = self._classify(nodes.states, labels, record)
        share = self.alpha / max(len(forest), 1), (1 - self.alpha) / max(len(forest), 1)

        def pullback(dloss: float = 1.0) -> Array:
            dstates = np.zeros_like(nodes.states)
            derrors = np.full(len(inner), share[0] * float(dloss), self.dtype)
            dcodes = errors_back(derrors, dstates)  # first: it writes to rows of `inner`, too
            dstates[inner] += dcodes
            wrong_back(share[1] * float(dloss), dstates)
            return unfold(dstates)

        return share[0] * float(errors.sum()) + share[1] * wrong, pullback

    def _fold(
        self, x: Array, forest: Forest, record: bool
    ) -> tuple[Nodes, Callable[[Array], Array]]:
        """Compute the vectors of all nodes, a product for each level, and the pullback to x."""
        nodes, backs = Nodes.of(forest, x), []
        for rows in forest.waves[1:]:
            pairs = self._pairs(nodes, nodes.children[rows])
            nodes.states[rows], back = run(self.encoder, record, pairs)
            backs.append(back)

        def unfold(dstates: Array) -> Array:
            for rows, back in zip(reversed(forest.waves[1:]), reversed(backs), strict=True):
                dpairs = back(dstates[rows]).reshape(-1, 2, self.size)
                dstates[nodes.children[rows]] += dpairs  # no node is a child twice
            return np.asarray(dstates[forest.leaves])

        return nodes, unfold

    def _pairs(self, nodes: Nodes, pairs: Array) -> Array:
        return nodes.states[pairs].reshape(-1, 2 * self.size)

    def _propose(self, nodes: Nodes, pairs: Array) -> tuple[Array, Array]:
        """What pairs of nodes would be merged into, and the errors."""
        codes = self.encoder(self._pairs(nodes, pairs))
        return codes, self._errors(nodes, codes, pairs, False)[0]

    def _errors(
        self, nodes: Nodes, codes: Array, pairs: Array, record: bool
    ) -> tuple[Array, _ErrorsBack]:
        """Return the error of each pair when restored from its code, and the pullback."""
        errors, steps, owner = np.zeros(len(codes)), [], np.arange(len(codes))
        count = len(codes)
        while len(codes):
            restored, back = run(self.decoder, record, codes)
            restored, at, owner = (
                restored.reshape(-1, self.size),
                pairs.reshape(-1),
                owner.repeat(2),
            )
            last, weight = self._weights(nodes, pairs)
            missed = restored[last] - nodes.states[at[last]]
            squares = weight * np.einsum("ij,ij->i", missed, missed)
            errors += np.bincount(owner[last], squares, count)
            steps.append((back, owner[last], at[last], last, missed * (2 * weight[:, None])))
            codes, pairs, owner = restored[~last], nodes.children[at[~last]], owner[~last]

        def pullback(derrors: Array, dstates: Array) -> Array:
            dcodes = np.zeros((0, self.size), self.dtype)
            for back, owner, at, last, slope in reversed(steps):
                drestored = np.empty((len(last), self.size), self.dtype)
                drestored[last] = slope * derrors[owner, None]
                drestored[~last] = dcodes
                add_rows(dstates, at, -drestored[last])
                dcodes = back(drestored.reshape(-1, 2 * self.size))
            return dcodes

        return errors, pullback

    def _weights(self, nodes: Nodes, pairs: Array) -> tuple[Array, Array]:
        """Which restored children are compared at once, not taken further, and their weights."""
        if self.unfolding:
            last = nodes.leaves[pairs].reshape(-1) == 1
            return last, np.ones(np.count_nonzero(last), self.dtype)
        leaves = nodes.leaves[pairs]
        weight = (leaves / leaves.sum(axis=1, keepdims=True)).astype(self.dtype)
        return np.ones(pairs.size, bool), weight.reshape(-1)

    def _classify(
        self, states: Array, labels: Array, record: bool
    ) -> tuple[float, Callable[..., None]]:
        """Return the sum of the labelled nodes' cross-entropies and the pullback."""
        rows = np.flatnonzero(labels >= 0)
        if not rows.size:
            return 0.0, lambda dwrong, dstates: None
        logits, logits_back = run(self.classifier, record, states[rows])
        wrong, back = SoftmaxCrossEntropy(reduction="sum").vjp(logits, labels[rows])

        def pullback(dwrong: float, dstates: Array) -> None:
            dstates[rows] += logits_back(back(dwrong))

        return wrong, pullback

    def _inputs(
        self, x: npt.ArrayLike, lengths: npt.ArrayLike | None, forest: Forest | None
    ) -> tuple[Array, Forest]:
        """Return the leaves and the trees on them, found if they are not given."""
        if forest is not None and lengths is not None:
            raise ValueError("lengths and forest both say where sentences end: give one of them")
        if forest is not None:
            if not isinstance(forest, Forest):
                raise TypeError(f"forest must be a Forest, got {type(forest).__name__}")
            return as_shape("x", x, self.dtype, (len(forest.leaves), self.size)), forest
        if lengths is None:
            raise ValueError("give the lengths of the sentences, or a forest")
        x, counts = as_leaves(x, lengths, self.size, self.dtype)
        return x, greedy(x, counts, self._propose)

    def _labels(self, targets: npt.ArrayLike | None, forest: Forest) -> Array:
        """The class of each node, -1 where there is none."""
        if targets is None:
            return np.full(forest.nodes, -1)
        if not self.num_classes:
            raise ValueError("targets need classes: build the autoencoder with num_classes")
        targets = as_integers("targets", targets).astype(np.int64)
        if targets.shape not in ((len(forest),), (forest.nodes,)):
            raise ValueError(
                f"targets must have shape ({len(forest)},), one for each tree, or "
                f"({forest.nodes},), one for each node; got {targets.shape}"
            )
        if targets.size and not -1 <= targets.min() <= targets.max() < self.num_classes:
            raise ValueError(
                f"targets must be in -1..{self.num_classes - 1}, "
                f"got {targets.min()}..{targets.max()}"
            )
        if len(targets) == forest.nodes:
            return targets
        labels = np.repeat(targets, np.diff(forest.begin))
        return np.where((forest.child_count > 0) | (forest.parent < 0), labels, -1)
