"""Layers that see each row by itself, in Keras's letters: kernels are (I, O)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from ..activations import activation

Settings = dict[str, Any]


def softmax(a: Array, axis: int = -1) -> Array:
    """exp(a) / sum(exp(a)) along an axis."""
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    y: Array = e / e.sum(axis=axis, keepdims=True)
    return y


def function(name: Any) -> Callable[[Array], Array]:
    """Return an activation by rnncore's name."""
    return softmax if name == "softmax" else activation(name).value


def _activation(config: Settings, _: list[Array], x: Array) -> Array:
    axis = config.get("axis", -1)
    return softmax(x, axis) if axis != -1 else function(config["activation"])(x)


def _dense(config: Settings, weights: list[Array], x: Array) -> Array:
    y = x @ weights[0]
    return function(config["activation"])(y + weights[1] if len(weights) > 1 else y)


def _layer_normalization(config: Settings, weights: list[Array], x: Array) -> Array:
    gamma, beta = weights
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config["epsilon"])
    y: Array = centred / scale * gamma + beta
    return y


def _batch_normalization(config: Settings, weights: list[Array], x: Array) -> Array:
    gamma, beta, mean, variance = weights
    y: Array = (x - mean) / np.sqrt(variance + config["epsilon"]) * gamma + beta
    return y


KINDS: dict[str, Callable[..., Any]] = {
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Dense": _dense,
    "Dropout": lambda config, weights, x: x,
    "Embedding": lambda config, weights, x: weights[0][x],
    "LayerNormalization": _layer_normalization,
    "PReLU": lambda config, weights, x: np.where(x > 0, x, weights[0] * x),
}
