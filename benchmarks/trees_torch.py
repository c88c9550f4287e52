"""The binary Tree-LSTM in PyTorch, as one would write it: level by level, and node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rnncore import Forest


class TreeLSTM(torch.nn.Module):
    """i, f, g, o; inputs at the leaves alone, two children at every other node."""

    names = ("weight_ih", "weight_hh", "bias_ih")

    def __init__(self, params: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        for name in self.names:
            setattr(self, name, torch.nn.Parameter(torch.from_numpy(params[name].copy())))

    def leaves(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (leaves, I) -> h, c."""
        i, _, g, o = torch.nn.functional.linear(x, self.weight_ih, self.bias_ih).chunk(4, dim=-1)
        c = i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of [h_1; h_2] to i, f_1, f_2, g, o: the matrix (5 H, 2 H), and the bias."""
        i, f, g, o = self.bias_ih.chunk(4)
        return torch.cat(tuple(self.weight_hh), dim=1), torch.cat([i, f, f, g, o])

    @staticmethod
    def inner(
        h: torch.Tensor, c_1: torch.Tensor, c_2: torch.Tensor, weights: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[h_1; h_2] (nodes, 2 H), and the children's c -> h, c."""
        i, f_1, f_2, g, o = torch.nn.functional.linear(h, *weights).chunk(5, dim=-1)
        c = i.sigmoid() * g.tanh() + f_1.sigmoid() * c_1 + f_2.sigmoid() * c_2
        return o.sigmoid() * c.tanh(), c


def by_level(model: TreeLSTM, x: torch.Tensor, forest: Forest) -> torch.Tensor:
    """Return the roots' h: one product for all nodes of a height.

    Between heights only states are carried on that a later one needs; leaves come in with the
    height of their parents.
    """
    children, level, weights = forest.bottom_up(2).prev, forest.levels, model.weights()
    wanted = np.append(level, level.max() + 1)[forest.parent[forest.leaves]]
    by_height = np.argsort(wanted, kind="stable")
    rows_of_leaves = forest.leaves[by_height]
    counts = np.bincount(wanted, minlength=level.max() + 2).tolist()
    states = model.leaves(x[torch.from_numpy(by_height)])
    leaves = list(zip(*(state.split(counts) for state in states), strict=True))
    ends, place = np.cumsum(counts), np.zeros(forest.nodes, np.int64)

    live = np.zeros(0, np.int64)
    h, c = (state[:0] for state in states)
    for height in range(1, int(level.max()) + 1):
        rows = np.flatnonzero(level == height)
        pool = np.concatenate([live, rows_of_leaves[ends[height - 1] : ends[height]]])
        place[pool] = np.arange(len(pool))
        h, c = (torch.cat(pair) for pair in zip((h, c), leaves[height], strict=True))
        left, right = (torch.from_numpy(place[child[rows]]) for child in children)
        new_h, new_c = model.inner(
            torch.cat([h[left], h[right]], dim=1), c[left], c[right], weights
        )
        kept = np.ones(len(pool), bool)
        kept[place[children[:, rows]]] = False
        stay = torch.from_numpy(np.flatnonzero(kept))
        live = np.concatenate([pool[kept], rows])
        h, c = torch.cat([h[stay], new_h]), torch.cat([c[stay], new_c])
    pool = np.concatenate([live, rows_of_leaves[ends[-2] :]])  # and trees of a single leaf
    place[pool] = np.arange(len(pool))
    return torch.cat([h, leaves[-1][0]])[torch.from_numpy(place[forest.roots])]


def by_node(model: TreeLSTM, x: torch.Tensor, forest: Forest) -> torch.Tensor:
    """Return the roots' h: a product for every node."""
    first, second = forest.bottom_up(2).prev
    weights = model.weights()
    states: list[Any] = [None] * forest.nodes
    for at, row in enumerate(forest.leaves):
        states[row] = model.leaves(x[at])
    for row in np.argsort(forest.levels, kind="stable")[len(forest.leaves) :]:
        (h_1, c_1), (h_2, c_2) = states[first[row]], states[second[row]]
        states[row] = model.inner(torch.cat([h_1, h_2]), c_1, c_2, weights)
    return torch.stack([states[root][0] for root in forest.roots])
