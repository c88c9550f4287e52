"""`torch.nn.LSTMCell`, `GRUCell` and `RNNCell`, computed by rnncore's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .autograd import apply_layer
from .kernels import Compiled, Kind, refusal
from .layers import fall_back, is_state, mapped, parts_of, weights_of, widened
from .operator import call_operator


class _Step(torch.nn.RNNCellBase):
    """One step of one layer."""

    #: As of the layers.
    fallback: str = "warn"

    def _mode(self) -> str:
        raise NotImplementedError

    def _step(self, input: Tensor, hx: Any) -> Any:
        """The state after input, or None for what torch's own cell is to compute or to refuse."""
        kind = Kind(self._mode(), self.hidden_size, bias=bool(self.bias))
        weights = weights_of(self, kind.names)
        if torch.is_autocast_enabled("cpu"):
            input, hx = widened(input), mapped(widened, hx)
        reason = refusal(weights[0].dtype, (input, *parts_of(hx), *weights))
        if reason:
            fall_back(self, reason)
        if reason or torch.jit.is_tracing() or not self._fits(input, hx):
            return None
        new, pair = (None,) * (3 - input.dim()), kind.has_cell_state
        state = mapped(lambda part: part[new], hx)
        states = state if pair and hx is not None else (state, None)
        x = input[new]
        if torch.compiler.is_compiling():
            _, h, c = call_operator(kind, x, states, weights)
        else:
            compiled = self.__dict__.setdefault("_compiled", Compiled())
            _, h, c = apply_layer(compiled, kind, x, states, weights)
        return mapped(lambda part: part[(0,) * len(new)], (h, c) if pair else h)

    def _fits(self, input: Tensor, hx: Any) -> bool:
        """Whether shapes are what they ought to be."""
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size or not input.numel():
            return False
        if hx is None or not is_state(hx, self._mode() == "LSTM"):
            return hx is None
        shape = (*input.shape[:-1], self.hidden_size)
        return all(tuple(part.shape) == shape for part in parts_of(hx))


class LSTMCell(_Step, torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` with the same arguments, results and parameters, computed by rnncore."""

    def _mode(self) -> str:
        return "LSTM"

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """`(h, c)` after one step: input `(B, I)` or `(I,)`, hx of `(B, H)` or `(H,)` or None."""
        return self._step(input, hx) or torch.nn.LSTMCell.forward(self, input, hx)


class GRUCell(_Step, torch.nn.GRUCell):
    """`torch.nn.GRUCell` with the same arguments, results and parameters, computed by rnncore."""

    def _mode(self) -> str:
        return "GRU"

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """h after one step: input `(B, I)` or `(I,)`, hx `(B, H)` or `(H,)` or None."""
        h = self._step(input, hx)
        return torch.nn.GRUCell.forward(self, input, hx) if h is None else h


class RNNCell(_Step, torch.nn.RNNCell):
    """`torch.nn.RNNCell` with the same arguments, results and parameters, computed by rnncore."""

    def _mode(self) -> str:
        return "RNN_" + str(self.nonlinearity).upper()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """h after one step: input `(B, I)` or `(I,)`, hx `(B, H)` or `(H,)` or None."""
        h = self._step(input, hx)
        return torch.nn.RNNCell.forward(self, input, hx) if h is None else h
