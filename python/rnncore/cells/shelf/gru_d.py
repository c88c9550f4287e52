"""The cell of GRU-D (Che et al. 2018); `rnncore.GRUD` makes its inputs, and the whole model."""

from __future__ import annotations

from ..definition import Gate, define
from ..symbols import Symbol, sigmoid, tanh


def _faded(h: Symbol, decay: Symbol) -> Symbol:
    return decay * h


@define(
    gates=[Gate("r", of=_faded), Gate("z", of=_faded), Gate("n", apart=True, of=_faded)],
    vectors=("decay",),
)
def gru_d(
    r: Symbol, z: Symbol, n_input: Symbol, n_recurrent: Symbol, h: Symbol, decay: Symbol
) -> Symbol:
    """A GRU whose state has faded, section 2.3; g = decay h takes the place of h everywhere.

    n = tanh(n_input + sigmoid(r) n_recurrent)    h' = (1 - sigmoid(z)) g + sigmoid(z) n

    `decay` is of each unit, exp(-max(0, W delta + b)). The reset gate comes behind the product, as
    in torch's GRU; the paper has it before.
    """
    z, g = sigmoid(z), decay * h
    n = tanh(n_input + sigmoid(r) * n_recurrent)
    return (1 - z) * g + z * n
