"""JSON files of strangers: what they say, and the arrays in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return what a file of JSON says; `ValueError` for a folder or a device, which may not end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{os.fspath(path)} is not a file")
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def numbers(name: str, value: Any) -> Array:
    """Return an array of what JSON says; NumPy alone would take texts and null for numbers too."""
    array = np.asarray(value, object)
    if array.ndim > 4 or not set(map(type, array.flat)) <= {int, float}:  # weights have 4 axes
        raise ValueError(f"{name}: weights must be numbers, in rows of equal length")
    return array.astype(np.float64)
