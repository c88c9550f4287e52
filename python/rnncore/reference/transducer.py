"""The RNN transducer of one sequence in plain NumPy, over the whole lattice (Graves 2012).

z (T, U+1, V)     logits after frame t, where u labels of the target have been emitted
y (U,)            the target
b, l (T, U+1)     log-probability of the blank, which leads to (t + 1, u), and of the label
                  y_(u+1), which leads to (t, u + 1); there is none at u = U
alpha, beta       log-probability of all paths to a node, and from it to the end

A path ends with the blank of node (T - 1, U). Equations are those of Graves 2012, "Sequence
Transduction with Recurrent Neural Networks", section 2.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Array


class Joint(NamedTuple):
    """The joint network z = W tanh(f + g) + b; its gradients are one as well."""

    f: Array  # (T, H)
    g: Array  # (U+1, H)
    weight: Array  # (V, H)
    bias: Array  # (V,)


def join(joint: Joint) -> Array:
    """Return the logits z_(t, u) = W tanh(f_t + g_u) + b."""
    z: Array = np.tanh(joint.f[:, None] + joint.g) @ joint.weight.T + joint.bias
    return z


def join_backward(dz: Array, joint: Joint) -> Joint:
    """Turn the gradient of the logits into those of the joint network."""
    h = np.tanh(joint.f[:, None] + joint.g)
    da = (dz @ joint.weight) * (1 - h**2)
    return Joint(
        da.sum(axis=1),
        da.sum(axis=0),
        np.einsum("tuv,tuh->vh", dz, h),
        dz.sum(axis=(0, 1)),
    )


def emissions(z: Array, y: Array, blank: int) -> tuple[Array, Array]:
    """Return b and l."""
    top = z.max(axis=-1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))
    label = np.full(z.shape[:2], -np.inf)
    for u, k in enumerate(y):
        label[:, u] = log_p[:, u, k]
    return log_p[..., blank], label


def forward_variables(blank: Array, label: Array) -> Array:
    """Return alpha: equation 16."""
    alpha = np.full(blank.shape, -np.inf)
    for t, u in np.ndindex(blank.shape):
        if t == u == 0:
            alpha[t, u] = 0
            continue
        by_blank = alpha[t - 1, u] + blank[t - 1, u] if t else -np.inf
        by_label = alpha[t, u - 1] + label[t, u - 1] if u else -np.inf
        alpha[t, u] = np.logaddexp(by_blank, by_label)
    return alpha


def backward_variables(blank: Array, label: Array) -> Array:
    """Return beta: equation 18."""
    beta = np.full(blank.shape, -np.inf)
    T, U = blank.shape
    for t, u in reversed(list(np.ndindex(T, U))):
        last = t == T - 1
        after = beta[t + 1, u] if not last else 0.0 if u == U - 1 else -np.inf
        by_label = label[t, u] + beta[t, u + 1] if u < U - 1 else -np.inf
        beta[t, u] = np.logaddexp(blank[t, u] + after, by_label)
    return beta


def occupancies(blank: Array, label: Array) -> tuple[Array, Array]:
    """Return the probabilities, given the target, that a path takes each blank and each label."""
    alpha, beta = forward_variables(blank, label), backward_variables(blank, label)
    after_blank = np.full(beta.shape, -np.inf)
    after_blank[:-1], after_blank[-1, -1] = beta[1:], 0
    after_label = np.full(beta.shape, -np.inf)
    after_label[:, :-1] = beta[:, 1:]
    total = beta[0, 0]
    return (
        np.exp(alpha + blank + after_blank - total),
        np.exp(alpha + label + after_label - total),
    )


def log_likelihood(z: Array, y: Array, blank: int = 0) -> float:
    """Return log P(y): equation 19."""
    b, label = emissions(z, y, blank)
    return float(forward_variables(b, label)[-1, -1] + b[-1, -1])


def loss(z: Array, y: Array, blank: int = 0, fastemit: float = 0.0) -> tuple[float, Array]:
    """Return -log P(y) and its gradient with respect to the logits: equation 20.

    With `fastemit` the gradient through the labels counts 1 + fastemit times (Yu et al. 2021,
    "FastEmit: Low-latency Streaming ASR with Sequence-level Emission Regularization").
    """
    by_blank, by_label = occupancies(*emissions(z, y, blank))
    by_label = (1 + fastemit) * by_label
    top = z.max(axis=-1, keepdims=True)
    p = np.exp(z - top)
    p /= p.sum(axis=-1, keepdims=True)
    dz = (by_blank + by_label)[..., None] * p
    dz[..., blank] -= by_blank
    for u, k in enumerate(y):
        dz[:, u, k] -= by_label[:, u]
    return -log_likelihood(z, y, blank), dz
