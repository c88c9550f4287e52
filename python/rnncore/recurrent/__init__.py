"""Recurrent layers with torch.nn's words, on NumPy arrays.

What every layer takes beside the keywords of its class. H is `hidden_size`, D the number of
directions.

- `num_layers`, `bias`, `batch_first`, `bidirectional`, `dropout` between layers: as in torch.nn.
- `dtype`: "float32" or "float64". `seed`: of the initial values and of dropout. `init`: how the
  weights start, a name of `rnncore.init.RECURRENT` or a function.
- `learned_state=True`: the state that a row starts from, where none is given, is a parameter,
  zero at first: `initial_h_lk (H,)`, `(P,)` with a projection, and `initial_c_lk (H,)` of an LSTM,
  with `_reverse` appended for the backward direction. Its gradient is the sum over the rows.
- `checkpoint`: `vjp` keeps no gates; the pullback computes them again, so many steps at a time
  (True: about the square root of all). Training takes a third more time, and gives the same bits.
- Dropout on the recurrence, active in `vjp` alone, with masks drawn from `seed`:
  `variational_dropout`, one mask per sequence on h on its way into the recurrent product (Gal and
  Ghahramani 2016); `recurrent_dropout`, on the candidate of gated cells (Semeniuta et al. 2016);
  `zoneout`, units that stay as they were, one rate or one for h and one for c (Krueger et al.
  2017; inference mixes old and new by the rate); `weight_drop`, one mask per call on the recurrent
  weights (Merity et al. 2018; pullbacks of one layer in several threads at once can lose its
  gradients).
- `transition_depth=L`: a time step is L cells, one after the other (Pascanu et al. 2014; for gated
  cells Miceli Barone et al. 2017). The first sees the input; the others see the state alone, with
  parameters `weight_hh_lk_t2`, `bias_hh_lk_t2`, ... With `shortcut=True` the last one sees h_(t-1)
  as its input, through `weight_ih_lk_tL (G H, H)`.
- `gate_clip`, of RNN, LSTM and GRU: the sums that gates and candidate are made from stay within
  +-gate_clip (`clip` in ONNX).

An activation is a name of `rnncore.nonlinearities.ACTIVATIONS`, or (name, alpha) or (name, alpha,
beta).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
