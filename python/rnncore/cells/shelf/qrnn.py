"""Pooling of quasi-recurrent networks (Bradbury et al. 2017); windows of frames are `Conv1d`'s."""

from __future__ import annotations

from ..definition import Gate, define
from ..symbols import Symbol, sigmoid, tanh


@define(gates=[Gate(name, recurrent=False) for name in "zfo"], states="hc")
def qrnn(z: Symbol, f: Symbol, o: Symbol, c: Symbol) -> tuple[Symbol, ...]:
    """fo-pooling, eq. 4: c' = sigmoid(f) c + (1 - sigmoid(f)) tanh(z), h' = sigmoid(o) c'."""
    f = sigmoid(f)
    c = f * c + (1 - f) * tanh(z)
    return sigmoid(o) * c, c
