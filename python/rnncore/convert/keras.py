"""Keras: lists of weights, and saved models; made into layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..compositions.bidirectional import Bidirectional, Reversed
from ..compositions.readout import Readout
from ..files import one_line
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.layer_norm import LayerNorm
from ..layers.linear import Linear
from ..module import Module
from ..reference import keras as oracle
from ..reference.keras import KerasLayer
from . import common
from .common import CLASSES, GATES, Report, Verify, refusal, shown

#: Keras's classes: our names of their cells, and the order of their gates in our letters.
CELLS = {"SimpleRNN": ("rnn", "h"), "LSTM": ("lstm", "ifgo"), "GRU": ("gru", "zrn")}
_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


def from_keras(
    source: str | os.PathLike[str] | Sequence[npt.ArrayLike],
    cell: str | None = None,
    *,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    reset_after: bool | None = None,
    merge_mode: str = "concat",
    lengths: bool = False,
    batch_first: bool = True,
    dtype: npt.DTypeLike | None = None,
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a module of Keras weights, or of a saved model: a `.keras` or `.h5` file.

    Weights: what `layer.get_weights()` gives for a SimpleRNN, LSTM or GRU, or for a Bidirectional
    of one (the backward layer's after the forward's). The class is read off the shapes, or told by
    `cell`: "rnn", "lstm", "gru"; `reset_after` is read off the bias and needed only without one.
    Activations are Keras's names, or rnncore's with constants: ("hard_sigmoid", 0.2, 0.5) is that
    of Keras 2, the name alone that of Keras 3. The layer returns whole sequences.

    A file (h5py reads it, the extra "convert") holds a Sequential model or a Functional one without
    branches, of SimpleRNN, LSTM, GRU, Bidirectional, Dense, Embedding, LayerNormalization, Dropout
    and activations; it becomes a `Chain`, or the layer alone. A layer that returns its last output
    only becomes a `Readout`. Anything else raises `ValueError` naming it, and so do links to other
    files and what asks for memory out of proportion to the file. lengths=True takes
    Masking and mask_zero for granted: the caller gives `lengths` in the place of masks.

    What concerns training alone (initialisers, dropout inside of layers) is left behind. verify: as
    `from_torch`; the reference computes in Keras's letters.
    """
    if isinstance(source, (str, os.PathLike)):
        from . import keras_files

        with keras_files.readable(source):
            layers = keras_files.read_model(source, lengths)
            module = from_layers(layers, batch_first, dtype)
    elif not isinstance(source, Iterable):
        raise TypeError(
            "source must be what get_weights() gives, a list of arrays, or the path of a model; "
            f"got {type(source).__name__}"
        )
    else:
        options = {"activation": activation, "recurrent_activation": recurrent_activation}
        options |= {"reset_after": reset_after, "merge_mode": merge_mode}
        layers = [_from_weights(source, cell, options)]
        module = from_layers(layers, batch_first, dtype)
    verify_layers(module, layers, batch_first, verify, report)
    return module


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


def _from_weights(
    source: Sequence[npt.ArrayLike], cell: str | None, options: dict[str, Any]
) -> KerasLayer:
    weights = [common.as_floats(f"array {at}", array) for at, array in enumerate(source)]
    if len(weights) not in (2, 3, 4, 6) or any(array.ndim != 2 for array in weights[:2]):
        shapes = ", ".join(str(array.shape) for array in weights)
        raise ValueError(
            "weights must be kernel, recurrent kernel and, it may be, bias, of one direction or "
            f"two; got arrays of shapes {one_line(shapes, 200) or 'none at all'}"
        )
    per_direction = len(weights) // 2 if len(weights) in (4, 6) else len(weights)
    kind = _kind(weights[0], weights[1], cell)
    config = {
        "activation": activation_name(options["activation"]),
        "recurrent_activation": activation_name(options["recurrent_activation"]),
        "use_bias": per_direction == 3,
        "return_sequences": True,
    }
    if kind == "GRU":
        config["reset_after"] = _reset_after(weights[:per_direction], options["reset_after"])
    if per_direction == len(weights):
        return KerasLayer(kind, kind, config, weights)
    parts = [(kind, config), (kind, config | {"go_backwards": True})]
    both = {"parts": parts, "merge_mode": options["merge_mode"]}
    return KerasLayer("Bidirectional", "Bidirectional", both, weights)


def _kind(kernel: Array, recurrent: Array, cell: str | None) -> str:
    """The class by the number of gates."""
    size, columns = recurrent.shape
    kinds = {len(gates): (name, mine) for name, (mine, gates) in CELLS.items()}
    kind, mine = kinds.get(columns // size if size and columns % size == 0 else 0, ("", ""))
    if cell is not None and cell not in GATES:
        raise ValueError(f"cell must be one of {', '.join(GATES)}, got {cell!r}")
    if not kind or kernel.shape[1] != columns or cell not in (None, mine):
        raise ValueError(
            f"a kernel of shape {kernel.shape} and a recurrent kernel of shape {recurrent.shape} "
            f"make no {cell or 'SimpleRNN, LSTM or GRU'}"
        )
    return kind


def _reset_after(weights: list[Array], told: bool | None) -> bool:
    found = weights[2].ndim == 2 if len(weights) > 2 else told is None or told
    if told is not None and bool(told) != found:
        raise ValueError(f"reset_after={told} does not go with a bias of shape {weights[2].shape}")
    return found


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
    squash = config["activation"]
    if "softmax" in (squash, config.get("recurrent_activation")):
        raise refusal("rnncore", f"{kind} with the activation 'softmax'")
    chosen: dict[str, Any] = {"nonlinearity": squash}
    if kind != "SimpleRNN":
        pair = (config["recurrent_activation"], squash)
        chosen = {"activations": pair if kind == "GRU" else (*pair, squash)}
    if kind == "GRU":
        chosen["reset_after"] = config["reset_after"]
    size, columns = _sizes(kind, directions)
    layer = CLASSES[cell](
        size,
        columns // len(gates),
        bias=len(directions[0]) > 2,
        bidirectional=len(directions) == 2,
        **chosen,
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
