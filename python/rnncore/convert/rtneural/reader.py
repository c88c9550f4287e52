"""RTNeural's models read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...reference.keras import KerasLayer, KerasModel, KerasNode, line
from .. import common
from ..common import Report, Verify, refusal, shown
from ..json_files import read_json
from ..keras.makers import from_layers
from ..keras.verify import verify_model
from ..skip import with_skip
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
    `ValueError` naming them, and so do widths that are said and are not those of the weights. A
    model of AIDA-X with `in_skip` becomes a `Residual`. verify: as `from_keras`.
    """
    with common.readable(os.fspath(path), "cannot be read as an RTNeural model", ValueError):
        layers, skip = read_layers(path)
        module = from_layers(layers, False, np.dtype(dtype))
        module = with_skip(module, skip, (1, 1), dtype)
    verify_model(module, skipping(layers, skip), False, verify, report)
    return module


def read_layers(path: str | os.PathLike[str]) -> tuple[list[KerasLayer], int]:
    """Return a file's layers in Keras's letters, and how many numbers of x are added to y."""
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
    skip = model.get("in_skip") or 0
    if skip and (skip, int(model["in_shape"][-1]), width) != (1, 1, 1):
        raise refusal("rnncore", f"in_skip={shown(skip)} but for one number in and one out")
    return layers, int(skip)


def skipping(layers: Sequence[KerasLayer], skip: int) -> KerasModel:
    """Return the model of the layers, to whose output x is added or not."""
    model = line(layers)
    if not skip:
        return model
    add = KerasNode("skip", KerasLayer("Add", "skip", {}, []), (*model.outputs, ("x", 0)))
    return KerasModel(model.inputs, [*model.nodes, add], [("skip", 0)])


def _check_gains(model: Mapping[str, Any]) -> None:
    """Refuse what AIDA-X does around a model, beyond its layers and in_skip."""
    for name in ("in_gain", "out_gain"):
        if model.get(name):
            raise refusal("rnncore", f"a model with {name}={shown(model[name])}")
