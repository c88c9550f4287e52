"""RTNeural's JSON: layers of numbers one after the other, weights as Keras lays them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, write_atomic
from ..compositions.chain import Chain
from ..layers.activations import Elementwise, Identity, Softmax
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..module import Module
from ..precision import dequantized
from ..recurrent.registry import LAYERS
from ..reference.keras import KerasLayer
from . import common
from .common import GATES, Report, Verify, refusal, shown
from .keras.makers import from_layers
from .keras.settings import CELLS
from .keras.verify import verify_layers

_KINDS = {"dense": "Dense", "time-distributed-dense": "Dense", "lstm": "LSTM", "gru": "GRU"}
_ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")


def from_rtneural(
    path: str | os.PathLike[str],
    *,
    dtype: npt.DTypeLike = "float32",
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a module of an RTNeural model: a `Chain`, or the layer alone; inputs are `(T, B, I)`.

    Dense, LSTM, GRU and activations, and prelu with one slope; other layers (conv1d, batchnorm)
    raise `ValueError` naming them. verify: as `from_keras`.
    """
    with _readable(path):
        layers = _read(path)
        module = from_layers(layers, False, np.dtype(dtype))
    verify_layers(module, layers, False, verify, report)
    return module


def to_rtneural(
    module: Module,
    path: str | os.PathLike[str],
    *,
    verify: Verify = None,
    report: Report = print,
) -> None:
    """Write a module as RTNeural's JSON, replaced atomically.

    A `Chain` of LSTM and GRU (in one direction, stacked or not, without variants), Linear and the
    activations tanh, relu, sigmoid, softmax, elu and leaky_relu; anything else raises `ValueError`
    naming it. A model with weights in fewer bits is written as the float32 model with the same
    weights. verify: read the file back and compare, in Keras's letters.
    """
    module = dequantized(module)
    layers: list[dict[str, Any]] = []
    for part in _flat(module):
        if type(part) in (LAYERS["lstm"], LAYERS["gru"]):
            layers += _recurrent(part)
        elif isinstance(part, Linear):
            bias = part.params.get("bias", np.zeros(part.out_features, part.dtype))
            layers.append(_entry("dense", "", part.out_features, [part.params["weight"].T, bias]))
        elif not isinstance(part, (Dropout, Identity)):
            _add_activation(layers, part)
    if not layers:
        raise refusal("RTNeural", "a model without layers")
    inputs = np.shape(layers[0]["weights"][0])[0] if layers[0]["weights"] else 0
    if not inputs:
        raise refusal("RTNeural", "a model that begins with an activation: its width is unknown")
    model = {"in_shape": [None, None, inputs], "layers": layers}
    write_atomic(path, json.dumps(model).encode())
    verify_layers(module, _read(path), common.is_batch_first(module), verify, report)


def _readable(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    if os.path.exists(path) and not os.path.isfile(path):  # a device may never end
        raise ValueError(f"{os.fspath(path)} is not a file")
    return common.readable(os.fspath(path), "cannot be read as an RTNeural model", ValueError)


def _read(path: str | os.PathLike[str]) -> list[KerasLayer]:
    model = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    width = int(model["in_shape"][-1])
    layers: list[KerasLayer] = []
    for at, entry in enumerate(model["layers"]):
        layers += _described(f"layer {at}", entry)
    if not layers or not layers[0].weights or len(layers[0].weights[0]) != width:
        raise ValueError(f"the first layer does not read the {width} numbers of in_shape")
    return layers


def _described(name: str, entry: dict[str, Any]) -> Iterator[KerasLayer]:
    kind, activation = entry["type"], entry.get("activation") or ""
    weights = [_numbers(name, array) for array in entry.get("weights") or []]
    if kind in ("lstm", "gru"):
        if activation not in ("", "tanh"):
            raise refusal(
                "rnncore", f"{name}: RTNeural's {kind} with activation {shown(activation)}"
            )
        config = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
        config |= {"reset_after": True, "return_sequences": True}
        wanted = (2, 2, 1) if kind == "lstm" else (2, 2, 2)
        if tuple(array.ndim for array in weights) != wanted:
            raise ValueError(f"{name}: {kind} must have weights of {wanted} axes")
        yield KerasLayer(_KINDS[kind], name, config, weights)
    elif kind in _KINDS:
        yield KerasLayer("Dense", name, {"activation": "identity"}, weights)
        yield from _activation(name, activation)
    elif kind == "activation":
        yield from _activation(name, activation)
    elif kind == "prelu":
        yield from _slope(name, weights)
    else:
        raise refusal("rnncore", f"{name}: RTNeural's {kind}")


def _numbers(name: str, value: Any) -> Array:
    """An array of what JSON says; NumPy alone would take texts and null for numbers too."""
    array = np.asarray(value, object)
    if array.ndim > 3 or not set(map(type, array.flat)) <= {
        int,
        float,
    }:  # no weights have more axes
        raise ValueError(f"{name}: weights must be numbers, in rows of equal length")
    return array.astype(np.float64)


def _activation(name: str, activation: str) -> Iterator[KerasLayer]:
    if activation:
        if activation not in _ACTIVATIONS:
            raise refusal("rnncore", f"{name}: RTNeural's activation {shown(activation)}")
        yield KerasLayer("Activation", name, {"activation": activation}, [])


def _slope(name: str, weights: list[Array]) -> Iterator[KerasLayer]:
    slopes = np.unique(weights[0]) if weights else np.zeros(0)
    if len(slopes) != 1:
        raise refusal("rnncore", f"{name}: RTNeural's prelu with a slope for each number")
    yield KerasLayer("Activation", name, {"activation": ("leaky_relu", float(slopes[0]))}, [])


def _flat(module: Module) -> Iterator[Module]:
    if isinstance(module, Chain):
        for layer in module.layers:
            yield from _flat(layer)
    else:
        yield module


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
        yield _entry(kind.lower(), "tanh", layer.hidden_size, [kernel.T, recurrent.T, bias])


def _entry(kind: str, activation: str, width: int, weights: Sequence[Array]) -> dict[str, Any]:
    return {
        "type": kind,
        "activation": activation,
        "shape": [None, None, width],
        "weights": [array.tolist() for array in weights],
    }


def _add_activation(layers: list[dict[str, Any]], part: Module) -> None:
    """Add an activation to the dense layer before it, or as an entry of its own."""
    width = layers[-1]["shape"][-1] if layers else 0
    name = "softmax" if isinstance(part, Softmax) and part.axis == -1 else ""
    if isinstance(part, Elementwise):
        kind, alpha, _ = part.spec
        if kind == "leaky_relu":
            layers.append(_entry("prelu", "", width, [np.full((1, width), alpha)]))
            return
        if kind in _ACTIVATIONS and (kind != "elu" or alpha == 1):
            name = kind
    if not name:
        setting = getattr(part, "activation", getattr(part, "axis", ""))
        raise refusal("RTNeural", f"{type(part).__name__}({setting!r})")
    if layers and layers[-1]["type"] == "dense" and not layers[-1]["activation"]:
        layers[-1]["activation"] = name
    else:
        layers.append(_entry("activation", name, width, []))
