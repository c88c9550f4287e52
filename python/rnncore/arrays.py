"""What comes in and goes out as arrays: checked arguments, named collections."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from .files import load_arrays as load_arrays
from .files import save_arrays as save_arrays
from .files import write_atomic as write_atomic

Array: TypeAlias = npt.NDArray[Any]


def as_array(name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """Return `value` as an array of `dtype`, refusing every conversion that could change a number.

    Arrays keep their own meaning: a wider dtype raises `TypeError`. Lists and scalars have no dtype
    of their own and are read as `dtype`.
    """
    array = np.asarray(value)
    if array.dtype == dtype:
        return array
    dtype = np.dtype(dtype)
    untyped = not hasattr(value, "dtype")
    fits = np.can_cast(array.dtype, dtype, "same_kind" if untyped else "safe")
    if fits or (untyped and not array.size):
        return array.astype(dtype)
    wider = array.dtype.kind == dtype.kind == "f"
    hint = f", or build the module with dtype={array.dtype.name!r}" if wider else ""
    raise TypeError(
        f"{name} is {array.dtype}, but this module computes in {dtype}: convert it (astype){hint}"
    )


def as_float(name: str, value: npt.ArrayLike) -> Array:
    """Return a float32 or float64 array as it is; anything without a dtype is read as float32."""
    array = np.asarray(value, None if hasattr(value, "dtype") else np.float32)
    if array.dtype not in (np.float32, np.float64):  # the kernels' byte order is the machine's
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    return array


def as_integers(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of integers as it is (an empty list counts as one)."""
    array = np.asarray(value)
    if not array.size and not hasattr(value, "dtype"):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def as_indices(name: str, value: npt.ArrayLike, size: int) -> Array:
    """Return integers in 0..size-1, ready to index with; others raise `ValueError`."""
    array = as_integers(name, value)
    low, high = array.min(initial=0), array.max(initial=0)
    if array.size and (low < 0 or high >= size):
        raise ValueError(f"{name} must be in 0..{size - 1}, got {low if low < 0 else high}")
    return array.astype(np.intp, copy=False)


def as_shape(
    name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> Array:
    """`as_array`, and of exactly this shape."""
    array = as_array(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def as_lengths(
    lengths: npt.ArrayLike | None, steps: int, batch: int, name: str = "lengths"
) -> Array | None:
    """Return the lengths of sequences as integers `(batch,)` in 1..steps, or None."""
    if lengths is None:
        return None
    given = np.asarray(lengths)
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"{name} must be whole numbers, got {given.dtype}")
    if given.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {given.shape}")
    if batch and not 1 <= given.min() <= given.max() <= steps:
        raise ValueError(
            f"{name} must be in 1..{steps}, the number of steps; got {given.min()}..{given.max()}"
        )
    return given.astype(np.int64)


def as_leaves(
    x: npt.ArrayLike, lengths: npt.ArrayLike, size: int, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """Return x `(sum of lengths, size)` and how many leaves each sentence has, at least one."""
    counts = as_integers("lengths", lengths).astype(np.int64)
    if counts.ndim != 1 or counts.min(initial=1) < 1:
        raise ValueError(
            f"lengths must have one axis and be at least 1 each, got {counts.tolist()}"
        )
    x, shape = as_array("x", x, dtype), (int(counts.sum()), size)
    if x.shape != shape:
        raise ValueError(f"x must have shape {shape}, a row for each leaf, got {x.shape}")
    return x, counts


def check_count(name: str, value: int) -> int:
    """Return a positive integer, or raise `ValueError`."""
    if operator.index(value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def check_size(name: str, value: int) -> int:
    """`check_count` for what memory grows with: `room_for` limits it."""
    size, room = check_count(name, value), _room.get()
    if room is not None and size > room.size:
        raise ValueError(f"{name} is {size}, but the file holds no more than {room.count} numbers")
    return size


class _Room:
    """What a model of a file may still take: numbers to be drawn, places of modules said before.

    Not everything that is drawn need be kept, and not every module has parameters.
    """

    def __init__(self, count: int, entries: int) -> None:
        self.count, self.size = count, max(count, 1 << 16)
        self.numbers, self.places = 2 * count + (1 << 12), 4 * entries + (1 << 12)


_room: ContextVar[_Room | None] = ContextVar("_room", default=None)


@contextmanager
def room_for(count: int, entries: int = 0) -> Iterator[None]:
    """Refuse what goes far beyond a file of `count` numbers in `entries`, before it takes memory.

    Sizes, parameters (`take_room`), and modules that are seen in many places (`take_places`).
    """
    token = _room.set(_Room(count, entries))
    try:
        yield
    finally:
        _room.reset(token)


def take_room(shape: tuple[int, ...]) -> None:
    """Say that a parameter of this shape comes to be; see `room_for`."""
    room = _room.get()
    if room is not None:
        room.numbers -= math.prod(shape)
        if room.numbers < 0:
            raise ValueError(f"shape {shape}: the file holds no more than {room.count} numbers")


def take_places(count: int) -> None:
    """Say that so many modules are seen once more, without a word of their own; see `room_for`."""
    room = _room.get()
    if room is not None:
        room.places -= count
        if room.places < 0:
            raise ValueError(
                f"shared modules stand in {count} more places, which is more than the file allows"
            )


def float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype, or raise `ValueError`."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    return np.dtype(dtype)


class Arrays(dict[str, Array]):
    """Named arrays that never change identity: `a[name] = value` copies into the array in place.

    The keys are fixed when the collection is made, so whoever holds one of the arrays (a kernel, an
    optimiser, a parent module) sees every change.
    """

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        array = self._checked(name, value)
        if array is not self[name]:
            self[name][...] = array

    def _checked(self, name: str, value: npt.ArrayLike) -> Array:
        if name not in self:
            raise KeyError(f"no array named {name!r}; there are {', '.join(self)}")
        return as_shape(name, value, self[name].dtype, self[name].shape)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy every given array into the one of the same name, or none if one does not fit."""
        given = dict(*args, **kwargs)
        copy_into(self, {name: self._checked(name, value) for name, value in given.items()})

    def __ior__(self, other: Any) -> Arrays:  # type: ignore[override, misc]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return _thawed, (dict(self),)

    def _fixed(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the names of a module's arrays are fixed")

    __delitem__ = pop = popitem = clear = setdefault = _fixed


def _thawed(arrays: Mapping[str, Array]) -> Arrays:
    """Unpickled arrays with memory of their own, which nobody else can write to or has mapped."""
    own = {n: a.flags.owndata and a.flags.writeable for n, a in arrays.items()}
    return Arrays({n: a if own[n] else np.array(a) for n, a in arrays.items()})


def fitting(target: Mapping[str, Array], source: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Return the arrays of `source` if every name, shape and dtype is that of `target`.

    Raises `ValueError` listing all that is missing, unknown or misshapen, `TypeError` where a dtype
    would lose precision.
    """
    faults = [f"missing {name!r}" for name in target if name not in source]
    faults += [f"unknown {name!r}" for name in source if name not in target]
    found = {}
    for name in target:
        if name in source:
            array = as_array(name, source[name], target[name].dtype)
            if array.shape != target[name].shape:
                faults.append(f"{name!r} must have shape {target[name].shape}, got {array.shape}")
            found[name] = array
    if faults:
        raise ValueError("these entries do not fit: " + "; ".join(faults))
    return found


def load_into(target: Mapping[str, Array], source: Mapping[str, npt.ArrayLike]) -> None:
    """Copy `source` into `target`, or raise what `fitting` raises, and nothing is copied."""
    copy_into(target, fitting(target, source))


def copy_into(target: Mapping[str, Array], source: Mapping[str, Array]) -> None:
    """Copy arrays that are known to fit."""
    for name, array in source.items():
        target[name][...] = array


def join_names(parts: Iterable[tuple[str, Mapping[str, Array]]]) -> dict[str, Array]:
    """Flatten named groups of named arrays into one dict with dotted names."""
    return {f"{prefix}.{name}": array for prefix, group in parts for name, array in group.items()}
