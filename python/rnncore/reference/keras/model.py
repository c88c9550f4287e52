"""Models: layers, and which of them read which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...arrays import Array
from . import merging, pointwise, recurrent, sliding

#: A value: the name of an input or a node, and which of its outputs.
Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class KerasLayer:
    """A layer as a Keras model describes it, its activations by rnncore's names.

    Of "TimeDistributed" the setting `layer` is another, of "Model" `model` is a `KerasModel`.
    """

    kind: str
    name: str
    config: dict[str, Any]
    weights: list[Array]


@dataclass(frozen=True)
class KerasNode:
    """A layer as it stands in a model; a layer may stand in several places."""

    name: str
    layer: KerasLayer
    reads: tuple[Place, ...]


@dataclass(frozen=True)
class KerasInput:
    """An input of a model: its shape, where sizes may be None, the batch's first."""

    name: str
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class KerasModel:
    """Nodes in the order in which they can be run."""

    inputs: list[KerasInput]
    nodes: list[KerasNode]
    outputs: list[Place]


def line(layers: Sequence[KerasLayer], shape: tuple[int | None, ...] | None = None) -> KerasModel:
    """Return a model of layers one after the other."""
    names = ["x", *map(str, range(len(layers)))]
    nodes = [
        KerasNode(name, layer, ((before, 0),))
        for before, name, layer in zip(names, names[1:], layers, strict=False)
    ]
    return KerasModel([KerasInput("x", shape)], nodes, [(names[-1], 0)])


def run(model: KerasModel, xs: Sequence[Array]) -> list[Array]:
    """Run a model, in the dtype of its inputs or, after an embedding, of float64."""
    values: dict[str, Any] = {own.name: x for own, x in zip(model.inputs, xs, strict=True)}
    for node in model.nodes:
        values[node.name] = _applied(node.layer, [_value(values, place) for place in node.reads])
    return [_value(values, place) for place in model.outputs]


def _value(values: dict[str, Any], place: Place) -> Array:
    name, at = place
    value = values[name]
    found: Array = value[at] if isinstance(value, tuple) else value
    return found


def _applied(layer: KerasLayer, xs: list[Array]) -> Any:
    if layer.kind == "Model":
        found = tuple(run(layer.config["model"], xs))
        return found if len(found) > 1 else found[0]
    if layer.kind == "TimeDistributed":
        (x,) = xs
        y = _applied(layer.config["layer"], [x.reshape(-1, *x.shape[2:])])
        return y.reshape(*x.shape[:2], *y.shape[1:])
    weights = [weight.astype(np.float64) for weight in layer.weights]
    return _LAYERS[layer.kind](layer.config, weights, *xs)


_LAYERS = recurrent.KINDS | pointwise.KINDS | sliding.KINDS | merging.KINDS
