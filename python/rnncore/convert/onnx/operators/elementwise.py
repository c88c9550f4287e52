"""What is computed number by number: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from ....arrays import Array
from ....layers.activations import Elementwise
from .arguments import Operator


def _unary(name: str) -> Operator:
    layer = Elementwise(name)
    return lambda x: layer(x)


def _slope(name: str, default: float) -> Operator:
    return lambda x, *, alpha=default: Elementwise((name, alpha))(x)


def _plain(function: Operator) -> Operator:
    """A function of NumPy's with one input, and no more arguments."""
    return lambda x: function(x)


def _pair(function: Operator) -> Operator:
    return lambda a, b: function(a, b)


def _hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return Elementwise(("hard_sigmoid", alpha, beta))(x)


def _celu(x: Array, *, alpha: float = 1.0) -> Array:
    a = x.dtype.type(alpha)
    y: Array = np.maximum(x, 0) + np.minimum(a * np.expm1(np.minimum(x, 0) / a), 0)
    return y


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.flat], x.dtype).reshape(x.shape)


def _gelu(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "tanh":
        inner = np.tanh(x.dtype.type(math.sqrt(2 / math.pi)) * (x + 0.044715 * x * x * x))
    else:
        inner = _erf(x * x.dtype.type(math.sqrt(0.5)))
    y: Array = x * (1 + inner) / 2
    return y


def _selu(x: Array, *, alpha: float = 1.67326319, gamma: float = 1.05070102) -> Array:
    y = gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return y.astype(x.dtype)


def _shrink(x: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    y: Array = np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)
    return y


def _swish(x: Array, *, alpha: float = 1.0) -> Array:
    y: Array = x * Elementwise("sigmoid")(x * x.dtype.type(alpha))
    return y


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient: Array = np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)
    return quotient.astype(a.dtype)


def _mod(a: Array, b: Array, *, fmod: int = 0) -> Array:
    """What is left, with the sign of b; with that of a for `fmod`."""
    y: Array = np.fmod(a, b) if fmod else np.mod(a, b)
    return y


def _clip(x: Array, low: Any = None, high: Any = None, **bounds: float) -> Array:
    low, high = bounds.get("min", low), bounds.get("max", high)
    return x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


def _is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    y: Array = np.isinf(x) & np.where(x > 0, bool(detect_positive), bool(detect_negative))
    return y


def _cast(x: Array, *, to: Any, saturate: int = 1, round_mode: str = "up") -> Array:
    if np.dtype(to).kind not in "fiub" or np.dtype(to).type.__module__ != "numpy":
        raise ValueError(f"rnncore cannot represent a Cast to {np.dtype(to)}")
    return x.astype(to)


def _cast_like(x: Array, like: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    return _cast(x, to=like.dtype)


def _dropout(
    x: Array,
    ratio_in: Array | None = None,
    training: Array | None = None,
    *,
    ratio: float = 0.5,
    seed: int = 0,
) -> tuple[Array, Array]:
    if training is not None and np.any(training):
        raise ValueError("rnncore cannot represent Dropout with training_mode=True")
    return x, np.ones(x.shape, bool)


#: Of NumPy's functions those of one number, and those of two.
_ONE = {
    **{"Abs": np.abs, "Acos": np.arccos, "Acosh": np.arccosh, "Asin": np.arcsin},
    **{"Asinh": np.arcsinh, "Atan": np.arctan, "Atanh": np.arctanh, "BitwiseNot": np.invert},
    **{"Ceil": np.ceil, "Cos": np.cos, "Cosh": np.cosh, "Floor": np.floor, "IsNaN": np.isnan},
    **{"Log": np.log, "Neg": np.negative, "Not": np.logical_not, "Reciprocal": np.reciprocal},
    **{"Round": np.rint, "Sign": np.sign, "Sin": np.sin, "Sinh": np.sinh, "Sqrt": np.sqrt},
    "Tan": np.tan,
}
_TWO = {
    **{"Add": np.add, "And": np.logical_and, "BitwiseAnd": np.bitwise_and},
    **{"BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor, "Equal": np.equal},
    **{"Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less},
    **{"LessOrEqual": np.less_equal, "Mul": np.multiply, "Or": np.logical_or, "Sub": np.subtract},
    "Xor": np.logical_xor,
}

OPERATORS: dict[str, Operator] = {
    **{name: _plain(function) for name, function in _ONE.items()},
    **{name: _pair(function) for name, function in _TWO.items()},
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": _celu,
    "Clip": _clip,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _slope("elu", 1.0),
    "Erf": _erf,
    "Exp": _unary("exponential"),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1),
    "Identity": lambda x: x,
    "IsInf": _is_inf,
    "LeakyRelu": _slope("leaky_relu", 0.01),
    "Max": lambda *parts: reduce(np.maximum, parts),
    "Mean": lambda *parts: reduce(np.add, parts) / parts[0].dtype.type(len(parts)),
    "Min": lambda *parts: reduce(np.minimum, parts),
    "Mish": lambda x: x * np.tanh(Elementwise("softplus")(x)),
    "Mod": _mod,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Relu": _unary("relu"),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary("sigmoid"),
    "Softplus": _unary("softplus"),
    "Softsign": _unary("softsign"),
    "Sum": lambda *parts: reduce(np.add, parts),
    "Swish": _swish,
    "Tanh": _unary("tanh"),
    "ThresholdedRelu": _slope("thresholded_relu", 1.0),
    "Where": lambda condition, a, b: np.where(condition, a, b),
}
