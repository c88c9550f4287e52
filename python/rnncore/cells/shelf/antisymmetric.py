"""Recurrences that neither grow nor fade: antisymmetric weights (Chang et al. 2019)."""

from __future__ import annotations

from ...arrays import Array, check_kind
from ..definition import CellDefinition, Gate, define
from ..layer import Recurrent
from ..symbols import Symbol, sigmoid, tanh


def antisymmetric(epsilon: float = 0.1, gamma: float = 0.1) -> CellDefinition:
    """AntisymmetricRNN, eq. 10: h' = h + epsilon tanh(n - gamma h), n = A h + V x + b.

    epsilon: the step of time; gamma: diffusion. A is antisymmetric where `make_antisymmetric` has
    made it so, after each update: that is the gradient step of the paper's W, A = W - W^T.
    """

    @define(gates="n")
    def antisymmetric(n: Symbol, h: Symbol) -> Symbol:
        return h + epsilon * tanh(n - gamma * h)

    return antisymmetric


def gated_antisymmetric(epsilon: float = 0.1, gamma: float = 0.1) -> CellDefinition:
    """AntisymmetricRNN with a gate, eq. 11 and 12, which sees the same product A h.

    z_t = sigmoid(A h - gamma h + z)    h' = h + epsilon z_t tanh(A h - gamma h + n)
    """

    @define(gates=[Gate("n", apart=True), Gate("z", recurrent=False)])
    def gated_antisymmetric(n_input: Symbol, n_recurrent: Symbol, z: Symbol, h: Symbol) -> Symbol:
        common = n_recurrent - gamma * h
        return h + epsilon * sigmoid(common + z) * tanh(common + n_input)

    return gated_antisymmetric


def make_antisymmetric(layer: Recurrent) -> None:
    """Replace the recurrent weights of a layer by their antisymmetric parts, in place."""
    for name, weight in check_kind("layer", layer, Recurrent).params.items():
        if name.startswith("weight_hh"):
            weight[...] = _antisymmetric_part(weight)


def _antisymmetric_part(weight: Array) -> Array:
    part: Array = (weight - weight.T) / 2
    return part
