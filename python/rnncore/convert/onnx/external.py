"""Tensors of ONNX files as arrays, and those whose numbers lie in a file beside the model's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget
from ..common import shown
from .nested import tensors


def array_of(onnx: Any, tensor: Any) -> Array:
    """Return a tensor as an array; `ValueError` if its numbers lie elsewhere."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:  # onnx would look where the process runs
        raise _without_a_path(tensor)
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def fetch(onnx: Any, proto: Any, folder: str | None, budget: Budget) -> None:
    """Fill in the numbers that lie in other files, all of them in this very folder.

    Raises `ValueError` for those that do not, and for all where there is no folder.
    """
    files: dict[str, bytes] = {}
    for tensor in tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise _without_a_path(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            files[location] = _inside(folder, location).read_bytes()
            budget.add(len(files[location]))
        data = files[location]
        begin = int(entries.get("offset", 0))
        size = int(entries.get("length", len(data) - begin))
        if min(begin, size) < 0 or begin + size > len(data):
            raise ValueError(
                f"{shown(tensor.name)} is to be {size} bytes from byte {begin} on of "
                f"{shown(location)}, which has {len(data)}"
            )
        budget.take(shown(tensor.name), (size,))
        tensor.raw_data = data[begin : begin + size]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _without_a_path(tensor: Any) -> ValueError:
    return ValueError(
        f"the numbers of {shown(tensor.name)} lie in another file: give the path of the model, "
        "or a model whose numbers have been loaded"
    )


def _inside(folder: str, location: str) -> Path:
    """The path of a file in a folder; `ValueError` if it lies elsewhere, or is a link to there."""
    root = os.path.realpath(folder or ".")
    path = os.path.realpath(os.path.join(root, location))
    if os.path.dirname(path) != root or not os.path.isfile(path):
        raise ValueError(f"the file {shown(location)} is not in the folder of the model")
    return Path(path)
