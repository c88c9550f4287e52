"""ONNX Runtime as the reference for what we read and write."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...arrays import Array
from ..common import Report, check
from .files import import_onnx


def is_installed() -> bool:
    """Whether ONNX Runtime can be asked."""
    return find_spec("onnxruntime") is not None


def compare(
    got: tuple[Array, ...],
    proto: Any,
    inputs: dict[str, Array],
    report: Report,
    rounded: bool = False,
) -> None:
    """Compare outputs with those of ONNX Runtime."""
    _type(proto, inputs)
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("verify= needs a reference: pip install onnxruntime") from error
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        want = session.run(None, inputs)
    except Exception as error:  # its errors share no base
        raise ValueError(f"ONNX Runtime cannot run this model: {error}") from error
    check(f"ONNX Runtime {onnxruntime.__version__}", got, want, report, rounded)


def _type(proto: Any, inputs: dict[str, Array]) -> None:
    """Say the types of inputs without one, those of a part of a graph, by their values."""
    helper = import_onnx().helper
    for value in proto.graph.input:
        if value.type.WhichOneof("value") is None:
            kind = helper.np_dtype_to_tensor_dtype(inputs[value.name].dtype)
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, None))
