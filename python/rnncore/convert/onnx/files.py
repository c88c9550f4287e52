"""ONNX files opened, and what they hold in NumPy's terms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array, as_array
from ..common import refusal


def import_onnx() -> Any:
    """Return the package onnx, or raise an `ImportError` that names the extra."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx: pip install 'rnncore[convert]'"
        ) from error
    return onnx


def load(source: Any) -> Any:
    """Return a checked ModelProto of a file or of one that onnx has loaded."""
    onnx = import_onnx()
    try:
        proto = source
        if not isinstance(source, onnx.ModelProto):
            if not os.path.isfile(source):
                raise FileNotFoundError(f"no such model file: {os.fspath(source)}")
            proto = onnx.load(os.fspath(source))
        with _shapes(proto.graph):
            onnx.checker.check_model(proto)
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # protobuf's and onnx's own, which share no base
        name = "this" if isinstance(source, onnx.ModelProto) else os.fspath(source)
        raise ValueError(f"{name} is not a readable ONNX model: {error}") from error
    return proto


@contextmanager
def _shapes(graph: Any) -> Iterator[None]:
    """Give a shape, for a while, to inputs and outputs without one: the checker alone wants it."""
    kinds = [value.type.tensor_type for value in (*graph.input, *graph.output)]
    bare = [kind for kind in kinds if kind.elem_type and not kind.HasField("shape")]
    for kind in bare:
        kind.shape.SetInParent()
    try:
        yield
    finally:
        for kind in bare:
            kind.ClearField("shape")


@dataclass(frozen=True)
class Input:
    """What a graph says of one of its inputs; a size that it leaves open is a name or None."""

    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None

    def checked(self, name: str, value: npt.ArrayLike) -> Array:
        """Return the value as an array of this dtype, or raise naming what was expected."""
        array = as_array(name, value, self.dtype)
        if self.shape is not None:
            fits = len(self.shape) == array.ndim and all(
                size == wanted
                for size, wanted in zip(array.shape, self.shape, strict=True)
                if isinstance(wanted, int)
            )
            if not fits:
                shown = ", ".join("?" if size is None else str(size) for size in self.shape)
                raise ValueError(f"{name} must have shape ({shown}), got {array.shape}")
        return array


def described(onnx: Any, value: Any) -> Input:
    """What a graph says of an input."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise refusal("rnncore", f"the input {value.name}, which is no tensor")
    dtype = _dtype(onnx, f"the input {value.name}", kind.elem_type)
    if not kind.HasField("shape"):
        return Input(dtype, None)
    sizes = [
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in kind.shape.dim
    ]
    return Input(dtype, tuple(sizes))


def _dtype(onnx: Any, where: str, kind: int) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except KeyError as error:
        raise refusal("rnncore", f"{where}: numbers of ONNX's type {kind}") from error
    return dtype


def attributes_of(onnx: Any, where: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield a node's attributes: numbers, texts, lists of them, arrays."""
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            value = [item.decode() for item in value]
        elif isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, (onnx.GraphProto, onnx.SparseTensorProto)):
            raise refusal("rnncore", f"{where}: the attribute {attribute.name}")
        if node.op_type == "Cast" and attribute.name == "to":
            value = _dtype(onnx, where, value)
        yield attribute.name, value


def constant_of(where: str, attributes: Mapping[str, Any]) -> Array:
    """The value of a Constant node."""
    (name, value) = next(iter(attributes.items()))
    kinds = {"value_float": np.float32, "value_floats": np.float32}
    if name not in ("value", "value_int", "value_ints", *kinds):
        raise refusal("rnncore", f"{where}: the attribute {name}")
    return np.asarray(value, None if name == "value" else kinds.get(name, np.int64))
