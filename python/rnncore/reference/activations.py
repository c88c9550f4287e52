"""Elementwise functions, each with its derivative told from the function's own value.

alpha and beta mean what they mean in ONNX, and have its defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array

#: A name, (name, alpha) or (name, alpha, beta).
ActivationName: TypeAlias = str | tuple[str, float] | tuple[str, float, float]


class Activation(NamedTuple):
    """An elementwise function, and its derivative told from the function's own value."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]

    def __call__(self, a: Array) -> Array:
        """Apply the function."""
        return self.value(a)


def affine(alpha: float = 1.0, beta: float = 0.0) -> Activation:
    """alpha a + beta."""
    return Activation(lambda a: alpha * a + beta, lambda y: alpha * np.ones_like(y))


def leaky_relu(alpha: float = 0.01) -> Activation:
    """a if that is positive, else alpha a, where alpha >= 0."""
    return Activation(
        lambda a: np.where(a > 0, a, alpha * a),
        lambda y: np.where(y > 0, 1, alpha).astype(y.dtype),
    )


def thresholded_relu(alpha: float = 1.0) -> Activation:
    """a if that is above alpha, else 0."""
    return Activation(lambda a: np.where(a > alpha, a, 0), lambda y: (y != 0).astype(y.dtype))


def scaled_tanh(alpha: float = 1.0, beta: float = 1.0) -> Activation:
    """alpha tanh(beta a)."""
    return Activation(lambda a: alpha * np.tanh(beta * a), lambda y: beta * (alpha - y * y / alpha))


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Activation:
    """alpha a + beta, held between 0 and 1."""
    return Activation(
        lambda a: np.clip(alpha * a + beta, 0, 1),
        lambda y: alpha * ((y > 0) & (y < 1)).astype(y.dtype),
    )


def elu(alpha: float = 1.0) -> Activation:
    """a if that is positive, else alpha (exp(a) - 1), where alpha >= 0 (Clevert et al. 2015)."""
    return Activation(
        lambda a: np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0))),
        lambda y: np.where(y > 0, 1, y + alpha),
    )


def selu() -> Activation:
    """An elu scaled so that mean 0 and variance 1 stay (Klambauer et al. 2017)."""
    scale, inner = 1.0507009873554805, elu(1.6732632423543772)
    return Activation(lambda a: scale * inner(a), lambda y: scale * inner.slope(y / scale))


def clipped(f: Activation, bound: float) -> Activation:
    """f(a held within +-bound), for an f that never turns; flat where the bound holds a."""

    def slope(y: Array) -> Array:
        ends = [f(np.full_like(y, end)) for end in (-bound, bound)]
        return np.where((y == ends[0]) | (y == ends[1]), 0, f.slope(y))

    return Activation(lambda a: f(np.clip(a, -bound, bound)), slope)


# The logistic function 1 / (1 + exp(-a)), written so that nothing overflows; and once more, slower,
# with all digits of its small values, for cells that divide by them.
SIGMOID = Activation(lambda a: 0.5 * np.tanh(0.5 * a) + 0.5, lambda y: y * (1 - y))
LOGISTIC = Activation(
    lambda a: np.exp(np.minimum(a, 0)) / (1 + np.exp(-np.abs(a))), lambda y: y * (1 - y)
)
TANH = Activation(np.tanh, lambda y: 1 - y * y)
RELU = Activation(lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(y.dtype))
IDENTITY = Activation(lambda a: a, np.ones_like)
SOFTSIGN = Activation(lambda a: a / (1 + np.abs(a)), lambda y: (1 - np.abs(y)) ** 2)
# log(1 + exp(a)); its derivative is the logistic function.
SOFTPLUS = Activation(
    lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))), lambda y: -np.expm1(-y)
)
EXPONENTIAL = Activation(np.exp, lambda y: y)

#: What makes each activation, from alpha and beta where it has them.
ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "sigmoid": lambda: SIGMOID,
    "tanh": lambda: TANH,
    "relu": lambda: RELU,
    "identity": lambda: IDENTITY,
    "affine": affine,
    "leaky_relu": leaky_relu,
    "thresholded_relu": thresholded_relu,
    "scaled_tanh": scaled_tanh,
    "hard_sigmoid": hard_sigmoid,
    "elu": elu,
    "selu": selu,
    "softsign": lambda: SOFTSIGN,
    "softplus": lambda: SOFTPLUS,
    "exponential": lambda: EXPONENTIAL,
}


def activation(name: ActivationName) -> Activation:
    """The activation of this name, which may bring its alpha and beta."""
    name, *constants = (name,) if isinstance(name, str) else name
    return ACTIVATIONS[name](*constants)
