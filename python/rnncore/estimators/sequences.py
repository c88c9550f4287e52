"""Sequences in the forms that users have them in, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..losses import length_mask


class Sequences(NamedTuple):
    """Sequences as stretches of one array of steps, and the form that they came in."""

    steps: Array  # (S, I)
    starts: Array  # (N,)
    lengths: Array  # (N,), at least 1
    form: str  # "table" (N, I), "array" (N, T, I) or "list" of (T_n, I)

    def pick(self, rows: Array) -> Sequences:
        """Return some of the sequences."""
        return self._replace(starts=self.starts[rows], lengths=self.lengths[rows])

    def padded(self, values: Array | None = None) -> tuple[Array, Array | None]:
        """Return `values` of the steps, or the steps, as (N, T, ...), and lengths if they differ.

        Padding is zero.
        """
        values = self.steps if values is None else values
        longest = int(self.lengths.max())
        places = self.starts[:, None] + np.arange(longest)
        if np.all(self.lengths == longest):
            return values[places], None
        inside = length_mask(self.lengths, longest, batch_first=True)
        out = np.zeros((*places.shape, *values.shape[1:]), values.dtype)
        out[inside] = values[places[inside]]
        return out, self.lengths

    def batches(self, size: int) -> Iterator[Sequences]:
        """Yield all sequences, `size` at a time."""
        for at in range(0, len(self.lengths), size):
            yield self.pick(np.arange(at, min(at + size, len(self.lengths))))

    def flatten(self, name: str, values: Any) -> Array:
        """Return what a user gives for each step, in the form of X, as an array over all steps."""
        if self.form == "table":
            return np.asarray(values)
        if self.form == "list":
            rows = _arrays(name, values)
            if len(rows) != len(self.lengths):
                raise ValueError(
                    f"{name} must have {len(self.lengths)} sequences, as X has, got {len(rows)}"
                )
            for at, (row, length) in enumerate(zip(rows, self.lengths, strict=True)):
                if row.shape != (length,):
                    raise ValueError(
                        f"sequence {at} of {name} must have shape ({length},), one entry for each "
                        f"step, got {row.shape}"
                    )
            return np.concatenate(rows)
        values, shape = np.asarray(values), (len(self.lengths), int(self.lengths[0]))
        if values.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape}, one entry for each step, got {values.shape}"
            )
        flat: Array = values.reshape(-1)
        return flat

    def restore(self, values: Array) -> Any:
        """Return an array over all steps in the form that the sequences came in."""
        if self.form == "table":
            return values
        if self.form == "list":
            return np.split(values, self.starts[1:])
        return values.reshape(len(self.lengths), -1, *values.shape[1:])


def read(estimator: Any, X: Any, *, reset: bool, dtype: npt.DTypeLike) -> Sequences:
    """Check X and return its sequences; `reset` makes the estimator remember its features."""
    steps, lengths, form = flatten(X)
    steps = validate_data(estimator, steps, reset=reset, dtype=dtype, order="C")
    if lengths is None:
        lengths = np.ones(len(steps), np.intp)
    return Sequences(steps, np.cumsum(lengths) - lengths, lengths, form)


def flatten(X: Any) -> tuple[Any, Array | None, str]:
    """Return all steps of X as (S, I), the lengths of its sequences, and the form of X.

    Tables are returned as they are, unchecked, with None for the lengths.
    """
    if getattr(X, "ndim", None) == 3:
        X = np.asarray(X)
        if not X.shape[1]:
            raise ValueError(f"X must have sequences of at least one step, got shape {X.shape}")
        return X.reshape(len(X) * X.shape[1], X.shape[2]), np.full(len(X), X.shape[1]), "array"
    if not _holds_sequences(X):
        return X, None, "table"
    rows = _arrays("X", X)
    width = rows[0].shape[-1]
    for at, row in enumerate(rows):
        if row.ndim != 2 or row.shape[1] != width or not len(row):
            raise ValueError(
                f"sequence {at} of X must have shape (T, {width}) with at least one step, "
                f"got {row.shape}"
            )
    return np.concatenate(rows), np.array([len(row) for row in rows]), "list"


def _holds_sequences(X: Any) -> bool:
    """Whether X is a list, or a 1-D array of objects, whose first entry is 2-D."""
    if not (isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.ndim == 1)):
        return False
    first = X[0] if len(X) else None
    if isinstance(first, (list, tuple)):
        return bool(first) and isinstance(first[0], (list, tuple, np.ndarray))
    return getattr(first, "ndim", None) == 2


def _arrays(name: str, sequences: Any) -> list[Array]:
    arrays = []
    for at, sequence in enumerate(sequences):
        try:
            arrays.append(np.asarray(sequence))
        except ValueError as error:
            raise ValueError(f"sequence {at} of {name} is no array: {error}") from error
    return arrays
