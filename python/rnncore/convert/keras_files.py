"""Saved Keras models: configuration as JSON, arrays as HDF5; nothing in them is executed."""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..reference.keras import KerasLayer
from . import common
from .archives import unpacked
from .budget import RATIO, Budget
from .common import as_floats, refusal, shown
from .hdf5 import Hdf5, opened
from .keras_weights import CELLS, activation_name

_ARRAYS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_WEIGHTS = "model_weights"

#: Settings without a meaning for what a loaded layer computes.
_IMPLIED = {
    *("name", "trainable", "dtype", "batch_input_shape", "batch_shape", "shape", "seed", "units"),
    *("return_sequences", "go_backwards", "stateful", "unroll", "implementation", "dropout"),
    *("recurrent_dropout", "unit_forget_bias", "activation", "recurrent_activation", "use_bias"),
    *("reset_after", "input_dim", "output_dim", "input_length", "rate", "axis", "epsilon", "layer"),
    *("backward_layer", "merge_mode", "center", "scale", "alpha", "negative_slope", "mask_zero"),
    *("zero_output_for_mask", "optional", "mask_value"),
}
_TRAINING = ("_initializer", "_regularizer", "_constraint")
_ACTIVATIONS = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "Softmax": "softmax"}

#: The layers that are known, but for TimeDistributed, which is taken apart.
_KINDS = {
    *("Activation", "Bidirectional", "Dense", "Dropout", "Embedding", "InputLayer"),
    *("LayerNormalization", "Masking", *CELLS, *_ACTIVATIONS),
}

#: What a damaged file makes h5py, zipfile and json raise.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, UnicodeError, zipfile.BadZipFile, zlib.error),
    json.JSONDecodeError,
)


def readable(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Make one `ValueError` of all that a damaged file raises, while it is read and understood."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such model file: {os.fspath(path)}")
    return common.readable(os.fspath(path), "is not a readable Keras model", *_DAMAGE)


def read_model(path: str | os.PathLike[str], lengths: bool) -> list[KerasLayer]:
    """Read the layers of a saved model, in order."""
    name, budget = os.fspath(path), Budget(os.path.getsize(path))
    read = _read_zip if zipfile.is_zipfile(path) else _read_h5
    return read(name, budget, lengths)


def _read_h5(name: str, budget: Budget, lengths: bool) -> list[KerasLayer]:
    with opened(Path(name).read_bytes(), budget) as file:
        config = file.attribute("", "model_config")
        if config is None or _WEIGHTS not in file:
            raise ValueError("it has no model_config: save the whole model, not its weights")
        version = file.attribute("", "keras_version") or file.attribute(_WEIGHTS, "keras_version")
        return list(_described(_parsed(config, budget), _major(version), lengths, _by_name(file)))


def _read_zip(name: str, budget: Budget, lengths: bool) -> list[KerasLayer]:
    with zipfile.ZipFile(name) as archive:
        config = _parsed(_member(archive, _CONFIG, budget), budget)
        arrays = _member(archive, _ARRAYS, budget)
        metadata: dict[str, Any] = {}
        if _METADATA in archive.namelist():
            metadata = _parsed(_member(archive, _METADATA, budget), budget)
        with opened(arrays, budget) as file:
            version = _major(metadata.get("keras_version"))
            return list(_described(config, version, lengths, _by_class(file)))


def _member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Unpack one file of a .keras file."""
    if name not in archive.namelist():
        raise ValueError(f"it is no Keras model: it has no {name}")
    return unpacked(archive, archive.getinfo(name), budget)


def _parsed(text: str | bytes, budget: Budget) -> Any:
    """What a text of JSON says: its objects are many times as large as it is."""
    budget.check("a configuration", (RATIO * len(text),))
    return json.loads(text)


def _major(version: Any) -> int:
    """The first number of a version; files of Keras 2 need not have one."""
    found = re.match(r"\d+", version.decode() if isinstance(version, bytes) else str(version))
    return int(found[0]) if found else 2


#: From a class and a name to a layer's arrays.
_Find = Callable[[str, str], list[Array]]


def _by_name(file: Hdf5) -> _Find:
    """The arrays of an .h5 file lie under the layers' names, in the order that it tells."""

    def find(kind: str, name: str) -> list[Array]:
        path = f"{_WEIGHTS}/{name}"
        if path not in file:
            return []
        names = [
            n.decode() if isinstance(n, bytes) else n for n in file.attribute(path, "weight_names")
        ]
        return [as_floats(n, file.array(f"{path}/{n}")) for n in names]

    return find


def _by_class(file: Hdf5) -> _Find:
    """Those of a .keras file under the classes' names, numbered where a class occurs again."""
    root = next((r for r in ("layers", "_layer_checkpoint_dependencies") if r in file), None)
    seen: Counter[str] = Counter()
    inside = {kind: ["cell"] for kind in CELLS} | {"TimeDistributed": ["layer"]}
    inside["Bidirectional"] = ["forward_layer/cell", "backward_layer/cell"]

    def find(kind: str, name: str) -> list[Array]:
        snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
        own = f"{root}/{snake}_{seen[kind]}" if seen[kind] else f"{root}/{snake}"
        seen[kind] += 1
        arrays = []
        for part in inside.get(kind, ["."]):
            path = f"{own}/vars" if part == "." else f"{own}/{part}/vars"
            for key in sorted(file.names(path), key=int):
                arrays.append(as_floats(f"{path}/{key}", file.array(f"{path}/{key}")))
        return arrays

    return find


def _described(
    model: dict[str, Any], version: int, lengths: bool, find: _Find
) -> Iterator[KerasLayer]:
    config = model["config"]
    described = config if isinstance(config, list) else config["layers"]
    if model["class_name"] in ("Functional", "Model"):
        _check_line(described, config)
    elif model["class_name"] != "Sequential":
        raise refusal("rnncore", f"a Keras model of class {shown(model['class_name'])}")
    for entry in described:
        kind, own = entry["class_name"], entry["config"]
        name = own.get("name", kind)
        _check_origin(kind, name, entry)
        if kind != "TimeDistributed":
            _check_kind(kind, name)
        arrays = find(kind, name)
        if kind == "TimeDistributed":  # every layer here treats the time steps alike
            _check_settings(kind, own, lengths)
            _check_origin(kind, name, own["layer"])
            kind, own = own["layer"]["class_name"], own["layer"]["config"]
            if kind != "Dense":
                raise refusal("rnncore", f"TimeDistributed {shown(name)} of {kind}")
        yield from _layer(kind, name, own, version, lengths, arrays)


def _check_origin(kind: str, name: str, entry: dict[str, Any]) -> None:
    """Refuse a class of somebody's own, which may have the name of one of Keras's."""
    module = entry.get("module") or "keras"  # older files do not tell
    if module.split(".")[0] not in ("keras", "tf_keras", "tensorflow"):
        raise refusal("rnncore", f"{kind} {shown(name)} of the module {shown(module)}")


def _check_line(layers: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Refuse a model with branches: each layer must read the one before it, and that alone."""
    for before, layer in zip([None, *layers], layers, strict=False):
        sources = list(_sources(layer.get("inbound_nodes", [])))
        wanted = [] if before is None else [before["config"]["name"]]
        if sources != wanted:
            raise refusal(
                "rnncore",
                f"a Keras model with branches: {shown(layer['config']['name'])} reads {sources}",
            )


def _sources(nodes: Any) -> Iterator[str]:
    """The layers that inbound nodes name, in the form of Keras 3 or of Keras 2."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        else:
            for value in nodes.values():
                yield from _sources(value)
    elif isinstance(nodes, (list, tuple)):
        if len(nodes) == 4 and isinstance(nodes[0], str):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _sources(value)


def _layer(
    kind: str, name: str, config: dict[str, Any], version: int, lengths: bool, arrays: list[Array]
) -> Iterator[KerasLayer]:
    """One layer with its settings in our terms; none for what does nothing."""
    _check_kind(kind, name)
    _check_settings(kind, config, lengths)
    if kind in _ACTIVATIONS:
        activation = _activation_of(kind, name, config, version)
        yield KerasLayer("Activation", name, {"activation": activation}, [])
    elif kind == "Bidirectional":
        yield KerasLayer(kind, name, _both(name, config, version, lengths), arrays)
    elif kind in CELLS or kind in ("Dense", "Activation"):
        yield KerasLayer(kind, name, _translated(config, version), arrays)
    elif kind == "LayerNormalization":
        yield KerasLayer(kind, name, config, _gains(name, config, arrays))
    elif kind in ("Dropout", "Embedding"):
        yield KerasLayer(kind, name, config, arrays)


def _check_kind(kind: str, name: str) -> None:
    """Refuse a layer that is not known, before anything is said of its settings."""
    if kind not in _KINDS:
        raise refusal("rnncore", f"the Keras layer {kind} {shown(name)}")


def _check_settings(kind: str, config: dict[str, Any], lengths: bool) -> None:
    """Refuse every setting that is neither understood nor at rest."""
    masks = kind == "Masking" or config.get("mask_zero")
    if masks and not lengths:
        what = "Masking" if kind == "Masking" else "mask_zero=True"
        raise refusal(
            "rnncore", f"{what}; with lengths=True you give lengths in the place of masks"
        )
    for key, value in config.items():
        if key in _IMPLIED or key.endswith(_TRAINING):
            continue
        if value not in (None, False, 0, [], {}):
            raise refusal("rnncore", f"{kind} {config.get('name', '')!r} with {key}={shown(value)}")


def _translated(config: dict[str, Any], version: int) -> dict[str, Any]:
    names = ("activation", "recurrent_activation")
    own = {key: activation_name(config[key], version) for key in names if key in config}
    return {"return_sequences": False, "reset_after": False} | config | own


def _both(name: str, config: dict[str, Any], version: int, lengths: bool) -> dict[str, Any]:
    """The settings of both directions; a backward layer that is not told is the forward's like."""
    ahead = config["layer"]
    behind = config.get("backward_layer") or ahead
    parts = []
    for part, backwards in ((ahead, False), (behind, True)):
        kind, own = part["class_name"], part["config"]
        _check_origin(kind, name, part)
        if kind not in CELLS:
            raise refusal("rnncore", f"Bidirectional {shown(name)} of {kind}")
        _check_settings(kind, own, lengths)
        if bool(own.get("go_backwards")) != (backwards and part is not ahead):
            raise refusal("rnncore", f"Bidirectional {shown(name)} whose layers run the other way")
        parts.append((kind, _translated(own, version) | {"go_backwards": backwards}))
    return {"parts": parts, "merge_mode": config["merge_mode"]}


def _activation_of(kind: str, name: str, config: dict[str, Any], version: int) -> Any:
    if kind == "Softmax" and config.get("axis", -1) != -1:
        raise refusal("rnncore", f"Softmax {shown(name)} with axis={shown(config['axis'])}")
    slope = config.get("negative_slope", config.get("alpha"))
    slope = slope["value"] if isinstance(slope, dict) else slope
    if kind == "ReLU":
        return ("leaky_relu", float(slope)) if slope else "relu"
    if kind == "LeakyReLU":
        return ("leaky_relu", 0.3 if slope is None else float(slope))
    return ("elu", 1.0 if slope is None else float(slope)) if kind == "ELU" else "softmax"


def _gains(name: str, config: dict[str, Any], arrays: list[Array]) -> list[Array]:
    """Gain and bias of a LayerNormalization, ones or zeros for what it does without."""
    if config.get("axis", -1) not in (-1, [-1], 2, [2]):  # Keras 2 counts from the front
        raise refusal(
            "rnncore", f"LayerNormalization {shown(name)} with axis={shown(config['axis'])}"
        )
    if not arrays:
        raise refusal("rnncore", f"LayerNormalization {shown(name)} without center and scale")
    left = iter(arrays)
    gamma = next(left) if config.get("scale", True) else np.ones_like(arrays[0])
    beta = next(left) if config.get("center", True) else np.zeros_like(arrays[0])
    return [gamma, beta]
