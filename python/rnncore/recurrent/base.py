"""What layers and cells share: parameters in torch's layout over the compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_shape, check_flag, float_dtype
from ..compiled import Layer, Parameters, Targets, core
from ..init import RecurrentInit, recurrent_params
from ..module import Module
from ..precision import HoldsWeights
from ..states import State
from .cell import Cell, of_transition

Seed: TypeAlias = int | np.random.Generator | None

_PAIRS = {name: (f"{name}[0]", f"{name}[1]") for name in ("state", "dstate")}


@dataclass(frozen=True)
class Initial:
    """How parameters start, and in which precision."""

    dtype: npt.DTypeLike
    seed: Seed
    init: str | RecurrentInit


class RecurrentBase(HoldsWeights):
    """A module whose parameters are those of recurrent kernels."""

    recurrent = True
    #: Whether the state is `(h, c)`.
    has_cell_state: ClassVar[bool] = False
    _no_parts = Module._no_parts | {"_names", "kernels", "_targets"}
    _built = HoldsWeights._built | {"_targets"}

    def __init__(
        self,
        cell: Cell,
        sizes: dict[tuple[str, ...], int],
        hidden_size: int,
        bias: bool,
        batch_first: bool,
        initial: Initial,
    ) -> None:
        """`sizes`: for each layer the suffixes of its directions and the width of its input."""
        # torch.nn.RNN has nonlinearity in the place of bias.
        self.hidden_size, self.bias = hidden_size, check_flag("bias", bias)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dtype = float_dtype(initial.dtype)
        self.cell, self.output_size = cell, cell.output_size(hidden_size)
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (suffixes, size) in enumerate(sizes.items()):
            width = size if number == 0 else len(suffixes) * self.output_size
            for suffix in suffixes:
                shapes |= self.cell.shapes(suffix, width, hidden_size, self.bias)
        rng, units = np.random.default_rng(initial.seed), cell.units
        own = {n: s for n, s in shapes.items() if units and n.startswith(units)}
        drawn = {n: s for n, s in shapes.items() if n not in own}
        params = recurrent_params(initial.init, rng, drawn, hidden_size, self.dtype)
        params |= {n: self.cell.first_units(rng, hidden_size).astype(self.dtype) for n in own}
        super().__init__({name: params[name] for name in shapes})
        self._names = [
            [
                [
                    [kind + of_transition(suffix, number) if kind else "" for kind in kinds]
                    for number, kinds in enumerate(self.cell.kinds(), 1)
                ]
                for suffix in suffixes
            ]
            for suffixes in sizes
        ]
        self._build()

    def weight_names(self) -> Iterator[str]:
        """Yield the names of the matrices of products: not those of the units' own numbers."""
        units = self.cell.units
        return (n for n in super().weight_names() if not (units and n.startswith(units)))

    def _build(self) -> None:
        """Make the compiled layers; they watch the parameters, which never change identity."""
        self.kernels = self._compiled(self.float_params())
        self._targets: list[Targets] | None = None

    def _compiled(self, params: Mapping[str, Array]) -> list[Layer]:
        layer, weights = core(self.dtype).Layer, self._weights_in()
        widths = (params[layer[0][0][0]].shape[1] for layer in self._names)
        return [
            layer(self.cell.settings(width, self.hidden_size, self.batch_first, weights), group)
            for width, group in zip(widths, self._groups(params), strict=True)
        ]

    def _lend(self) -> None:
        for layer in self.kernels:
            layer.lend()

    def _groups(self, arrays: Mapping[str, Array]) -> list[Parameters]:
        """Parameters or gradients as the compiled layers take them."""
        return [
            Parameters(
                [
                    [[(name, arrays.get(name)) for name in names] for names in direction]
                    for direction in layer
                ]
            )
            for layer in self._names
        ]

    def gradients(self) -> list[Targets]:
        """Where the compiled layers add their gradients: `grads`, which never change identity."""
        if self._targets is None:
            self._targets = self._targets_of(self.grads)
        return self._targets

    def _targets_of(self, grads: Mapping[str, Array]) -> list[Targets]:
        pairs = zip(self.kernels, self._groups(grads), strict=True)
        return [layer.targets(group) for layer, group in pairs]

    def checked_state(self, name: str, state: State, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Check a state, or the gradient of one, and split it into h and c, either of them None.

        `shape` is that of h; c may be wider, where h is projected.
        """
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
            None if c is None else as_shape(c_name, c, self.dtype, (*shape[:-1], self.hidden_size)),
        )

    def join_state(self, h: Array, c: Array | None) -> State:
        """Return h, or (h, c), as this kind of layer has it."""
        return (h, c) if self.has_cell_state else h
