"""Gated recurrent units, and their relatives of a single gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from ..init import RecurrentInit
from ..nonlinearities import Activation
from .base import Initial, Seed
from .cell import Cell, bound, two_activations
from .regularisers import Regularisers
from .stack import Options, Stacked
from .step import Step


@dataclass(frozen=True)
class _Variant(Cell):
    """A gated recurrent unit: where it resets."""

    reset_after: bool = True


def _gru(
    reset_after: bool,
    activations: tuple[Activation, Activation],
    gate_clip: float | None,
    transition_depth: int,
    shortcut: bool,
) -> Cell:
    """Reset and update gates."""
    return _Variant(
        "gru" if reset_after else "gru_reset_before",
        "rzn",
        two_activations(activations),
        gate_clip=bound("gate_clip", gate_clip),
        transition_depth=transition_depth,
        shortcut=bool(shortcut),
        reset_after=bool(reset_after),
    )


def _two_gates(
    kernel: str,
    gate_names: str,
    activations: tuple[Activation, Activation],
    transition_depth: int,
    shortcut: bool,
) -> Cell:
    """A gate and a candidate."""
    return Cell(
        kernel,
        gate_names,
        two_activations(activations),
        transition_depth=transition_depth,
        shortcut=bool(shortcut),
    )


class GRU(Stacked):
    """Gated recurrent units, parameters as `torch.nn.GRU`.

        r, z = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)
        n = tanh(W_in x_t + b_in + r * (W_hn h_(t-1) + b_hn))   reset_after=True (torch, cuDNN)
        n = tanh(W_in x_t + b_in + W_hn (r * h_(t-1)) + b_hn)   reset_after=False (Cho et al. 2014)
        h_t = (1 - z) * n + z * h_(t-1)

    activations: of the gates and of n, ("sigmoid", "tanh").

    Parameters of layer k: `weight_ih_lk (3 H, I)`, `weight_hh_lk (3 H, H)`, `bias_ih_lk`,
    `bias_hh_lk (3 H,)`, gates in the order r, z, n, with `_reverse` appended for the backward
    direction. dropout: between layers, in `vjp` only. init: see `rnncore.init.RECURRENT`.

    What `vjp` remembers of a step of a row, beside x and y: 4 H numbers or 16 H bytes in float32
    (in the gates H is rounded up to a vector).
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
        reset_after: bool = True,
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
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
        self.reset_after = bool(reset_after)
        cell = _gru(reset_after, activations, gate_clip, transition_depth, shortcut)
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


class GRUCell(Step):
    """One step of `GRU`, as `torch.nn.GRUCell`; parameters without a suffix."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
        gate_clip: float | None = None,
        transition_depth: int = 1,
        shortcut: bool = False,
        learned_state: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.reset_after = bool(reset_after)
        cell = _gru(reset_after, activations, gate_clip, transition_depth, shortcut)
        super().__init__(
            cell, input_size, hidden_size, bias, Initial(dtype, seed, init, learned_state)
        )


class MGU(Stacked):
    """Minimal gated units (Zhou et al. 2016, eq. 8).

        f_t = sigmoid(W_if x_t + b_if + W_hf h_(t-1) + b_hf)
        n_t = tanh(W_in x_t + b_in + W_hn (f_t * h_(t-1)) + b_hn)
        h_t = (1 - f_t) * h_(t-1) + f_t * n_t

    Parameters as those of `GRU`, with the gates f, n: `weight_ih_lk (2 H, I)` and so on.
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
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
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
        cell = _two_gates("mgu", "fn", activations, transition_depth, shortcut)
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


class MGUCell(Step):
    """One step of `MGU`; parameters without a suffix."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
        transition_depth: int = 1,
        shortcut: bool = False,
        learned_state: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        cell = _two_gates("mgu", "fn", activations, transition_depth, shortcut)
        super().__init__(
            cell, input_size, hidden_size, bias, Initial(dtype, seed, init, learned_state)
        )


class UGRNN(Stacked):
    """Update gate RNNs (Collins, Sohl-Dickstein and Sussillo 2016): a gate between state and input.

        g_t = sigmoid(W_ig x_t + b_ig + W_hg h_(t-1) + b_hg)
        c_t = tanh(W_ic x_t + b_ic + W_hc h_(t-1) + b_hc)
        h_t = g_t * h_(t-1) + (1 - g_t) * c_t

    activations: of g and of c, ("sigmoid", "tanh"). Parameters as those of `GRU`, with the gates g,
    c: `weight_ih_lk (2 H, I)` and so on.

    What `vjp` remembers of a step of a row, beside x and y: 2 H numbers or 8 H bytes in float32, H
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
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
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
        cell = _two_gates("ugrnn", "gc", activations, transition_depth, shortcut)
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )


LAYERS: dict[str, type[Stacked]] = {"gru": GRU, "mgu": MGU, "ugrnn": UGRNN}
STEPS: dict[str, type[Step]] = {"gru": GRUCell, "mgu": MGUCell}
