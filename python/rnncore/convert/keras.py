"""Keras: lists of weights, and saved models; made into layers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt

from ..arrays import Array
from ..files import one_line
from ..reference.keras import KerasLayer
from . import common, keras_files
from .common import GATES, Report, Verify
from .keras_weights import CELLS, activation_name, from_layers, verify_layers


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
