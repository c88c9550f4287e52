"""Layers of cells that users wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_kind
from ..compiled import CellProgram, Settings, cell_operations
from ..hinting import refuses_others
from ..init import RecurrentInit, uniform
from ..recurrent.base import Initial, Pair, Seed
from ..recurrent.cell import Cell, Facts
from ..recurrent.regularisers import Regularisers
from ..recurrent.stack import Options, Stacked
from ..states import State
from .definition import CellDefinition
from .emission import Instruction
from .lowering import NO_ZONES, Zones, lowered

_REST = ("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0)


@lru_cache(maxsize=64)
def core_program(cell: CellDefinition, zones: Zones = NO_ZONES, sums: bool = False) -> CellProgram:
    """Return a cell's programs as the compiled core takes them; sums: for nodes of trees."""
    programs, numbers = lowered(cell, zones, sums), cell_operations()

    def rows(by_stage: list[list[Instruction]]) -> list[list[tuple[int, int, int, int, int, int]]]:
        return [
            [(numbers[i.operation], i.to, i.a, i.b, i.c, i.d) for i in program]
            for program in by_stage
        ]

    return CellProgram(
        gates=programs.gates,
        units=programs.units,
        cells=programs.cells,
        scalars=programs.scalars,
        vectors=programs.vectors,
        kept=programs.kept,
        forward=rows(programs.forward),
        backward=rows(programs.backward),
        constants=programs.constants,
        sums=sums,
    )


@dataclass(frozen=True)
class OwnCell(Cell):
    """What the kernels are told of a cell that a user wrote."""

    definition: CellDefinition = None  # type: ignore[assignment]
    zones: Zones = NO_ZONES
    #: Whether it is for nodes of trees: their old states are the sums of their children's.
    sums: bool = False

    @classmethod
    def of(cls, definition: CellDefinition, depth: int = 1, shortcut: bool = False) -> OwnCell:
        """Return the cell of a definition, a time step being so many transitions."""
        cell = cls(
            "own",
            _gate_letters(definition),
            _REST,
            transition_depth=depth,
            shortcut=shortcut,
            definition=definition,
        )
        if cell.transition_depth > 1:
            _check_deep(definition)
        return cell

    @classmethod
    def of_trees(cls, definition: CellDefinition) -> OwnCell:
        """Return the cell of a definition for nodes with any number of children."""
        return replace(cls.of(definition), arity=1, sums=True)

    @property
    def facts(self) -> Facts:
        """What the kernel is."""
        cell = self.definition
        return Facts(
            name=cell.name,
            gates=sum(gate.input for gate in cell.gates),
            recurrent_gates=sum(gate.recurrent for gate in cell.gates),
            units=len(cell.units),
            has_cell_state=len(cell.states) > 1,
            has_recurrent_weights=cell.recurrent,
            any_arity=self.sums,
            multiplies_pairs=False,
            normalises=False,
            gate=_REST[0][0],
            candidate=_REST[1][0],
        )

    @property
    def standard(self) -> bool:
        """Whether the activations are those of the kernel: they are part of the step."""
        return True

    def options(self) -> dict[str, Any]:
        """The options that are not at rest."""
        own = ("definition", "zones", "sums")
        return {name: value for name, value in super().options().items() if name not in own}

    def cell_size(self, hidden_size: int) -> int:
        """The width of c: the states behind h, side by side."""
        return (len(self.definition.states) - 1) * hidden_size

    def settings(
        self, input_size: int, hidden_size: int, batch_first: bool, weights: str = ""
    ) -> Settings:
        """What a compiled layer is made from, beside the parameters; `weights`: see `quantize`."""
        return Settings(
            cell=core_program(self.definition, self.zones, self.sums),
            input_size=input_size,
            hidden_size=hidden_size,
            output_size=hidden_size,
            arity=self.arity,
            batch_first=batch_first,
            activations=_REST,
            cell_clip=0.0,
            gate_clip=0.0,
            plain=True,
            weights=weights,
        )

    def first_units(self, rng: np.random.Generator, hidden_size: int) -> Array:
        """How the units' own numbers start: as the definition says, else as weights do."""
        bound = hidden_size**-0.5
        rows = [
            uniform(rng, (1, hidden_size), bound, np.float64)
            if unit.low is None or unit.high is None
            else rng.uniform(unit.low, unit.high, (1, hidden_size))
            for unit in self.definition.units
        ]
        return np.concatenate(rows)


def _gate_letters(cell: CellDefinition) -> str:
    """The gates in the order of all weights' rows, "" where they are no letters or not in all."""
    alike = {(gate.input, gate.recurrent) for gate in cell.gates}
    letters = "".join(gate.name for gate in cell.gates)
    return letters if len(alike) == 1 and len(letters) == len(cell.gates) else ""


def _check_deep(cell: CellDefinition) -> None:
    """Raise for a cell that has more than recurrent weights to do in a later transition."""
    beside = {"units": cell.units, "inputs": cell.inputs, "vectors": cell.vectors}
    found = [name for name, given in beside.items() if given]
    if found:
        raise ValueError(f"transition_depth does not go with a cell that has {found[0]}")
    alone = [gate.name for gate in cell.gates if not gate.recurrent]
    if alone:
        raise ValueError(
            f"transition_depth needs recurrent parts: gate {alone[0]!r} has an input part alone"
        )


class Recurrent(Stacked):
    """Layers of a cell that `rnncore.cells.define` made: used as `LSTM`, with its own equations.

    cell: the definition, whose step says what a time step computes. The state is h, or a tuple of
    the states in their order, h first; each `(num_layers * D, B, H)`. The parameters of layer k:
    `weight_ih_lk`, H rows for each gate with an input part; `weight_hh_lk`, H rows for each with a
    recurrent part; `bias_ih_lk` and `bias_hh_lk` likewise; numbers of the units' own `(U, H)` are
    `weight_ch_lk`, or `weight_hh_lk` of a cell without recurrent weights.

    A cell with `inputs` or `vectors` reads them from the last columns of x, which is `(T, B,
    input_size + inputs + vectors * H)`: `join` puts it together. Each of several layers reads them,
    in a call; a stream has one.

    zoneout: a rate for all states, or one for h and one for the others, which share their units.
    `transition_depth` and `shortcut` are those of `GRU`, for cells whose gates all have a recurrent
    part and that read nothing but sums and states. There is no `recurrent_dropout`: it changes a
    candidate, and a step of one's own does not say which value that is. What `vjp` remembers of a
    step of a row is a number for each sum and state of a unit; `print(cell)` says what it is.
    """

    _no_parts = Stacked._no_parts | {"definition"}

    @refuses_others
    def __init__(
        self,
        cell: CellDefinition,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        transition_depth: int = 1,
        shortcut: bool = False,
        variational_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        weight_drop: float = 0.0,
        learned_state: bool = False,
        checkpoint: bool | int = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
        **others: NoReturn,
    ) -> None:
        if others:
            raise _unknown(others)
        self.definition = check_kind("cell", cell, CellDefinition)
        self.has_cell_state = len(cell.states) > 1
        own = OwnCell.of(cell, transition_depth, shortcut)
        rates = Regularisers.of(own, variational_dropout, 0.0, zoneout, weight_drop)
        own = replace(own, zones=Zones(*map(bool, rates.zoneout)))
        options = Options(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        super().__init__(own, rates, options, Initial(dtype, seed, init, learned_state), checkpoint)

    @property
    def state_count(self) -> int:
        """How many arrays a state is."""
        return len(self.definition.states)

    @property
    def columns(self) -> int:
        """How wide x is: features, inputs, vectors."""
        return self.definition.columns(self.input_size, self.hidden_size)

    def join(self, x: npt.ArrayLike, **beside: npt.ArrayLike) -> Array:
        """Return x `(T, B, input_size)` with the cell's inputs and vectors in the columns behind.

        Each is given by its name: inputs `(T, B)`, vectors `(T, B, H)`, in x's order of axes; all
        of them, in the layer's dtype.
        """
        return joined(self.definition, (self.input_size, self.hidden_size), self.dtype, x, beside)

    def checked_state(self, name: str, state: State, shape: tuple[int, ...]) -> Pair:
        """Check a state, or the gradient of one, and return h and the others side by side."""
        states = self.definition.states
        if state is None or len(states) == 1:
            return super().checked_state(name, state, shape)
        if not isinstance(state, (tuple, list)) or len(state) != len(states):
            given = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise TypeError(f"{name} must be a tuple ({', '.join(states)}), got {given}")
        h, *others = (
            None if part is None else as_shape(f"{name}[{at}]", part, self.dtype, shape)
            for at, part in enumerate(state)
        )
        if all(part is None for part in others):
            return h, None
        if any(part is None for part in others) and name == "state" and self.learned_state:
            raise ValueError(f"{name}: {', '.join(states[1:])} must be given together, or none")
        zero = np.zeros(shape, self.dtype)
        c = np.concatenate([zero if part is None else part for part in others], axis=-1)
        return h, c

    def join_state(self, h: Array, c: Array | None) -> State:
        """Return h, or all states, as views."""
        if not self.has_cell_state:
            return h
        count, size = self.state_count - 1, self.hidden_size
        if c is None or count == 1:
            return (h, *[c] * count)
        return (h, *(c[..., k * size : (k + 1) * size] for k in range(count)))

    def split_state(self, state: State) -> Pair:
        """Undo `join_state`."""
        if not self.has_cell_state:
            return state, None
        h, *others = state
        return h, others[0] if len(others) == 1 else np.concatenate(others, axis=-1)

    def _build(self) -> None:
        super()._build()
        if self.state_count > 2:
            self._single = None  # knows h and c alone


def joined(
    cell: CellDefinition,
    sizes: tuple[int, int],
    dtype: np.dtype[Any],
    x: npt.ArrayLike,
    beside: Mapping[str, npt.ArrayLike],
) -> Array:
    """Return x with what a cell reads beside it in the columns behind; sizes: I and H."""
    features, (input_size, hidden_size) = as_array("x", x, dtype), sizes
    widths = dict.fromkeys(cell.inputs, 1) | dict.fromkeys(cell.vectors, hidden_size)
    if beside.keys() != widths.keys():
        raise TypeError(
            f"join takes {', '.join(widths) or 'nothing'} beside x, got {', '.join(beside)}"
        )
    if not features.ndim or features.shape[-1] != input_size:
        raise ValueError(f"x must have shape (..., {input_size}), got {features.shape}")
    axes, parts = features.shape[:-1], [features]
    for name in (*cell.inputs, *cell.vectors):
        shape = axes if name in cell.inputs else (*axes, widths[name])
        part = as_shape(name, beside[name], dtype, shape)
        parts.append(part.reshape(*axes, widths[name]))
    return np.concatenate(parts, axis=-1)


def _unknown(others: dict[str, Any]) -> TypeError:
    """What to raise for keywords that the layer does not take."""
    name = next(iter(others))
    hint = (
        ": use variational_dropout, zoneout or weight_drop" if name == "recurrent_dropout" else ""
    )
    return TypeError(f"Recurrent takes no {name!r}{hint}")


def _remembered(cell: CellDefinition) -> list[str]:
    """What a step leaves for backward: its states, and what its slots hold."""
    try:
        kept = lowered(cell).remembered
    except ValueError as error:
        return [f"nothing, {error}"]
    return [*kept, *cell.states]


CellDefinition.layer = Recurrent
CellDefinition.remembered = _remembered
