"""Layers of several inputs, and those that only move numbers, in Keras's letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from .pointwise import softmax

Settings = dict[str, Any]


def _dot(config: Settings, _: list[Array], a: Array, b: Array) -> Array:
    if config.get("normalize"):
        a, b = (
            x / np.linalg.norm(x, axis=axis, keepdims=True)
            for x, axis in zip((a, b), config["axes"], strict=True)
        )
    first, second = (axis - 1 if axis > 0 else axis for axis in config["axes"])  # of one item
    y = np.stack([np.tensordot(p, q, (first, second)) for p, q in zip(a, b, strict=True)])
    return y if y.ndim > 1 else y[:, None]


def _attention(config: Settings, weights: list[Array], query: Array, *rest: Array) -> Array:
    value, key = rest[0], rest[-1]
    scores = query @ key.swapaxes(1, 2)
    y: Array = softmax(scores * weights[0] if weights else scores) @ value
    return y


def _additive(config: Settings, weights: list[Array], query: Array, *rest: Array) -> Array:
    value, key = rest[0], rest[-1]
    hidden = np.tanh(query[:, :, None] + key[:, None])
    y: Array = softmax((hidden * weights[0]).sum(axis=-1)) @ value
    return y


def _pad(config: Settings, _: list[Array], x: Array) -> Array:
    return np.pad(x, [(0, 0), *config["padding"], (0, 0)])


KINDS: dict[str, Callable[..., Any]] = {
    "Add": lambda c, w, *xs: sum(xs[1:], xs[0]),
    "AdditiveAttention": _additive,
    "Attention": _attention,
    "Average": lambda c, w, *xs: sum(xs[1:], xs[0]) / len(xs),
    "Concatenate": lambda c, w, *xs: np.concatenate(xs, axis=c["axis"]),
    "Dot": _dot,
    "Flatten": lambda c, w, x: x.reshape(len(x), -1),
    "Maximum": lambda c, w, *xs: np.max(np.broadcast_arrays(*xs), axis=0),
    "Minimum": lambda c, w, *xs: np.min(np.broadcast_arrays(*xs), axis=0),
    "Multiply": lambda c, w, *xs: np.prod(np.broadcast_arrays(*xs), axis=0),
    "Permute": lambda c, w, x: x.transpose(0, *c["dims"]),
    "RepeatVector": lambda c, w, x: np.stack([x] * c["n"], axis=1),
    "Reshape": lambda c, w, x: x.reshape(len(x), *c["target_shape"]),
    "Subtract": lambda c, w, a, b: a - b,
    "ZeroPadding": _pad,
}
