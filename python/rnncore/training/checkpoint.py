"""What a training run has to remember beside its parameters, as arrays and JSON."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..arrays import Array
from ..module import Module
from ..parameters import copy_into


@dataclass
class Progress:
    """How far a run has come, all of it JSON."""

    step: int = 0  # updates made
    epoch: int = 0  # passes over the data completed
    position: int = 0  # batches of the present pass already used
    seconds: float = 0.0  # in all, validation included
    best_loss: float = math.inf
    best_step: int = 0
    without_gain: int = 0  # validations since the best one
    loss_sum: float = 0.0  # this and the next two since the last record
    targets: float = 0.0
    update_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        """What a progress bar says beside the bar."""
        return f"loss {self.loss_sum / self.targets:.3f}" if self.targets else ""

    @classmethod
    def checked(cls, said: Any) -> Progress:
        """Return what a checkpoint says of a run, or raise `ValueError` naming what is wrong."""
        kinds = {f.name: f.type for f in fields(cls)}
        if not isinstance(said, dict) or not said.keys() <= kinds.keys():
            raise ValueError(f"progress must hold {', '.join(kinds)}, got {said!r:.80}")
        for name, value in said.items():
            if name == "history":
                _check_history(value)
            elif name in ("best_loss", "loss_sum"):
                _check_number(name, value, -math.inf, math.inf if name == "best_loss" else _MOST)
            else:
                _check_number(name, value, whole=kinds[name] == "int")
        return cls(**said)


_MOST = 2.0**63
#: What a record of the history holds beside `validation_loss`, which may be none.
_RECORD = ("step", "epoch", "train_loss", "seconds", "targets", "targets_per_second")


def _check_history(records: Any) -> None:
    if not isinstance(records, list):
        raise ValueError(f"history must be a list, got {records!r:.80}")
    for at, record in enumerate(records):
        if not isinstance(record, dict) or not record.keys() >= {*_RECORD, "validation_loss"}:
            raise ValueError(f"history[{at}] must hold {', '.join(_RECORD)}, got {record!r:.80}")
        for name in _RECORD:
            least = -math.inf if name == "train_loss" else 0
            _check_number(f"history[{at}] {name}", record[name], least, whole=name in _RECORD[:2])
        if record["targets"] and not record["targets_per_second"]:
            raise ValueError(f"history[{at}] targets_per_second must be above 0")
        if not isinstance(record["validation_loss"], (int, float, type(None))):
            raise ValueError(f"history[{at}] validation_loss must be a number or none")


def _check_number(
    name: str, value: Any, least: float = 0, most: float = _MOST, whole: bool = False
) -> None:
    fits = type(value) is int or (type(value) is float and not whole)
    if not fits or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} in {least}..{most:g}, got {value!r:.80}")


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


def check_generators(module: Module, states: Any) -> None:
    """Raise `ValueError` unless these are states for just the generators of `module`."""
    mine = generators(module)
    if not isinstance(states, dict) or mine.keys() != states.keys():
        theirs = sorted(states) if isinstance(states, dict) else f"{states!r:.80}"
        raise ValueError(f"the model draws from {sorted(mine)}, the checkpoint from {theirs}")
    for name, rng in mine.items():
        check_generator(name, rng, states[name])


def check_generator(name: str, rng: np.random.Generator, state: Any) -> None:
    """Raise `ValueError` unless `rng` can be set to this state, as `generator_state` gives it."""
    trial = copy.deepcopy(rng.bit_generator)
    try:
        # Places among numbers drawn ahead: NumPy reads beyond the last of them without a word.
        ahead = state["state"].get("pos", 0), state.get("buffer_pos", 0), state.get("has_uint32", 0)
        same = all(0 <= at <= most for at, most in zip(ahead, (624, 4, 1), strict=True))
        if same:
            trial.state = state
            same = _plain(trial.state) == state
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError):
        same = False
    if not same:
        kind = type(trial).__name__
        raise ValueError(f"the state of {name} is none of a {kind}: {state!r:.80}")


def restore_generators(module: Module, states: Mapping[str, Any]) -> None:
    """Set every generator of `module` back to states that `check_generators` has let pass."""
    for name, rng in generators(module).items():
        rng.bit_generator.state = states[name]


@contextmanager
def buffers_kept(module: Module) -> Iterator[None]:
    """Put the buffers of a module back if what is done within raises."""
    buffers = module.buffers
    before = {name: array.copy() for name, array in buffers.items()}
    try:
        yield
    except BaseException:
        copy_into(buffers, before)
        raise


def group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays named `prefix.` and something, under that something."""
    start = f"{prefix}."
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}


def _plain(state: Any) -> Any:
    """A bit generator's state with arrays (not all kinds have them) turned into lists."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state
