"""How far the outputs of a quantized model are from those of the model it was made from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..arrays import Array
from ..convert.common import as_floats, output, random_input, readable
from ..module import Module

#: The size of random input: small errors add up over the steps.
STEPS, BATCH = 64, 8


def inputs(path: Path) -> Array:
    """Read inputs from a .npy, or from a .npz that has an array x."""
    with readable(str(path), "is no .npy or .npz of plain arrays", EOFError, zipfile.BadZipFile):
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if "x" not in found:
                raise ValueError(f"there is no array x, only {', '.join(found) or 'nothing'}")
            return np.asarray(found["x"])


def differences(
    whole: Module, quantized: Module, path: Path | None, data: Array | None
) -> list[str]:
    """Say in a line each what the outputs differ by at most, on random input and on `data`.

    path: the file that the data are from. Raises `ValueError` where the model cannot take them.
    """
    try:
        x = random_input(whole, STEPS, BATCH)
        said = [f"{_difference(whole, quantized, x)} on random input"]
    except (TypeError, ValueError):  # those that take forests, or two sequences
        said = [f"no random input is known for a {type(whole).__name__}"]
    if data is not None:
        try:
            x = data if data.dtype.kind in "iu" else as_floats("x", data).astype(np.float32)
            said.append(f"{_difference(whole, quantized, x)} on {path}")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    return said


def _difference(whole: Module, quantized: Module, x: Array) -> str:
    exact, rounded = output(whole, x), output(quantized, x)
    difference = np.abs(rounded - exact).max(initial=0)
    largest = np.abs(exact).max(initial=0)
    return f"largest difference {difference:.2g}, the largest output being {largest:.2g},"
