"""GuitarML's JSON, which CoreAudioML's `SimpleRNN` writes: a recurrent layer and a linear one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ..arrays import Array
from . import common
from .common import GATES, Report, Verify, refusal, shown
from .json_files import read_json
from .pytorch.entries import Settings, State
from .pytorch.reader import modules
from .pytorch.reference import computed
from .skip import with_skip


def from_guitarml(
    path: str | os.PathLike[str],
    *,
    batch_first: bool = False,
    dtype: npt.DTypeLike = "float32",
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a module of a model for Proteus, NeuralPi, SmartAmp and their kin; x is `(T, B, I)`.

    An RNN, LSTM or GRU and a Linear, one after the other; with `skip` in the file the first
    numbers of x are added to y: a `Residual` where x and y are as wide, else a `Parallel`. The
    first number is a sample, those after it are knobs. Raises `ValueError` for other models of the
    trainer, and where sizes contradict the weights. verify: as `from_torch`.
    """
    with common.readable(os.fspath(path), "cannot be read as a GuitarML model", ValueError):
        model = read_json(path)
        said, state = model["model_data"], State.of(model["state_dict"], dtype)
        if said["model"] != "SimpleRNN":
            raise refusal("rnncore", f"the model {shown(said['model'])} of GuitarML's trainer")
        settings = Settings(_cell(said["unit_type"]), None, batch_first, dtype)
        layers = modules(state, ["rec", "lin"], settings)
        sizes, chain = _sizes(said, *layers), common.chain_of(layers)
        channels = _number("skip", said["skip"])
        module = with_skip(chain, channels, sizes, dtype)

    def reference(x: Array) -> Array:
        return computed(chain, x) + (x[..., :channels] if channels else 0)

    if verify is not None and verify is not False:
        common.verify_module(module, verify, reference, report)
    return module


def is_guitarml(path: str | os.PathLike[str]) -> bool:
    """Whether a file of JSON is a model of GuitarML's trainer; not where it cannot be read."""
    try:
        model = read_json(path)
    except (ValueError, RecursionError):
        return False
    return isinstance(model, Mapping) and {"model_data", "state_dict"} <= model.keys()


def _cell(unit: Any) -> str:
    cells = {cell.upper(): cell for cell in GATES}
    if not isinstance(unit, str) or unit not in cells:
        raise refusal("rnncore", f"the unit_type {shown(unit)} of GuitarML's trainer")
    return cells[unit]


def _number(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {shown(value)}")
    return value


def _sizes(said: Mapping[str, Any], rec: Any, lin: Any) -> tuple[int, int]:
    """Inputs and outputs; sizes that are said and are not those of the weights are refused."""
    found = {
        "input_size": rec.input_size,
        "hidden_size": rec.hidden_size,
        "num_layers": rec.num_layers,
        "output_size": lin.out_features,
    }
    for name, size in found.items():
        if name in said and _number(name, said[name]) != size:
            raise ValueError(f"{name} is {said[name]}, but that of the weights is {size}")
    return rec.input_size, lin.out_features
