"""ONNX files opened, and what they hold in NumPy's terms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...arrays import Array, as_array, read
from ..budget import Budget
from ..common import readable, refusal
from .external import array_of, fetch
from .part import Part, cut


def import_onnx() -> Any:
    """Return the package onnx, or raise an `ImportError` that names the extra."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx: pip install 'rnncore[convert]'"
        ) from error
    return onnx


#: What `from_onnx` takes: a path, the bytes of a file, or an `onnx.ModelProto`.
Source: TypeAlias = Any


def name_of(source: Source) -> str:
    """What messages call a model: its file's name, where it has one."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the model"


def load(source: Source, part: Part | None = None) -> tuple[Any, Budget]:
    """Return a checked ModelProto of a file, of its bytes or of one that onnx has loaded.

    part: of it only what lies between these values. With it comes the budget of what may be made of
    it. Numbers in other files are read if these lie in the folder of the model's own.
    """
    onnx, name = import_onnx(), name_of(source)
    path = name if isinstance(source, (str, os.PathLike)) else None
    if path is not None and not os.path.isfile(path):
        raise FileNotFoundError(f"no such model file: {path}")
    if path is None and not isinstance(source, (bytes, bytearray, memoryview, onnx.ModelProto)):
        raise TypeError(
            f"source must be a path, bytes or an onnx.ModelProto, got {type(source).__name__}"
        )
    with readable(name, "is not a readable ONNX model", Exception):
        # Exception: the errors of protobuf and onnx share no base.
        proto = source
        if not isinstance(source, onnx.ModelProto):
            data = bytes(source) if path is None else Path(path).read_bytes()
            proto = onnx.load_model_from_string(data)
        budget = Budget(proto.ByteSize())
        fetch(onnx, proto, None if path is None else os.path.dirname(path), budget)
        with _shapes(proto.graph):
            onnx.checker.check_model(proto)
        return proto if part is None else cut(onnx, proto, part), budget


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
    """What a graph says of one of its inputs; a size that it leaves open is a name or None.

    dtype: None where an input is a value of a larger graph that does not say it.
    """

    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None

    def checked(self, name: str, value: npt.ArrayLike) -> Array:
        """Return the value as an array of this dtype, or raise naming what was expected."""
        array = read(name, value)[0] if self.dtype is None else as_array(name, value, self.dtype)
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
    if value.type.WhichOneof("value") is None:
        return Input(None, None)
    if not value.type.HasField("tensor_type"):
        raise refusal("rnncore", f"the input {value.name}, which is no tensor")
    dtype = _dtype(onnx, f"the input {value.name}", kind.elem_type)
    if not kind.HasField("shape"):
        return Input(dtype, None)
    if any(size.dim_value < 0 for size in kind.shape.dim):
        raise ValueError(f"the input {value.name} has a size below zero")
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


def blank(onnx: Any, value: Any) -> Array:
    """None of the arrays that a graph says of an output, one after the other."""
    kind = value.type.tensor_type
    dtype = _dtype(onnx, value.name, kind.elem_type) if kind.elem_type else np.dtype(np.float32)
    return np.zeros((0, *(max(0, size.dim_value) for size in kind.shape.dim)), dtype)


#: Attributes that are a type of numbers.
_TYPES = {("Cast", "to"), ("EyeLike", "dtype"), ("SequenceEmpty", "dtype")}


def attributes_of(onnx: Any, where: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield a node's attributes: numbers, texts, lists of them, arrays."""
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            value = [item.decode() for item in value]
        elif isinstance(value, onnx.TensorProto):
            value = array_of(onnx, value)
        elif not isinstance(value, (int, float, str, list)) or _is_list_of_others(value):
            raise refusal("rnncore", f"{where}: the attribute {attribute.name}")
        if (node.op_type, attribute.name) in _TYPES:
            value = _dtype(onnx, where, value)
        yield attribute.name, value


def _is_list_of_others(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(next(iter(value), 0), (int, float, str))


def constant_of(where: str, attributes: Mapping[str, Any]) -> Array:
    """The value of a Constant node."""
    (name, value) = next(iter(attributes.items()), ("", None))
    kinds = {"value_float": np.float32, "value_floats": np.float32}
    if name not in ("value", "value_int", "value_ints", *kinds):
        raise refusal("rnncore", f"{where}: the attribute {name}")
    return np.asarray(value, None if name == "value" else kinds.get(name, np.int64))
