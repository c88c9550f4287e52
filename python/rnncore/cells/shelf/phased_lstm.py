"""Phased LSTM: units that open by a rhythm of their own (Neil et al. 2016)."""

from __future__ import annotations

from ..definition import CellDefinition, define
from ..symbols import Symbol, exp, sigmoid, tanh, where


def phased_lstm(leak: float = 0.001, open_share: float = 0.05) -> CellDefinition:
    """Phased LSTM, eq. 6 to 11; `time` is the time of a step, at least 0, below 4,000 periods.

    phi = (time / tau + shift) mod 1    tau = exp(log_tau), the period
    k = 2 phi / r, then 2 - 2 phi / r, then leak phi;   r is `open_share`, the share of a period
    c' = k c_new + (1 - k) c    h' = k h_new + (1 - k) h    c_new, h_new: an LSTM's

    shift is -s / tau of the paper. At first periods are 1 to 20 units of time.
    """

    @define(
        gates="ifgo",
        states="hc",
        units={"log_tau": (0, 3), "shift": (0, 1)},
        inputs=("time",),
    )
    def phased_lstm(
        i: Symbol,
        f: Symbol,
        g: Symbol,
        o: Symbol,
        h: Symbol,
        c: Symbol,
        log_tau: Symbol,
        shift: Symbol,
        time: Symbol,
    ) -> tuple[Symbol, ...]:
        phi = fraction(time * exp(-log_tau) + fraction(shift + 16, 16))
        rising = phi * (2 / open_share)
        k = where(phi < open_share, 2 - rising, leak * phi)
        k = where(phi < open_share / 2, rising, k)
        c_new = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h_new = sigmoid(o) * tanh(c_new)
        return h + k * (h_new - h), c + k * (c_new - c)

    return phased_lstm


def fraction(a: Symbol, most: int = 4096) -> Symbol:
    """a - floor(a) for 0 <= a < 2 `most`, a power of two; its slope is one."""
    while most:
        a = where(a < most, a, a - most)
        most //= 2
    return a
