"""Layers of a configuration, with their arrays, in our terms: all that are not recurrent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...reference.keras import KerasLayer
from ..common import shown
from .given import Given
from .settings import activation_of


def plain(given: Given) -> KerasLayer:
    """Return a layer with its settings as they are."""
    return given.as_layer(given.settings())


def _activation(given: Given) -> KerasLayer:
    own = {"activation": activation_of(given.kind, given.config)}
    if given.kind == "Softmax":
        own["axis"] = given.axis()
    return KerasLayer("Activation", given.name, own, [])


def _normalisation(given: Given) -> KerasLayer:
    """Gain and bias, ones or zeros for what the layer does without; then mean and variance."""
    config, arrays = {"momentum": 0.99, "epsilon": 1e-3} | given.config, given.arrays
    if given.axis() != -1:
        raise given.refuse(f"with axis={shown(config['axis'])}")
    scale, center = bool(config.get("scale", True)), bool(config.get("center", True))
    count = scale + center + (2 if given.kind == "BatchNormalization" else 0)
    if not count:
        raise given.refuse("without center and scale")
    given.check_count(count)
    left = iter(arrays)
    gamma = next(left) if scale else np.ones_like(arrays[0])
    beta = next(left) if center else np.zeros_like(arrays[0])
    return given.as_layer(config, [gamma, beta, *left])


def _prelu(given: Given) -> KerasLayer:
    given.check_count(1)
    (slopes,) = given.arrays
    if slopes.size != slopes.shape[-1]:
        raise given.refuse(f"with slopes of shape {slopes.shape}")
    return given.as_layer({}, [slopes.reshape(-1)])


def _sliding(given: Given) -> KerasLayer:
    """Convolutions and pooling: sizes become a tuple, one for each axis."""
    axes = _axes(given)
    own = {"dilation_rate": 1, "groups": 1, "padding": "valid"} | given.settings()
    own["strides"] = own.get("strides") or own.get("pool_size") or 1
    for key in ("strides", "pool_size", "dilation_rate"):
        if key in own:
            own[key] = _per_axis(own[key], axes)
    if given.kind.startswith("Conv"):
        given.check_count(1, 2)
    return given.as_layer(own)


def _axes(given: Given) -> int:
    """The number in the name of a class such as Conv2D."""
    return int(given.kind[-2])


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes
    if len(sizes) != axes or not all(type(size) is int for size in sizes):
        raise ValueError(f"{shown(value)} is no size along {axes} axes")
    return sizes


def _over_all(given: Given) -> KerasLayer:
    return given.as_layer({"keepdims": bool(given.config.get("keepdims"))})


def _padding(given: Given) -> KerasLayer:
    """A pair (before, after) for each axis: told as such, as one number each, or as one for all."""
    axes, padding = _axes(given), given.config["padding"]
    if not isinstance(padding, (list, tuple)):
        padding = [padding] * axes
    elif axes == 1:
        padding = [padding]
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) else (pair, pair) for pair in padding]
    return KerasLayer("ZeroPadding", given.name, {"padding": pairs}, [])


def _concatenation(given: Given) -> KerasLayer:
    axis, rank = given.config.get("axis", -1), given.context.rank
    return given.as_layer({"axis": -1 if rank and axis == rank - 1 else axis})


def _dot(given: Given) -> KerasLayer:
    axes = given.config["axes"]
    pair = tuple(axes) if isinstance(axes, (list, tuple)) else (axes, axes)
    return given.as_layer({"axes": pair, "normalize": bool(given.config.get("normalize"))})


def _attention(given: Given) -> KerasLayer:
    config, dots = given.config, given.kind == "Attention"
    scaled = bool(config.get("use_scale", not dots))
    if config.get("score_mode", "dot") != "dot":
        raise given.refuse(f"with score_mode={shown(config['score_mode'])}")
    if not dots and not scaled:
        raise given.refuse("with use_scale=False")
    given.check_count(int(scaled))
    return given.as_layer({})


READERS: dict[str, Callable[[Given], KerasLayer]] = {
    "AdditiveAttention": _attention,
    "Attention": _attention,
    "BatchNormalization": _normalisation,
    "Concatenate": _concatenation,
    "Dot": _dot,
    "LayerNormalization": _normalisation,
    "PReLU": _prelu,
    **dict.fromkeys(("ELU", "LeakyReLU", "ReLU", "Softmax"), _activation),
    **{f"{kind}{axes}D": _sliding for kind in ("Conv", "MaxPooling") for axes in (1, 2)},
    **{f"AveragePooling{axes}D": _sliding for axes in (1, 2)},
    **{f"Global{how}Pooling{axes}D": _over_all for how in ("Max", "Average") for axes in (1, 2)},
    **{f"ZeroPadding{axes}D": _padding for axes in (1, 2)},
}
