"""Compiled layers over the memory of torch's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from ..arrays import Array
from ..compiled import Layer, Parameters, Settings, core
from ..recurrent.cell import Cell, compiled_activations
from .threads import follow_threads

#: By what torch calls a layer's mode: the kernel, and the gates in the order of the weights' rows.
KERNELS = {
    "LSTM": ("lstm", "ifgo"),
    "GRU": ("gru", "rzn"),
    "RNN_TANH": ("rnn_tanh", "h"),
    "RNN_RELU": ("rnn_relu", "h"),
}

#: `torch.utils.dlpack.from_dlpack` of a capsule.
from_dlpack = torch._C._from_dlpack

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
        if self._made is not None and self._made[0] == (kind, place):
            return self._made[1]
        arrays = [array_of(w.contiguous()) for w in weights]
        parameters, settings = kind.grouped(arrays), kind.settings(arrays[0].shape[1])
        found = Kernels(core(arrays[0].dtype).Layer(settings, parameters), parameters)
        if all(contiguous for *_, contiguous in place):  # else it reads copies
            self._made = ((kind, place), found)
        return found


#: What one layer is given beside the weights: None, or how many sequences of a packed x have each
#: step; x; h0 and c0 (D, B, H), each of them or None for zero.
Call: TypeAlias = Sequence[Any]


def forward(layer: Layer, call: Call, record: bool) -> tuple[Tensor, Tensor, Tensor | None, Any]:
    """Return y, the final h and c, and the tape for `backward`."""
    follow_threads()
    batch_sizes, x, h0, c0 = map(lent, call)
    y, h, c, tape = layer.forward_tensors(batch_sizes, x, h0, c0, record)
    return from_dlpack(y), from_dlpack(h), None if c is None else from_dlpack(c), tape


def backward(
    kernels: Kernels,
    x: Tensor,
    taped: tuple[Tensor, Any],
    upstream: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of x, h0, c0 and the weights, None where they are not wanted.

    taped: y, and the tape. upstream: the gradients of y, h and c, None for zero.
    """
    follow_threads()
    (layer, parameters), (y, tape) = kernels, taped
    found = layer.backward_tensors(
        tape, lent(x), lent(y), tuple(map(lent, upstream)), parameters, wanted
    )
    return [None if d is None else from_dlpack(d) for d in found]


def lent(tensor: Tensor | None) -> Any:
    """A tensor as DLPack's capsule, its numbers in their order."""
    if tensor is None:
        return None
    if not tensor.is_contiguous() or tensor.is_neg():
        tensor = tensor.resolve_neg().contiguous()
    return to_dlpack(tensor)


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
