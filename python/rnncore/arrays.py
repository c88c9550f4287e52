"""What comes in and goes out as arrays: checked arguments, named collections, files."""

from __future__ import annotations

import json
import math
import operator
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

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
    """How many numbers a model may have, and how many of them it has not drawn yet."""

    def __init__(self, count: int) -> None:
        self.count, self.size = count, max(count, 1 << 16)
        self.left = 2 * count + (1 << 12)  # not everything that is drawn need be kept


_room: ContextVar[_Room | None] = ContextVar("_room", default=None)


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Refuse sizes and parameters that go far beyond `count` numbers, before they take memory."""
    token = _room.set(_Room(count))
    try:
        yield
    finally:
        _room.reset(token)


def take_room(shape: tuple[int, ...]) -> None:
    """Say that a parameter of this shape comes to be; see `room_for`."""
    room = _room.get()
    if room is not None:
        room.left -= math.prod(shape)
        if room.left < 0:
            raise ValueError(f"shape {shape}: the file holds no more than {room.count} numbers")


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
        if name not in self:
            raise KeyError(f"no array named {name!r}; there are {', '.join(self)}")
        mine = self[name]
        if value is not mine:
            mine[...] = as_shape(name, value, mine.dtype, mine.shape)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Copy every given array into the one of the same name."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

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


def load_into(target: Mapping[str, Array], source: Mapping[str, npt.ArrayLike]) -> None:
    """Copy `source` into `target` if every name, shape and dtype fits; else raise, naming them all.

    Raises `ValueError` listing all that is missing, unknown or misshapen, `TypeError` where a dtype
    would lose precision. Nothing is copied unless everything fits.
    """
    faults = [f"missing {name!r}" for name in target if name not in source]
    faults += [f"unknown {name!r}" for name in source if name not in target]
    fitting = {}
    for name in target:
        if name in source:
            array = as_array(name, source[name], target[name].dtype)
            if array.shape != target[name].shape:
                faults.append(f"{name!r} must have shape {target[name].shape}, got {array.shape}")
            fitting[name] = array
    if faults:
        raise ValueError("these entries do not fit: " + "; ".join(faults))
    for name, array in fitting.items():
        target[name][...] = array


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file at `path` by `data`, wholly or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write named arrays to a safetensors file, replacing it atomically.

    `metadata` is stored beside them, each value as JSON.
    """
    from safetensors.numpy import save  # here, not above: most users of `import rnncore` never save

    text = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    # safetensors writes a Fortran-ordered array's bytes as if it were C-ordered, silently.
    data = save(
        {name: np.asarray(array, order="C") for name, array in arrays.items()}, text or None
    )
    write_atomic(path, data)


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read `(arrays, metadata)` back from a safetensors file.

    Raises `FileNotFoundError`, or `ValueError` naming the file if it is not a readable safetensors
    file with JSON metadata.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"no such model file: {os.fspath(path)}")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,  # a dtype that NumPy has not
        RecursionError,
    ) as error:
        raise ValueError(
            f"{os.fspath(path)} is not a readable safetensors file: {error}"
        ) from error


def join_names(parts: Iterable[tuple[str, Mapping[str, Array]]]) -> dict[str, Array]:
    """Flatten named groups of named arrays into one dict with dotted names."""
    return {f"{prefix}.{name}": array for prefix, group in parts for name, array in group.items()}
