"""What a training run has to remember beside its parameters, as arrays and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from .arrays import Array
from .module import Module

#: A recurrent state: an array, nothing, or a tuple of states, as the model nests them.
State: TypeAlias = Any


def leaves(state: State) -> Iterator[Array]:
    """Yield the arrays of a nested state, in order."""
    if isinstance(state, tuple):
        for part in state:
            yield from leaves(part)
    elif state is not None:
        yield state


def skeleton(state: State) -> Any:
    """How a state is nested, as JSON: a list for a tuple, true for an array, false for nothing."""
    if isinstance(state, tuple):
        return [skeleton(part) for part in state]
    return state is not None


def rebuild(shape: Any, arrays: Iterator[Array]) -> State:
    """Undo `skeleton` and `leaves`."""
    if isinstance(shape, list):
        return tuple(rebuild(part, arrays) for part in shape)
    return next(arrays) if shape else None


def generators(module: Module) -> dict[str, np.random.Generator]:
    """Every random generator that a module and its parts keep as attributes, by dotted name."""
    found = {
        n: value for n, value in vars(module).items() if isinstance(value, np.random.Generator)
    }
    for name, child in module.children():
        found |= {f"{name}.{inner}": rng for inner, rng in generators(child).items()}
    return found


def generator_state(rng: np.random.Generator) -> Any:
    """Where a generator stands, as JSON."""
    return _plain(rng.bit_generator.state)


def generator_states(module: Module) -> dict[str, Any]:
    """Where every generator of `module` stands, as JSON."""
    return {name: generator_state(rng) for name, rng in generators(module).items()}


def restore_generators(module: Module, states: Mapping[str, Any]) -> None:
    """Set every generator of `module` back; raises `ValueError` where the names differ."""
    mine = generators(module)
    if mine.keys() != states.keys():
        raise ValueError(
            f"the model draws from {sorted(mine)}, the checkpoint from {sorted(states)}"
        )
    for name, rng in mine.items():
        rng.bit_generator.state = states[name]


def group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays named `prefix.` and something, under that something."""
    start = f"{prefix}."
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}


def _plain(state: Any) -> Any:
    """A bit generator's state with arrays (not all kinds have them) turned into lists."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state
