"""What torch's modules of a state_dict's names compute, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import reference
from ...arrays import Array
from ...compositions.bidirectional import Bidirectional
from ...compositions.chain import Chain
from ...layers.batch_norm import BatchNorm
from ...layers.convolution import Conv1d, Conv2d, ConvTranspose1d
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.multihead import MultiheadAttention
from ...layers.prelu import PReLU
from ...recurrent.step import Step
from ...reference.convolution import Along, convolve, spread
from ...reference.multihead import multihead
from ...reference.sequence import forward
from .. import common
from ..common import Report, Verify
from .layout import REFERENCE

State = dict[str, Array]


def verify_torch(module: Any, verify: Verify, report: Report) -> None:
    """Check a module against given outputs, or against what torch's of its parameters compute."""
    if verify is not None and verify is not False:
        common.verify_module(module, verify, lambda x: computed(module, x), report)


def computed(module: Any, x: Array) -> Array:
    """Return y as torch's modules of the same parameters compute it, in float64."""
    state = {name: array.astype(np.float64) for name, array in REFERENCE.entries(module)}
    return _run(module, state, x)


def _run(module: Any, state: State, x: Array) -> Array:
    if isinstance(module, Chain):
        for name, layer in module.children():
            start = f"{name}."
            own = {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}
            x = _run(layer, own, x)
        return x
    if type(module) in _PLAIN:
        return np.asarray(_PLAIN[type(module)](module, state, x))
    return _recurrence(module, state, x) if module.recurrent else np.asarray(module(x))


def _recurrence(module: Any, state: State, x: Array) -> Array:
    """A layer, a cell, or a `Bidirectional` under the names of a layer in both directions."""
    one: Any = module.forward if isinstance(module, Bidirectional) else module
    cell = reference.CELLS[one.cell.kernel]
    if isinstance(one, Step):
        named = {f"{name}_l0": array for name, array in state.items()}
        return np.asarray(forward(cell, named, x[None], _first(one, named, len(x)))[0][0])
    x = x.swapaxes(0, 1) if module.batch_first else x
    first, both = _first(one, state, x.shape[1]), one is not module or module.bidirectional
    y, _, _ = forward(cell, state, x, first, num_layers=one.num_layers, bidirectional=both)
    return np.asarray(y.swapaxes(0, 1) if module.batch_first else y)


def _first(module: Any, state: State, rows: int) -> Any:
    """The state that is learnt, of so many rows, or None for zero."""
    if not module.learned_state:
        return None
    parts = [
        np.stack([array for name, array in state.items() if name.startswith(f"initial_{kind}")])
        for kind in ("hc" if module.has_cell_state else "h")
    ]
    state_of_rows = tuple(np.repeat(part[:, None], rows, axis=1) for part in parts)
    return state_of_rows if module.has_cell_state else state_of_rows[0]


def _layer_norm(module: LayerNorm, state: State, x: Array) -> Array:
    norm = LayerNorm(module.normalized_shape, module.eps, dtype="float64")
    return np.asarray(common.filled(norm, state)(x))


def _batch_norm(module: BatchNorm, state: State, x: Array) -> Array:
    y: Array = (x - state["running_mean"]) / np.sqrt(state["running_var"] + module.eps)
    return y * state["weight"] + state["bias"] if module.affine else y


def _convolution(module: Any, state: State, x: Array) -> Array:
    """Over rows `(B, T, C)` or images."""
    axes = module.axes if isinstance(module, Conv2d) else (module.axis,)
    along = [Along(a.stride, a.dilation, a.before, a.after, a.mode) for a in axes]
    weight, bias = state["weight"], state.get("bias")
    if isinstance(module, Conv2d):
        return convolve(x, weight, bias, along, module.groups)
    turned = not module.batch_first
    rows = x.swapaxes(0, 1) if turned else x
    if isinstance(module, ConvTranspose1d):
        y = spread(rows, weight, bias, along, module.groups, [module.output_padding])
    else:
        y = convolve(rows, weight, bias, along, module.groups)
    return y.swapaxes(0, 1) if turned else y


def _attention(module: MultiheadAttention, state: State, x: Array) -> Array:
    turned = module.batch_first
    y, _ = multihead(
        state, x.swapaxes(0, 1) if turned else x, module.num_heads, None, module.causal
    )
    return y.swapaxes(0, 1) if turned else y


_PLAIN: dict[type[Any], Callable[[Any, State, Array], Any]] = {
    Linear: lambda module, state, x: x @ state["weight"].T + state.get("bias", 0),
    Embedding: lambda module, state, x: state["weight"][x],
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    PReLU: lambda module, state, x: np.where(x > 0, x, state["weight"] * x),
    MultiheadAttention: _attention,
    Conv1d: _convolution,
    Conv2d: _convolution,
    ConvTranspose1d: _convolution,
}
