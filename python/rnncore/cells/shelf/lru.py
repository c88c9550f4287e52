"""Linear recurrent units: a complex diagonal recurrence (Orvieto et al. 2023)."""

from __future__ import annotations

from ..definition import Gate, define
from ..symbols import Symbol, cos, exp, sin, sqrt


@define(
    gates=[Gate("re", recurrent=False), Gate("im", recurrent=False)],
    states=("h", "s"),
    units={"nu": (-4.6, -0.4), "theta": (-3, 1.1)},
)
def lru(
    re: Symbol, im: Symbol, h: Symbol, s: Symbol, nu: Symbol, theta: Symbol
) -> tuple[Symbol, ...]:
    """LRU, section 3; h + i s is the complex state, h is what a layer on top sees.

    lambda = r exp(i exp(theta))    r = exp(-exp(nu))    gamma = sqrt(1 - r^2)
    h' + i s' = lambda (h + i s) + gamma (re + i im)

    At first r is in 0.51..0.99, and a step turns by at most 3 radians. The paper's y = Re(C x) + D
    u is that of a `Linear` over h, with a C that is real: turning B and the state by an angle takes
    the place of C's.
    """
    r, angle = exp(-exp(nu)), exp(theta)
    a, b, gamma = r * cos(angle), r * sin(angle), sqrt(1 - r * r)
    return a * h - b * s + gamma * re, b * h + a * s + gamma * im
