"""The recurrent layers and cells: torch.nn's words on NumPy arrays.

Keywords of every layer, beside those of its class (H is hidden_size, D the number of directions):

- num_layers, bias, batch_first, bidirectional, and dropout between the layers, as in torch.nn;
- dtype "float32" or "float64"; seed; init: a name of `rnncore.init.RECURRENT` or a function;
- checkpoint: remember no gates in `vjp` but compute them again on the way back, so many steps at a
  time (True: about the square root of all), for a third more time; the same bits;
- regularisers, active in `vjp`, with masks drawn from `seed` (zoneout at inference mixes by rate):
  variational_dropout, one mask per sequence on h on its way into the recurrent product (Gal and
  Ghahramani 2016); recurrent_dropout, on the candidate of gated cells (Semeniuta et al. 2016);
  zoneout, a rate or one for h and one for c: units stay as they were (Krueger et al. 2017);
  weight_drop, one mask per call on the recurrent weights (Merity et al. 2018; pullbacks of one
  layer in several threads at once can lose its gradients);
- transition_depth=L: L cells, one after the other, make a step (Pascanu et al. 2014; for gated
  cells Miceli Barone et al. 2017). The first sees the input, the others, with parameters
  `weight_hh_lk_t2`, `bias_hh_lk_t2`, ..., the state alone; shortcut=True: the last one sees h_(t-1)
  as its input, through `weight_ih_lk_tL (G H, H)`.

RNN, LSTM and GRU also take gate_clip: the sums that gates and candidate are made from stay within
+-gate_clip (clip in ONNX).

An activation is a name of `rnncore.nonlinearities.ACTIVATIONS`, or (name, alpha) or (name, alpha,
beta).
"""

from __future__ import annotations

import numpy.typing as npt

from ..arrays import Array
from ..states import State
from .base import Gated, Independent, LongShortTerm, MinimalGated, MinimalRecurrence, Vanilla
from .stack import Layers
from .step import Step


class RNN(Vanilla, Layers):
    """Vanilla recurrent layers (Elman 1990), parameters as `torch.nn.RNN`.

        h_t = phi(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)

    nonlinearity: "tanh", "relu" or another activation for phi. Parameters of layer k: `weight_ih_lk
    (H, I)`, `weight_hh_lk (H, H)`, `bias_ih_lk`, `bias_hh_lk (H,)`, with `_reverse` appended for
    the backward direction.

    What `vjp` remembers of a step of a row, beside x and y: H numbers or 4 H bytes in float32, H
    rounded up to a vector.
    """


class LSTM(LongShortTerm, Layers):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), parameters as `torch.nn.LSTM`.

        i, f, o = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)     g = tanh(the same sum)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    Variants (Greff et al. 2017), and what they change:

    - peephole: the gates see p_i * c_(t-1), p_f * c_(t-1) and p_o * c_t (Gers et al. 2002); the
      rows of `weight_ch_lk (3, H)` are p
    - coupled: f = 1 - i; input_gate, forget_gate or output_gate=False: that gate is 1. The weights
      have no rows for a gate that is not there
    - activations of the gates, of g and of c_t, ("sigmoid", "tanh", "tanh")
    - proj_size=P: h_t = W_hr (o * tanh(c_t)) with `weight_hr_lk (P, H)` (Sak et al. 2014); y, h and
      the columns of weight_hh are P wide
    - layer_norm=True: both products are normalised, over all gates, and so is c_t before tanh (Ba
      et al. 2016, eq. 20 to 22); "gate": each gate by itself. In place of the biases `norm_lk (14,
      H)`: for i, f, g, o the gains of W_ih x, those of W_hh h, the biases; gain and bias of c_t
    - cell_clip: c_t stays within +-cell_clip

    The state is `(h, c)`. Parameters of layer k: `weight_ih_lk (4 H, I)`, `weight_hh_lk (4 H, H)`,
    `bias_ih_lk`, `bias_hh_lk (4 H,)`, gates in the order i, f, g, o, with `_reverse` appended for
    the backward direction.

    What `vjp` remembers of a step of a row, beside x and y: the gates and the cell state, 5 H
    numbers or 20 H bytes in float32 (in the gates H is rounded up to a vector).
    """

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


class GRU(Gated, Layers):
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


class MGU(MinimalGated, Layers):
    """Minimal gated units (Zhou et al. 2016, eq. 8).

        f_t = sigmoid(W_if x_t + b_if + W_hf h_(t-1) + b_hf)
        n_t = tanh(W_in x_t + b_in + W_hn (f_t * h_(t-1)) + b_hn)
        h_t = (1 - f_t) * h_(t-1) + f_t * n_t

    Parameters as those of `GRU`, with the gates f, n: `weight_ih_lk (2 H, I)` and so on.
    """


class IndRNN(Independent, Layers):
    """Independently recurrent layers (Li et al. 2018, eq. 2): h_t = phi(W x_t + b + u * h_(t-1)).

    Parameters of layer k: `weight_ih_lk (H, I)`, `weight_hh_lk (1, H)`, which is u, and `bias_ih_lk
    (H,)`. nonlinearity="relu" or another name of `rnncore.nonlinearities.ACTIVATIONS`.
    """


class MinGRU(MinimalRecurrence, Layers):
    """minGRU (Feng et al. 2024): gates that do not see the state, an elementwise recurrence.

        z_t = sigmoid(W_z x_t + b_z)      n_t = W_n x_t + b_n
        h_t = (1 - z_t) * h_(t-1) + z_t * n_t

    Parameters of layer k: `weight_ih_lk (2 H, I)`, rows z, n, and `bias_ih_lk (2 H,)`.
    """

    kernel, gate_names = "min_gru", "zn"


class MinLSTM(MinimalRecurrence, Layers):
    """minLSTM (Feng et al. 2024), its gates normalised so that they add up to one.

        f_t, i_t = sigmoid(W x_t + b)      n_t = W_n x_t + b_n
        h_t = (f_t * h_(t-1) + i_t * n_t) / (f_t + i_t)

    Parameters of layer k: `weight_ih_lk (3 H, I)`, rows f, i, n, and `bias_ih_lk (3 H,)`. The state
    is h alone.
    """

    kernel, gate_names = "min_lstm", "fin"


class RNNCell(Vanilla, Step):
    """One step of `RNN`, as `torch.nn.RNNCell`; parameters without a suffix."""


class LSTMCell(LongShortTerm, Step):
    """One step of `LSTM`, as `torch.nn.LSTMCell`; parameters without a suffix."""


class GRUCell(Gated, Step):
    """One step of `GRU`, as `torch.nn.GRUCell`; parameters without a suffix."""


class MGUCell(MinimalGated, Step):
    """One step of `MGU`; parameters without a suffix."""


class IndRNNCell(Independent, Step):
    """One step of `IndRNN`; parameters without a suffix."""
