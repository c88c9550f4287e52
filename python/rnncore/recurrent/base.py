"""What layers and cells share: parameters in torch's layout over the compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_shape, check_flag, float_dtype
from ..compiled import Layer, Parameters, Targets, core
from ..init import RecurrentInit, recurrent_params
from ..module import Module
from ..precision import HoldsWeights
from ..states import State
from .cell import Cell, Shapes, of_transition

Seed: TypeAlias = int | np.random.Generator | None
#: h and c, each None where it is not given or, of a layer without c, not there.
Pair: TypeAlias = tuple[Any, Any]

#: Held while gradients of first states are added up: NumPy lets go of the GIL over long rows.
_adding = Lock()
_PAIRS = {name: (f"{name}[0]", f"{name}[1]") for name in ("state", "dstate")}


@dataclass(frozen=True)
class Initial:
    """How parameters start, and in which precision."""

    dtype: npt.DTypeLike
    seed: Seed
    init: str | RecurrentInit
    #: Whether the state that sequences start from is a parameter, zero at first.
    learned_state: bool = False


class RecurrentBase(HoldsWeights):
    """A module whose parameters are those of recurrent kernels."""

    recurrent = True
    #: Whether the state is `(h, c)`.
    has_cell_state: bool = False
    _no_parts = Module._no_parts | {"_names", "_suffixes", "kernels", "_targets"}
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
        self.learned_state = check_flag("learned_state", initial.learned_state)
        self.cell, self.output_size = cell, cell.output_size(hidden_size)
        self._suffixes = [suffix for suffixes in sizes for suffix in suffixes]
        super().__init__(self._initial_params(sizes, initial))
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

    def _initial_params(
        self, sizes: dict[tuple[str, ...], int], initial: Initial
    ) -> dict[str, Array]:
        """How the parameters start, in torch's order."""
        cell, hidden_size = self.cell, self.hidden_size
        shapes: Shapes = {}
        for number, (suffixes, size) in enumerate(sizes.items()):
            width = size if number == 0 else len(suffixes) * self.output_size
            for suffix in suffixes:
                shapes |= cell.shapes(suffix, width, hidden_size, self.bias)
                if self.learned_state:
                    shapes |= cell.state_shapes(suffix, hidden_size)
        rng, units = np.random.default_rng(initial.seed), cell.units
        own = [name for name in shapes if units and name.startswith(units)]
        zero = [name for name in shapes if name.startswith("initial")]
        drawn = {n: shape for n, shape in shapes.items() if n not in own and n not in zero}
        params = recurrent_params(initial.init, rng, drawn, hidden_size, self.dtype)
        params |= {n: cell.first_units(rng, hidden_size).astype(self.dtype) for n in own}
        params |= {n: np.zeros(shapes[n], self.dtype) for n in zero}
        return {name: params[name] for name in shapes}

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

    def checked_state(self, name: str, state: State, shape: tuple[int, ...]) -> Pair:
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

    def started(self, given: Pair, rows: int) -> Pair:
        """Return the state that so many sequences start from; what is given counts.

        h `(L * D, rows, P)` and c `(L * D, rows, H)`, which may be read-only. None is zero: what it
        means that no state is given is decided here alone, and in `add_first` for the gradient.
        """
        if not self.learned_state:
            return given
        h, c = (
            self._first(kind, rows) if part is None else part
            for kind, part in zip("hc", given, strict=True)
        )
        return h, c

    def start_arrays(self, given: Pair, rows: int) -> State:
        """Return what `started` does as a state of arrays of its own."""
        return self.join_state(*self.start_pair(given, rows))

    def start_pair(self, given: Pair, rows: int) -> Pair:
        """Return what `started` does as arrays of its own."""
        widths = self.output_size, self.cell.cell_size(self.hidden_size)
        h, c = (
            np.zeros((len(self._suffixes), rows, width), self.dtype)
            if part is None
            else np.array(part, order="C")
            for part, width in zip(self.started(given, rows), widths, strict=True)
        )
        return h, c

    def add_first(self, given: Pair, dstate: State) -> None:
        """Add the gradient of the state that sequences started from to those of the parameters.

        What was given has none. dstate: `(L * D, B, H)`, without B for one sequence.
        """
        if not self.learned_state:
            return
        with _adding:
            for kind, part, d in zip("hc", given, self.split_state(dstate), strict=True):
                if part is None and d is not None:
                    sums = d.reshape(len(self._suffixes), -1, d.shape[-1]).sum(axis=1)
                    for suffix, row in zip(self._suffixes, sums, strict=True):
                        self.grads[f"initial_{kind}{suffix}"] += row

    def _first(self, kind: str, rows: int) -> Array | None:
        """The first h or c of so many rows."""
        if kind == "c" and not self.has_cell_state:
            return None
        first = np.stack([self._params[f"initial_{kind}{suffix}"] for suffix in self._suffixes])
        return np.broadcast_to(first[:, None], (len(first), rows, first.shape[1]))

    @property
    def state_count(self) -> int:
        """How many arrays a state is."""
        return 2 if self.has_cell_state else 1

    def join_state(self, h: Array, c: Array | None) -> State:
        """Return h, or (h, c), as this kind of layer has it."""
        return (h, c) if self.has_cell_state else h

    def split_state(self, state: State) -> Pair:
        """Undo `join_state`."""
        return state if self.has_cell_state else (state, None)
