"""Recurrent layers as Keras says and lays them, made into ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arrays import Array
from ...compositions.bidirectional import Bidirectional, Reversed
from ...compositions.readout import Readout
from ...module import Module
from ...recurrent.registry import LAYERS
from ...reference.keras import KerasLayer
from .. import common
from ..common import GATES, refusal, shown
from .settings import CELLS

_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}


def single(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    """Return a layer in one direction."""
    config = layer.config
    module: Module = _recurrent(layer.kind, config, [layer.weights], options)
    if config.get("go_backwards"):
        module = Reversed(module)
    if config["return_sequences"]:
        in_place = not config.get("go_backwards") or config.get("reverse_outputs")
        if not in_place:  # Keras leaves the outputs in the order they were made in
            raise refusal(
                "rnncore",
                f"{layer.kind} {shown(layer.name)} with go_backwards=True and "
                "return_sequences=True",
            )
        return [module]
    return [Readout(module)]


def bidirectional(layer: KerasLayer, options: dict[str, Any]) -> list[Module]:
    """Return two layers: one of ours where they are alike, side by side; else a `Bidirectional`."""
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
