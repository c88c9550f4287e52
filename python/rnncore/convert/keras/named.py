"""The arrays of a file by the names of layers and their own, for those who take them themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...arrays import Array
from ..common import as_floats
from ..hdf5 import Hdf5
from .arrays import CONTAINERS, behind, listed

#: What Keras calls the arrays that its newer files number, by the end of the place they lie in.
_CALLED = {
    "cell": ("kernel", "recurrent_kernel", "bias"),
    "dense": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "layer_normalization": ("gamma", "beta"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def layer_names(file: Hdf5, root: str) -> list[str]:
    """Return the names of layers in a file: their own, or of Keras 3 those of their classes."""
    for container in CONTAINERS:
        if container in file:
            return file.names(container)
    told = listed(file, root, "layer_names")
    return file.names(root) if told is None else told


def layer_arrays(file: Hdf5, root: str, layer: str) -> dict[str, Array]:
    """Return the arrays of a layer by their names behind its own."""
    for container in CONTAINERS:
        if container in file:
            paths = dict(_numbered(file, f"{container}/{layer}", layer))
            return {name: as_floats(name, file.array(path)) for name, path in paths.items()}
    group = f"{root}/{layer}" if root else layer
    listing = listed(file, group, "weight_names") or []
    names = behind(layer, [(n.split("/"), n) for n in listing])
    return {
        "/".join(parts).split(":")[0]: as_floats(whole, file.array(f"{group}/{whole}"))
        for parts, whole in names
    }


def _numbered(file: Hdf5, path: str, layer: str, inside: str = "") -> Iterator[tuple[str, str]]:
    """The names of the arrays in a place and within it, and where they are."""
    for part in sorted(file.names(path)):
        if part != "vars":
            yield from _numbered(file, f"{path}/{part}", layer, f"{inside}{part}/")
            continue
        kind = re.sub(r"_\d+$", "", inside.rstrip("/").rsplit("/", 1)[-1] or layer)
        called = _CALLED.get("cell" if kind.endswith("cell") else kind, ())
        for key in sorted(file.names(f"{path}/vars"), key=int):
            name = called[int(key)] if int(key) < len(called) else key
            yield f"{inside}{name}", f"{path}/vars/{key}"
