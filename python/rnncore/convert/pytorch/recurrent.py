"""Recurrent layers and cells of a state_dict: sizes by shapes, classes by the number of gates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...arrays import Array
from ...module import Module
from ...recurrent.registry import LAYERS, STEPS
from ..common import GATES, filled, refusal, regate
from ..gate_orders import order_of
from .entries import Entries, Settings

#: The entries of a layer, of a cell, and of a layer that has one bias.
NAMES = re.compile(
    r"(.*?)(?:(?:(?:weight|bias)_(?:ih|hh|hr))(?:_l\d+(?:_reverse)?)?|bias_l\d+(?:_reverse)?)"
)

#: The classes that torch has, by the names of their cells.
_CELLS = {kinds[cell]: cell for kinds in (LAYERS, STEPS) for cell in GATES}


def kind_of(own: Entries, cell: str | None) -> type[Module] | None:
    """Return the class of a recurrent layer, or cell where names do not tell of layers.

    None where these are the entries of another layer. Raises `ValueError` where there are not the
    rows of an RNN, LSTM or GRU, or of the `cell` insisted on.
    """
    if not any(found and not found[1] for found in map(NAMES.fullmatch, own.arrays)):
        return None
    suffix = "" if "weight_ih" in own.arrays else "_l0"
    names = [f"weight_{part}{suffix}" for part in ("ih", "hh", "hr")]
    for name in names if names[2] in own.arrays else names[:2]:
        if name not in own.arrays or own.arrays[name].ndim != 2:
            raise ValueError(f"{own.start}{name} must be there, a matrix")
    rows, _, hidden, _ = _sizes(own, suffix)
    kinds = {len(gates): name for name, gates in GATES.items()}
    kind = kinds.get(rows // hidden if hidden and rows % hidden == 0 else 0)
    if cell is not None and cell not in GATES:
        raise ValueError(f"cell must be one of {', '.join(GATES)}, got {cell!r}")
    if kind is None or cell not in (None, kind):
        raise ValueError(
            f"{own.start or 'the'} weights have {rows} rows for {hidden} hidden units: "
            f"no {cell or 'RNN, GRU or LSTM'}"
        )
    classes: dict[str, type[Module]] = LAYERS if suffix else STEPS
    return classes[kind]


def _sizes(own: Entries, suffix: str) -> tuple[int, int, int, int | None]:
    """Rows, width of the input, hidden units, and of what they are projected to."""
    rows, size = own.arrays[f"weight_ih{suffix}"].shape
    projection = own.arrays.get(f"weight_hr{suffix}")
    hidden = own.arrays[f"weight_hh{suffix}"] if projection is None else projection
    return rows, size, hidden.shape[-1], None if projection is None else len(projection)


def recurrent(
    kind: type[Module], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """Make a layer or a cell."""
    made: Callable[..., Module] = kind
    if kind_of(own, settings.cell) is not kind:
        raise ValueError(f"the entries {own.named()} are not those of a {kind.__name__}")
    is_cell = "weight_ih" in own.arrays
    suffix = "" if is_cell else "_l0"
    rows, size, hidden, proj_size = _sizes(own, suffix)
    params = _stacked(own, rows, _CELLS[kind], settings.gate_order)
    given = {"bias": f"bias_ih{suffix}" in params, "dtype": own.dtype}
    if proj_size is not None:
        given["proj_size"] = proj_size
    if not is_cell:
        counted = itertools.takewhile(lambda n: f"weight_ih_l{n}" in params, itertools.count())
        given["num_layers"] = len(list(counted))
        given["bidirectional"] = "weight_ih_l0_reverse" in params
        given["batch_first"] = settings.batch_first
    return _filled(own, made(size, hidden, **given | settings.options | dict(options)), params)


def _filled(own: Entries, layer: Module, params: dict[str, Array]) -> Module:
    """Load the parameters; names that no recurrent layer has are refused as entries."""
    strange = [name for name in params if name not in layer.params and not NAMES.fullmatch(name)]
    if strange:
        raise refusal("rnncore", f"the entries {', '.join(own.start + name for name in strange)}")
    return filled(layer, params)  # type: ignore[no-any-return]


def _stacked(own: Entries, rows: int, cell: str, gate_order: str | None) -> dict[str, Array]:
    """The parameters with two biases and the gates in our order."""
    order, params = order_of(gate_order, cell), dict[str, Array]()
    for name, array in own.arrays.items():
        for called, part in _biases(own.start, name, array, rows):
            if called in params:
                raise ValueError(f"{own.start}{name} gives {called}, which is there as well")
            stacked = called.startswith(("weight_ih", "weight_hh", "bias")) and part.shape[:1] == (
                rows,
            )
            params[called] = regate(part, order, GATES[cell]) if stacked else part
    return params


def _biases(start: str, name: str, array: Array, rows: int) -> list[tuple[str, Array]]:
    """An entry; of a layer's only bias, which may be both in a row as cuDNN has them, two."""
    if name.startswith(("bias_ih", "bias_hh")) and array.shape == (2 * rows,):
        raise ValueError(
            f"{start}{name} has {2 * rows} numbers for {rows} rows of weights, as cuDNN keeps both "
            f"biases in a row: call it {start}{name.replace('_ih', '').replace('_hh', '')} by names"
        )
    only = re.fullmatch(r"bias((?:_l\d+(?:_reverse)?)?)", name)
    if not only:
        return [(name, array)]
    if array.size not in (rows, 2 * rows):
        raise ValueError(
            f"{start}{name} must have {rows} numbers, or twice as many, got shape {array.shape}"
        )
    both = array.reshape(-1, rows)
    second = both[1] if len(both) == 2 else np.zeros_like(both[0])
    return [(f"bias_ih{only[1]}", both[0]), (f"bias_hh{only[1]}", second)]
