"""Bistable recurrent cells, whose units keep one of two values (Vecoven et al. 2021)."""

from __future__ import annotations

from ..definition import Gate, define
from ..symbols import Symbol, sigmoid, tanh


@define(gates=[Gate(name, recurrent=False) for name in "acn"], units=("w_a", "w_c"))
def brc(a: Symbol, c: Symbol, n: Symbol, h: Symbol, w_a: Symbol, w_c: Symbol) -> Symbol:
    """BRC, eq. 4 to 6.

    a_t = 1 + tanh(a + w_a h)    c_t = sigmoid(c + w_c h)    h' = c_t h + (1 - c_t) tanh(n + a_t h)
    """
    a, c = 1 + tanh(a + w_a * h), sigmoid(c + w_c * h)
    return c * h + (1 - c) * tanh(n + a * h)


@define(gates=["a", "c", Gate("n", recurrent=False)])
def nbrc(a: Symbol, c: Symbol, n: Symbol, h: Symbol) -> Symbol:
    """nBRC, eq. 8: the same with matrices, so that units see one another (neuromodulation)."""
    a, c = 1 + tanh(a), sigmoid(c)
    return c * h + (1 - c) * tanh(n + a * h)
