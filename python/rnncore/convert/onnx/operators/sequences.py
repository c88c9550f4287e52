"""Sequences of arrays, which are lists here; none is changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Operator, whole

_List = list[Array]


def _empty(*, dtype: Any = None) -> tuple[_List]:
    return ([],)


def _construct(*parts: Array) -> tuple[_List]:
    return (list(parts),)


def _place(sequence: _List, position: Array, ends: int) -> int:
    """A position that counts from behind where it is below zero."""
    at, size = int(position.item()), len(sequence)
    if not -size <= at < size + ends:
        raise ValueError(f"position must be in {-size}..{size + ends - 1}, got {at}")
    return at


def _at(sequence: _List, position: Array) -> Array:
    return sequence[_place(sequence, position, 0)]


def _insert(sequence: _List, tensor: Array, position: Array | None = None) -> tuple[_List]:
    at = len(sequence) if position is None else _place(sequence, position, 1)
    grown = list(sequence)
    grown.insert(at, tensor)
    return (grown,)


def _erase(sequence: _List, position: Array | None = None) -> tuple[_List]:
    shrunk = list(sequence)
    del shrunk[-1 if position is None else _place(sequence, position, 0)]
    return (shrunk,)


def _split(
    x: Array, given: Array | None = None, *, axis: int = 0, keepdims: int = 1
) -> tuple[_List]:
    """Parts of given sizes, or of a size; by default of 1, without the axis unless `keepdims`."""
    size = x.shape[axis]
    if given is None:
        parts = np.split(x, size, axis) if size else []
        return ([part if keepdims else part.squeeze(axis) for part in parts],)
    if given.ndim == 0:
        each = int(given.item())
        if each < 1:
            raise ValueError(f"split must be at least 1, got {each}")
        return (np.split(x, range(each, size, each), axis) if size else [],)
    sizes = whole(given)
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ValueError(f"split {sizes!s:.80} does not add up to {size}")
    return (np.split(x, np.cumsum(sizes)[:-1], axis),)


def _concat(sequence: _List, *, axis: int, new_axis: int = 0) -> Array:
    return np.stack(sequence, axis) if new_axis else np.concatenate(sequence, axis)


OPERATORS: dict[str, Operator] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": lambda sequence: np.array(len(sequence), np.int64),
    "SplitToSequence": _split,
}
