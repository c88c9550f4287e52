"""Layers and models as Keras says and lays them, made into modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy.typing as npt

from ...arrays import Array
from ...compositions.graph import Graph
from ...compositions.return_state import ReturnState
from ...compositions.time_distributed import TimeDistributed
from ...layers.activations import Softmax
from ...layers.attention import AdditiveAttention, DotAttention
from ...layers.batch_norm import BatchNorm
from ...layers.dot import Dot
from ...layers.dropout import Dropout
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.merge import Merge
from ...layers.prelu import PReLU
from ...layers.shapes import Permute, RepeatVector, Reshape, ZeroPad
from ...module import Module
from ...reference.keras import KerasLayer, KerasModel, KerasNode, line
from .. import common
from ..common import refusal, shown
from . import recurrent_makers, sliding_makers
from .settings import CELLS

Options = dict[str, Any]
Maker = Callable[[KerasLayer, Options], list[Module]]


def from_layers(
    layers: Sequence[KerasLayer], batch_first: bool, dtype: npt.DTypeLike | None
) -> Any:
    """Return the modules of layers one after the other, in this dtype or the widest of theirs."""
    return from_model(line(layers), batch_first, dtype)


def from_model(model: KerasModel, batch_first: bool, dtype: npt.DTypeLike | None) -> Any:
    """Return a model's modules: a `Chain`, or the layer alone, or a `Graph` if it has branches."""
    arrays = list(_arrays(model))
    if not arrays:
        raise refusal("rnncore", "a Keras model without weights")
    options = {"batch_first": batch_first, "dtype": common.dtype_of(arrays, dtype)}
    return _composed(model, options)


def _arrays(model: KerasModel) -> Iterator[Array]:
    for node in model.nodes:
        layer = node.layer
        while layer.kind == "TimeDistributed":
            layer = layer.config["layer"]
        yield from _arrays(layer.config["model"]) if layer.kind == "Model" else layer.weights


def _composed(model: KerasModel, options: Options) -> Any:
    if _is_line(model):
        modules = [module for node in model.nodes for module in modules_of(node.layer, options)]
        return common.chain_of(modules)
    if not options["batch_first"]:
        raise ValueError("batch_first must be True for a model with branches")
    made: dict[int, Module] = {}
    nodes = [(node.name, _module(node, made, options), *node.reads) for node in model.nodes]
    return Graph([own.name for own in model.inputs], nodes, model.outputs)


def _is_line(model: KerasModel) -> bool:
    """Whether each layer reads the one before it, and that alone."""
    if len(model.inputs) > 1 or len({id(node.layer) for node in model.nodes}) < len(model.nodes):
        return False
    names = [model.inputs[0].name, *(node.name for node in model.nodes)]
    reads = [*(list(node.reads) for node in model.nodes), model.outputs]
    straight = all(own == [(name, 0)] for name, own in zip(names, reads, strict=True))
    return straight and not any(node.layer.config.get("return_state") for node in model.nodes)


def _module(node: KerasNode, made: dict[int, Module], options: Options) -> Module:
    """A node's module; a layer that stands in several nodes becomes one module."""
    layer = node.layer
    if id(layer) not in made:
        made[id(layer)] = common.chain_of(modules_of(layer, options))
    module = made[id(layer)]
    states = len(node.reads) > 1 or layer.config.get("return_state")
    if states and (layer.kind in CELLS or layer.kind == "Bidirectional"):
        return ReturnState(module)
    return module


def modules_of(layer: KerasLayer, options: Options) -> list[Module]:
    """Return what one layer becomes: itself, and its activation."""
    return _MAKERS[layer.kind](layer, options)


def activation(layer: KerasLayer, options: Options) -> list[Module]:
    """Return an activation, nothing for the identity."""
    if layer.config.get("axis", -1) != -1:
        return [Softmax(layer.config["axis"])]
    made = common.activation_layer(layer.config["activation"])
    return [made] if made else []


def shaped(layer: KerasLayer, axes: list[int]) -> list[Array]:
    """Return a layer's arrays, whose numbers of axes are these; the last may be missing."""
    found = [array.ndim for array in layer.weights]
    if not found or found != axes[: len(found)]:
        raise ValueError(
            f"{layer.kind} {shown(layer.name)} has arrays of {found} axes, expected {axes}"
        )
    return layer.weights


def _dense(layer: KerasLayer, options: Options) -> list[Module]:
    kernel, *bias = shaped(layer, [2, 1])
    inputs, outputs = kernel.shape
    linear = Linear(inputs, outputs, bool(bias), dtype=options["dtype"])
    params = dict(zip(("weight", "bias"), (kernel.T, *bias), strict=False))
    return [common.filled(linear, params), *activation(layer, options)]


def _embedding(layer: KerasLayer, options: Options) -> list[Module]:
    (table,) = shaped(layer, [2])
    return [common.filled(Embedding(*table.shape, dtype=options["dtype"]), {"weight": table})]


def _layer_norm(layer: KerasLayer, options: Options) -> list[Module]:
    gamma, beta = shaped(layer, [1, 1])
    norm = LayerNorm(len(gamma), layer.config["epsilon"], dtype=options["dtype"])
    return [common.filled(norm, {"weight": gamma, "bias": beta})]


def _batch_norm(layer: KerasLayer, options: Options) -> list[Module]:
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = shaped(layer, [1, 1, 1, 1])
    norm = BatchNorm(
        len(arrays[0]),
        layer.config["epsilon"],
        1 - layer.config["momentum"],
        batch_first=options["batch_first"],
        dtype=options["dtype"],
    )
    return [common.filled(norm, dict(zip(names, arrays, strict=True)))]


def _prelu(layer: KerasLayer, options: Options) -> list[Module]:
    (slopes,) = shaped(layer, [1])
    return [common.filled(PReLU(len(slopes), dtype=options["dtype"]), {"weight": slopes})]


def _attention(layer: KerasLayer, options: Options) -> list[Module]:
    scale = [array.reshape(1) for array in layer.weights]
    module = DotAttention(bool(scale), dtype=options["dtype"])
    return [common.filled(module, dict(zip(["scale"], scale, strict=False)))]


def _additive(layer: KerasLayer, options: Options) -> list[Module]:
    (scale,) = shaped(layer, [1])
    module = AdditiveAttention(len(scale), dtype=options["dtype"])
    return [common.filled(module, {"scale": scale})]


def _time_distributed(layer: KerasLayer, options: Options) -> list[Module]:
    """The layer itself where it sees each row alone; items with steps of their own go in one."""
    modules = modules_of(layer.config["layer"], options)
    if all(module.pointwise for module in modules):
        return modules
    if not options["batch_first"]:
        raise ValueError(f"TimeDistributed {shown(layer.name)} needs batch_first=True")
    return [TimeDistributed(common.chain_of(modules))]


def _merge(how: str) -> Maker:
    return lambda layer, _: [Merge(how, layer.config.get("axis", -1))]


_MAKERS: dict[str, Maker] = {
    "Activation": activation,
    "Add": _merge("sum"),
    "AdditiveAttention": _additive,
    "Attention": _attention,
    "Average": _merge("mean"),
    "BatchNormalization": _batch_norm,
    "Bidirectional": recurrent_makers.bidirectional,
    "Concatenate": _merge("concat"),
    "Custom": lambda layer, _: [layer.config["module"]],
    "Dense": _dense,
    "Dot": lambda layer, _: [Dot(layer.config["axes"], layer.config["normalize"])],
    "Dropout": lambda layer, _: [Dropout(layer.config["rate"])],
    "Embedding": _embedding,
    "Flatten": lambda layer, _: [Reshape(-1)],
    "LayerNormalization": _layer_norm,
    "Maximum": _merge("max"),
    "Minimum": _merge("min"),
    "Model": lambda layer, options: [_composed(layer.config["model"], options)],
    "Multiply": _merge("mul"),
    "PReLU": _prelu,
    "Permute": lambda layer, _: [Permute(*layer.config["dims"])],
    "RepeatVector": lambda layer, _: [RepeatVector(layer.config["n"])],
    "Reshape": lambda layer, _: [Reshape(*layer.config["target_shape"])],
    "Subtract": _merge("subtract"),
    "TimeDistributed": _time_distributed,
    "ZeroPadding": lambda layer, _: [ZeroPad(*layer.config["padding"])],
    **dict.fromkeys(CELLS, recurrent_makers.single),
    **sliding_makers.MAKERS,
}
