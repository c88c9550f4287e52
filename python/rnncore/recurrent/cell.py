"""What the compiled kernels are told of a cell: its kernel, its parameters, its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array, check_number, check_size, short
from ..compiled import Settings, cells
from ..init import uniform
from ..nonlinearities import Activation, ActivationSpec, as_activation

Shapes: TypeAlias = dict[str, tuple[int, ...]]
#: Activations of the gates, of the candidate and of the output.
Activations: TypeAlias = tuple[ActivationSpec, ActivationSpec, ActivationSpec]


class Facts(NamedTuple):
    """What a compiled kernel is, as the core's own table says it."""

    name: str
    gates: int  # that the weights stack
    recurrent_gates: int  # and the recurrent weights: a forget gate for each child of a tree's node
    units: int  # numbers that each hidden unit has of its own
    has_cell_state: bool
    has_recurrent_weights: bool
    any_arity: bool  # a node has any number of children, all through the same weights
    multiplies_pairs: bool  # recurrent weights see the products of any two entries of the states
    normalises: bool  # sums are normalised over the hidden units
    gate: str  # the activations that the kernel was compiled with
    candidate: str


#: Of every kernel by its name.
FACTS = {name: Facts(**facts) for name, facts in cells().items()}


def compiled_activations(kernel: str) -> Activations:
    """The activations that a kernel was compiled with."""
    facts = FACTS[kernel]
    candidate = (facts.candidate, 0.0, 0.0)
    return (facts.gate, 0.0, 0.0), candidate, candidate


@dataclass(frozen=True)
class Cell:
    """One kernel in one choice of its options; a family with further options adds fields."""

    kernel: str
    gate_names: str  # in the order of the weights' rows
    activations: Activations
    cell_clip: float = 0.0
    gate_clip: float = 0.0
    proj_size: int = 0
    transition_depth: int = 1
    shortcut: bool = False
    #: Children of a node, each with weights of its own; 0 for sequences.
    arity: int = 0

    def __post_init__(self) -> None:
        check_size("transition_depth", self.transition_depth)
        if self.shortcut and self.transition_depth == 1:
            raise ValueError("shortcut=True needs a transition_depth of at least 2")

    @property
    def facts(self) -> Facts:
        """What the kernel is."""
        return FACTS[self.kernel]

    @property
    def has_cell_state(self) -> bool:
        """Whether the state is `(h, c)`."""
        return self.facts.has_cell_state

    @property
    def standard(self) -> bool:
        """Whether the activations are those that the kernel was compiled with."""
        return self.activations == compiled_activations(self.kernel)

    @property
    def units(self) -> str:
        """The parameter with the numbers of each hidden unit's own, "" where there is none.

        Gains and biases of norms; recurrent weights of a unit on itself alone; peepholes.
        """
        facts = self.facts
        if not facts.units:
            return ""
        if facts.normalises:
            return "norm"
        return "weight_ch" if facts.has_recurrent_weights else "weight_hh"

    def options(self) -> dict[str, Any]:
        """The options that are not at rest, by their keywords."""
        at_rest = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        found = {n: getattr(self, n) for n, value in at_rest.items() if getattr(self, n) != value}
        return found if self.standard else {"activations": self.activations} | found

    def output_size(self, hidden_size: int) -> int:
        """The width of h."""
        return self.proj_size or hidden_size

    def cell_size(self, hidden_size: int) -> int:
        """The width of c, where there is one."""
        return hidden_size

    def settings(
        self, input_size: int, hidden_size: int, batch_first: bool, weights: str = ""
    ) -> Settings:
        """What a compiled layer is made from, beside the parameters; `weights`: see `quantize`."""
        return Settings(
            cell=self.kernel,
            input_size=input_size,
            hidden_size=hidden_size,
            output_size=self.output_size(hidden_size),
            arity=self.arity,
            batch_first=batch_first,
            activations=self.activations,
            cell_clip=self.cell_clip,
            gate_clip=self.gate_clip,
            plain=self.standard and not (self.cell_clip or self.gate_clip),
            weights=weights,
        )

    def shapes(self, suffix: str, input_size: int, hidden_size: int, bias: bool) -> Shapes:
        """The parameters of one direction of a layer: names and shapes, in torch's order."""
        facts, size = self.facts, self.output_size(hidden_size)
        rows, recurrent = facts.gates * hidden_size, facts.recurrent_gates * hidden_size
        widths: Shapes = {"weight_ih": (rows, input_size), "weight_hh": (recurrent, size)}
        widths |= {"bias_ih": (rows,), "bias_hh": (recurrent,)}
        widths |= {self.units: (facts.units, hidden_size), "weight_hr": (size, hidden_size)}
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

    def state_shapes(self, suffix: str, hidden_size: int) -> Shapes:
        """The parameters of a first state that is learnt, of one direction of a layer."""
        shapes: Shapes = {f"initial_h{suffix}": (self.output_size(hidden_size),)}
        return shapes | (
            {f"initial_c{suffix}": (self.cell_size(hidden_size),)} if self.has_cell_state else {}
        )

    def first_units(self, rng: np.random.Generator, hidden_size: int) -> Array:
        """How the units' own numbers start: gains one; u of an IndRNN in 0..1; peepholes small."""
        facts = self.facts
        if facts.normalises:
            units = np.zeros((facts.units, hidden_size))
            units[: facts.gates + facts.recurrent_gates] = units[-2] = 1
            return units
        if not facts.has_recurrent_weights:
            return rng.uniform(0, 1, (facts.units, hidden_size))
        return uniform(rng, (facts.units, hidden_size), hidden_size**-0.5, np.float64)

    def kinds(self) -> Iterator[tuple[str, ...]]:
        """For each transition the parameters in the kernels' order, "" where there is none."""
        has_biases = not self.facts.normalises
        hh = "weight_hh" * self.facts.has_recurrent_weights
        biases = ("bias_ih" * has_biases, "bias_hh" * (has_biases and bool(hh)))
        yield ("weight_ih", hh, *biases, self.units, "weight_hr" * bool(self.proj_size))
        for number in range(2, self.transition_depth + 1):
            sees_h = self.shortcut and number == self.transition_depth
            yield ("weight_ih" * sees_h, hh, "", biases[1], "", "")


def of_transition(suffix: str, number: int) -> str:
    """The suffix of a direction's later transitions: `_l0_t2`, `_l0_t2_reverse`."""
    if number == 1:
        return suffix
    stem = suffix.removesuffix("_reverse")
    return f"{stem}_t{number}{suffix.removeprefix(stem)}"


def bound(name: str, clip: float | None) -> float:
    """Return a bound of magnitudes, 0 for None."""
    if clip is not None and not check_number(name, clip) > 0:
        raise ValueError(f"{name} must be positive, got {clip}")
    return clip or 0.0


def exclusive(**options: bool) -> None:
    """Raise if more than one of the options is in use."""
    used = [name for name, on in options.items() if on]
    if len(used) > 1:
        raise ValueError(f"{used[0]} and {used[1]} do not go together")


def one_activation(nonlinearity: Activation) -> Activations:
    """The activation of a cell without gates as the kernels take it."""
    phi = as_activation("nonlinearity", nonlinearity)
    return ("sigmoid", 0.0, 0.0), phi, phi


def two_activations(activations: tuple[Activation, Activation]) -> Activations:
    """Activations of gates and candidate as the kernels take them."""
    if not isinstance(activations, (tuple, list)) or len(activations) != 2:
        raise ValueError(
            f"activations must be those of the gates and of the candidate, got {short(activations)}"
        )
    gate, candidate = (as_activation("activations", a) for a in activations)
    return gate, candidate, candidate


def norm_of(layer_norm: bool | str) -> str:
    """What layer normalisation adds to the name of a kernel."""
    if not isinstance(layer_norm, (bool, np.bool_, int, str)) or layer_norm not in (0, 1, "gate"):
        raise ValueError(f"layer_norm must be False, True or 'gate', got {short(layer_norm)}")
    return "_norm_gate" if layer_norm == "gate" else "_norm" if layer_norm else ""
