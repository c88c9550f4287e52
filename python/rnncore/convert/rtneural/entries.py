"""RTNeural's entries of layers as layers in Keras's letters, which its weights have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...files import one_line
from ...reference.keras import KerasLayer
from ..common import refusal, shown
from ..json_files import numbers

ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")


class Described(NamedTuple):
    """The layers that an entry is, and how many numbers they read and give; None: any number."""

    layers: list[KerasLayer]
    reads: int | None
    gives: int | None


class _Entry(NamedTuple):
    name: str
    kind: str
    said: Mapping[str, Any]
    weights: list[Array]

    def shaped(self, *axes: int, at_least: int = 0) -> list[Array]:
        """Return the weights, whose numbers of axes are these; the last may be missing."""
        found = tuple(array.ndim for array in self.weights)
        if found != axes[: len(found)] or len(found) < (at_least or len(axes)):
            raise ValueError(
                f"{self.name}: {self.kind} must have weights of {axes} axes, got {found}"
            )
        return self.weights

    def number(self, name: str, rest: int) -> int:
        """Return what is said as a number, or as a list of one."""
        value = self.said.get(name, rest)
        value = value[-1] if isinstance(value, list) and value else value
        if type(value) is not int or value < 1:
            raise ValueError(f"{self.name}: {name} must be a number, got {shown(value)}")
        return value

    def layer(self, kind: str, config: dict[str, Any], weights: list[Array]) -> KerasLayer:
        return KerasLayer(kind, self.name, config, weights)

    def activation(self) -> list[KerasLayer]:
        """Return what comes after the layer."""
        name = self.said.get("activation") or ""
        if name and name not in ACTIVATIONS:
            raise refusal("rnncore", f"{self.name}: RTNeural's activation {shown(name)}")
        return [self.layer("Activation", {"activation": name}, [])] if name else []


def described(name: str, said: Mapping[str, Any]) -> Described:
    """Return what an entry is; `ValueError` naming a layer that is not known."""
    kind = said["type"]
    if not isinstance(kind, str) or kind not in _READERS:
        raise refusal("rnncore", f"{name}: RTNeural's {one_line(kind, 80)}")
    weights = [numbers(name, array) for array in said.get("weights") or []]
    return _READERS[kind](_Entry(name, kind, said, weights))


def _recurrent(entry: _Entry) -> Described:
    activation = entry.said.get("activation") or ""
    if activation not in ("", "tanh"):
        what = f"{entry.name}: RTNeural's {entry.kind} with activation {shown(activation)}"
        raise refusal("rnncore", what)
    config = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    config |= {"reset_after": True, "return_sequences": True}
    weights = entry.shaped(2, 2, 1 if entry.kind == "lstm" else 2)
    layer = entry.layer(entry.kind.upper(), config, weights)
    return Described([layer], len(weights[0]), len(weights[1]))


def _dense(entry: _Entry) -> Described:
    weights = entry.shaped(2, 1, at_least=1)
    layer = entry.layer("Dense", {"activation": "identity"}, weights)
    return Described([layer, *entry.activation()], *weights[0].shape)


def _convolution(entry: _Entry) -> Described:
    """Causal: each output sees frames up to its own."""
    kernel, _ = weights = entry.shaped(3, 1)
    taps, inputs, outputs = kernel.shape
    if entry.number("kernel_size", taps) != taps:
        said = shown(entry.said["kernel_size"])
        raise ValueError(f"{entry.name}: kernel_size is {said}, its weights have {taps} taps")
    for name in ("stride", "strides"):
        if entry.number(name, 1) != 1:
            what = f"{entry.name}: RTNeural's conv1d with {name}={shown(entry.said[name])}"
            raise refusal("rnncore", what)
    groups = entry.number("groups", 1)
    config = {"strides": (1,), "padding": "causal", "activation": "identity", "groups": groups}
    config |= {"dilation_rate": (entry.number("dilation", 1),)}
    layer = entry.layer("Conv1D", config, weights)
    return Described([layer, *entry.activation()], inputs * groups, outputs)


def _batch_norm(entry: _Entry) -> Described:
    """gamma, beta, mean and variance; or the last two alone."""
    if len(entry.weights) == 2:
        mean, variance = entry.shaped(1, 1)
        arrays = [np.ones_like(mean), np.zeros_like(mean), mean, variance]
    else:
        arrays = entry.shaped(1, 1, 1, 1)
    config = {"epsilon": float(entry.said["epsilon"]), "momentum": 0.99}
    width = len(arrays[0])
    return Described([entry.layer("BatchNormalization", config, arrays)], width, width)


def _slopes(entry: _Entry) -> Described:
    """One row of slopes; where all are one, the activation that has it."""
    (rows,) = entry.shaped(2)
    if len(rows) != 1 or not rows.size:
        raise ValueError(f"{entry.name}: prelu must have one row of slopes, got {rows.shape}")
    slopes, width = rows[0], None if rows.size == 1 else rows.size
    if slopes[0] >= 0 and (slopes == slopes[0]).all():
        config = {"activation": ("leaky_relu", float(slopes[0]))}
        return Described([entry.layer("Activation", config, [])], width, width)
    return Described([entry.layer("PReLU", {}, [slopes])], width, width)


def _activation(entry: _Entry) -> Described:
    return Described(entry.activation(), None, None)


_READERS: dict[str, Callable[[_Entry], Described]] = {
    "activation": _activation,
    "batchnorm": _batch_norm,
    "conv1d": _convolution,
    "dense": _dense,
    "gru": _recurrent,
    "lstm": _recurrent,
    "prelu": _slopes,
    "time-distributed-dense": _dense,
}
