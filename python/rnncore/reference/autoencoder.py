"""The recursive autoencoder, a node at a time and by recursion, as its papers define it.

A tree is the row of a leaf, or a pair of trees. Socher et al. 2011, "Semi-Supervised Recursive
Autoencoders for Predicting Sentiment Distributions", and, for `unfolding`, "Dynamic Pooling and
Unfolding Recursive Autoencoders for Paraphrase Detection".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from ..arrays import Array
from .activations import IDENTITY, TANH, Activation
from .cells import Params

Tree: TypeAlias = Any


class Node:
    """A node that has been computed, and the gradient of its vector as it adds up."""

    def __init__(self, p: Array, leaf: int | None = None, children: tuple[Any, ...] = ()) -> None:
        self.p, self.leaf, self.children = p, leaf, children
        self.q, self.length = p, 1.0  # before it was normalised, and how long it was
        self.dp = np.zeros_like(p)
        self.leaves = 1 if leaf is not None else sum(child.leaves for child in children)

    def postorder(self) -> list[Node]:
        """All nodes below, and this one."""
        return [node for child in self.children for node in child.postorder()] + [self]


@dataclass(frozen=True)
class RecursiveAutoencoder:
    """p = phi(W [c1; c2] + b), made unit length; [c1'; c2'] = psi(W' p + b')."""

    phi: Activation = TANH
    psi: Activation = IDENTITY
    normalise: bool = True
    unfolding: bool = False
    alpha: float = 0.2

    def merge(self, one: Node, two: Node, params: Params) -> Node:
        """c1, c2 -> p."""
        c = np.concatenate([one.p, two.p])
        node = Node(self.phi(params["W"] @ c + params["b"]), children=(one, two))
        if self.normalise:
            node.length = float(np.linalg.norm(node.q))
            node.p = node.q / node.length
        return node

    def merge_back(self, node: Node, params: Params, grads: Params) -> None:
        """dp -> dc1, dc2."""
        one, two = node.children
        c = np.concatenate([one.p, two.p])
        dq = node.dp
        if self.normalise:
            dq = (dq - node.p * (node.p @ dq)) / node.length
        da = dq * self.phi.slope(node.q)
        grads["W"] += np.outer(da, c)
        grads["b"] += da
        dc = params["W"].T @ da
        one.dp, two.dp = one.dp + dc[: len(da)], two.dp + dc[len(da) :]

    def error(self, node: Node, code: Array, params: Params) -> float:
        """How far the node's children, or all leaves below, are from what the code restores."""
        total = 0.0
        for child, restored in zip(node.children, self._restore(code, params), strict=True):
            if self.unfolding and child.children:
                total += self.error(child, restored, params)
            else:
                total += self._weight(node, child) * float(np.sum((child.p - restored) ** 2))
        return total

    def error_back(
        self, node: Node, code: Array, derror: float, params: Params, grads: Params
    ) -> Array:
        """derror -> dcode; adds to the gradients of those that were to be restored."""
        restored = self._restore(code, params)
        d = np.zeros_like(restored)
        for k, child in enumerate(node.children):
            if self.unfolding and child.children:
                d[k] = self.error_back(child, restored[k], derror, params, grads)
            else:
                d[k] = 2 * derror * self._weight(node, child) * (restored[k] - child.p)
                child.dp = child.dp - d[k]
        da = (d * self.psi.slope(restored)).reshape(-1)
        grads["W'"] += np.outer(da, code)
        grads["b'"] += da
        return np.asarray(params["W'"].T @ da)

    def _restore(self, code: Array, params: Params) -> Array:
        return self.psi(params["W'"] @ code + params["b'"]).reshape(2, -1)

    def _weight(self, node: Node, child: Node) -> float:
        return 1.0 if self.unfolding else child.leaves / node.leaves

    def fold(self, tree: Tree, x: Array, params: Params) -> Node:
        """Compute all nodes of a tree, given the leaves."""
        if not isinstance(tree, tuple):
            return Node(x[tree], leaf=tree)
        one, two = (self.fold(child, x, params) for child in tree)
        return self.merge(one, two, params)

    def greedy(self, x: Array, params: Params) -> Tree:
        """Merge the neighbours with the smallest error until one node is left."""
        nodes: list[tuple[Tree, Node]] = [(row, Node(c, leaf=row)) for row, c in enumerate(x)]
        while len(nodes) > 1:
            made = [self.merge(a, b, params) for (_, a), (_, b) in pairwise(nodes)]
            k = int(np.argmin([self.error(node, node.p, params) for node in made]))
            nodes[k : k + 2] = [((nodes[k][0], nodes[k + 1][0]), made[k])]
        return nodes[0][0]

    def loss(
        self, tree: Tree, x: Array, label: int, params: Params
    ) -> tuple[float, list[float], Array, Params]:
        """Return the loss, the error of each node in postorder, and the gradients.

        label: the class of all nodes with children and of the root, -1 for none. Without "V" among
        the parameters the loss is the sum of the errors.
        """
        root, grads = self.fold(tree, x, params), {n: np.zeros_like(p) for n, p in params.items()}
        alpha = self.alpha if "V" in params else 1.0
        loss, errors = 0.0, []
        for node in root.postorder():
            errors.append(self.error(node, node.p, params) if node.children else 0.0)
            loss += alpha * errors[-1]
            if node.children:
                node.dp = node.dp + self.error_back(node, node.p, alpha, params, grads)
            if label >= 0 and (node.children or node is root):
                loss += (1 - alpha) * self._classify(node, label, 1 - alpha, params, grads)
        dx = np.zeros_like(x)
        for node in reversed(root.postorder()):
            if node.leaf is None:
                self.merge_back(node, params, grads)
            else:
                dx[node.leaf] = node.dp
        return loss, errors, dx, grads

    @staticmethod
    def _classify(node: Node, label: int, dwrong: float, params: Params, grads: Params) -> float:
        """The cross-entropy of softmax(V p + v), and its gradients."""
        logits = params["V"] @ node.p + params["v"]
        d = np.exp(logits - logits.max())
        d /= d.sum()
        wrong = -float(np.log(d[label]))
        d[label] -= 1
        grads["V"] += dwrong * np.outer(d, node.p)
        grads["v"] += dwrong * d
        node.dp = node.dp + dwrong * params["V"].T @ d
        return wrong
