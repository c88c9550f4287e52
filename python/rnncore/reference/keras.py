"""Layers in Keras's letters, the reference for converted models.

Kernels are (I, G*H) and (H, G*H), biases (G*H,), or (2, G*H) of a GRU that resets after; the gates
are i, f, c, o in an LSTM and z, r, h in a GRU. Sequences are batch-major, (B, T, I).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from .activations import activation

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class KerasLayer:
    """A layer as a Keras model describes it, its activations by rnncore's names."""

    kind: str
    name: str
    config: dict[str, Any]
    weights: list[Array]


def run(layers: Sequence[KerasLayer], x: Array) -> Array:
    """Run the layers one after the other, in the dtype of x or, after an embedding, of float64."""
    for layer in layers:
        weights = [weight.astype(np.float64) for weight in layer.weights]
        x = _LAYERS[layer.kind](layer.config, weights, x)
    return x


def _softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def _function(name: Any) -> Function:
    return _softmax if name == "softmax" else activation(name).value


def _dense(config: dict[str, Any], weights: list[Array], x: Array) -> Array:
    y = x @ weights[0]
    return _function(config["activation"])(y + weights[1] if len(weights) > 1 else y)


def _normalise(config: dict[str, Any], weights: list[Array], x: Array) -> Array:
    gamma, beta = weights
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config["epsilon"])
    y: Array = centred / scale * gamma + beta
    return y


def _recurrent(kind: str) -> Callable[..., Array]:
    def walk(config: dict[str, Any], weights: list[Array], x: Array) -> Array:
        kernel, recurrent, *bias = weights
        step = _STEPS[kind](config, kernel, recurrent, bias[0] if bias else None)
        state = (np.zeros((len(x), len(recurrent))),) * 2
        outputs = []
        for x_t in x.swapaxes(0, 1)[:: -1 if config.get("go_backwards") else 1]:
            state = step(x_t, *state)
            outputs.append(state[0])
        return np.stack(outputs, axis=1) if config.get("return_sequences") else outputs[-1]

    return walk


def _simple_rnn(config: dict[str, Any], kernel: Array, recurrent: Array, bias: Any) -> Any:
    phi, b = _function(config["activation"]), 0 if bias is None else bias
    return lambda x, h, c: (phi(x @ kernel + h @ recurrent + b), c)


def _lstm(config: dict[str, Any], kernel: Array, recurrent: Array, bias: Any) -> Any:
    sigma, tau = _function(config["recurrent_activation"]), _function(config["activation"])
    b = 0 if bias is None else bias

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z_i, z_f, z_c, z_o = np.split(x @ kernel + h @ recurrent + b, 4, axis=1)
        c = sigma(z_f) * c + sigma(z_i) * tau(z_c)
        return sigma(z_o) * tau(c), c

    return step


def _gru(config: dict[str, Any], kernel: Array, recurrent: Array, bias: Any) -> Any:
    sigma, tau = _function(config["recurrent_activation"]), _function(config["activation"])
    after, size = config["reset_after"], len(recurrent)
    b_x, b_h = (0, 0) if bias is None else bias if after else (bias, 0)

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        x_z, x_r, x_h = np.split(x @ kernel + b_x, 3, axis=1)
        h_z, h_r, h_h = np.split(h @ recurrent + b_h, 3, axis=1)
        z, r = sigma(x_z + h_z), sigma(x_r + h_r)
        n = tau(x_h + (r * h_h if after else (r * h) @ recurrent[:, 2 * size :]))
        return z * h + (1 - z) * n, c

    return step


def _bidirectional(config: dict[str, Any], weights: list[Array], x: Array) -> Array:
    half = len(weights) // 2
    ahead, behind = (
        _LAYERS[kind](part, weights[at : at + half], x)
        for at, (kind, part) in zip((0, half), config["parts"], strict=True)
    )
    if behind.ndim == 3:
        behind = behind[:, ::-1]
    merge = config["merge_mode"]
    if merge == "concat":
        return np.concatenate((ahead, behind), axis=-1)
    if merge == "mul":
        return ahead * behind
    return (ahead + behind) / (2 if merge == "ave" else 1)


_STEPS = {"SimpleRNN": _simple_rnn, "LSTM": _lstm, "GRU": _gru}
_LAYERS: dict[str, Callable[[dict[str, Any], list[Array], Array], Array]] = {
    "Activation": lambda config, _, x: _function(config["activation"])(x),
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Dropout": lambda config, weights, x: x,
    "Embedding": lambda config, weights, x: weights[0][x],
    "LayerNormalization": _normalise,
} | {kind: _recurrent(kind) for kind in _STEPS}
