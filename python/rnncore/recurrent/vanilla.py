"""Recurrent layers without gates: the vanilla and the independently recurrent network."""

from __future__ import annotations

import numpy.typing as npt

from ..init import RecurrentInit
from ..nonlinearities import RELU, Activation
from .base import Initial, Seed
from .cell import Cell, bound, one_activation
from .regularisers import Regularisers
from .stack import Options, Stacked
from .step import Step


def _vanilla(
    nonlinearity: Activation, gate_clip: float | None, transition_depth: int, shortcut: bool
) -> Cell:
    """h' = phi(W x + U h)."""
    activations = one_activation(nonlinearity)
    return Cell(
        "rnn_relu" if activations[1] == RELU else "rnn_tanh",
        "h",
        activations,
        gate_clip=bound("gate_clip", gate_clip),
        transition_depth=transition_depth,
        shortcut=bool(shortcut),
    )


def _independent(nonlinearity: Activation) -> Cell:
    """h' = phi(W x + u h)."""
    return Cell("indrnn", "h", one_activation(nonlinearity))


class RNN(Stacked):
    """Vanilla recurrent layers (Elman 1990), parameters as `torch.nn.RNN`.

        h_t = phi(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)

    nonlinearity: "tanh", "relu" or another activation for phi. Parameters of layer k: `weight_ih_lk
    (H, I)`, `weight_hh_lk (H, H)`, `bias_ih_lk`, `bias_hh_lk (H,)`, with `_reverse` appended for
    the backward direction.

    What `vjp` remembers of a step of a row, beside x and y: H numbers or 4 H bytes in float32, H
    rounded up to a vector.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: Activation = "tanh",
        gate_clip: float | None = None,
        transition_depth: int = 1,
        shortcut: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        weight_drop: float = 0.0,
        learned_state: bool = False,
        checkpoint: bool | int = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = nonlinearity
        cell = _vanilla(nonlinearity, gate_clip, transition_depth, shortcut)
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


class RNNCell(Step):
    """One step of `RNN`, as `torch.nn.RNNCell`; parameters without a suffix."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        nonlinearity: Activation = "tanh",
        gate_clip: float | None = None,
        transition_depth: int = 1,
        shortcut: bool = False,
        learned_state: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = nonlinearity
        cell = _vanilla(nonlinearity, gate_clip, transition_depth, shortcut)
        super().__init__(
            cell, input_size, hidden_size, bias, Initial(dtype, seed, init, learned_state)
        )


class IndRNN(Stacked):
    """Independently recurrent layers (Li et al. 2018, eq. 2): h_t = phi(W x_t + b + u * h_(t-1)).

    Parameters of layer k: `weight_ih_lk (H, I)`, `weight_hh_lk (1, H)`, which is u, and `bias_ih_lk
    (H,)`. nonlinearity="relu" or another name of `rnncore.nonlinearities.ACTIVATIONS`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: Activation = "relu",
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        weight_drop: float = 0.0,
        learned_state: bool = False,
        checkpoint: bool | int = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = nonlinearity
        cell = _independent(nonlinearity)
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


class IndRNNCell(Step):
    """One step of `IndRNN`; parameters without a suffix."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        nonlinearity: Activation = "relu",
        learned_state: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = nonlinearity
        cell = _independent(nonlinearity)
        super().__init__(
            cell, input_size, hidden_size, bias, Initial(dtype, seed, init, learned_state)
        )


LAYERS: dict[str, type[Stacked]] = {"rnn": RNN, "indrnn": IndRNN}
STEPS: dict[str, type[Step]] = {"rnn": RNNCell, "indrnn": IndRNNCell}
