"""Update gate recurrent networks (Collins et al. 2017)."""

from __future__ import annotations

from ..definition import define
from ..symbols import Symbol, sigmoid, tanh


@define(gates="gn")
def ugrnn(g: Symbol, n: Symbol, h: Symbol) -> Symbol:
    """UGRNN, section 2.1, which `rnncore.UGRNN` is as well.

    h' = sigmoid(g) h + (1 - sigmoid(g)) tanh(n)
    """
    g = sigmoid(g)
    return g * h + (1 - g) * tanh(n)
