"""Activations as layers: those of the cells, and softmax. They compute in their input's dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_float, as_shape
from .cells import Activation as Name
from .cells import chosen
from .layers import Pullback
from .module import Module, once

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
    "thresholded_relu": (lambda x, a, _: np.where(x <= a, 0, x), lambda y, *_: y > 0),
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
    "softplus": (  # logaddexp warns of NaN
        lambda x, *_: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        lambda y, *_: -np.expm1(-y),
    ),
    "exponential": (lambda x, *_: np.exp(x), lambda y, *_: y),
}


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow, accurate to 4 ulp where it is nearly zero, too."""
    z = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, x.dtype.type(1), z) / (1 + z)
    return y


def _below(x: Array) -> Any:
    return np.expm1(np.minimum(x, 0))


def _step(y: Array, above: Any, below: Any) -> Any:
    return np.where(y > 0, above, below)


class Activation(Module):
    """y = f(x), where dx follows from dy and y alone; the y that `vjp` returns is read-only."""

    pointwise = True

    # Any: what has no axes NumPy turns into a scalar, and NumPy 1 a float32 one into float64.
    def _forward(self, x: Array) -> Any:
        raise NotImplementedError

    def _backward(self, dy: Array, y: Array) -> Any:
        raise NotImplementedError

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        x = as_float("x", x)
        return np.asarray(self._forward(x), x.dtype)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps y."""
        y = self(x).view()
        y.flags.writeable = False

        def pullback(dy: npt.ArrayLike) -> Array:
            return np.asarray(self._backward(as_shape("dy", dy, y.dtype, y.shape), y), y.dtype)

        return y, once(pullback)


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


class Identity(Elementwise):
    """y = x."""

    def __init__(self) -> None:
        super().__init__("identity")


class Tanh(Elementwise):
    """y = tanh(x)."""

    def __init__(self) -> None:
        super().__init__("tanh")


class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        super().__init__("sigmoid")


class ReLU(Elementwise):
    """y = max(x, 0)."""

    def __init__(self) -> None:
        super().__init__("relu")


class Softmax(Activation):
    """y = exp(x) / sum(exp(x)) along one axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis, self.pointwise = axis, axis == -1

    def _forward(self, x: Array) -> Any:
        y = np.exp(x - x.max(axis=self.axis, keepdims=True))
        y /= y.sum(axis=self.axis, keepdims=True)
        return y

    def _backward(self, dy: Array, y: Array) -> Any:
        return y * (dy - (dy * y).sum(axis=self.axis, keepdims=True))
