"""What torch's modules of a state_dict's names compute, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import reference
from ...arrays import Array
from ...compositions.bidirectional import Bidirectional
from ...compositions.chain import Chain
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.prelu import PReLU
from ...recurrent.step import Step
from ...reference.sequence import forward
from .. import common
from ..common import Report, Verify
from .layout import entries_of


def verify_torch(module: Any, verify: Verify, report: Report) -> None:
    """Check a module against given outputs, or against what torch's of its parameters compute."""

    def reference(x: Array) -> Array:
        state = {name: array.astype(np.float64) for name, array in entries_of(module, "")}
        return _reference(module, state, x)

    if verify is not None and verify is not False:
        common.verify_module(module, verify, reference, report)


def _reference(module: Any, state: dict[str, Array], x: Array) -> Array:
    """What torch's modules of these names compute, in plain NumPy."""
    if isinstance(module, Chain):
        for name, layer in module.children():
            start = f"{name}."
            own = {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}
            x = _reference(layer, own, x)
        return x
    if isinstance(module, Embedding):
        return np.asarray(state["weight"][x])
    if isinstance(module, Linear):
        return np.asarray(x @ state["weight"].T + state.get("bias", 0))
    if isinstance(module, LayerNorm):
        norm = LayerNorm(module.normalized_shape, module.eps, dtype="float64")
        return np.asarray(common.filled(norm, state)(x))
    if isinstance(module, PReLU):
        return np.where(x > 0, x, state["weight"] * x)
    return _recurrence(module, state, x) if module.recurrent else np.asarray(module(x))


def _recurrence(module: Any, state: dict[str, Array], x: Array) -> Array:
    """A layer, a cell, or a `Bidirectional` under the names of a layer in both directions."""
    one: Any = module.forward if isinstance(module, Bidirectional) else module
    cell = reference.CELLS[one.cell.kernel]
    if isinstance(one, Step):
        named = {f"{name}_l0": array for name, array in state.items()}
        return np.asarray(forward(cell, named, x[None])[0][0])
    x = x.swapaxes(0, 1) if module.batch_first else x
    both = one is not module or module.bidirectional
    y, _, _ = forward(cell, state, x, num_layers=one.num_layers, bidirectional=both)
    return np.asarray(y.swapaxes(0, 1) if module.batch_first else y)
