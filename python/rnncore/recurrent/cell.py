"""What the compiled kernels are told of a cell: its name there, its parameters, its activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..arrays import Array, check_integer, check_number, check_size, short
from ..compiled import Settings
from ..init import uniform
from ..nonlinearities import IDENTITY, RELU, SIGMOID, TANH, Activation, Chosen, chosen

Shapes: TypeAlias = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cell:
    """One kind of cell in one choice of its options."""

    name: str  # the kernels'
    gate_names: str  # in the order of the weights' rows
    #: Of gates, candidate and output; and those that the kernels were compiled with.
    activations: tuple[Chosen, Chosen, Chosen] = (SIGMOID, TANH, TANH)
    standard: tuple[Chosen, Chosen, Chosen] = (SIGMOID, TANH, TANH)
    cell_clip: float = 0.0
    gate_clip: float = 0.0
    has_cell_state: bool = False
    has_recurrent_weights: bool = True
    has_biases: bool = True
    #: How many numbers each hidden unit has of its own, and the parameter that holds them.
    units: tuple[str, int] = ("", 0)
    proj_size: int = 0
    transitions: int = 1
    shortcut: bool = False
    #: Children of a node, each with weights of its own; 0 for sequences. And the gates that the
    #: recurrent weights have beyond those of the input's.
    arity: int = 0
    extra_gates: int = 0
    #: Whether a node has any number of children, all through the same weights.
    any_arity: bool = False

    @property
    def gates(self) -> int:
        """How many gates the weights stack."""
        return len(self.gate_names)

    @property
    def normalises(self) -> bool:
        """Whether sums are normalised over the hidden units."""
        return self.units[0] == "norm"

    def output_size(self, hidden_size: int) -> int:
        """The width of h."""
        return self.proj_size or hidden_size

    def settings(self, input_size: int, hidden_size: int, batch_first: bool) -> Settings:
        """What a compiled layer is made from, beside the parameters."""
        return Settings(
            self.name,
            input_size,
            hidden_size,
            self.output_size(hidden_size),
            self.arity,
            batch_first,
            self.activations,
            self.cell_clip,
            self.gate_clip,
            self.activations == self.standard and not (self.cell_clip or self.gate_clip),
        )

    def shapes(self, suffix: str, input_size: int, hidden_size: int, bias: bool) -> Shapes:
        """The parameters of one direction of a layer: names and shapes, in torch's order."""
        rows, size = self.gates * hidden_size, self.output_size(hidden_size)
        widths: Shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, size)}
        widths |= {
            "bias_ih": (rows,),
            "bias_hh": (rows,),
            self.units[0]: (self.units[1], hidden_size),
        }
        widths |= {"weight_hr": (size, hidden_size)}
        shapes: Shapes = {}
        for number, kinds in enumerate(self.kinds(), 1):
            shapes |= {
                kind + of_transition(suffix, number): (rows, hidden_size)
                if number > 1 and kind == "weight_ih"
                else widths[kind]
                for kind in kinds
                if kind and (bias or not kind.startswith("bias"))
            }
        return shapes

    def first_units(self, rng: np.random.Generator, hidden_size: int) -> Array:
        """How the units' own numbers start: gains one; u of an IndRNN in 0..1; peepholes small."""
        name, count = self.units
        if name == "norm":
            units = np.zeros((count, hidden_size))
            units[: 2 * self.gates + self.extra_gates] = units[-2] = 1
            return units
        if name == "weight_hh":
            return rng.uniform(0, 1, (count, hidden_size))
        return uniform(rng, (count, hidden_size), hidden_size**-0.5, np.float64)

    def kinds(self) -> Iterator[tuple[str, ...]]:
        """For each transition the parameters in the kernels' order, "" where there is none."""
        hh = "weight_hh" if self.has_recurrent_weights else ""
        biases = ("bias_ih" * self.has_biases, "bias_hh" * (self.has_biases and bool(hh)))
        yield ("weight_ih", hh, *biases, self.units[0], "weight_hr" * bool(self.proj_size))
        for number in range(2, self.transitions + 1):
            sees_h = self.shortcut and number == self.transitions
            yield ("weight_ih" * sees_h, hh, "", biases[1], "", "")


def of_transition(suffix: str, number: int) -> str:
    """The suffix of a direction's later transitions: `_l0_t2`, `_l0_t2_reverse`."""
    if number == 1:
        return suffix
    stem = suffix.removesuffix("_reverse")
    return f"{stem}_t{number}{suffix.removeprefix(stem)}"


@dataclass(frozen=True)
class Depth:
    """Transitions between a state and the next, and whether the last one sees the first's state."""

    transition_depth: int = 1
    shortcut: bool = False

    def __post_init__(self) -> None:
        check_size("transition_depth", self.transition_depth)
        if self.shortcut and self.transition_depth == 1:
            raise ValueError("shortcut=True needs a transition_depth of at least 2")


def bound(name: str, clip: float | None) -> float:
    """Return a bound of magnitudes, 0 for None."""
    if clip is not None and not check_number(name, clip) > 0:
        raise ValueError(f"{name} must be positive, got {clip}")
    return clip or 0.0


def vanilla(nonlinearity: Activation, gate_clip: float | None, depth: Depth) -> Cell:
    """h' = phi(W x + U h)."""
    phi = chosen("nonlinearity", nonlinearity)
    compiled = phi if phi == RELU else TANH
    return Cell(
        f"rnn_{compiled[0]}",
        "h",
        (SIGMOID, phi, phi),
        (SIGMOID, compiled, compiled),
        gate_clip=bound("gate_clip", gate_clip),
        transitions=depth.transition_depth,
        shortcut=depth.shortcut,
    )


def independent(nonlinearity: Activation) -> Cell:
    """h' = phi(W x + u h)."""
    phi = chosen("nonlinearity", nonlinearity)
    return Cell(
        "indrnn",
        "h",
        (SIGMOID, phi, phi),
        (SIGMOID, RELU, RELU),
        has_recurrent_weights=False,
        units=("weight_hh", 1),
    )


def lstm(
    *,
    peephole: bool,
    coupled: bool,
    gates: tuple[bool, bool, bool],
    layer_norm: bool | str,
    proj_size: int,
    activations: tuple[Activation, Activation, Activation],
    cell_clip: float | None,
    gate_clip: float | None,
    hidden_size: int,
    depth: Depth,
) -> Cell:
    """The variants of Greff et al. 2017, with projection, normalisation and clipping."""
    norm = norm_of(layer_norm)
    if not 0 <= check_integer("proj_size", proj_size) < hidden_size:
        raise ValueError(f"proj_size must be in 0..{hidden_size - 1}, got {proj_size}")
    if not isinstance(activations, (tuple, list)) or len(activations) != 3:
        raise ValueError(
            "activations must be those of the gates, the candidate and the output, "
            f"got {short(activations)}"
        )
    missing = [
        n for n, there in zip(("input", "forget", "output"), gates, strict=True) if not there
    ]
    deep = depth.transition_depth > 1
    exclusive(
        peephole=peephole,
        layer_norm=bool(layer_norm),
        transition_depth=deep,
        **{f"{name}_gate=False": True for name in missing},
    )
    exclusive(
        coupled=coupled, layer_norm=bool(layer_norm), **{f"{n}_gate=False": True for n in missing}
    )
    exclusive(proj_size=bool(proj_size), layer_norm=bool(layer_norm), transition_depth=deep)
    names = "".join(g for g in "ifgo" if g not in [name[0] for name in missing])
    name, units = "lstm", ("", 0)
    if norm:
        name, units = "lstm" + norm, ("norm", 14)
    elif missing:
        name = f"lstm_no_{missing[0]}_gate"
    else:
        name = "lstm" + "_coupled" * coupled + "_peephole" * peephole
        names = "igo" if coupled else names
        units = ("weight_ch", len(names) - 1) if peephole else units
    gate, squash, output = (chosen("activations", a) for a in activations)
    return Cell(
        name,
        names,
        (gate, squash, output),
        cell_clip=bound("cell_clip", cell_clip),
        gate_clip=bound("gate_clip", gate_clip),
        has_cell_state=True,
        has_biases=not layer_norm,
        units=units,
        proj_size=proj_size,
        transitions=depth.transition_depth,
        shortcut=depth.shortcut,
    )


def tree_lstm(arity: int | None, layer_norm: bool | str) -> Cell:
    """The N-ary Tree-LSTM, with one child the LSTM; None: the child-sum one."""
    norm, places = norm_of(layer_norm), arity or 1
    name = f"tree_lstm_{places}" if places > 1 else "lstm" if arity else "child_sum_lstm"
    return Cell(
        name + norm,
        "ifgo",
        has_cell_state=True,
        has_biases=not norm,
        units=("norm", 13 + places) if norm else ("", 0),
        arity=places,
        extra_gates=places - 1,
        any_arity=arity is None,
    )


def norm_of(layer_norm: bool | str) -> str:
    """What layer normalisation adds to the name of a cell."""
    if not isinstance(layer_norm, (bool, np.bool_, int, str)) or layer_norm not in (0, 1, "gate"):
        raise ValueError(f"layer_norm must be False, True or 'gate', got {short(layer_norm)}")
    return "_norm_gate" if layer_norm == "gate" else "_norm" if layer_norm else ""


def exclusive(**options: bool) -> None:
    """Raise if more than one of the options is in use."""
    used = [name for name, on in options.items() if on]
    if len(used) > 1:
        raise ValueError(f"{used[0]} and {used[1]} do not go together")


def pair(activations: tuple[Activation, Activation]) -> tuple[Chosen, Chosen, Chosen]:
    """Activations of gates and candidate as the kernels take them."""
    if not isinstance(activations, (tuple, list)) or len(activations) != 2:
        raise ValueError(
            f"activations must be those of the gates and of the candidate, got {short(activations)}"
        )
    gate, squash = (chosen("activations", a) for a in activations)
    return gate, squash, squash


def gated(
    name: str,
    gate_names: str,
    activations: tuple[Activation, Activation],
    depth: Depth,
    gate_clip: float | None = None,
) -> Cell:
    """A GRU or its minimal form."""
    return Cell(
        name,
        gate_names,
        pair(activations),
        gate_clip=bound("gate_clip", gate_clip),
        transitions=depth.transition_depth,
        shortcut=depth.shortcut,
    )


def minimal(name: str, gate_names: str, activations: tuple[Activation, Activation]) -> Cell:
    """Gates that do not see the state."""
    return Cell(
        name,
        gate_names,
        pair(activations),
        (SIGMOID, IDENTITY, IDENTITY),
        has_recurrent_weights=False,
    )
