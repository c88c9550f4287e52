"""Self-attention in several heads in plain NumPy, one query at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .attention import Attended, attend, attend_backward
from .cells import Params


@dataclass
class Heads:
    """What the forward pass leaves for the backward one."""

    params: Params
    x: Array  # (T, B, E)
    num_heads: int
    lengths: Array
    causal: bool
    c: Array  # (T, B, H, d)  the contexts of all heads
    found: dict[tuple[int, ...], Attended]

    def queries(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield (t, b, h), and how many steps it sees."""
        for t, b, h in np.ndindex(self.c.shape[:3]):
            if t < self.lengths[b]:
                yield (t, b, h), t + 1 if self.causal else int(self.lengths[b])


def multihead(
    params: Params,
    x: Array,
    num_heads: int,
    lengths: Array | None = None,
    causal: bool = False,
) -> tuple[Array, Heads]:
    """Return y for x (T, B, E) (Vaswani et al. 2017, section 3.2), and what goes back.

    params: those of torch.nn.MultiheadAttention, by name.
    """
    T, B, E = x.shape
    ends = np.full(B, T) if lengths is None else np.asarray(lengths)
    c = np.zeros((T, B, num_heads, E // num_heads))
    tape = Heads(params, x, num_heads, ends, causal, c, {})
    sums = x @ params["in_proj_weight"].T + params.get("in_proj_bias", 0)
    q, k, v = np.moveaxis(sums.reshape(T, B, 3, *c.shape[2:]), 2, 0)
    for (t, b, h), n in tape.queries():
        query = q[t, b, h] / np.sqrt(E // num_heads)
        c[t, b, h], tape.found[t, b, h] = attend(query, k[:n, b, h], v[:n, b, h])
    y = c.reshape(T, B, E) @ params["out_proj.weight"].T + params.get("out_proj.bias", 0)
    y[np.arange(T)[:, None] >= ends] = 0
    return y, tape


def multihead_backward(tape: Heads, dy: Array) -> tuple[Array, Params]:
    """Turn the gradient of y into that of x, and those of the parameters."""
    T, B, E = dy.shape
    dy = np.where((np.arange(T)[:, None] < tape.lengths)[..., None], dy, 0)
    dc = (dy @ tape.params["out_proj.weight"]).reshape(tape.c.shape)
    dq, dk, dv = (np.zeros_like(dc) for _ in range(3))
    for (t, b, h), n in tape.queries():
        dquery, dkeys, dvalues, *_ = attend_backward(dc[t, b, h], tape.found[t, b, h])
        dq[t, b, h] = dquery / np.sqrt(E // tape.num_heads)
        dk[:n, b, h] += dkeys
        dv[:n, b, h] += dvalues
    d = np.stack((dq, dk, dv), axis=2).reshape(T, B, 3 * E)
    gradients = {
        "in_proj_weight": np.einsum("tbi,tbj->ij", d, tape.x),
        "in_proj_bias": d.sum(axis=(0, 1)),
        "out_proj.weight": np.einsum("tbi,tbj->ij", dy, tape.c.reshape(T, B, E)),
        "out_proj.bias": dy.sum(axis=(0, 1)),
    }
    dx: Array = d @ tape.params["in_proj_weight"]
    return dx, {name: gradients[name] for name in tape.params}
