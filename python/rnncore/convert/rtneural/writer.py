"""Models written as RTNeural's JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...arrays import Array, write_atomic
from ...compositions.chain import Chain
from ...compositions.skips import Residual
from ...layers.activations import Elementwise, Identity, Softmax
from ...layers.batch_norm import BatchNorm
from ...layers.convolution import Conv1d
from ...layers.dropout import Dropout
from ...layers.linear import Linear
from ...layers.prelu import PReLU
from ...module import Module
from ...precision import dequantized
from ...recurrent.registry import LAYERS
from .. import common
from ..common import GATES, Report, Verify, refusal
from ..keras.settings import CELLS
from ..keras.verify import verify_model
from .entries import ACTIVATIONS, described
from .reader import read_layers, skipping


def to_rtneural(
    module: Module,
    path: str | os.PathLike[str],
    *,
    verify: Verify = None,
    report: Report = print,
) -> None:
    """Write a module as RTNeural's JSON, replaced atomically.

    A `Chain` of LSTM and GRU (in one direction, stacked or not, without variants), Linear, causal
    Conv1d, BatchNorm, PReLU and the activations tanh, relu, sigmoid, softmax, elu and leaky_relu;
    anything else raises `ValueError` naming it. `Residual` of one of them that takes and gives one
    number is a model of AIDA-X with `in_skip`. A model with weights in fewer bits is written as the
    float32 model with the same weights. verify: read the file back and compare, in Keras's letters.
    """
    module = dequantized(module)
    inner = module.module if isinstance(module, Residual) else module
    layers: list[dict[str, Any]] = []
    for part in _flat(inner):
        if not isinstance(part, (Dropout, Identity)):
            width = layers[-1]["shape"][-1] if layers else 0
            layers += _entries(part, width)
    if not layers:
        raise refusal("RTNeural", "a model without layers")
    inputs = described("layer 0", layers[0]).reads if layers[0]["shape"][-1] else None
    if inputs is None:
        raise refusal("RTNeural", "a model that begins with an activation: its width is unknown")
    model: dict[str, Any] = {"in_shape": [None, None, inputs], "layers": _merged(layers)}
    if inner is not module:
        if inputs != 1:
            raise refusal("RTNeural", f"a Residual of {inputs} numbers")
        model["in_skip"] = 1
    write_atomic(path, json.dumps(model).encode())
    read = skipping(*read_layers(path))
    verify_model(module, read, common.is_batch_first(module), verify, report)


def _flat(module: Module) -> Iterator[Module]:
    if isinstance(module, Chain):
        for layer in module.layers:
            yield from _flat(layer)
    else:
        yield module


def _entries(part: Module, width: int) -> list[dict[str, Any]]:
    """What a layer is in the file; width: of what it is given, 0 where that is not known."""
    if type(part) in (LAYERS["lstm"], LAYERS["gru"]):
        return list(_recurrent(part))
    if isinstance(part, Linear):
        bias = part.params.get("bias", np.zeros(part.out_features, part.dtype))
        return [_entry("dense", part.out_features, [part.params["weight"].T, bias])]
    if isinstance(part, Conv1d):
        return [_convolution(part)]
    if isinstance(part, BatchNorm):
        names = ("weight", "bias", "running_mean", "running_var")
        arrays = [part.stored[name] for name in names if name in part.stored]
        return [_entry("batchnorm", part.num_features, arrays) | {"epsilon": part.eps}]
    if isinstance(part, PReLU):
        slopes = part.params["weight"]
        slopes = slopes.repeat(width) if len(slopes) == 1 else slopes
        return [_entry("prelu", len(slopes), [slopes[None]])]
    return [_activation(part, width)]


def _recurrent(layer: Any) -> Iterator[dict[str, Any]]:
    """An entry for each of the stacked layers."""
    common.check_representable("RTNeural", layer, ())
    if layer.bidirectional:
        raise refusal("RTNeural", f"{type(layer).__name__} with bidirectional=True")
    kind = type(layer).__name__
    cell, gates = CELLS[kind]
    zeros = np.zeros(len(gates) * layer.hidden_size, layer.dtype)
    for n in range(layer.num_layers):
        kernel, recurrent, b_x, b_h = (
            common.regate(layer.params.get(f"{name}_l{n}", zeros), GATES[cell], gates)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        bias = np.stack((b_x, b_h)) if kind == "GRU" else b_x + b_h
        entry = _entry(kind.lower(), layer.hidden_size, [kernel.T, recurrent.T, bias])
        yield entry | {"activation": "tanh"}


def _convolution(layer: Conv1d) -> dict[str, Any]:
    axis = layer.axis
    plain = axis._replace(stride=1, before=axis.span - 1, after=0, mode="zeros")
    if axis != plain:
        changed = ", ".join(
            f"{name}={getattr(axis, name)!r}"
            for name in axis._fields
            if getattr(axis, name) != getattr(plain, name)
        )
        raise refusal("RTNeural", f"a Conv1d that is not causal without a stride: {changed}")
    bias = layer.params.get("bias", np.zeros(layer.out_channels or 0, layer.dtype))
    weights = [layer.params["weight"].transpose(2, 1, 0), bias]
    entry = _entry("conv1d", len(bias), weights)
    entry |= {"kernel_size": [axis.taps], "dilation": [axis.dilation]}
    return entry | ({"groups": layer.groups} if layer.groups > 1 else {})


def _entry(kind: str, width: int, weights: Sequence[Array]) -> dict[str, Any]:
    return {
        "type": kind,
        "activation": "",
        "shape": [None, None, width],
        "weights": [array.tolist() for array in weights],
    }


def _activation(part: Module, width: int) -> dict[str, Any]:
    name = "softmax" if isinstance(part, Softmax) and part.axis == -1 else ""
    if isinstance(part, Elementwise):
        kind, alpha, _ = part.spec
        if kind == "leaky_relu":
            return _entry("prelu", width, [np.full((1, width), alpha)])
        if kind in ACTIVATIONS and (kind != "elu" or alpha == 1):
            name = kind
    if not name:
        setting = getattr(part, "activation", getattr(part, "axis", ""))
        raise refusal("RTNeural", f"{type(part).__name__}({setting!r})")
    return _entry("activation", width, []) | {"activation": name}


def _merged(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put activations into the dense layers and convolutions before them."""
    merged: list[dict[str, Any]] = []
    for entry in layers:
        before = merged[-1] if merged else {}
        mixes = before.get("type") in ("dense", "conv1d") and not before["activation"]
        if entry["type"] == "activation" and mixes:
            before["activation"] = entry["activation"]
        else:
            merged.append(entry)
    return merged
