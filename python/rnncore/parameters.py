"""Named parameters: collections that keep their arrays, and copying one into another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_array, as_shape, check_mapping, short


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

    def _replace(self, arrays: Mapping[int, Array]) -> None:
        """Put others in the place of arrays, by id: whoever holds those must look again."""
        moved = {name: arrays[id(own)] for name, own in self.items() if id(own) in arrays}
        dict.update(self, moved)

    __delitem__ = pop = popitem = clear = setdefault = _fixed


def _thawed(arrays: Mapping[str, Array]) -> Arrays:
    """Unpickled arrays with memory of their own, which nobody else can write to or has mapped."""
    return Arrays({n: np.require(a, None, ["C", "A", "W", "O"]) for n, a in arrays.items()})


def fitting(target: Mapping[str, Array], source: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Return the arrays of `source` if every name, shape and dtype is that of `target`.

    Raises `ValueError` listing all that is missing, unknown or misshapen, and names of one array of
    `target` under which `source` has different ones; `TypeError` where a dtype would lose
    precision.
    """
    check_mapping("state", source)
    faults = [f"missing {name!r}" for name in target if name not in source]
    faults += [f"unknown {short(name)}" for name in source if name not in target]
    found = {}
    for name in target:
        if name in source:
            if target[name].dtype.kind == "f" and getattr(source[name], "dtype", None) == np.uint16:
                faults.append(
                    f"{name!r} is uint16, as bits of bfloat16 are, not {target[name].dtype}"
                )
                continue
            array = as_array(name, _as_bits(source[name], target[name]), target[name].dtype)
            if array.shape != target[name].shape:
                faults.append(f"{name!r} must have shape {target[name].shape}, got {array.shape}")
            found[name] = array
    faults += _torn(target, found)
    if faults:
        raise ValueError("these entries do not fit: " + "; ".join(faults))
    return found


def _as_bits(value: Any, target: Array) -> Any:
    """The bits of bfloat16 where those are held, and what was read from a file is float32."""
    if target.dtype != np.uint16 or getattr(value, "dtype", None) != np.float32:
        return value
    bits = np.ascontiguousarray(value).view(np.uint32)
    return value if (bits & 0xFFFF).any() else (bits >> 16).astype(np.uint16)


def _torn(target: Mapping[str, Array], found: Mapping[str, Array]) -> list[str]:
    """What is one array in `target`, and not in `found`."""
    first: dict[int, str] = {}
    names = [(name, first.setdefault(id(target[name]), name)) for name in found]
    return [
        f"{name!r} differs from {tied!r}, and they are one parameter"
        for name, tied in names
        if found[name] is not found[tied] and found[name].tobytes() != found[tied].tobytes()
    ]


def load_into(target: Mapping[str, Array], source: Mapping[str, npt.ArrayLike]) -> None:
    """Copy `source` into `target`, read-only or not, or raise what `fitting` raises.

    If it raises, nothing is copied.
    """
    found = fitting(target, source)
    locked = [target[name] for name in found if not target[name].flags.writeable]
    try:
        for array in locked:
            array.flags.writeable = True
        copy_into(target, found)
    finally:
        for array in locked:
            array.flags.writeable = False


def copy_into(target: Mapping[str, Array], source: Mapping[str, Array]) -> None:
    """Copy arrays that are known to fit."""
    for name, array in source.items():
        target[name][...] = array


def join_names(parts: Iterable[tuple[str, Mapping[str, Array]]]) -> dict[str, Array]:
    """Flatten named groups of named arrays into one dict with dotted names."""
    return {f"{prefix}.{name}": array for prefix, group in parts for name, array in group.items()}


def distinct(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return each array once, under its first name."""
    first: dict[int, str] = {}
    for name, array in arrays.items():
        first.setdefault(id(array), name)
    return {name: arrays[name] for name in first.values()}


def lying_together(arrays: Iterable[Array]) -> Array | None:
    """Return the one array `(N,)` that these are views of, end to end; None where they are not."""
    parts = list(arrays)
    whole = parts[0].base if parts else None
    if not isinstance(whole, np.ndarray) or whole.ndim != 1 or not whole.flags.c_contiguous:
        return None
    begin = at = parts[0].ctypes.data
    for part in parts:
        fits = part.dtype == whole.dtype and part.flags.c_contiguous and part.size > 0
        if part.base is not whole or not fits or part.ctypes.data != at:
            return None
        at += part.nbytes
    first = (begin - whole.ctypes.data) // whole.itemsize
    return whole[first : first + (at - begin) // whole.itemsize]


def laid_together(arrays: Mapping[str, Array]) -> tuple[Array, dict[int, Array]]:
    """Return a copy of all these arrays as one `(N,)`, and its views in the place of each, by id.

    Raises `ValueError` where there are none, or they are of several dtypes.
    """
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) != 1:
        found = ", ".join(sorted(map(str, dtypes))) or "none"
        raise ValueError(f"arrays that lie together must be of one dtype, got {found}")
    whole = np.empty(sum(array.size for array in arrays.values()), dtypes.pop())
    views, at = {}, 0
    for array in arrays.values():
        view = whole[at : at + array.size].reshape(array.shape)
        view[...] = array
        views[id(array)] = view
        at += array.size
    return whole, views
