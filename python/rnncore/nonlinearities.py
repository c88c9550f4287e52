"""Activations by name, with their alpha and beta."""

from __future__ import annotations

from typing import TypeAlias

from .arrays import check_number, short

#: A name, or a name with alpha, or with alpha and beta.
Activation: TypeAlias = str | tuple[str] | tuple[str, float] | tuple[str, float, float]
ActivationSpec: TypeAlias = tuple[str, float, float]

#: The activations by name, with alpha and beta where they are not given (ONNX's defaults).
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "sigmoid": (0, 0),
    "tanh": (0, 0),
    "relu": (0, 0),
    "identity": (0, 0),
    "affine": (1, 0),  # alpha x + beta
    "leaky_relu": (0.01, 0),  # x where it is positive, else alpha x
    "thresholded_relu": (1, 0),  # x where it is above alpha, else 0
    "scaled_tanh": (1, 1),  # alpha tanh(beta x)
    "hard_sigmoid": (0.2, 0.5),  # alpha x + beta, between 0 and 1
    "elu": (1, 0),  # x where it is positive, else alpha (exp(x) - 1)
    "selu": (0, 0),
    "softsign": (0, 0),
    "softplus": (0, 0),
    "exponential": (0, 0),
}

SIGMOID, TANH, RELU, IDENTITY = (
    (name, 0.0, 0.0) for name in ("sigmoid", "tanh", "relu", "identity")
)


def as_activation(name: str, activation: Activation) -> ActivationSpec:
    """Return an activation with its alpha and beta, or raise naming the argument."""
    several = activation if isinstance(activation, (tuple, list)) else (activation,)
    kind, given = next(iter(several), ""), [check_number(name, number) for number in several[1:]]
    if not isinstance(kind, str):
        raise TypeError(f"{name} must be a name or (name, alpha, beta), got {short(activation)}")
    if kind not in ACTIVATIONS or len(given) > 2:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(
            f"{name} must be one of {known}, or (name, alpha, beta); got {short(activation)}"
        )
    alpha, beta = (*given, *ACTIVATIONS[kind][len(given) :])
    if kind == "scaled_tanh" and not alpha:
        raise ValueError(f"{name}: scaled_tanh needs an alpha that is not zero")
    if kind in ("leaky_relu", "thresholded_relu", "elu", "hard_sigmoid") and alpha < 0:
        raise ValueError(f"{name}: {kind} needs an alpha of at least zero, got {alpha}")
    return kind, alpha, beta
