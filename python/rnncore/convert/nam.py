"""Neural Amp Modeler's .nam files, as far as they hold an LSTM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from . import common
from .common import Report, Verify, refusal, shown
from .json_files import numbers, read_json
from .pytorch.entries import Settings, State
from .pytorch.reader import modules
from .pytorch.reference import verify_torch


def from_nam(
    path: str | os.PathLike[str],
    *,
    batch_first: bool = False,
    dtype: npt.DTypeLike = "float32",
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a `Chain` of an LSTM and a Linear of a .nam file; x is `(T, B, 1)`, samples at its rate.

    The states from which the file's layers start become `learned_state` where any is not zero.
    Neural Amp Modeler itself runs half a second of silence before the first sample. Other
    architectures (WaveNet) raise `ValueError` naming them. verify: as `from_torch`.
    """
    with common.readable(os.fspath(path), "cannot be read as a .nam file", ValueError):
        model = read_json(path)
        if model["architecture"] != "LSTM":
            raise refusal("rnncore", f"NAM's architecture {shown(model['architecture'])}")
        sizes = _sizes(model["config"])
        state = _state(numbers("weights", model["weights"]), *sizes)
        if not any(state[name].any() for name in state if "initial" in name):
            state = {name: array for name, array in state.items() if "initial" not in name}
        settings = Settings(batch_first=batch_first, dtype=dtype)
        module = common.chain_of(modules(State.of(state), ["rec", "head"], settings))
    verify_torch(module, verify, report)
    return module


def _sizes(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Inputs, hidden units, layers and outputs."""
    given = {"out_channels": 1} | dict(config)
    names = ("input_size", "hidden_size", "num_layers", "out_channels")
    for name in names:
        if type(given[name]) is not int or given[name] < 1:
            raise ValueError(f"{name} must be a number of at least 1, got {shown(given[name])}")
    inputs, hidden, layers, outputs = (given[name] for name in names)
    return inputs, hidden, layers, outputs


def _state(flat: Array, inputs: int, hidden: int, layers: int, outputs: int) -> dict[str, Array]:
    """Cut the numbers up: of each layer [W_ih, W_hh] in rows, bias, h, c; then the head's.

    The one bias of a layer is the sum of torch's two.
    """
    widths = (inputs, hidden)  # of the input of the first layer, and of the others
    first, other = (4 * hidden * (width + hidden) + 6 * hidden for width in widths)
    wanted = first + (layers - 1) * other + outputs * (hidden + 1)
    if flat.shape != (wanted,):
        raise ValueError(
            f"{layers} layers of {hidden} hidden units over {inputs} inputs have {wanted} weights, "
            f"not shape {flat.shape}"
        )
    parts: dict[str, Array] = {}
    rest = flat
    for n in range(layers):
        width = widths[n > 0]
        shapes = (4 * hidden, width + hidden), (4 * hidden,), (hidden,), (hidden,)
        (both, bias, h, c), rest = _cut(rest, shapes)
        own = {"weight_ih": both[:, :width], "weight_hh": both[:, width:], "bias": bias}
        own |= {"initial_h": h, "initial_c": c}
        parts |= {f"rec.{name}_l{n}": array for name, array in own.items()}
    (weight, bias), _ = _cut(rest, ((outputs, hidden), (outputs,)))
    return parts | {"head.weight": weight, "head.bias": bias}


def _cut(flat: Array, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[Array], Array]:
    """Arrays of these shapes, row by row, and what is left."""
    parts = []
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(flat[:size].reshape(shape))
        flat = flat[size:]
    return parts, flat
