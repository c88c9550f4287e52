"""The activations of the cells as layers of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .arrays import Array
from .cells import Activation as Name
from .cells import chosen
from .layers import Activation, sigmoid

#: From x or y, alpha and beta, which not every activation has.
_Function: TypeAlias = Callable[[Array, float, float], Any]
_SCALE, _INNER = 1.0507009873554805, 1.6732632423543772

#: y = f(x), and the slope of f where its value is y.
_FUNCTIONS: dict[str, tuple[_Function, _Function]] = {
    "sigmoid": (lambda x, *_: sigmoid(x), lambda y, *_: y * (1 - y)),
    "tanh": (lambda x, *_: np.tanh(x), lambda y, *_: 1 - y * y),
    "relu": (lambda x, *_: np.maximum(x, 0), lambda y, *_: y > 0),
    "identity": (lambda x, *_: x, lambda y, *_: np.ones_like(y)),
    "affine": (lambda x, a, b: a * x + b, lambda y, a, _: np.full_like(y, a)),
    "leaky_relu": (lambda x, a, _: np.where(x > 0, x, a * x), lambda y, a, _: _step(y, 1, a)),
    "thresholded_relu": (lambda x, a, _: np.where(x > a, x, 0), lambda y, *_: y > 0),
    "scaled_tanh": (lambda x, a, b: a * np.tanh(b * x), lambda y, a, b: b * (a - y * y / a)),
    "hard_sigmoid": (
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda y, a, _: a * ((y > 0) & (y < 1)),
    ),
    "elu": (lambda x, a, _: np.where(x > 0, x, a * _below(x)), lambda y, a, _: _step(y, 1, y + a)),
    "selu": (
        lambda x, *_: _SCALE * np.where(x > 0, x, _INNER * _below(x)),
        lambda y, *_: _step(y, _SCALE, y + _SCALE * _INNER),
    ),
    "softsign": (lambda x, *_: x / (1 + np.abs(x)), lambda y, *_: (1 - np.abs(y)) ** 2),
    "softplus": (lambda x, *_: np.logaddexp(x, 0), lambda y, *_: -np.expm1(-y)),
    "exponential": (lambda x, *_: np.exp(x), lambda y, *_: y),
}


def _below(x: Array) -> Any:
    return np.expm1(np.minimum(x, 0))


def _step(y: Array, above: Any, below: Any) -> Any:
    return np.where(y > 0, above, below)


class Elementwise(Activation):
    """y = f(x), for any activation that a recurrent layer can have.

    activation: a name of `rnncore.cells.ACTIVATIONS`, (name, alpha) or (name, alpha, beta).
    """

    def __init__(self, activation: Name) -> None:
        super().__init__()
        self.activation = activation
        self.chosen = chosen("activation", activation)

    def _forward(self, x: Array) -> Any:
        name, *constants = self.chosen
        return _FUNCTIONS[name][0](x, *constants)

    def _backward(self, dy: Array, y: Array) -> Any:
        name, *constants = self.chosen
        return dy * _FUNCTIONS[name][1](y, *constants)
