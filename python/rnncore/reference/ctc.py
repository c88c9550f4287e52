"""Connectionist temporal classification in plain NumPy, one sequence at a time, in log space.

Graves et al. 2006: x (T, C) logits, labels (S,), and l' (2 S + 1,), these with blanks
between them and at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array


def log_softmax(x: Array) -> Array:
    """Return log softmax of the last axis."""
    z = x - x.max(axis=-1, keepdims=True)
    logs: Array = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return logs


def with_blanks(labels: Sequence[int], blank: int) -> Array:
    """Return l', the labels with blanks between them and at both ends."""
    extended = np.full(2 * len(labels) + 1, blank)
    extended[1::2] = labels
    return extended


def _may_skip(extended: Array, blank: int) -> Array:
    """Where a path may come from two states before: at a label that differs from the last one."""
    skips = np.zeros(len(extended), bool)
    skips[2:] = (extended[2:] != blank) & (extended[2:] != extended[:-2])
    return skips


def alphas(x: Array, labels: Sequence[int], blank: int = 0) -> Array:
    """Return log alpha (T, 2 S + 1): of the paths to each state, equations 5 to 7."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p, extended = log_softmax(x), with_blanks(labels, blank)
        skips = _may_skip(extended, blank)
        alpha = np.full((len(x), len(extended)), -np.inf)
        alpha[0, :2] = log_p[0, extended[:2]]
        for t in range(1, len(x)):
            before = alpha[t - 1]
            ways = np.full((3, len(extended)), -np.inf)
            ways[0], ways[1, 1:], ways[2, 2:] = before, before[:-1], before[:-2]
            ways[2, ~skips] = -np.inf
            alpha[t] = np.logaddexp.reduce(ways) + log_p[t, extended]
    return alpha


def betas(x: Array, labels: Sequence[int], blank: int = 0) -> Array:
    """Return log beta (T, 2 S + 1): of what may follow a state, equations 9 to 11.

    The state's own probability is not part of it, as it is in the paper.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p, extended = log_softmax(x), with_blanks(labels, blank)
        skips = _may_skip(extended, blank)
        beta = np.full((len(x), len(extended)), -np.inf)
        beta[-1, -2:] = 0
        for t in range(len(x) - 2, -1, -1):
            after = beta[t + 1] + log_p[t + 1, extended]
            ways = np.full((3, len(extended)), -np.inf)
            ways[0], ways[1, :-1] = after, after[1:]
            ways[2, :-2] = np.where(skips[2:], after[2:], -np.inf)
            beta[t] = np.logaddexp.reduce(ways)
    return beta


def loss(x: Array, labels: Sequence[int], blank: int = 0) -> float:
    """Return -log p(labels | x), equation 8."""
    if not len(x):
        return np.inf if len(labels) else 0.0
    return -float(np.logaddexp.reduce(alphas(x, labels, blank)[-1, -2:]))


def gradient(x: Array, labels: Sequence[int], blank: int = 0) -> Array:
    """Return the gradient of the loss with respect to the logits, equation 16."""
    dx: Array = np.exp(log_softmax(x))
    occupied = np.exp(alphas(x, labels, blank) + betas(x, labels, blank) + loss(x, labels, blank))
    for state, label in enumerate(with_blanks(labels, blank)):
        dx[:, label] -= occupied[:, state]
    return dx


def align(x: Array, labels: Sequence[int], blank: int = 0) -> tuple[Array, float]:
    """Return the likeliest path of the labels and its log-probability (Viterbi)."""
    log_p, extended = log_softmax(x), with_blanks(labels, blank)
    skips = _may_skip(extended, blank)
    best = np.full((len(x), len(extended)), -np.inf)
    came = np.zeros((len(x), len(extended)), int)
    best[0, :2] = log_p[0, extended[:2]]
    for t in range(1, len(x)):
        for s in range(len(extended)):
            ways = [best[t - 1, s], best[t - 1, s - 1] if s else -np.inf]
            ways += [best[t - 1, s - 2]] if skips[s] else []
            came[t, s] = int(np.argmax(ways))
            best[t, s] = ways[came[t, s]] + log_p[t, extended[s]]
    state = len(extended) - 1
    if len(extended) > 1 and best[-1, state - 1] > best[-1, state]:
        state -= 1
    score, path = float(best[-1, state]), np.zeros(len(x), int)
    for t in range(len(x) - 1, -1, -1):
        path[t] = extended[state]
        state -= came[t, state]
    return path, score
