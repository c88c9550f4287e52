"""Long short-term memory and its variants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from ..arrays import Array, check_integer, check_size, short
from ..init import RecurrentInit
from ..nonlinearities import Activation, as_activation
from ..states import State
from .base import Initial, Seed
from .cell import Cell, bound, exclusive, norm_of
from .regularisers import Regularisers
from .stack import Options, Stacked
from .step import Step

_GATES = ("input", "forget", "output")


@dataclass(frozen=True)
class _Variant(Cell):
    """The variants of Greff et al. 2017, with normalisation."""

    peephole: bool = False
    coupled: bool = False
    input_gate: bool = True
    forget_gate: bool = True
    output_gate: bool = True
    layer_norm: bool | str = False


def _lstm(
    hidden_size: int,
    peephole: bool,
    coupled: bool,
    gates: tuple[bool, bool, bool],
    layer_norm: bool | str,
    proj_size: int,
    activations: tuple[Activation, Activation, Activation],
    clips: tuple[float | None, float | None],
    depth: tuple[int, bool],
) -> Cell:
    """One variant. gates: input, forget, output; clips: of the cell state, of the sums."""
    norm = norm_of(layer_norm)
    if not 0 <= check_integer("proj_size", proj_size) < check_size("hidden_size", hidden_size):
        raise ValueError(f"proj_size must be in 0..{hidden_size - 1}, got {proj_size}")
    if not isinstance(activations, (tuple, list)) or len(activations) != 3:
        raise ValueError(
            "activations must be those of the gates, the candidate and the output, "
            f"got {short(activations)}"
        )
    missing = [n for n, there in zip(_GATES, gates, strict=True) if not there]
    gone = {f"{name}_gate=False": True for name in missing}
    normed, deep = bool(norm), check_size("transition_depth", depth[0]) > 1
    exclusive(peephole=bool(peephole), layer_norm=normed, transition_depth=deep, **gone)
    exclusive(coupled=bool(coupled), layer_norm=normed, **gone)
    exclusive(proj_size=bool(proj_size), layer_norm=normed, transition_depth=deep)
    if missing:
        kernel = f"lstm_no_{missing[0]}_gate"
    else:
        kernel = "lstm" + norm + "_coupled" * bool(coupled) + "_peephole" * bool(peephole)
    absent = [name[0] for name in missing] + ["f"] * bool(coupled)
    gate, candidate, output = (as_activation("activations", a) for a in activations)
    return _Variant(
        kernel,
        "".join(letter for letter in "ifgo" if letter not in absent),
        (gate, candidate, output),
        cell_clip=bound("cell_clip", clips[0]),
        gate_clip=bound("gate_clip", clips[1]),
        proj_size=proj_size,
        transition_depth=depth[0],
        shortcut=bool(depth[1]),
        peephole=bool(peephole),
        coupled=bool(coupled),
        layer_norm=layer_norm if layer_norm == "gate" else normed,
        **{f"{name}_gate": False for name in missing},
    )


class LSTM(Stacked):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), parameters as `torch.nn.LSTM`.

        i, f, o = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)     g = tanh(the same sum)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    Variants (Greff et al. 2017), and what they change:

    - `peephole=True`: the gates see p_i * c_(t-1), p_f * c_(t-1) and p_o * c_t (Gers et al. 2002).
      The rows of `weight_ch_lk (3, H)` are p.
    - `coupled=True`: f = 1 - i, also called CIFG. `input_gate=False`, `forget_gate=False` or
      `output_gate=False`: that gate is 1. The weights have no rows for a gate that is not there.
    - `activations`: of the gates, of g and of c_t, ("sigmoid", "tanh", "tanh").
    - `proj_size=P`: h_t = W_hr (o * tanh(c_t)) with `weight_hr_lk (P, H)` (Sak et al. 2014). y, h
      and the columns of weight_hh are P wide.
    - `layer_norm=True`: both products are normalised, over all gates, and so is c_t before tanh (Ba
      et al. 2016, eq. 20 to 22); "gate": each gate by itself. In place of the biases there is
      `norm_lk (14, H)`: for i, f, g, o the gains of W_ih x, those of W_hh h, the biases; gain and
      bias of c_t.
    - `cell_clip`: c_t stays within +-cell_clip.

    The state is `(h, c)`. Parameters of layer k: `weight_ih_lk (4 H, I)`, `weight_hh_lk (4 H, H)`,
    `bias_ih_lk`, `bias_hh_lk (4 H,)`, gates in the order i, f, g, o, with `_reverse` appended for
    the backward direction.

    What `vjp` remembers of a step of a row, beside x and y: the gates and the cell state, 5 H
    numbers or 20 H bytes in float32 (in the gates H is rounded up to a vector).
    """

    has_cell_state = True

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
        peephole: bool = False,
        coupled: bool = False,
        input_gate: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        layer_norm: bool | str = False,
        proj_size: int = 0,
        activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh"),
        cell_clip: float | None = None,
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
        self.proj_size = proj_size
        gates, clips = (input_gate, forget_gate, output_gate), (cell_clip, gate_clip)
        depth = (transition_depth, shortcut)
        cell = _lstm(
            hidden_size, peephole, coupled, gates, layer_norm, proj_size, activations, clips, depth
        )
        rates = Regularisers.of(cell, variational_dropout, recurrent_dropout, zoneout, weight_drop)
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(
            cell, rates, options, Initial(dtype, seed, init, learned_state), checkpoint
        )

    def cell_states(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, State, Array]:
        """As a call, and the last layer's cell state at every step: `(y, state, c)`.

        c has the shape of y, `(T, B, D * H)`; each direction's cell states stand where its outputs
        stand in y.
        """
        y, state, cells = self._infer(x, state, lengths, True)
        assert cells is not None
        if cells.ndim != y.ndim:
            cells = cells[0] if self.batch_first else cells[:, 0]
        return y, state, cells


class LSTMCell(Step):
    """One step of `LSTM`, as `torch.nn.LSTMCell`; parameters without a suffix."""

    has_cell_state = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        peephole: bool = False,
        coupled: bool = False,
        input_gate: bool = True,
        forget_gate: bool = True,
        output_gate: bool = True,
        layer_norm: bool | str = False,
        proj_size: int = 0,
        activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh"),
        cell_clip: float | None = None,
        gate_clip: float | None = None,
        transition_depth: int = 1,
        shortcut: bool = False,
        learned_state: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.proj_size = proj_size
        gates, clips = (input_gate, forget_gate, output_gate), (cell_clip, gate_clip)
        depth = (transition_depth, shortcut)
        cell = _lstm(
            hidden_size, peephole, coupled, gates, layer_norm, proj_size, activations, clips, depth
        )
        super().__init__(
            cell, input_size, hidden_size, bias, Initial(dtype, seed, init, learned_state)
        )


LAYERS: dict[str, type[Stacked]] = {"lstm": LSTM}
STEPS: dict[str, type[Step]] = {"lstm": LSTMCell}
