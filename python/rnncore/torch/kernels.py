"""Compiled layers over the memory of torch's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arrays import Array
from ..compiled import Layer, Parameters, Settings, Targets, core
from ..recurrent.cell import Cell, compiled_activations
from .threads import follow_threads

#: By what torch calls a layer's mode: the kernel, and the gates in the order of the weights' rows.
KERNELS = {
    "LSTM": ("lstm", "ifgo"),
    "GRU": ("gru", "rzn"),
    "RNN_TANH": ("rnn_tanh", "h"),
    "RNN_RELU": ("rnn_relu", "h"),
}

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


class Kind(NamedTuple):
    """What one layer computes: all that its kernels are told beside the weights."""

    mode: str
    hidden_size: int
    proj_size: int = 0
    bias: bool = True
    batch_first: bool = False
    directions: int = 1

    @property
    def has_cell_state(self) -> bool:
        """Whether the state is `(h, c)`."""
        return self.mode == "LSTM"

    @property
    def output_size(self) -> int:
        """The width of h."""
        return self.proj_size or self.hidden_size

    @property
    def names(self) -> list[str]:
        """The weights of one direction, in torch's order."""
        bias = ["bias_ih", "bias_hh"] * self.bias
        return ["weight_ih", "weight_hh", *bias, *["weight_hr"] * bool(self.proj_size)]

    def settings(self, input_size: int) -> Settings:
        """What the compiled layer is told."""
        kernel, gates = KERNELS[self.mode]
        cell = Cell(kernel, gates, compiled_activations(kernel), proj_size=self.proj_size)
        return cell.settings(input_size, self.hidden_size, self.batch_first)

    def grouped(self, arrays: Sequence[Array]) -> Parameters:
        """The weights of all directions as the compiled layer takes them."""
        slots = [
            "weight_ih",
            "weight_hh",
            *(["bias_ih", "bias_hh"] if self.bias else ["", ""]),
            "",
            "weight_hr" if self.proj_size else "",
        ]
        names, count = self.names, len(arrays) // self.directions
        groups = []
        for d in range(self.directions):
            own = dict(zip(names, arrays[d * count : (d + 1) * count], strict=True))
            groups.append([[(slot, own.get(slot)) for slot in slots]])
        return Parameters(groups)


class Kernels(NamedTuple):
    """A compiled layer, and the weights that it reads where they lie."""

    layer: Layer
    weights: Parameters


class Compiled:
    """The compiled layer over some weights, made anew when they lie elsewhere.

    What the weights hold is looked at with every call, by the layer itself: torch counts no change
    that goes through `.data` or an array.
    """

    def __init__(self) -> None:
        self._made: tuple[Any, Kernels] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Compiled, ()  # a copy has weights of its own

    def kernels(self, kind: Kind, weights: Sequence[Tensor]) -> Kernels:
        """Return the layer over these weights."""
        place = [(w.data_ptr(), w.shape, w.dtype, w.is_contiguous()) for w in weights]
        made = self._made
        if made is not None and made[0] == (kind, place):
            return made[1]
        arrays = [array_of(w.contiguous()) for w in weights]
        parameters, settings = kind.grouped(arrays), kind.settings(arrays[0].shape[1])
        found = Kernels(core(arrays[0].dtype).Layer(settings, parameters), parameters)
        if all(contiguous for *_, contiguous in place):  # else it reads copies
            self._made = ((kind, place), found)
        return found


class Call(NamedTuple):
    """What one layer is given beside the weights."""

    kind: Kind
    #: None, or how many sequences of a packed x have each step.
    batch_sizes: Tensor | None
    x: Tensor
    #: (D, B, H), or None for zero.
    h0: Tensor | None
    c0: Tensor | None


def forward(call: Call, layer: Layer, record: bool) -> tuple[Tensor, Tensor, Tensor | None, Any]:
    """Return y, the final h and c, and the tape for `backward`."""
    follow_threads()
    kind, batch_sizes, x, h0, c0 = call
    y = None
    if record:  # where everybody may write to it: torch sees that it has been changed
        y = torch.empty((*x.shape[:-1], kind.directions * kind.output_size), dtype=x.dtype)
    made, h, c, _, tape = layer.forward(
        array_of(x),
        None if h0 is None else array_of(h0),
        None if c0 is None else array_of(c0),
        None,
        0 if record else None,
        False,
        None,
        None if batch_sizes is None else array_of(batch_sizes),
        None if y is None else array_of(y),
    )
    y = torch.from_numpy(made) if y is None else y
    return y, torch.from_numpy(h), None if c is None else torch.from_numpy(c), tape


def backward(
    layer: Layer,
    tape: Any,
    gradients: Sequence[Tensor | None],
    targets: Targets | None,
    want_dx: bool,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return the gradients of x and of the initial states from those of y and of the final ones."""
    follow_threads()
    dy, dh, dc = (None if g is None else array_of(g) for g in gradients)
    found = layer.backward(tape, dy, dh, dc, targets, want_dx)
    dx, dh0, dc0 = (None if array is None else torch.from_numpy(array) for array in found)
    assert dh0 is not None
    return dx, dh0, dc0


def refusal(dtype: torch.dtype, tensors: Iterable[Tensor]) -> str:
    """Why the kernels do not take these tensors beside weights of this dtype, or nothing."""
    if dtype not in DTYPES:
        return f"the weights are {dtype}"
    for tensor in tensors:
        if tensor.is_cpu and tensor.dtype is dtype and tensor.layout is torch.strided:
            continue
        if not tensor.is_cpu:
            return f"a tensor is on {tensor.device}"
        if tensor.dtype is not dtype:
            return f"the weights are {dtype}, another tensor is {tensor.dtype}"
        return f"a tensor is {tensor.layout}"
    return ""


def array_of(tensor: Tensor) -> Array:
    """A view of a tensor's memory."""
    array: Array = (tensor.detach() if tensor.requires_grad else tensor).numpy()
    return array
