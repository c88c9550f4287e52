"""Hostile values and arrays, and calls that are given them."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import numpy as np

#: Numbers that sizes, rates and offsets are not.
NUMBERS = [0, 1, -1, 3, 0.5, -0.0, 1 << 31, -(1 << 63), 10**30, math.nan, math.inf, 1e300]
STRINGS = ["", "tanh", "LSTM", "class", "a.b", "\ud800", "é\0\n", "../x", "x" * 3000]
_OTHERS: list[Any] = [None, True, False, [], {}, (), [[]], [1, [2]], {"a": 1}, b"x", 1j, object()]
_HUGE = [1 << 31, 1 << 40, 1 << 63, 10**30]
_DTYPES = ("f2", "f4", "f8", "g", "c8", "i1", "i4", "i8", "u8", "?", "O", "U3", "S3", "M8[s]")


class AskedForMuch(Exception):
    """A call that was asked for a huge number of something took long: as it should."""


def ask_for_much() -> None:
    """Let the call run for a fifth of a second of the processor's time, and no longer."""

    def stop(*_: object) -> None:
        raise AskedForMuch

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, 0.2)


#: What one input does: calls, through `Hostile.call` above all.
Program: TypeAlias = Callable[["Hostile"], Any]


class Subclass(np.ndarray):
    """A subclass that is an array all the same."""


class Hostile:
    """Gives calls what they do not expect.

    Some values lose their meaning: another kind, another shape, another number. Arrays lie in
    memory in any way; with `plain`, all is the same, but arrays lie in one piece, aligned and in
    the machine's byte order. What a call makes of both must be equal to the bit.
    """

    def __init__(self, seed: int, plain: bool) -> None:
        self.luck, self.plain = Random(seed), plain
        self.rng = np.random.default_rng(self.luck.getrandbits(32))
        #: How often a value loses its meaning.
        self.rate = self.luck.choice((0.0, 0.1, 0.3))
        #: Whether there are arrays of shapes beyond all memory.
        self.huge = True
        #: What the calls returned.
        self.results: list[Any] = []

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function with its arguments changed; keep what it returns."""
        result = function(*self.twisted(args, self.rate), **self.twisted(options, self.rate))
        self.results.append(copy.deepcopy(result) if isinstance(result, np.ndarray) else result)
        return result

    def maybe(self, chance: float = 0.5) -> bool:
        return self.luck.random() < chance

    def normal(self, *shape: int, dtype: str = "float32") -> np.ndarray:
        return self.rng.standard_normal(shape).astype(dtype)

    def twisted(self, value: Any, rate: float) -> Any:
        """The value, or something of the same structure, or something else."""
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            if self.luck.random() < rate:
                value = self.other_array(value)
            return self.laid_out(value) if isinstance(value, np.ndarray) else value
        if type(value) is tuple:
            return tuple(self.twisted(part, rate) for part in value)
        if type(value) is list:
            parts = [self.twisted(part, rate) for part in value]
            if self.luck.random() < rate / 4:
                parts.insert(0, self.value())
            return parts
        if type(value) is dict:
            # Without a seed there is nothing to compare.
            return {k: v if k == "seed" else self.twisted(v, rate) for k, v in value.items()}
        scalar = value is None or isinstance(value, (str, int, float))
        return self.value() if scalar and self.luck.random() < rate else value

    def value(self) -> Any:
        """Something that no argument should be."""
        if self.luck.random() < 0.05:
            ask_for_much()
            return self.luck.choice(_HUGE)
        pool = self.luck.choice((NUMBERS[:6], NUMBERS[9:], STRINGS, _OTHERS))
        if self.luck.random() < 0.15:
            return np.asarray(self.luck.choice(NUMBERS[:6]))
        return self.luck.choice(pool)

    def other_array(self, array: np.ndarray) -> Any:
        """An array of another shape, kind or value, or something that is none."""
        kind = self.luck.randrange(10)
        if kind < 3:
            return self._other_shape(array)
        if kind < 5:
            return self._other_values(array)
        if kind < 7:
            with np.errstate(all="ignore"):
                return array.astype(self.luck.choice(_DTYPES))
        if kind == 7:
            return array.tolist()
        if kind == 8:
            return np.ma.masked_array(array, array != array.ravel()[:1])
        return self.value()

    def _other_shape(self, array: np.ndarray) -> np.ndarray:
        axes = range(array.ndim)
        axis = self.luck.choice(axes) if array.ndim else 0
        match self.luck.randrange(8):
            case 0:
                return array[None]
            case 1 if array.ndim:
                return array[0] if len(array) else array
            case 2:
                return array.T
            case 3 if array.ndim:
                return np.take(array, [], axis=axis)
            case 4 if array.ndim:
                return np.concatenate((array, array), axis=axis)
            case 5 if (
                array.ndim and self.huge
            ):  # of all sizes, without a byte of memory; none is quick to run
                shape = list(array.shape)
                sizes = (
                    (1 << 29, 1 << 31, 1 << 40) if array.dtype.kind == "f" else (1 << 18, 1 << 20)
                )
                shape[axis] = self.luck.choice(sizes)  # integers are looked at, each of them
                if array.size and math.prod(shape) < 1 << 58:
                    return np.broadcast_to(np.take(array, [0], axis=axis), shape)
                return array
            case 6:
                return array.reshape(-1)
        return array[..., None]

    def _other_values(self, array: np.ndarray) -> np.ndarray:
        changed, size = array.copy(), array.size
        if size and array.dtype.kind == "f":
            values = (np.nan, np.inf, -np.inf, 1e-40, -0.0, np.finfo(array.dtype).max)
            changed.flat[self.luck.randrange(size)] = self.luck.choice(values)
        elif size and array.dtype.kind in "iu":
            limits = np.iinfo(array.dtype)
            value = self.luck.choice((-1, 0, 1, 100, limits.max, limits.min))
            if limits.min <= value:
                changed.flat[self.luck.randrange(size)] = value
        return changed

    def laid_out(self, array: np.ndarray) -> np.ndarray:
        """The same numbers somewhere else in memory."""
        kind = self.luck.randrange(12)
        if kind == 0 and array.ndim and array.size:
            array = np.broadcast_to(array[:1], array.shape)  # other numbers, but both times
        plain = isinstance(array, np.ma.MaskedArray) or array.dtype.kind in "OUSM"
        if plain or array.ndim == 0 or max(array.shape) > 1 << 16:
            return array
        if self.plain:
            return np.array(array, array.dtype.newbyteorder("="), order="C", subok=False)
        match kind:
            case 1:
                return np.array(array, order="F")
            case 2:
                wide = np.zeros(tuple(2 * size for size in array.shape), array.dtype)
                part = wide[tuple(slice(None, None, 2) for _ in array.shape)]
                part[...] = array
                return part
            case 3:
                turned = tuple(slice(None, None, -1) for _ in array.shape)
                return array[turned].copy()[turned]
            case 4:
                held = np.zeros(array.nbytes + 1, np.uint8)
                part = held[1:].view(array.dtype).reshape(array.shape)
                part[...] = array
                return part
            case 5:
                return array.astype(array.dtype.newbyteorder(">"))
            case 6:
                fixed = array.copy()
                fixed.flags.writeable = False
                return fixed
            case 7:
                return array.view(Subclass)
        return array


def flat(value: Any) -> list[Any]:
    """The arrays and numbers in a nested result, in order; other objects by their kind."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in flat(part)]
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flat(value[key])]
    if isinstance(value, (int, float, str, np.generic)) or value is None:
        return [np.asarray(value)] if value is not None else ["None"]
    return [type(value).__name__]


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether two results are equal to the bit, all NaN being one."""
    mine, theirs = flat(one), flat(other)
    return len(mine) == len(theirs) and all(map(_same, mine, theirs))


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return type(one) is type(other) and (isinstance(one, np.ndarray) or one == other)
    dtypes = [array.dtype.newbyteorder("=") for array in (one, other)]
    if dtypes[0] != dtypes[1] or one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
