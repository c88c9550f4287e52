"""Nested states: arrays in tuples, as the layers nest them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_shape, read, short

#: An array `(..., B, H)`, a tuple of states, or None, which is the one that a layer starts from:
#: `h`, `(h, c)` of an LSTM.
State: TypeAlias = Any


def mapped(function: Callable[..., Array], state: State, *others: State) -> State:
    """Apply a function to every array of a state, and those in its place in others like it."""
    if state is None:
        return None
    if isinstance(state, (tuple, list)):
        return tuple(mapped(function, *parts) for parts in zip(state, *others, strict=True))
    return function(state, *others)


def add(a: State, b: State) -> State:
    """Sum two states."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, (tuple, list)):
        return tuple(add(*pair) for pair in zip(a, b, strict=True))
    return a + b


def read_rows(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of rows `(..., H)`."""
    array, _ = read(name, value)
    if not array.ndim:
        raise TypeError(f"{name} must hold arrays (..., H), got {short(value)}")
    return array


def take_rows(state: State, rows: Array) -> State:
    """Return the rows of every array `(..., B, H)`."""

    def taken(array: Array) -> Array:
        found = read_rows("state", array)
        if found.ndim < 2 or np.max(rows, initial=-1) >= found.shape[-2]:
            raise ValueError(
                "state must hold arrays (..., B, H), a row for each sequence, "
                f"got shape {found.shape}"
            )
        return found[..., rows, :]

    return mapped(taken, state)


def with_batch_axis(state: State, batched: bool) -> State:
    """Return a state with an axis for the batch, if it came without."""
    return (
        state if batched else mapped(lambda array: read_rows("state", array)[..., None, :], state)
    )


def without_batch_axis(state: State, batched: bool) -> State:
    """Undo `with_batch_axis`."""
    return state if batched else mapped(lambda array: array[..., 0, :], state)


def split_state(name: str, state: State, entries: str, count: int) -> list[State]:
    """Return the `count` entries of a state that is a tuple of so many, or None."""
    if state is None:
        return [None] * count
    if not isinstance(state, (tuple, list)):
        raise TypeError(f"{name} must be a tuple {entries}, got {type(state).__name__}")
    if len(state) != count:
        raise ValueError(f"{name} must be a tuple {entries}, got {len(state)} entries")
    return list(state)


def fill(name: str, live: State, given: State, first: State) -> None:
    """Copy a state into the arrays of another; what is None starts as `first`, of one row."""
    if isinstance(live, tuple):
        parts = (None,) * len(live) if given is None else given
        if not isinstance(parts, (tuple, list)) or len(parts) != len(live):
            raise ValueError(f"{name} must be a tuple of {len(live)} entries, or None")
        for at, own in enumerate(zip(live, parts, first, strict=True)):
            fill(f"{name}[{at}]", *own)
    else:
        live[...] = first if given is None else as_shape(name, given, live.dtype, live.shape)


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
    """Undo `skeleton` and `leaves`; raises `ValueError` if there are too few arrays."""
    if isinstance(shape, list):
        return tuple(rebuild(part, arrays) for part in shape)
    if not isinstance(shape, bool):
        raise ValueError(f"a state must be true, false or a list of them, got {shape!r:.80}")
    if not shape:
        return None
    array = next(arrays, None)
    if array is None:
        raise ValueError("the state has fewer arrays than it says")
    return array


def state_of(shape: Any, arrays: Mapping[str, Array]) -> State:
    """`rebuild` of arrays named "0", "1", ...; raises `ValueError` unless it takes all of them."""
    names = [str(at) for at in range(len(arrays))]
    if arrays.keys() != set(names):
        raise ValueError(f"the arrays of a state must be named 0, 1, ..., got {', '.join(arrays)}")
    rest = iter([arrays[name] for name in names])
    state = rebuild(shape, rest)
    if next(rest, None) is not None:
        raise ValueError("the state has more arrays than it says")
    return state
