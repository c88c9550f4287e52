"""Simple recurrent units: no recurrent weights but those of a unit on itself (Lei et al. 2018)."""

from __future__ import annotations

from ..definition import Gate, define
from ..symbols import Symbol, sigmoid


@define(
    gates=[Gate(name, recurrent=False) for name in ("u", "f", "r", "p")],
    states="hc",
    units=("v_f", "v_r"),
)
def sru(
    u: Symbol, f: Symbol, r: Symbol, p: Symbol, c: Symbol, v_f: Symbol, v_r: Symbol
) -> tuple[Symbol, ...]:
    """SRU, eq. 1 to 4; p = W_p x stands for x, which need not be H wide.

    f_t = sigmoid(f + v_f c)    c' = f_t c + (1 - f_t) u
    r_t = sigmoid(r + v_r c)    h' = r_t c' + (1 - r_t) p
    """
    f, r = sigmoid(f + v_f * c), sigmoid(r + v_r * c)
    c = f * c + (1 - f) * u
    return r * c + (1 - r) * p, c
