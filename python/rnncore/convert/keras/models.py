"""Whole models: what their layers read, with how many axes, and which sequences have masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...arrays import Array
from ...reference.keras import KerasInput, KerasLayer, KerasModel, KerasNode
from ..common import shown
from .arrays import Entry, Source, name_of
from .calls import Call, Description, Tensor, check_origin, described
from .given import Context, Given
from .layers import read_layer
from .masks import Masks
from .settings import CELLS, TRAINING, check_kinds, check_settings, plain
from .values import Value

_MODELS = ("Functional", "Sequential")


def read_model(entry: Entry, source: Source, context: Context, masks: Masks) -> KerasModel:
    """Return the layers of a saved model; `ValueError` naming all that cannot be represented."""
    check_kinds(_kinds(entry, context))
    model, _ = _Reader(context, masks).read(entry, source, None)
    return model


def read_line(
    entries: Sequence[Entry], sources: Sequence[Source], context: Context
) -> list[KerasLayer]:
    """Return some layers of a model, to be put one after the other."""
    check_kinds(pair for entry in entries for pair in _kinds_of_layer(entry, context))
    reader = _Reader(context, Masks(told=True))
    found = []
    for entry, source in zip(entries, sources, strict=True):
        for layer in reader.layers(entry, source, [Value(("x", 0), None)]):
            found.append(_without_states(layer))
    return found


def _without_states(layer: KerasLayer) -> KerasLayer:
    """Ours return their states in any case."""
    own = {key: value for key, value in layer.config.items() if key != "return_state"}
    return KerasLayer(layer.kind, layer.name, own, layer.weights)


def _kinds(entry: Entry, context: Context) -> Iterator[tuple[str, str]]:
    """The classes and names of all layers of a model."""
    for call in described(entry, context.custom).calls:
        yield from _kinds_of_layer(call.entry, context)


def _kinds_of_layer(entry: Entry, context: Context) -> Iterator[tuple[str, str]]:
    kind, config = entry["class_name"], entry["config"]
    if kind in context.custom:
        return
    if plain(kind) in _MODELS:
        yield from _kinds(entry, context)
    elif kind == "TimeDistributed":
        yield from _kinds_of_layer(config["layer"], context)
    else:
        yield kind, name_of(entry)


class _Reader:
    """Walks through the calls of a model, and of those within."""

    def __init__(self, context: Context, masks: Masks) -> None:
        self._context, self._masks = context, masks
        self._written: dict[tuple[str, str], tuple[Any, list[Array]]] = {}

    def read(
        self, entry: Entry, source: Source, given: Sequence[Value] | None
    ) -> tuple[KerasModel, list[Value]]:
        """Return a model and what it gives; given: what it is called with, None for the whole."""
        found = described(entry, self._context.custom)
        places = source.of_layers(found.layers)
        sources = {id(one): place for one, place in zip(found.layers, places, strict=True)}
        values = dict(zip(found.inputs, _inputs(entry, found, given), strict=True))
        known: dict[int, list[KerasLayer]] = {}
        nodes: list[KerasNode] = []
        for call in found.calls:
            reads = [_value(values, tensor) for tensor in call.reads]
            self._masks.check(call.entry, reads, [values.get(tensor) for tensor in call.masks])
            if id(call.entry) not in known:
                known[id(call.entry)] = self.layers(call.entry, sources[id(call.entry)], reads)
            given_on = self._called(call, known[id(call.entry)], reads, nodes)
            name = name_of(call.entry)
            values |= {(name, call.at, at): value for at, value in enumerate(given_on)}
        outputs = [_value(values, tensor) for tensor in found.outputs]
        shapes = [KerasInput(tensor[0], _shape(entry, found, tensor)) for tensor in found.inputs]
        return KerasModel(shapes, nodes, [value.place for value in outputs]), outputs

    def layers(self, entry: Entry, source: Source, reads: Sequence[Value]) -> list[KerasLayer]:
        """Return a layer in our terms: none for what does nothing, several for stacked cells."""
        kind, config, name = entry["class_name"], entry["config"], name_of(entry)
        if kind in TRAINING or kind == "Masking":
            return []
        if plain(kind) in _MODELS:
            model, outputs = self.read(entry, source, reads)
            return [KerasLayer("Model", name, {"model": model, "outputs": outputs}, [])]
        if kind == "TimeDistributed":
            check_settings(kind, config)
            if config["layer"]["class_name"] not in self._context.custom:
                check_origin(config["layer"])
            step = [Value(x.place, x.rank and x.rank - 1) for x in reads]
            inner = self.layers(config["layer"], source.inner(config["layer"]), step)
            return [KerasLayer(kind, name, {"layer": layer}, []) for layer in inner]
        context = self._context._replace(rank=_most(reads))
        return read_layer(Given(kind, name, config, self._arrays(entry, source), context))

    def _arrays(self, entry: Entry, source: Source) -> list[Array]:
        """A layer's arrays; Keras 3 writes those of one in several models in the first place."""
        config, arrays = _plain(entry["config"]), source.arrays(entry)
        key = entry["class_name"], name_of(entry)
        if arrays:
            self._written[key] = config, arrays
        before, theirs = self._written.get(key, (None, arrays))
        return arrays or (theirs if before == config else arrays)

    def _called(
        self, call: Call, layers: list[KerasLayer], reads: list[Value], nodes: list[KerasNode]
    ) -> list[Value]:
        """Add the nodes of a call; return what it gives."""
        name = name_of(call.entry)
        name = f"{name}:{call.at}" if call.at else name
        masked = self._masks.after(call.entry, layers, reads)
        values = [value._replace(masked=masked) for value in reads[:1]]
        for at, layer in enumerate(layers):
            node = name if at == len(layers) - 1 else f"{name}/{at}"
            nodes.append(KerasNode(node, layer, tuple(value.place for value in reads)))
            reads = values = _outputs(node, layer, reads, masked)
        return values


def _plain(value: Any) -> Any:
    """Settings without the numbers by which Keras finds objects that it has written before."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key != "shared_object_id"}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _value(values: dict[Tensor, Value], tensor: Tensor) -> Value:
    if tensor not in values:
        raise ValueError(f"{shown(tensor[0])} has no output {tensor[2]}")
    return values[tensor]


def _inputs(entry: Entry, found: Description, given: Sequence[Value] | None) -> list[Value]:
    """The inputs of a model: their shapes are its own, masks those of what it is called with."""
    if given is not None and len(given) != len(found.inputs):
        raise ValueError(f"a model of {len(found.inputs)} inputs is called with {len(given)}")
    values = []
    for at, tensor in enumerate(found.inputs):
        shape, name = _shape(entry, found, tensor), tensor[0]
        if given is None:
            values.append(Value((name, 0), len(shape) if shape else None, origin=name))
        else:
            rank = len(shape) if shape else given[at].rank
            values.append(given[at]._replace(place=(name, 0), rank=rank))
    return values


def _shape(entry: Entry, found: Description, tensor: Tensor) -> tuple[int | None, ...] | None:
    """The shape of an input, if the file tells it."""
    configs = [
        layer["config"] for layer in found.layers if layer["config"].get("name") == tensor[0]
    ]
    if not configs and found.layers:  # a Sequential whose first layer tells it, or the whole
        configs = [found.layers[0]["config"]]
        configs += [entry["config"]] if isinstance(entry["config"], dict) else []
    for config in filter(lambda one: isinstance(one, dict), configs):
        for key in ("batch_shape", "batch_input_shape", "build_input_shape"):
            shape = config.get(key)
            if isinstance(shape, (list, tuple)):
                return tuple(None if size is None else int(size) for size in shape)
    return None


def _outputs(node: str, layer: KerasLayer, reads: Sequence[Value], masked: bool) -> list[Value]:
    """What a node gives: its output, and the states of a recurrent layer that returns them."""
    if layer.kind == "Model":
        given = layer.config["outputs"]
        return [Value((node, at), value.rank, value.masked) for at, value in enumerate(given)]
    values = [Value((node, 0), _rank(layer, reads), masked)]
    if layer.config.get("return_state"):
        kinds = [kind for kind, _ in layer.config.get("parts", [(layer.kind, None)])]
        count = sum(2 if kind == "LSTM" else 1 for kind in kinds)
        values += [Value((node, at + 1), 2) for at in range(count)]
    return values


#: Of layers whose outputs have so many axes whatever they read.
_RANKS = {"Flatten": 2, "RepeatVector": 3}
_RANKS |= {
    f"{name}{axes}D": axes + 2
    for name in ("Conv", "MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling")
    for axes in (1, 2)
}


def _rank(layer: KerasLayer, reads: Sequence[Value]) -> int | None:
    """How many axes the output of a layer has."""
    kind, config, most = layer.kind, layer.config, _most(reads)
    if kind in CELLS or kind == "Bidirectional":
        part = config["parts"][0][1] if kind == "Bidirectional" else config
        return 3 if part["return_sequences"] else 2
    if kind == "TimeDistributed":
        inner = _rank(config["layer"], [x._replace(rank=x.rank and x.rank - 1) for x in reads])
        return inner and inner + 1
    if kind == "Model":
        outputs: list[Value] = config["outputs"]
        return outputs[0].rank
    if kind == "Reshape":
        return 1 + len(config["target_shape"])
    if kind.startswith("Global") and not config["keepdims"]:
        return 2
    if kind == "Dot":
        ranks = [x.rank for x in reads if x.rank]
        return max(2, sum(ranks) - 3) if len(ranks) == 2 else None
    if kind in _RANKS or kind == "Custom" or most is None:
        return _RANKS.get(kind)
    return most + 1 if kind == "Embedding" else most


def _most(reads: Sequence[Value]) -> int | None:
    return max((value.rank for value in reads if value.rank), default=None)
