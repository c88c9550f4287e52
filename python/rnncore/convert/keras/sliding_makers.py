"""Convolutions and pooling as Keras says and lays them, made into ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...layers.convolution import Conv1d, Conv2d
from ...layers.pooling import (
    AvgPool1d,
    AvgPool2d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
)
from ...module import Module
from ...reference.keras import KerasLayer
from .. import common
from ..common import shown

Options = dict[str, Any]


def _convolution(layer: KerasLayer, options: Options) -> list[Module]:
    config, weights = layer.config, layer.weights
    axes = int(layer.kind[-2])
    kernel, *bias = weights
    if [array.ndim for array in weights] != [axes + 2, 1][: len(weights)]:
        shapes = ", ".join(str(array.shape) for array in weights)
        raise ValueError(f"{layer.kind} {shown(layer.name)} has arrays of shapes {shapes}")
    groups = config["groups"]
    sizes = kernel.shape[:axes], config["strides"], config["padding"], config["dilation_rate"]
    module = _of_axes(Conv1d, Conv2d, options)[axes](
        kernel.shape[-2] * groups,
        kernel.shape[-1],
        *(_unpacked(size) for size in sizes),
        groups,
        bool(bias),
        dtype=options["dtype"],
    )
    params = {"weight": np.moveaxis(kernel, (-1, -2), (0, 1))}
    params |= dict(zip(["bias"], bias, strict=False))
    made = common.activation_layer(config["activation"])
    return [common.filled(module, params), *([made] if made else [])]


def _pooling(layer: KerasLayer, options: Options) -> list[Module]:
    config, axes = layer.config, int(layer.kind[-2])
    sizes = [_unpacked(config[name]) for name in ("pool_size", "strides", "padding")]
    if layer.kind.startswith("Max"):
        return [_of_axes(MaxPool1d, MaxPool2d, options)[axes](*sizes)]
    return [_of_axes(AvgPool1d, AvgPool2d, options)[axes](*sizes, count_include_pad=False)]


def _over_all(layer: KerasLayer, options: Options) -> list[Module]:
    pool = GlobalMaxPool if "Max" in layer.kind else GlobalAvgPool
    return [pool(layer.config["keepdims"], batch_first=options["batch_first"])]


def _of_axes(one: Any, two: Any, options: Options) -> dict[int, Callable[..., Module]]:
    """The makers by the number of axes; only sequences may come with the time first."""
    return {1: lambda *args, **own: one(*args, batch_first=options["batch_first"], **own), 2: two}


def _unpacked(size: Any) -> Any:
    """A size of one axis as a number, of two as a pair; names stay."""
    return size[0] if isinstance(size, tuple) and len(size) == 1 else size


MAKERS: dict[str, Callable[[KerasLayer, Options], list[Module]]] = {
    f"{name}{axes}D": maker
    for axes in (1, 2)
    for name, maker in {
        "Conv": _convolution,
        "MaxPooling": _pooling,
        "AveragePooling": _pooling,
        "GlobalMaxPooling": _over_all,
        "GlobalAveragePooling": _over_all,
    }.items()
}
