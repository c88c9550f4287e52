"""`torch.nn.LSTMCell`, `GRUCell` and `RNNCell`, computed by rnncore's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .autograd import apply_layer
from .kernels import Compiled, Kind, refusal
from .layers import fall_back, mapped, parts_of
from .operator import call_operator


class _Step(torch.nn.RNNCellBase):
    """One step of one layer."""

    #: As of the layers.
    fallback: str = "warn"

    def _mode(self) -> str:
        raise NotImplementedError

    def _step(self, input: Tensor, hx: Any) -> Any:
        """The state after input, or None for what torch's own cell is to compute or to refuse."""
        weights = [w for w in self._parameters.values() if w is not None]
        if torch.is_autocast_enabled("cpu") and input.is_cpu:
            input, hx = input.float(), mapped(hx, Tensor.float)
        reason = refusal(weights[0].dtype, (input, *parts_of(hx), *weights))
        if reason:
            fall_back(self, reason)
        if reason or torch.jit.is_tracing() or not self._fits(input, hx):
            return None
        kind = Kind(self._mode(), self.hidden_size, bias=bool(self.bias))
        axes, pair = (0,) if input.dim() == 2 else (0, 0), kind.has_cell_state
        state = mapped(hx, lambda part: part[(None,) * len(axes)])
        states = state if pair and hx is not None else (state, None)
        x = input[(None,) * len(axes)]
        if torch.compiler.is_compiling():
            _, h, c = call_operator(kind, x, states, weights)
        else:
            compiled = self.__dict__.setdefault("_compiled", Compiled())
            _, h, c = apply_layer(compiled, kind, x, states, weights)
        return mapped((h, c) if pair else h, lambda part: part[(0,) * len(axes)])

    def _fits(self, input: Tensor, hx: Any) -> bool:
        """Whether shapes are what they ought to be."""
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size or not input.numel():
            return False
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
