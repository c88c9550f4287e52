"""A linear-chain CRF in float64: sums and maxima over all sequences of tags.

    score(y) = start_y1 + sum_t x_t(y_t) + sum_t>1 transitions(y_(t-1), y_t) + end_yT
    p(y) = exp(score(y)) / Z,    Z the sum of exp(score) over all y in {0 .. K-1}^T

(Lafferty et al. 2001, section 3.) Emissions x `(T, K)` are those of one sequence. A score of -inf
forbids what it stands for. A sequence of no steps has one y, the empty one, of score 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..arrays import Array


class Scores(NamedTuple):
    """The parameters of a CRF."""

    transitions: Array  # (K, K), [from, to]
    start: Array  # (K,)
    end: Array  # (K,)


class Gradients(NamedTuple):
    """Those of the emissions and of the parameters."""

    emissions: Array  # (T, K)
    transitions: Array
    start: Array
    end: Array


def log_sum_exp(a: Array, axis: int | None = None) -> Array:
    """log of the sum of exp(a); -inf where all of a is."""
    most = np.max(a, axis=axis, keepdims=True, initial=-np.inf)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(a - most), axis=axis, keepdims=True)) + most
    found: Array = np.squeeze(total, axis=axis)
    return found


def score(x: Array, tags: Array, s: Scores) -> float:
    """score(y) of tags y `(T,)`."""
    if not len(x):
        return 0.0
    within = x[np.arange(len(x)), tags].sum() + s.transitions[tags[:-1], tags[1:]].sum()
    return float(s.start[tags[0]] + within + s.end[tags[-1]])


def forward(x: Array, s: Scores) -> Array:
    """alpha_t(j): the log of the sum over all y_1 .. y_t that end in j, `(T, K)`."""
    alpha = np.empty_like(x)
    alpha[0] = s.start + x[0]
    for t in range(1, len(x)):
        alpha[t] = log_sum_exp(alpha[t - 1][:, None] + s.transitions, axis=0) + x[t]
    return alpha


def backward(x: Array, s: Scores) -> Array:
    """beta_t(i): the log of the sum over all y_(t+1) .. y_T behind a tag i at t, `(T, K)`."""
    beta = np.empty_like(x)
    beta[-1] = s.end
    for t in range(len(x) - 2, -1, -1):
        beta[t] = log_sum_exp(s.transitions + x[t + 1] + beta[t + 1], axis=1)
    return beta


def log_partition(x: Array, s: Scores) -> float:
    """log Z."""
    return float(log_sum_exp(forward(x, s)[-1] + s.end)) if len(x) else 0.0


def constrained(x: Array, targets: Array) -> Array:
    """Emissions of -inf for the tags that targets rule out.

    targets: `(T,)` tags, -1 where the tag is unknown; or booleans `(T, K)`, true for tags that may
    be.
    """
    if targets.dtype != bool:
        tags = np.arange(x.shape[1])
        targets = (targets[:, None] == tags) | (targets[:, None] == -1)
    return np.where(targets, x, -np.inf)


def nll(x: Array, targets: Array, s: Scores) -> float:
    """-log of the probability of all y that agree with the targets."""
    return log_partition(x, s) - log_partition(constrained(x, targets), s)


def marginals(x: Array, s: Scores) -> Array:
    """p(y_t = j), `(T, K)`."""
    if not len(x):
        return x.copy()
    return np.exp(forward(x, s) + backward(x, s) - log_partition(x, s))


def pairs(x: Array, s: Scores) -> Array:
    """p(y_t = i, y_(t+1) = j), `(T-1, K, K)`."""
    alpha, beta, z = forward(x, s), backward(x, s), log_partition(x, s)
    behind = x[1:] + beta[1:]
    found: Array = np.exp(alpha[:-1, :, None] + s.transitions + behind[:, None, :] - z)
    return found


def expected(x: Array, s: Scores) -> Gradients:
    """The gradient of log Z: how often, on average, each score is part of score(y)."""
    if not len(x):
        return Gradients(x.copy(), *(np.zeros_like(part) for part in s))
    p = marginals(x, s)
    return Gradients(p, pairs(x, s).sum(axis=0), p[0], p[-1])


def nll_gradients(x: Array, targets: Array, s: Scores) -> Gradients:
    """The gradient of `nll`."""
    free, bound = expected(x, s), expected(constrained(x, targets), s)
    return Gradients(*(a - b for a, b in zip(free, bound, strict=True)))


def best(x: Array, s: Scores, count: int) -> list[tuple[float, list[int]]]:
    """The `count` best y with their scores, the best first (Viterbi, the k best of each state).

    Of equal scores the one with the lower tag at the last step where they differ is first.
    """
    if not len(x):
        return [(0.0, [])]
    paths: list[list[tuple[float, list[int]]]] = [
        [(float(s.start[j] + x[0, j]), [j])] for j in range(x.shape[1])
    ]
    for t in range(1, len(x)):
        paths = [
            _first(
                (
                    (value + float(s.transitions[i, j]) + float(x[t, j]), [*tags, j])
                    for i, ended in enumerate(paths)
                    for value, tags in ended
                ),
                count,
            )
            for j in range(x.shape[1])
        ]
    ends = ((v + float(s.end[j]), tags) for j, ended in enumerate(paths) for v, tags in ended)
    return _first(ends, count)


def _first(
    candidates: Iterator[tuple[float, list[int]]], count: int
) -> list[tuple[float, list[int]]]:
    """The best `count` that are possible; a stable sort keeps equals in their order."""
    possible = [one for one in candidates if one[0] > -np.inf]
    return sorted(possible, key=lambda one: -one[0])[:count]
