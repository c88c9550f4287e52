"""Batch normalisation as a part of the layer before it, for inference."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np

from ..arrays import Array, check_kind
from ..layers.batch_norm import BatchNorm
from ..layers.convolution import Conv1d, Conv2d, ConvTranspose1d
from ..layers.linear import Linear
from ..module import Module
from .chain import Chain

_FOLDS = (Conv1d, Conv2d, ConvTranspose1d, Linear)


def fold_batch_norm(chain: Chain) -> Chain:
    """Return a copy of a chain in which each `BatchNorm` is a part of the layer before it.

    A call of the copy is what a call of the chain is, by the running statistics, up to rounding:
    weights and bias of a `Linear`, `Conv1d`, `Conv2d` or `ConvTranspose1d` are multiplied and
    shifted (Jacob et al. 2018, section 3.2). A `BatchNorm` that follows another layer stays, and so
    do chains within other modules; chains within the chain are copied likewise. The copy is for
    inference: in training, statistics of a batch would be missing.
    """
    check_kind("chain", chain, Chain)
    if type(chain).__call__ is not Chain.__call__:
        raise TypeError(f"chain must be a Chain, and a {type(chain).__name__} calls otherwise")
    layers: list[Module] = []
    for layer in chain.layers:
        before = layers[-1] if layers else None
        if type(layer) is BatchNorm and type(before) in _FOLDS:
            layers[-1] = _folded(before, *layer.folded())
        else:
            layers.append(fold_batch_norm(layer) if type(layer) is Chain else copy.deepcopy(layer))
    return Chain(*layers)


def _folded(layer: Any, scale: Array, shift: Array) -> Module:
    """A layer whose outputs are multiplied by a number each, and shifted."""
    weight, params = layer.params["weight"], layer.params
    if layer.weight_type is not None:
        raise ValueError(
            f"the weights of a {type(layer).__name__} are {layer.weight_type}: fold first"
        )
    args, kwargs = layer._given
    given = inspect.signature(type(layer)).bind(*args, **kwargs)
    made = type(layer)(**given.arguments | {"bias": True})
    bias = params.get("bias", np.zeros(len(scale), weight.dtype))
    made.load_state_dict({"weight": weight * _along(layer, scale), "bias": bias * scale + shift})
    return made  # type: ignore[no-any-return]


def _along(layer: Any, scale: Array) -> Array:
    """The numbers of the outputs as they meet the weights."""
    if not isinstance(layer, ConvTranspose1d):
        return scale.reshape(-1, *[1] * (layer.params["weight"].ndim - 1))
    own = np.repeat(
        scale.reshape(layer.groups, -1), len(layer.params["weight"]) // layer.groups, axis=0
    )
    return own[..., None]
