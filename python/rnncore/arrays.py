"""What comes in and goes out as arrays: checked arguments, named collections."""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .files import load_arrays as load_arrays
from .files import save_arrays as save_arrays
from .files import write_atomic as write_atomic
from .hints import LENGTHS, VOCABULARY

Array: TypeAlias = npt.NDArray[Any]
Kind = TypeVar("Kind")


def as_array(name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, beside: str = "") -> Array:
    """Return `value` as an array of `dtype`, refusing every conversion that could change a number.

    What has a dtype keeps it: one that `dtype` does not hold raises `TypeError`. Lists, tuples and
    Python numbers have none and are read as `dtype`, rounded as decimals are; a number that is out
    of its range, or an integer that it does not hold, raises `ValueError`. beside: what `dtype` is
    that of, if not of a module.
    """
    if type(value) is np.ndarray and value.dtype == dtype:
        return value
    array, typed = read(name, value)
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    if np.can_cast(array.dtype, dtype, "safe" if typed else "same_kind"):
        return array.astype(dtype) if typed else _rounded(name, array, dtype)
    if not typed and not array.size:
        return array.astype(dtype)
    reference = f"{beside} {dtype}" if beside else f"this module computes in {dtype}"
    advice = _advice(name, value, array.dtype, dtype)
    if array.dtype.kind == dtype.kind == "f" and not beside:
        advice += f', or build the module with dtype="{array.dtype.name}"'
    raise TypeError(f"{name} is {_kind(value, array)}, but {reference}: {advice}")


def read(name: str, value: Any) -> tuple[Array, bool]:
    """Return `value` as an array, and whether its dtype is its own: a list of numbers has none.

    Raises `TypeError` for a masked array, alone or in a list, and for what is no array, and
    `ValueError` for a ragged list.
    """
    if type(value) is np.ndarray:
        return value, True
    typed, kind = _has_dtype(name, value), type(value).__name__
    try:
        return np.asarray(value), typed
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        if kind == "PackedSequence":
            raise TypeError(f"{name} must be an array, got a {kind}: {LENGTHS}") from None
        if isinstance(error, ValueError) and "inhomogeneous" in str(error):
            raise ValueError(
                f"{name} must have rows of one length, got a ragged {kind}: "
                "rnncore.batches.padded makes one array and lengths of sequences"
            ) from error
        raise TypeError(f"{name} must be an array, got {kind}: {short(error)}") from error


#: Without a dtype, and no array of numbers within.
_PLAIN = {bool, int, float, complex, str, type(None)}


def _has_dtype(name: str, value: Any, depth: int = 64) -> bool:
    """Whether a value, or anything in a list or tuple, has a dtype of its own."""
    if not depth:  # NumPy goes no deeper either
        raise ValueError(f"{name} must be an array, got lists more than 64 deep in one another")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, its mask would be lost: fill it (filled), "
            "and say what counts by lengths or a mask"
        )
    if isinstance(value, (list, tuple)):
        if _PLAIN.issuperset(map(type, value)):
            return False
        found = [_has_dtype(name, part, depth - 1) for part in value]  # all: one may be masked
        return any(found)
    return hasattr(value, "dtype") or not isinstance(value, (int, float, complex))


def as_held(name: str, value: npt.ArrayLike, dtype: np.dtype[Any]) -> Array:
    """Return numbers of any dtype as `dtype`; `ValueError` for one that it does not hold."""
    array, _ = read(name, value)
    if array.dtype.kind not in "biufc" or dtype.kind not in "biufc":
        raise TypeError(f"{name} must be a number of {dtype}, got {_kind(value, array)}")
    return _rounded(name, array, dtype)


def _rounded(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert numbers that came without a dtype; `ValueError` where that is more than rounding."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
        if dtype.kind == "c" or array.dtype.kind == dtype.kind == "f":
            changed = np.isinf(result) & np.isfinite(array)
        else:
            changed = result.astype(array.dtype) != array
    if changed.any():
        number = array[changed].flat[0]
        raise ValueError(f"{name} holds {number}, which {dtype} does not hold")
    return result


def _kind(value: Any, array: Array) -> str:
    """Say what was given in place of an array of numbers."""
    if array.dtype != object or isinstance(value, np.ndarray):
        return str(array.dtype)
    kinds = (type(part).__name__ for part in array.flat if not isinstance(part, int))
    inner = next(kinds, "integers beyond 64 bits")
    return f"{type(value).__name__} of {inner}" if array.ndim else inner


def _advice(name: str, value: Any, dtype: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """Say what to do about an array of another dtype."""
    if dtype.kind not in "biufc":
        return "give an array of numbers"
    if hasattr(value, "astype"):  # arrays and frames
        return f"write {name}.astype(np.{wanted.name})"
    return f"write np.asarray({name}, np.{wanted.name})"


def short(value: Any) -> str:
    """Return a value or an error as text of one line, at most 80 characters."""
    text = " ".join((str if isinstance(value, Exception) else repr)(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_float(name: str, value: npt.ArrayLike) -> Array:
    """Return a float32 or float64 array as it is; anything without a dtype is read as float32."""
    array, typed = read(name, value)
    if not typed and array.dtype.kind in "biuf":
        return _rounded(name, array, np.dtype(np.float32))
    native = array.dtype.newbyteorder("=")
    if native not in (np.float32, np.float64):  # the kernels' byte order is the machine's
        advice = _advice(name, value, array.dtype, np.dtype(np.float32))
        raise TypeError(f"{name} must be float32 or float64, got {_kind(value, array)}: {advice}")
    return array.astype(native, copy=False)


def as_integers(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of integers as it is (an empty list counts as one)."""
    array, typed = read(name, value)
    if not array.size and not typed:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        hint = f": {VOCABULARY}" if array.dtype.kind in "UT" else ""
        raise TypeError(f"{name} must be integers, got {_kind(value, array)}{hint}")
    return array


def as_booleans(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of booleans as it is; others raise `TypeError`."""
    array, _ = read(name, value)
    if array.dtype != np.bool_:
        raise TypeError(f"{name} must be boolean, got {_kind(value, array)}")
    return array


def as_indices(name: str, value: npt.ArrayLike, size: int) -> Array:
    """Return integers in 0..size-1, ready to index with; others raise `ValueError`."""
    array = as_integers(name, value)
    low, high = array.min(initial=0), array.max(initial=0)
    if array.size and (low < 0 or high >= size):
        raise ValueError(f"{name} must be in 0..{size - 1}, got {low if low < 0 else high}")
    return array.astype(np.intp, copy=False)


def as_rows(name: str, value: npt.ArrayLike, count: int) -> Array:
    """Return numbers of rows in 0..count-1, given as such or as a mask `(count,)`."""
    given, _ = read(name, value)
    if given.dtype == np.bool_ and given.shape == (count,):
        return np.flatnonzero(given)
    return as_indices(name, value, count)


def as_different_rows(name: str, value: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """`as_rows`, with one axis and each at most once."""
    rows = np.atleast_1d(as_rows(name, value, count)).astype(np.int64, copy=False)
    if rows.ndim > 1:
        raise ValueError(f"{name} must have one axis, got shape {rows.shape}")
    found, times = np.unique(rows, return_counts=True)
    if len(found) < len(rows):
        row = found[times > 1][0]
        raise ValueError(f"{name} must be different ones, got {row} {times.max()} times")
    return np.ascontiguousarray(rows)


def as_shape(
    name: str,
    value: npt.ArrayLike,
    dtype: npt.DTypeLike,
    shape: tuple[int, ...],
    beside: str = "",
) -> Array:
    """`as_array`, and of exactly this shape."""
    array = as_array(name, value, dtype, beside)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def as_lengths(
    lengths: npt.ArrayLike | None, steps: int, batch: int, name: str = "lengths", least: int = 1
) -> Array | None:
    """Return the lengths of sequences as integers `(batch,)` in least..steps, or None."""
    if lengths is None:
        return None
    given, _ = read(name, lengths)
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"{name} must be whole numbers, got {_kind(lengths, given)}")
    if given.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {given.shape}")
    if batch and not least <= given.min() <= given.max() <= steps:
        found = f"{given.min()}..{given.max()}"
        raise ValueError(f"{name} must be in {least}..{steps}, the number of steps; got {found}")
    return given.astype(np.int64)


def as_resets(resets: npt.ArrayLike, shape: tuple[int, ...], name: str = "resets") -> Array:
    """Return where sequences start anew, a copy in C order of booleans of this shape."""
    given, _ = read(name, resets)
    if given.dtype != np.bool_:
        raise TypeError(f"{name} must be booleans, got {_kind(resets, given)}")
    if given.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {given.shape}")
    return np.array(given, order="C")


def as_leaves(
    x: npt.ArrayLike, lengths: npt.ArrayLike, size: int, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """Return x `(sum of lengths, size)` and how many leaves each sentence has, at least one."""
    counts = as_integers("lengths", lengths).astype(np.int64)
    if counts.ndim != 1 or counts.min(initial=1) < 1:
        raise ValueError(
            f"lengths must have one axis and be at least 1 each, got {short(counts.tolist())}"
        )
    x, shape = as_array("x", x, dtype), (int(counts.sum()), size)
    if x.shape != shape:
        raise ValueError(f"x must have shape {shape}, a row for each leaf, got {x.shape}")
    return x, counts


def warn_ignored(name: str, wanting: str, stacklevel: int = 3) -> None:
    """Say that an argument of a constructor has no effect for want of another.

    stacklevel: where the constructor was called, counted as in `warnings.warn`.
    """
    # An error would keep models from loading that were made with it.
    warnings.warn(f"{name} has no effect without {wanting}", UserWarning, stacklevel=stacklevel)


def check_integer(name: str, value: int) -> int:
    """Return an integer, or raise `TypeError`: a bool is none."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value}")
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {short(value)}: {error}") from None


def check_flag(name: str, value: bool) -> bool:
    """Return a bool, or 0 or 1 as one; others raise `TypeError`."""
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {short(value)}")
    return bool(value)


def check_number(name: str, value: float) -> float:
    """Return a real number, or raise `TypeError`."""
    array, _ = read(name, value)
    if array.ndim or array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number, got {short(value)}")
    return float(array)


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return one of these names, or raise `ValueError`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {short(value)}")
    return value


def check_mapping(name: str, value: Any) -> None:
    """Refuse what does not hold arrays by their names."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must hold arrays by their names, got {type(value).__name__}")


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return an integer of at least `least`, or raise `TypeError` or `ValueError`."""
    count = check_integer(name, value)
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {short(count)}")
    if count > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}, got {short(count)}")
    return count


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
    """Return float32 or float64 as a dtype; others raise `ValueError`, what is none `TypeError`."""
    try:
        found = None if dtype is None else np.dtype(dtype)  # of None NumPy makes float64
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"dtype must be float32 or float64, got {short(dtype)}")
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {found}")
    return found


def check_kind(name: str, value: Any, kind: type[Kind]) -> Kind:
    """Return an instance of `kind`, or raise `TypeError`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got a {type(value).__name__}")
    return value
