"""The recurrent layers and cells: torch.nn's words on NumPy arrays.

A file holds one family: `vanilla`, `lstm`, `gru`, `minimal`; `registry` has all of them by name.

Keywords of every layer, beside those of its class (H is hidden_size, D the number of directions):

- num_layers, bias, batch_first, bidirectional, and dropout between the layers, as in torch.nn;
- dtype "float32" or "float64"; seed; init: a name of `rnncore.init.RECURRENT` or a function;
- learned_state: the state that a row starts from where none is given is a parameter, zero at first:
  `initial_h_lk (H,)`, `(P,)` with a projection, and `initial_c_lk (H,)` of an LSTM, with `_reverse`
  appended for the backward direction. Its gradient is the sum over the rows;
- checkpoint: remember no gates in `vjp` but compute them again in the pullback, so many steps at a
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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
