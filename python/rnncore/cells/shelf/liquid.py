"""Liquid networks, whose states follow a differential equation: time between steps counts."""

from __future__ import annotations

from ..definition import define
from ..symbols import Symbol, sigmoid, softplus, tanh


@define(gates="f", units={"leak": (-1, 1), "reversal": (-1, 1)}, inputs=("delta",))
def ltc(f: Symbol, h: Symbol, leak: Symbol, reversal: Symbol, delta: Symbol) -> Symbol:
    """A liquid time constant by one step of the fused solver (Hasani et al. 2021, eq. 3, alg. 1).

    h' = (h + delta f_t A) / (1 + delta (1 / tau + f_t))    f_t = sigmoid(f)

    delta: time since the last step; A = reversal; 1 / tau = softplus(leak), which is positive.
    """
    f = sigmoid(f)
    return (h + delta * f * reversal) / (1 + delta * (softplus(leak) + f))


@define(gates="fgk", inputs=("delta",))
def cfc(f: Symbol, g: Symbol, k: Symbol, delta: Symbol) -> Symbol:
    """Closed-form continuous time (Hasani et al. 2022, eq. 10), each head one product.

    w = sigmoid(-f delta)    h' = w tanh(g) + (1 - w) tanh(k)
    """
    w = sigmoid(-f * delta)
    return w * tanh(g) + (1 - w) * tanh(k)
