"""`torch.nn.LSTM`, `GRU` and `RNN`, computed by rnncore's kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .autograd import apply_layer
from .kernels import Compiled, Kind, refusal
from .operator import call_operator


class InPlaceOf:
    """Makes `isinstance` true for torch's own class.

    torch.compile refuses what derives from `torch.nn.LSTM`, `GRU` or `RNN`, which it finds out by
    `isinstance`. So the classes here derive from `torch.nn.RNNBase` alone, and name torch's class
    as theirs to everybody but torch.compile.
    """

    #: The class of torch.nn.
    original: ClassVar[type[torch.nn.RNNBase]]

    def _named_class(self) -> type[Any]:
        compiling = torch._guards.TracingContext.try_get() is not None
        return type(self) if compiling else type(self).original

    def _set_class(self, kind: type[Any]) -> None:
        object.__dict__["__class__"].__set__(self, kind)

    __class__ = property(_named_class, _set_class)


class Recurrent(InPlaceOf, torch.nn.RNNBase):
    """What the three have in common."""

    #: What becomes of tensors that the kernels do not take (another device, another dtype): "warn",
    #: torch's own layer computes them and the first time warns; "raise", a TypeError.
    fallback: str = "warn"

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's own: `(output, h_n)`, or `(output, (h_n, c_n))` of an LSTM."""
        packed = isinstance(input, PackedSequence)
        data = input.data if packed else input
        weights = weights_of(self, self._flat_weights_names)
        if torch.is_autocast_enabled("cpu"):
            data, hx = widened(data), mapped(widened, hx)
        reason = refusal(weights[0].dtype, (data, *parts_of(hx), *weights))
        if reason:
            fall_back(self, reason)
        if reason or torch.jit.is_tracing() or not self._fits(data, hx, packed):
            # A trace would hold our results as constants; and what torch refuses, it says itself.
            return self.original.forward(self, input, hx)
        if packed:
            return self._packed(input, data, hx, weights)
        if data.dim() == 3:
            y, state = self._layers(data, hx, weights, None)
            return y, state
        axis = 0 if self.batch_first else 1
        hx = mapped(lambda part: part.unsqueeze(1), hx)
        y, state = self._layers(data.unsqueeze(axis), hx, weights, None)
        return y.squeeze(axis), mapped(lambda part: part.squeeze(1), state)

    def _packed(self, input: Any, data: Tensor, hx: Any, weights: Sequence[Tensor]) -> Any:
        _, batch_sizes, order, back = input
        if order is not None:
            hx = mapped(lambda part: part.index_select(1, order), hx)
        y, state = self._layers(data, hx, weights, batch_sizes)
        if back is not None:
            state = mapped(lambda part: part.index_select(1, back), state)
        return PackedSequence(y, batch_sizes, order, back), state

    def _layers(
        self, x: Tensor, hx: Any, weights: Sequence[Any], batch_sizes: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Run the layers one after the other, dropout between them."""
        kind, count = self._kind(batch_sizes is not None), len(weights) // self.num_layers
        compiling = torch.compiler.is_compiling()
        finals: list[Any] = []
        for n in range(self.num_layers):
            if n and self.dropout and self.training:
                x = torch.nn.functional.dropout(x, self.dropout, True)
            own, states = weights[n * count : (n + 1) * count], self._of_layer(hx, n)
            if compiling:
                x, h, c = call_operator(kind, x, states, own, batch_sizes)
            else:
                x, h, c = apply_layer(self._kernels(n), kind, x, states, own, batch_sizes)
            finals.append((h, c))
        h, c = finals[0]
        if self.num_layers > 1:
            h = torch.cat([h for h, _ in finals])
            c = torch.cat([c for _, c in finals]) if kind.has_cell_state else None
        return x, (h, c) if kind.has_cell_state else h

    def _kind(self, packed: bool) -> Kind:
        return Kind(
            self.mode,
            self.hidden_size,
            self.proj_size,
            self.bias,
            self.batch_first and not packed,
            2 if self.bidirectional else 1,
        )

    def _of_layer(self, hx: Any, n: int) -> tuple[Tensor | None, Tensor | None]:
        """The initial h and c of layer n."""
        if hx is None:
            return None, None
        h, c = hx if self.mode == "LSTM" else (hx, None)
        if self.num_layers == 1:
            return h, c
        directions = 2 if self.bidirectional else 1
        own = slice(n * directions, (n + 1) * directions)
        return h[own], None if c is None else c[own]

    def _kernels(self, n: int) -> Compiled:
        if "_compiled" not in self.__dict__:  # it was torch's until it was replaced
            self.__dict__["_compiled"] = [Compiled() for _ in range(self.num_layers)]
        compiled: Compiled = self.__dict__["_compiled"][n]
        return compiled

    def _fits(self, data: Tensor, hx: Any, packed: bool) -> bool:
        """Whether shapes are what they ought to be. What is not, torch refuses."""
        axes = data.dim()
        if axes not in ((2,) if packed else (2, 3)) or data.shape[-1] != self.input_size:
            return False
        batched = packed or axes == 3
        if not packed and data.shape[1 if batched and self.batch_first else 0] == 0:
            return False
        if hx is None or not is_state(hx, self.mode == "LSTM"):
            return hx is None
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        layers = self.num_layers * (2 if self.bidirectional else 1)
        batch: tuple[Any, ...] = ()
        if packed:
            return all(part.dim() == 3 for part in parts_of(hx))
        if batched:
            batch = (data.shape[0 if self.batch_first else 1],)
        return all(
            tuple(part.shape) == (layers, *batch, width)
            for part, width in zip(parts_of(hx), widths, strict=False)
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        # object's own writes down what `__class__` says.
        state = {n: v for n, v in self.__dict__.items() if n != "_flat_weight_refs"}
        return torch.nn.RNNBase.__new__, (type(self),), state


class LSTM(Recurrent):
    """`torch.nn.LSTM` with the same arguments, results and parameters, computed by rnncore.

    Float32 and float64 on the CPU, forward and backward; see `fallback` for the rest. Equations and
    shapes are torch's (https://pytorch.org/docs/stable/generated/torch.nn.LSTM.html).
    """

    original = torch.nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    check_forward_args = torch.nn.LSTM.check_forward_args  # type: ignore[assignment]
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    permute_hidden = torch.nn.LSTM.permute_hidden  # type: ignore[assignment]


class GRU(Recurrent):
    """`torch.nn.GRU` with the same arguments, results and parameters, computed by rnncore.

    Float32 and float64 on the CPU, forward and backward; see `fallback` for the rest. Equations and
    shapes are torch's (https://pytorch.org/docs/stable/generated/torch.nn.GRU.html).
    """

    original = torch.nn.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )


class RNN(Recurrent):
    """`torch.nn.RNN` with the same arguments, results and parameters, computed by rnncore.

    Float32 and float64 on the CPU, forward and backward; see `fallback` for the rest. Equations and
    shapes are torch's (https://pytorch.org/docs/stable/generated/torch.nn.RNN.html).
    """

    original = torch.nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        super().__init__(
            "RNN_" + nonlinearity.upper(),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )


def fall_back(module: Any, reason: str) -> None:
    """Say, the first time, that torch computes what rnncore does not; or raise."""
    message = (
        f"{type(module).__name__}: rnncore computes dense float32 and float64 tensors on the CPU, "
        f"but {reason}"
    )
    if module.fallback == "raise":
        raise TypeError(message)
    if not module.__dict__.get("_warned"):
        module.__dict__["_warned"] = True
        warnings.warn(f"{message}: torch's own layer is used", stacklevel=5)


def weights_of(module: torch.nn.Module, names: Iterable[str]) -> list[Any]:
    """The weights as they are now; parametrisations compute theirs when they are asked for."""
    own = module._parameters
    return [own[name] if name in own else getattr(module, name) for name in names]


def parts_of(hx: Any) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return () if hx is None else tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)


def mapped(change: Callable[[Tensor], Tensor], hx: Any) -> Any:
    """A state with each of its tensors changed."""
    if isinstance(hx, (tuple, list)):
        return tuple(change(part) for part in hx)
    return None if hx is None else change(hx)


def is_state(hx: Any, pair: bool) -> bool:
    """Whether hx is a tensor or, if that is wanted, a pair of them."""
    return isinstance(hx, (tuple, list)) == pair and (not pair or len(hx) == 2)


def widened(tensor: Tensor) -> Tensor:
    """The same in float32, if it has half the bits."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
