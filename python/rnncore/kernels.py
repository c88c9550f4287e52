"""What layers and cells share: parameters in torch's layout over the compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from .arrays import Array, as_shape, float_dtype
from .init import RecurrentInit, recurrent_params
from .module import Module

#: `h`, or `(h, c)` for an LSTM.
State: TypeAlias = Any

_LAYERS = {np.dtype("float32"): _core.LayerF32, np.dtype("float64"): _core.LayerF64}
_PAIRS = {name: (f"{name}[0]", f"{name}[1]") for name in ("state", "dstate")}
_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Kernels(Module):
    """A module whose parameters are those of recurrent kernels."""

    recurrent = True
    #: Gates stacked in each weight, and whether the state is `(h, c)`.
    gates: ClassVar[int]
    has_cell_state: ClassVar[bool] = False

    def __init__(
        self,
        cell: str,
        sizes: dict[tuple[str, ...], int],
        hidden_size: int,
        bias: bool,
        batch_first: bool,
        dtype: npt.DTypeLike,
        rng: np.random.Generator,
        init: str | RecurrentInit,
    ) -> None:
        """`sizes`: for each layer the suffixes of its directions and the width of its input."""
        if not isinstance(bias, (bool, np.bool_)):  # torch.nn.RNN has nonlinearity in its place
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.hidden_size, self.bias, self.batch_first = hidden_size, bool(bias), bool(batch_first)
        self.dtype, self._cell, self._sizes = float_dtype(dtype), cell, sizes
        rows = self.gates * hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffixes, size in sizes.items():
            for suffix in suffixes:
                shapes["weight_ih" + suffix] = (rows, size)
                shapes["weight_hh" + suffix] = (rows, hidden_size)
                if bias:
                    shapes["bias_ih" + suffix] = (rows,)
                    shapes["bias_hh" + suffix] = (rows,)
        super().__init__(recurrent_params(init, rng, shapes, hidden_size, self.dtype))
        self._build()

    def _variant(self) -> str:
        """The name of the kernels' cell; takes the keywords that only this kind of layer has."""
        raise NotImplementedError

    def _build(self) -> None:
        """Make the compiled layers; they watch the parameters, which never change identity."""
        layer = _LAYERS[self.dtype]
        self._layers = [
            layer(self._cell, size, self.hidden_size, self.batch_first, groups)
            for size, groups in zip(self._sizes.values(), self._groups(self.params), strict=True)
        ]

    def _groups(self, arrays: Mapping[str, Array]) -> list[list[list[Array | None]]]:
        """Parameters or gradients as the compiled layers take them: by layer, direction, kind."""
        return [
            [[arrays.get(kind + suffix) for kind in _KINDS] for suffix in suffixes]
            for suffixes in self._sizes
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_layers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()

    def _state(self, name: str, state: State, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Check a state, or the gradient of one, and split it into h and c, either of them None."""
        if state is None:
            return None, None
        if not self.has_cell_state:
            return as_shape(name, state, self.dtype, shape), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name} of an LSTM must be a pair (h, c), got {type(state).__name__}")
        h, c = state  # written out, for the sake of single steps
        h_name, c_name = _PAIRS[name]
        return (
            None if h is None else as_shape(h_name, h, self.dtype, shape),
            None if c is None else as_shape(c_name, c, self.dtype, shape),
        )

    def _join(self, h: Array, c: Array | None) -> State:
        return (h, c) if self.has_cell_state else h


class Vanilla(Kernels):
    """h = phi(W x + U h)."""

    gates = 1

    def _variant(self, nonlinearity: str = "tanh") -> str:
        if nonlinearity not in ("tanh", "relu", "identity"):
            raise ValueError(f"nonlinearity must be tanh, relu or identity, got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        return f"rnn_{nonlinearity}"


class LongShortTerm(Kernels):
    """A hidden and a cell state."""

    gates = 4
    has_cell_state = True

    def _variant(self, _activations: str = "") -> str:
        return f"lstm_{_activations}" if _activations else "lstm"


class Gated(Kernels):
    """Reset and update gates."""

    gates = 3

    def _variant(self, reset_after: bool = True, _activations: str = "") -> str:
        self.reset_after = bool(reset_after)
        name = "gru" if reset_after else "gru_reset_before"
        return f"{name}_{_activations}" if _activations else name
