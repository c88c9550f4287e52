"""ONNX Runtime as the reference for what we read and write."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget
from ..common import Report, check
from .files import Input


def is_installed() -> bool:
    """Whether ONNX Runtime can be asked."""
    return find_spec("onnxruntime") is not None


def as_inputs(verify: Any) -> tuple[Array, ...]:
    """Return inputs given to `verify=` as a tuple."""
    return verify if isinstance(verify, tuple) else (verify,)


def random_inputs(inputs: Mapping[str, Input], budget: Budget) -> tuple[Array, ...]:
    """Draw inputs that a model takes: floats at random, whole numbers all one."""
    rng = np.random.default_rng(0)
    sizes: dict[str | None, int] = {}
    drawn = []
    for described in inputs.values():
        shape = tuple(
            size if isinstance(size, int) else sizes.setdefault(size, 3 + len(sizes))
            for size in described.shape or ()
        )
        budget.take("an input", shape, 8)
        values = rng.standard_normal(shape) if described.dtype.kind == "f" else np.ones(shape)
        drawn.append(values.astype(described.dtype))
    return tuple(drawn)


def compare(
    got: tuple[Array, ...],
    proto: Any,
    inputs: dict[str, Array],
    report: Report,
    rounded: bool = False,
) -> None:
    """Compare outputs with those of ONNX Runtime."""
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
