"""Layers whose gates do not see the state (Feng et al. 2024)."""

from __future__ import annotations

import numpy.typing as npt

from ..init import RecurrentInit
from ..nonlinearities import Activation
from .base import Initial, Seed
from .cell import Cell, two_activations
from .regularisers import Regularisers
from .stack import Options, Stacked


class MinGRU(Stacked):
    """minGRU (Feng et al. 2024): gates that do not see the state, an elementwise recurrence.

        z_t = sigmoid(W_z x_t + b_z)      n_t = W_n x_t + b_n
        h_t = (1 - z_t) * h_(t-1) + z_t * n_t

    Parameters of layer k: `weight_ih_lk (2 H, I)`, rows z, n, and `bias_ih_lk (2 H,)`.
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
        activations: tuple[Activation, Activation] = ("sigmoid", "identity"),
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
        cell = Cell("min_gru", "zn", two_activations(activations))
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


class MinLSTM(Stacked):
    """minLSTM (Feng et al. 2024), its gates normalised so that they add up to one.

        f_t, i_t = sigmoid(W x_t + b)      n_t = W_n x_t + b_n
        h_t = (f_t * h_(t-1) + i_t * n_t) / (f_t + i_t)

    Parameters of layer k: `weight_ih_lk (3 H, I)`, rows f, i, n, and `bias_ih_lk (3 H,)`. The state
    is h alone.
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
        activations: tuple[Activation, Activation] = ("sigmoid", "identity"),
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
        cell = Cell("min_lstm", "fin", two_activations(activations))
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


LAYERS: dict[str, type[Stacked]] = {"min_gru": MinGRU, "min_lstm": MinLSTM}
