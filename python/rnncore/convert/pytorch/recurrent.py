"""Recurrent layers and cells of a state_dict: sizes by shapes, classes by the number of gates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ...arrays import Array
from ...module import Module
from ...recurrent.registry import LAYERS, STEPS
from ..common import GATES, filled, refusal
from ..gate_orders import order_of
from .conventions import params_of
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
    params = params_of(own, rows, order_of(settings.gate_order, _CELLS[kind]), _CELLS[kind])
    given = {"bias": f"bias_ih{suffix}" in params, "dtype": own.dtype}
    if f"initial_h{suffix}" in params:
        given["learned_state"] = True
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
