"""Entries as arrays of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from ..common import as_floats, in_dtype
from ..json_files import numbers


def floats(name: str, value: Any, dtype: npt.DTypeLike | None) -> Array:
    """Read an entry; numbers without a dtype are read as the one asked for, or as float32."""
    if isinstance(value, (list, tuple, float)):
        return in_dtype(name, numbers(name, value), np.dtype(dtype or "float32"))
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # which is exact; NumPy has no bfloat16
    return as_floats(name, value)
