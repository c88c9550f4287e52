"""What operators share: their type, and whole numbers that come as an input or as an attribute."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ....arrays import Array

#: Inputs first, attributes by keyword. An optional input that is left out is None.
Operator: TypeAlias = Callable[..., Any]
Size: TypeAlias = tuple[int, ...]


def whole(values: Iterable[Any]) -> Size:
    """Whole numbers as Python's; `TypeError` for others."""
    return tuple(map(operator.index, values))


def axes_of(given: Array | None, attribute: Sequence[int] | None) -> Size | None:
    """Whole numbers of an input, or else of an attribute; None without either."""
    if given is not None:
        return whole(given.reshape(-1))
    return None if attribute is None else tuple(attribute)


def check_plain(**options: object) -> None:
    """Refuse options that are not at rest: zero, empty or None."""
    for name, value in options.items():
        if value:
            raise ValueError(f"rnncore cannot represent {name}={value!r}")


def ends_of(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The smallest and the largest number of a type."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return (False, True) if dtype.kind == "b" else (-np.inf, np.inf)
