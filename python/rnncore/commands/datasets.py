"""Data sets as files of arrays, for the estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array

#: What a name of no file stands for.
DIGITS = "digits"


class Dataset(NamedTuple):
    """Sequences, what is to be told of them (None: how they go on), and the kind of task."""

    X: Any
    y: Any
    task: str


def read(path: str) -> Dataset:
    """Read a data set.

    .npz: X (N, T, I), or (N, T) of one feature; if there is one, `lengths` (N,); and y, labels or
    numbers (N,), labels of each step (N, T), or none, to forecast. .npy, .csv: one series (T, I).
    Raises `ValueError` naming the file where it holds nothing such, and `FileNotFoundError`.
    """
    if path == DIGITS:
        return _digits()
    try:
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _sequences({name: arrays[name] for name in arrays.files})
        if Path(path).suffix == ".npy":
            return _series(np.load(path, allow_pickle=False))
        if Path(path).suffix == ".csv":
            return _series(np.genfromtxt(path, delimiter=",", dtype=np.float32, encoding="utf-8"))
    except (ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"{path} must end in .npz, .npy or .csv, or be {DIGITS!r}")


def _sequences(arrays: dict[str, Array]) -> Dataset:
    if "X" not in arrays:
        raise ValueError(f"there must be an array X, got {', '.join(arrays) or 'none'}")
    X: Any = arrays["X"]
    y: Any = arrays.get("y")
    lengths = arrays.get("lengths")
    X = X[..., None] if X.ndim == 2 else X
    if X.ndim != 3 or X.dtype.kind not in "biuf":
        raise ValueError(f"X must be numbers (N, T, I), got {X.dtype} {X.shape}")
    count, steps, _ = X.shape
    if y is not None and (y.ndim not in (1, 2) or len(y) != count):
        raise ValueError(f"y must have shape ({count},) or ({count}, {steps}), got {y.shape}")
    X = X.astype(np.float32)
    if lengths is not None:
        if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
            raise ValueError(f"lengths must be ({count},) whole numbers, got {lengths.shape}")
        if np.any((lengths < 1) | (lengths > steps)):
            raise ValueError(f"lengths must be in 1..{steps}")
        X = [row[:length] for row, length in zip(X, lengths, strict=True)]
    if y is None:
        return Dataset(list(X), None, "forecast")
    if y.ndim == 2:
        if y.shape != (count, steps):
            raise ValueError(f"y must have shape ({count}, {steps}), got {y.shape}")
        if lengths is not None:
            y = [row[:length] for row, length in zip(y, lengths, strict=True)]
        return Dataset(X, y, "label")
    return Dataset(X, y, "regress" if y.dtype.kind == "f" else "classify")


def _series(values: Array) -> Dataset:
    """Return a series; a first line of names, read as NaN, is left out."""
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(f"a series must be numbers (T, I), got {values.dtype} {values.shape}")
    values = values[1:] if len(values) > 1 and np.isnan(values[0]).all() else values
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"step {row} of the series holds something that is no finite number")
    return Dataset([values.astype(np.float32)], None, "forecast")


def _digits() -> Dataset:
    """Return scikit-learn's images of digits, 8 steps of 8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Dataset(digits.images.astype(np.float32), digits.target, "classify")
