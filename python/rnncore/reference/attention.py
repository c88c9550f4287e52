"""Attention in plain NumPy, one query at a time, and a decoder that uses it, step by step.

q (A,)      query                 k (S, A)   keys
v (A,)      of additive scores    m (S, M)   values: the memory
p           centre of a window of D steps to each side
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from .cells import Cell, Params
from .sequence import forward as walk

#: Gradients of q, k, m, v and p, the last two None where there are none.
Gradients = tuple[Array, Array, Array, Array | None, float | None]


@dataclass
class Attended:
    """What the forward pass leaves for the backward one."""

    q: Array
    k: Array
    m: Array
    v: Array | None
    p: float | None
    D: float
    u: Array  # tanh(q + k), of additive scores
    a: Array  # softmax(e) of the steps within the window, else 0
    g: Array  # the window's weights

    @property
    def weights(self) -> Array:
        """A * g."""
        return self.a * self.g


def attend(
    q: Array, k: Array, m: Array, v: Array | None = None, p: float | None = None, D: float = 0
) -> tuple[Array, Attended]:
    """Return the context sum_s w_s m_s, and what `attend_backward` needs.

    Luong et al. 2015, eq. 7 to 10; with v the scores of Bahdanau et al. 2015, section A.1.2.
    """
    u = np.tanh(q + k)
    e = k @ q if v is None else u @ v
    s = np.arange(len(k))
    inside = np.full(len(k), True) if p is None else np.abs(s - p) <= D
    a = np.where(inside, np.exp(e - e[inside].max()), 0)
    a /= a.sum()
    g = np.ones(len(k)) if p is None else np.exp(-((s - p) ** 2) / (2 * (D / 2) ** 2))
    found = Attended(q, k, m, v, p, D, u, a, g)
    return found.weights @ m, found


def attend_backward(dcontext: Array, found: Attended) -> Gradients:
    """Turn the context's gradient into those of all that it was made of."""
    q, k, m, v, p = found.q, found.k, found.m, found.v, found.p
    dm = np.outer(found.weights, dcontext)
    dw = m @ dcontext
    da, dg = dw * found.g, dw * found.a
    de = found.a * (da - found.a @ da)
    dp = None
    if p is not None:
        away = np.arange(len(k)) - p
        dp = float(dg @ (found.g * away / (found.D / 2) ** 2))
    if v is None:
        return de @ k, np.outer(de, q), dm, None, dp
    dk = np.outer(de, v) * (1 - found.u**2)
    return dk.sum(axis=0), dk, dm, de @ found.u, dp


def decode(
    cell: Cell,
    params: Params,
    x: Array,
    m: Array,
    state: Any,
    *,
    num_layers: int = 1,
    before: bool = False,
    feeding: bool = False,
    D: float | None = None,
) -> tuple[Array, Array]:
    """Run a decoder with attention over the inputs x (T, E) of one sequence.

    params: those of a `Decoder` whose head is a `Linear`, by name. Returns logits (T, V) and
    weights (T, S).
    """
    of = {
        part: {n.removeprefix(f"{part}."): a for n, a in params.items() if n.startswith(f"{part}.")}
        for part in ("rnn", "attention", "head")
    }
    own = of["attention"]
    v, keys = own.get("v"), m @ own["key.weight"].T if "key.weight" in own else m

    def asked_by(h: Array) -> tuple[Array, Array]:
        q = own["query.weight"] @ h + own["query.bias"] if v is not None else h
        p = None
        if D is not None:
            inner = np.tanh(own["position.weight"] @ h)
            p = len(m) / (1 + np.exp(-(own["centre.weight"] @ inner).item()))
        context, found = attend(q, keys, m, v, p, D or 0)
        return context, found.weights

    beside = np.zeros(own["combine.weight"].shape[0])
    logits, weights = [], []
    for step in x:
        if before:
            h = (state[0] if isinstance(state, tuple) else state)[-1, 0]
            beside, w = asked_by(h)
        joined = np.concatenate([step, beside] if before or feeding else [step])
        y, state, _ = walk(cell, of["rnn"], joined[None, None], state, None, num_layers)
        h = y[0, 0]
        context, w = (beside, w) if before else asked_by(h)
        o = np.tanh(own["combine.weight"] @ np.concatenate([context, h]))
        beside = beside if before else o
        logits.append(of["head"]["weight"] @ o + of["head"]["bias"])
        weights.append(w)
    return np.array(logits), np.array(weights)
