"""Light GRUs: no reset gate, and a candidate by relu (Ravanelli et al. 2018)."""

from __future__ import annotations

from ..definition import define
from ..symbols import Symbol, relu, sigmoid


@define(gates="zn")
def li_gru(z: Symbol, n: Symbol, h: Symbol) -> Symbol:
    """Li-GRU, eq. 6: h' = sigmoid(z) h + (1 - sigmoid(z)) relu(n).

    The paper normalises the products with x over the batch: `BatchNorm` on x is near to it.
    """
    z = sigmoid(z)
    return z * h + (1 - z) * relu(n)
