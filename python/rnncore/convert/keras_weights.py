"""Layers as Keras says and lays them, made into modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..compositions.bidirectional import Bidirectional, Reversed
from ..compositions.readout import Readout
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.layer_norm import LayerNorm
from ..layers.linear import Linear
from ..module import Module
from ..recurrent.registry import LAYERS
from ..reference import keras as oracle
from ..reference.keras import KerasLayer
from . import common
from .common import GATES, Report, Verify, refusal, shown

#: Keras's classes: our names of their cells, and the order of their gates in our letters.
CELLS = {"SimpleRNN": ("rnn", "h"), "LSTM": ("lstm", "ifgo"), "GRU": ("gru", "zrn")}
_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


def verify_layers(
    module: Any, layers: Sequence[KerasLayer], batch_first: bool, verify: Verify, report: Report
) -> None:
    """Check a module against its layers in Keras's letters, if that is asked for."""

    def reference(x: Array) -> Array:
        y = oracle.run(layers, x if batch_first else x.swapaxes(0, 1))
        return y if batch_first or y.ndim < 3 else y.swapaxes(0, 1)

    if verify is not None and verify is not False:
        common.verify_module(module, verify, reference, report)


def from_layers(
    layers: Sequence[KerasLayer], batch_first: bool, dtype: npt.DTypeLike | None
) -> Any:
    """Return the modules of layers one after the other, in this dtype or the widest of theirs."""
    arrays = [array for layer in layers for array in layer.weights]
    if not arrays:
        raise refusal("rnncore", "a Keras model without weights")
    options = {"batch_first": batch_first, "dtype": common.dtype_of(arrays, dtype)}
    modules = [module for layer in layers for module in _modules(layer, options)]
    return common.chain_of(modules)


def activation_name(name: Any, version: int = 3) -> Any:
    """Translate a Keras activation; raises `ValueError` naming what rnncore has not."""
    if isinstance(name, dict):  # as newer files write a function
        name = name.get("config")
    if isinstance(name, (tuple, list)):
        return tuple(name)
    hard = (1 / 6, 0.5) if version >= 3 else (0.2, 0.5)
    translated = {"linear": "identity", None: "identity", "leaky_relu": ("leaky_relu", 0.2)}
    translated |= {"hard_sigmoid": ("hard_sigmoid", *hard)}
    same = ("tanh", "sigmoid", "relu", "softmax", "elu", "selu", "softsign", "softplus")
    translated |= {name: name for name in (*same, "exponential", "identity")}
    if not isinstance(name, str | None) or name not in translated:
        raise refusal("rnncore", f"the Keras activation {shown(name)}")
    return translated[name]


def _modules(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    """What one layer becomes: itself, and its activation."""
    makers: dict[str, Callable[[KerasLayer, dict[str, Any]], list[Module]]] = {
        "Activation": _activation,
        "Bidirectional": _bidirectional,
        "Dense": _dense,
        "Dropout": lambda layer, _: [Dropout(layer.config["rate"])],
        "Embedding": _embedding,
        "LayerNormalization": _layer_norm,
    }
    return makers.get(layer.kind, _single)(layer, options)


def _activation(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    made = common.activation_layer(layer.config["activation"])
    return [made] if made else []


def _dense(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    kernel, *bias = _shaped(layer, [2, 1])
    inputs, outputs = kernel.shape
    linear = Linear(inputs, outputs, bool(bias), dtype=options["dtype"])
    params = dict(zip(("weight", "bias"), (kernel.T, *bias), strict=False))
    return [common.filled(linear, params), *_activation(layer, options)]


def _embedding(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    (table,) = _shaped(layer, [2])
    return [common.filled(Embedding(*table.shape, dtype=options["dtype"]), {"weight": table})]


def _layer_norm(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    gamma, beta = _shaped(layer, [1, 1])
    norm = LayerNorm(len(gamma), layer.config["epsilon"], dtype=options["dtype"])
    return [common.filled(norm, {"weight": gamma, "bias": beta})]


def _shaped(layer: KerasLayer, axes: list[int]) -> list[Array]:
    """A layer's arrays, whose numbers of axes are these; the last may be missing."""
    found = [array.ndim for array in layer.weights]
    if not found or found != axes[: len(found)]:
        raise ValueError(
            f"{layer.kind} {shown(layer.name)} has arrays of {found} axes, expected {axes}"
        )
    return layer.weights


def _single(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    """A recurrent layer in one direction."""
    config = layer.config
    module: Module = _recurrent(layer.kind, config, [layer.weights], options)
    if config.get("go_backwards"):
        module = Reversed(module)
    if config["return_sequences"]:
        if config.get("go_backwards"):  # Keras leaves the outputs in the order they were made in
            raise refusal("rnncore", f"{layer.kind} {shown(layer.name)} with go_backwards=True")
        return [module]
    return [Readout(module)]


def _bidirectional(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    """Two layers: one of ours where they are alike, side by side; else a `Bidirectional`."""
    (kind, ahead), (behind_kind, behind) = layer.config["parts"]
    merge = layer.config["merge_mode"]
    if merge not in _MERGES:
        raise refusal(
            "rnncore",
            f"Bidirectional {shown(layer.name)} with merge_mode={shown(merge)}",
        )
    half = len(layer.weights) // 2
    weights = layer.weights[:half], layer.weights[half:]
    same = ("activation", "recurrent_activation", "reset_after", "use_bias")
    alike = kind == behind_kind and all(ahead.get(name) == behind.get(name) for name in same)
    alike = alike and all(a.shape == b.shape for a, b in zip(*weights, strict=True))
    if merge == "concat" and alike:
        module: Module = _recurrent(kind, ahead, list(weights), options)
    else:
        module = Bidirectional(
            _recurrent(kind, ahead, [weights[0]], options),
            _recurrent(behind_kind, behind, [weights[1]], options),
            _MERGES[merge],
        )
    return [module if ahead["return_sequences"] else Readout(module)]


def _recurrent(
    kind: str, config: dict[str, Any], directions: list[list[Array]], options: dict[str, Any]
) -> Module:
    """One layer of ours, in one direction or two."""
    cell, gates = CELLS[kind]
    candidate = config["activation"]
    if "softmax" in (candidate, config.get("recurrent_activation")):
        raise refusal("rnncore", f"{kind} with the activation 'softmax'")
    own: dict[str, Any] = {"nonlinearity": candidate}
    if kind != "SimpleRNN":
        pair = (config["recurrent_activation"], candidate)
        own = {"activations": pair if kind == "GRU" else (*pair, candidate)}
    if kind == "GRU":
        own["reset_after"] = config["reset_after"]
    size, columns = _sizes(kind, directions)
    layer = LAYERS[cell](
        size,
        columns // len(gates),
        bias=len(directions[0]) > 2,
        bidirectional=len(directions) == 2,
        **own,
        **options,
    )
    params: dict[str, Array] = {}
    for suffix, weights in zip(("_l0", "_l0_reverse"), directions, strict=False):
        params |= {
            name + suffix: common.regate(array, gates, GATES[cell])
            for name, array in _rows(*weights).items()
        }
    return common.filled(layer, params)  # type: ignore[no-any-return]


def _sizes(kind: str, directions: list[list[Array]]) -> tuple[int, int]:
    """The shape of the kernels; raises `ValueError` where other arrays do not go with it."""
    for weights in directions:
        axes = [array.ndim for array in weights]
        if axes not in ([2, 2], [2, 2, 1], [2, 2, 2]) or len(axes) != len(directions[0]):
            raise ValueError(f"{kind} has arrays of {axes} axes, expected [2, 2] or [2, 2, 1]")
    size, columns = directions[0][0].shape
    shapes = [[array.shape for array in weights] for weights in directions]
    recurrent = (columns // len(CELLS[kind][1]), columns)
    for found in shapes:
        biases = ((columns,), (2, columns))
        if found[:2] != [(size, columns), recurrent] or not set(found[2:]) <= set(biases):
            raise ValueError(
                f"{kind} has arrays of shapes {', '.join(map(str, found))}; with that kernel, "
                f"expected {(size, columns)}, {recurrent} and a bias {biases[0]} or {biases[1]}"
            )
    return size, columns


def _rows(kernel: Array, recurrent: Array, bias: Array | None = None) -> dict[str, Array]:
    """The arrays of one direction as rows; a bias of one row is the input's."""
    rows = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    if bias is None:
        return rows
    both = bias if bias.ndim == 2 else np.stack((bias, np.zeros_like(bias)))
    return rows | {"bias_ih": both[0], "bias_hh": both[1]}
