"""RTNeural's models read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...reference.keras import KerasLayer
from .. import common
from ..common import Report, Verify, refusal, shown
from ..json_files import read_json
from ..keras.makers import from_layers
from ..keras.verify import verify_layers
from .entries import described


def from_rtneural(
    path: str | os.PathLike[str],
    *,
    dtype: npt.DTypeLike = "float32",
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a module of an RTNeural model: a `Chain`, or the layer alone; inputs are `(T, B, I)`.

    Dense, LSTM, GRU, conv1d (causal), batchnorm, prelu and activations; other layers (conv2d) raise
    `ValueError` naming them, and so do widths that are said and are not those of the weights.
    verify: as `from_keras`.
    """
    with common.readable(os.fspath(path), "cannot be read as an RTNeural model", ValueError):
        layers = read_layers(path)
        module = from_layers(layers, False, np.dtype(dtype))
    verify_layers(module, layers, False, verify, report)
    return module


def read_layers(path: str | os.PathLike[str]) -> list[KerasLayer]:
    """Return a file's layers in Keras's letters."""
    model = read_json(path)
    _check_gains(model)
    width, before, layers = int(model["in_shape"][-1]), "in_shape", list[KerasLayer]()
    for at, entry in enumerate(model["layers"]):
        name = f"layer {at}"
        own, reads, gives = described(name, entry)
        if reads not in (None, width):
            raise ValueError(f"{name}: its weights read {reads} numbers, {before} says {width}")
        width = width if gives is None else gives
        said = entry["shape"][-1] if entry.get("shape") else width
        if said != width:
            raise ValueError(f"{name}: its shape says {shown(said)} numbers, it gives {width}")
        layers += own
        before = name
    return layers


def _check_gains(model: Mapping[str, Any]) -> None:
    """Refuse what AIDA-X does around a model, beyond its layers."""
    for name in ("in_skip", "in_gain", "out_gain"):
        if model.get(name):
            raise refusal("rnncore", f"a model with {name}={shown(model[name])}")
