"""Parameters as other programs have them: one bias, gates in another order, first states whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ...arrays import Array
from ..common import GATES, regate
from .entries import Entries

_ONLY_BIAS = re.compile(r"bias((?:_l\d+(?:_reverse)?)?)")


def params_of(own: Entries, rows: int, order: str, cell: str) -> dict[str, Array]:
    """Return the parameters under our names, with two biases and the gates in our order."""
    ends = sorted(
        {n.removeprefix("weight_ih") for n in own.arrays if n.startswith("weight_ih")}, key=_place
    )
    params: dict[str, Array] = {}
    for name, array in own.arrays.items():
        for called, part in _parts(own.start, name, array, rows, ends):
            if called in params:
                raise ValueError(f"{own.start}{name} gives {called}, which is there as well")
            has_gates = called.startswith(("weight_ih", "weight_hh", "bias"))
            stacked = has_gates and part.shape[:1] == (rows,)
            params[called] = regate(part, order, GATES[cell]) if stacked else part
    return params


def _place(end: str) -> tuple[int, bool]:
    """Where a layer and direction stand in a state, by the end of their names."""
    number = re.match(r"_l(\d+)", end)
    return int(number[1]) if number else 0, end.endswith("_reverse")


def _parts(
    start: str, name: str, array: Array, rows: int, ends: list[str]
) -> Iterator[tuple[str, Array]]:
    """What an entry is made into."""
    only = _ONLY_BIAS.fullmatch(name)
    if only:
        yield from _biases(f"{start}{name}", only[1], array, rows)
    elif name in ("initial_h", "initial_c"):
        if array.size % len(ends):
            raise ValueError(
                f"{start}{name} must have a row for each of {len(ends)} layers and directions, "
                f"got shape {array.shape}"
            )
        rows_of = array.reshape(len(ends), -1)
        yield from ((f"{name}{end}", row) for end, row in zip(ends, rows_of, strict=True))
    elif name.startswith(("bias_ih", "bias_hh")) and array.shape == (2 * rows,):
        only_name = name.replace("_ih", "").replace("_hh", "")
        raise ValueError(
            f"{start}{name} has {2 * rows} numbers for {rows} rows of weights, as cuDNN keeps both "
            f"biases in a row: call it {start}{only_name} by names"
        )
    else:
        yield name, array


def _biases(name: str, end: str, array: Array, rows: int) -> Iterator[tuple[str, Array]]:
    """A layer's only bias, which may be both in a row as cuDNN has them."""
    if array.size not in (rows, 2 * rows):
        raise ValueError(
            f"{name} must have {rows} numbers, or twice as many, got shape {array.shape}"
        )
    both = array.reshape(-1, rows)
    yield f"bias_ih{end}", both[0]
    yield f"bias_hh{end}", both[1] if len(both) == 2 else np.zeros_like(both[0])
