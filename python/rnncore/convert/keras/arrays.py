"""Where the arrays of layers lie in HDF5 files: under layers' names, or under those of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile
from typing import Any, Protocol

from ...arrays import Array
from ..common import as_floats
from ..hdf5 import Hdf5
from .settings import CELLS, plain

#: A layer in a configuration: its class, its settings, where its inputs come from.
Entry = Mapping[str, Any]
#: Where files of Keras 3 have the arrays of a model.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


class Source(Protocol):
    """Arrays of a model's layers."""

    def of_layers(self, entries: Sequence[Entry]) -> Sequence[Source]:
        """Return where the arrays of all layers of a model are."""

    def inner(self, entry: Entry) -> Source:
        """Return where the arrays of the layer within a `TimeDistributed` are."""

    def arrays(self, entry: Entry) -> list[Array]:
        """Return the layer's arrays, in Keras's order."""


def source_of(file: Hdf5, root: str) -> Source:
    """Return the arrays of a model, or of its weights alone."""
    for name in CONTAINERS:
        if name in file:
            return ByClass(file, "", name)
    return ByName(file, root, None)


#: What is left of an array's name behind the layers around, in parts, and the name.
_Named = tuple[list[str], str]


class ByName:
    """Arrays under the layers' names, in the order that an attribute tells (Keras 2, `.h5`)."""

    def __init__(self, file: Hdf5, group: str, names: list[_Named] | None) -> None:
        self._file, self._group = file, group
        self._names = names  # of a layer; None of a whole file

    def of_layers(self, entries: Sequence[Entry]) -> list[ByName]:
        """Return where the arrays of all layers of a model are."""
        if self._names is not None:
            owned = _owned(self._names, entries)
            return [
                ByName(self._file, self._group, behind(name_of(entry), owned[at]))
                for at, entry in enumerate(entries)
            ]
        found = []
        for name in map(name_of, entries):
            group = f"{self._group}/{name}" if self._group else name
            names = listed(self._file, group, "weight_names") or []
            given: list[_Named] = [(n.split("/"), n) for n in names]
            found.append(ByName(self._file, group, behind(name, given)))
        return found

    def inner(self, entry: Entry) -> ByName:
        """Return where the arrays of the layer within are: a wrapper has none of its own."""
        return ByName(self._file, self._group, behind(name_of(entry), self._names or []))

    def arrays(self, entry: Entry) -> list[Array]:
        """Return the layer's arrays."""
        paths = [(name, f"{self._group}/{name}") for _, name in self._names or []]
        return [as_floats(name, self._file.array(path)) for name, path in paths]


def name_of(entry: Entry) -> str:
    """Return a layer's name; that of its class, if it has none."""
    config = entry["config"] if isinstance(entry["config"], dict) else entry
    return str(config.get("name", entry["class_name"]))


def _owned(names: list[_Named], entries: Sequence[Entry]) -> dict[int, list[_Named]]:
    """The names of each layer's arrays in the list of a whole model.

    They begin with its name, or with that of what it wraps; TensorFlow adds a number where a name
    was taken before.
    """
    owners = {name: at for at, entry in enumerate(entries) for name in _called(entry)}
    exact = {owners[parts[0]] for parts, _ in names if parts[0] in owners}
    found: dict[int, list[_Named]] = {at: [] for at in range(len(entries))}
    for parts, whole in names:
        at = owners.get(parts[0])
        if at is None:
            at = owners.get(re.sub(r"_\d+$", "", parts[0]))
            at = None if at in exact else at
        if at is not None:
            found[at].append((parts, whole))
    return found


def _called(entry: Entry) -> Iterator[str]:
    """The name of a layer, and those of what it wraps."""
    yield name_of(entry)
    config = entry["config"]
    inner = config if isinstance(config, list) else config.get("layers") or []
    wrapped = [config["layer"]] if entry["class_name"] == "TimeDistributed" else inner
    for layer in wrapped:
        yield from _called(layer)


def behind(name: str, names: list[_Named]) -> list[_Named]:
    """Cut names, as their parts, behind a layer's, if all have it."""
    if all(name in parts[:-1] for parts, _ in names):
        return [(parts[parts.index(name) + 1 :], whole) for parts, whole in names]
    return names


def listed(file: Hdf5, group: str, attribute: str) -> list[str] | None:
    """Return names from an attribute, None if it is not there.

    Keras splits lists of more than 64 kB, which an attribute does not hold: "weight_names0", ...
    """
    given = file.attribute(group, attribute)
    if given is None:
        parts = takewhile(
            lambda part: part is not None,
            (file.attribute(group, f"{attribute}{at}") for at in count()),
        )
        given = [name for part in parts for name in part] or None
    if given is None:
        return None
    return [n.decode() if isinstance(n, bytes) else str(n) for n in given]


class ByClass:
    """Arrays under the names of classes, numbered where one occurs again (Keras 3)."""

    def __init__(self, file: Hdf5, path: str, container: str) -> None:
        self._file, self._path, self._container = file, path, container

    def of_layers(self, entries: Sequence[Entry]) -> list[ByClass]:
        """Return where the arrays of all layers of a model are."""
        seen = Counter[str]()
        names = [_numbered(entry["class_name"], seen) for entry in entries]
        return [self._within(f"{self._container}/{name}") for name in names]

    def inner(self, entry: Entry) -> ByClass:
        """Return where the arrays of the layer within are."""
        return self._within("layer")

    def arrays(self, entry: Entry) -> list[Array]:
        """Return the layer's arrays."""
        found = []
        for part in _parts(entry):
            path = "/".join(filter(None, (self._path, part, "vars")))
            for key in sorted(self._file.names(path), key=int):
                found.append(as_floats(f"{path}/{key}", self._file.array(f"{path}/{key}")))
        return found

    def _within(self, part: str) -> ByClass:
        path = f"{self._path}/{part}" if self._path else part
        return ByClass(self._file, path, self._container)


def _parts(entry: Entry) -> list[str]:
    """Within a layer's place, where its arrays lie."""
    kind, config = entry["class_name"], entry["config"]
    if plain(kind) in CELLS:
        return ["cell"]
    if kind == "Bidirectional":
        inside = _parts(config["layer"])
        return [f"{side}/{part}" for side in ("forward_layer", "backward_layer") for part in inside]
    if kind != "RNN":
        return [""]
    cell, seen = config["cell"], Counter[str]()
    if cell["class_name"] != "StackedRNNCells":
        return ["cell"]
    cells = cell["config"]["cells"]
    return [f"cell/cells/{_numbered(one['class_name'], seen)}" for one in cells]


def _numbered(kind: Any, seen: Counter[str]) -> str:
    """The name of a class's next place: "lstm", "lstm_1", ..."""
    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    seen[kind] += 1
    return snake if seen[kind] == 1 else f"{snake}_{seen[kind] - 1}"
