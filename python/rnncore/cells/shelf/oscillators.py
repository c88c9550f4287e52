"""Hidden units that are damped oscillators (Rusch and Mishra 2021)."""

from __future__ import annotations

from ..definition import CellDefinition, define
from ..symbols import Symbol, tanh


def cornn(dt: float = 0.1, gamma: float = 1.0, epsilon: float = 1.0) -> CellDefinition:
    """coRNN, eq. 3, without the product with z: h is its y, the place, z the velocity.

    z' = z + dt (tanh(n) - gamma h - epsilon z)    h' = h + dt z'

    n = W h + V x + b. dt: the step of time; gamma: the oscillators' stiffness; epsilon: damping.
    """

    @define(gates="n", states="hz")
    def cornn(n: Symbol, h: Symbol, z: Symbol) -> tuple[Symbol, ...]:
        z = z + dt * (tanh(n) - gamma * h - epsilon * z)
        return h + dt * z, z

    return cornn
