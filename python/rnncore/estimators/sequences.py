"""Sequences in the forms that users have them in, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..compositions.ragged import length_mask
from ..hints import WORDS


class Ragged(list[Any]):
    """A list of arrays that NumPy takes as a 1-D array of objects, whatever their lengths.

    So `cross_val_predict` puts predictions for ragged lists together.
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return _as_objects(list(self)).astype(dtype or object, copy=False)


class Given(NamedTuple):
    """What a user gave as X: all steps, the lengths of the sequences, and the form."""

    steps: Any  # (S, I), or a table as it came
    lengths: Array | None  # (N,), None for a table
    form: str  # "table" (N, I), "array" (N, T, I), "list" or "objects" (1-D array) of (T_n, I)
    named: Any  # what tells the names of features, or at least their number

    def restore(self, values: Array) -> Any:
        """Return an array over all steps in the form that the sequences came in."""
        if self.lengths is None:
            return values
        if self.form == "array":
            steps = int(self.lengths[0]) if len(self.lengths) else 0
            return values.reshape(len(self.lengths), steps, *values.shape[1:])
        rows = Ragged(np.split(values, np.cumsum(self.lengths)[:-1]))
        return rows if self.form == "list" else np.asarray(rows)

    def flatten(self, name: str, values: Any) -> Any:
        """Return what a user gives for each step, in the form of X, as an array over all steps."""
        if self.lengths is None:
            return values
        if self.form == "array":
            return self._flatten_array(name, np.asarray(values))
        if not hasattr(values, "__len__"):
            kind = type(values).__name__
            raise TypeError(f"{name} must have one array for each sequence of X, got {kind}")
        rows = [_array(name, at, row) for at, row in enumerate(values)]
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
        return _joined(name, rows)

    def _flatten_array(self, name: str, values: Array) -> Array:
        assert self.lengths is not None
        shape = (len(self.lengths), int(self.lengths.max(initial=0)))
        if values.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape}, one entry for each step, got {values.shape}"
            )
        flat: Array = values.reshape(-1)
        return flat

    def spread(self, name: str, values: Any) -> Any:
        """`flatten`, for values that may also be one for each sequence, `(N,)`."""
        if self.lengths is None:
            return values
        if isinstance(values, Real):
            values = np.full(len(self.lengths), values)
        if not hasattr(values, "__len__") or _axes(next(iter(values), 0)):
            return self.flatten(name, values)
        if len(values) != len(self.lengths):
            raise ValueError(
                f"{name} must have shape ({len(self.lengths)},), one entry for each sequence, or "
                f"the form of X, one for each step; got {np.shape(values)}"
            )
        return np.repeat(np.asarray(values), self.lengths)


class Sequences(NamedTuple):
    """Sequences as stretches of one array of steps, and what they came from."""

    steps: Array  # (S, I)
    starts: Array  # (N,)
    lengths: Array  # (N,)
    given: Given
    weights: Array | None = None  # (N,), how much each counts; None: all alike
    step_weights: Array | None = None  # (S,), the same of steps, where they have targets

    def pick(self, rows: Array) -> Sequences:
        """Return some of the sequences."""
        weights = None if self.weights is None else self.weights[rows]
        return self._replace(starts=self.starts[rows], lengths=self.lengths[rows], weights=weights)

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

    def batches(self, rows: Array, size: int) -> Iterator[Sequences]:
        """Yield the sequences of these rows, `size` at a time."""
        for at in range(0, len(rows), size):
            yield self.pick(rows[at : at + size])


def read(estimator: Any, X: Any, *, reset: bool, dtype: npt.DTypeLike) -> Sequences:
    """Check X and return its sequences; `reset` makes the estimator remember its features.

    What was fitted on sequences refuses a table: that may be one series.
    """
    given = flatten(X)
    if reset:
        estimator._tables = given.lengths is None
    elif given.lengths is None and not getattr(estimator, "_tables", True):
        raise ValueError(f"{as_sequences(X)}; {type(estimator).__name__} was fitted on sequences")
    if given.lengths is None:
        steps = _read_table(estimator, X, reset=reset, dtype=dtype, order="C")
        lengths = np.ones(len(steps), np.intp)
    else:
        if not len(given.lengths) or (reset and not given.lengths.any()):
            form = f"shape {X.shape}" if given.form == "array" else f"{len(X)} sequences of none"
            raise ValueError(f"X must have at least one step, got {form}")
        check_features(estimator, given, reset=reset)
        steps = check_array(
            given.steps,
            dtype=dtype,
            order="C",
            ensure_min_samples=0,
            estimator=estimator,
            input_name="X",
        )
        lengths = given.lengths
    return Sequences(steps, np.cumsum(lengths) - lengths, lengths, given)


def _read_table(estimator: Any, X: Any, **options: Any) -> Array:
    try:
        table: Array = validate_data(estimator, X, **options)
    except ValueError as error:
        if "setting an array element with a sequence" not in str(error):
            raise
        raise ValueError(
            "X is a table whose cells are sequences: give a list of arrays (T_n, I), "
            "[np.stack(list(row), axis=1) for row in np.asarray(X)]"
        ) from error
    return table


def check_features(estimator: Any, given: Given, *, reset: bool) -> None:
    """Let scikit-learn compare names and number of features, or remember them with `reset`."""
    validate_data(estimator, given.named, reset=reset, skip_check_array=True)


def is_table(X: Any) -> bool:
    """Whether X is one array with one or two axes."""
    known = hasattr(X, "shape") or isinstance(X, (list, tuple))
    return known and len(getattr(X, "shape", ())) < 3 and _sequences(X) is None


def as_series(X: Any) -> list[Any]:
    """Return one array `(T, I)` or `(T,)` as a list of one series."""
    if np.ndim(X) != 1:
        return [X]
    return [X.to_frame() if hasattr(X, "to_frame") else np.asarray(X)[:, None]]


def as_sequences(X: Any) -> str:
    """Say how one array is given as sequences."""
    if np.ndim(X) == 0:
        return f"X must be a list of arrays (T_n, I), got {type(X).__name__}"
    array = "X" if isinstance(X, np.ndarray) else "np.asarray(X)"
    if np.ndim(X) < 2:
        return f"X is one array {np.shape(X)}: give [{array}[:, None]] for one series"
    return (
        f"X is one array {np.shape(X)}: give [X] for one series, "
        f"{array}[:, None] for sequences of one step"
    )


def flatten(X: Any) -> Given:
    """Return all steps of X as (S, I), the lengths of its sequences, and the form of X.

    Tables are returned as they are, unchecked, with None for the lengths.
    """
    if isinstance(X, (Iterator, Mapping, Set)) and not hasattr(X, "shape"):
        raise TypeError(
            "X must be an array (N, T, I), a list of arrays (T_n, I) or a table (N, I), "
            f"got {type(X).__name__}: give a list"
        )
    check_plain("X", X)
    if len(getattr(X, "shape", ())) == 3:
        X = np.asarray(X)
        steps = X.reshape(X.shape[0] * X.shape[1], X.shape[2])
        return Given(steps, np.full(len(X), X.shape[1]), "array", steps)
    found = _sequences(X)
    if found is None:
        return Given(X, None, "table", X)
    columns = [_columns(sequence) for sequence in found]
    for at, names in enumerate(columns):
        if names != columns[0]:
            raise ValueError(
                "all sequences of X must have the same columns in the same order: sequence 0 has "
                f"{columns[0] or 'no names'}, sequence {at} has {names or 'no names'}"
            )
    rows = [_array("X", at, row) for at, row in enumerate(found)]
    width = rows[0].shape[-1] if rows[0].ndim else 1
    for at, row in enumerate(rows):
        if row.ndim != 2 or row.shape[1] != width:
            raise ValueError(f"sequence {at} of X must have shape (T, {width}), got {row.shape}")
    form = "list" if isinstance(X, (list, tuple)) else "objects"
    named = rows[0] if columns[0] is None else found[0]
    steps = np.ascontiguousarray(_joined("X", rows))  # of frames: the columns' order otherwise
    return Given(steps, np.array([len(row) for row in rows]), form, named)


def check_plain(name: str, value: Any) -> None:
    """Refuse masked arrays, which would lose their mask, and dates."""
    if np.ma.isMaskedArray(value):
        raise TypeError(
            f"{name} must not be a masked array, its mask would be lost: fill it (filled), "
            "or leave out what is masked"
        )
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        raise TypeError(f"{name} must be numbers, got {value.dtype}")


def _columns(sequence: Any) -> list[Any] | None:
    """Return the names of a frame's columns, None of what is no frame."""
    return list(sequence.columns) if hasattr(sequence, "columns") else None


def _sequences(X: Any) -> list[Any] | None:
    """Return the entries of a list, or a 1-D array of objects, that holds sequences."""
    objects = len(getattr(X, "shape", ())) == 1 and np.dtype(object) == getattr(X, "dtype", 0)
    if not (objects or isinstance(X, (list, tuple))):
        return None
    rows = list(X)
    if not rows:
        raise ValueError("X must hold at least one sequence, got none")
    if any(map(_is_words, rows)):
        raise TypeError(f"X must hold numbers, got strings: {WORDS}")
    axes = [_axes(row) for row in rows]
    if max(axes) > 1:
        return rows
    lengths = {len(row) for row, count in zip(rows, axes, strict=True) if count}
    typed = [row for row, count in zip(rows, axes, strict=True) if count and hasattr(row, "shape")]
    if typed or len(lengths) > 1:  # lists of numbers, all of one length, are a table
        array = "x" if isinstance(rows[0], np.ndarray) else "np.asarray(x)"
        table = "" if len(lengths) > 1 else ", np.stack(X) for a table"
        raise ValueError(
            f"sequence 0 of X must have shape (T, features), got {np.shape(rows[0])}: "
            f"give {array}[:, None] for each series x of one feature{table}"
        )
    return None


def _is_words(entry: Any) -> bool:
    """Whether an entry of a list is a string, or holds strings."""
    if isinstance(entry, (list, tuple)) and entry:
        entry = entry[0]
    kind = getattr(getattr(entry, "dtype", None), "kind", "")
    return isinstance(entry, str) or kind in ("S", "T", "U")


def _axes(entry: Any) -> int:
    if hasattr(entry, "shape"):
        return len(entry.shape)
    if isinstance(entry, (list, tuple)):
        return 1 + (_axes(entry[0]) if entry else 0)
    return 0


def _array(name: str, at: int, sequence: Any) -> Array:
    check_plain(f"sequence {at} of {name}", sequence)
    if hasattr(sequence, "toarray"):
        raise TypeError(f"sequence {at} of {name} is sparse: give x.toarray()")
    try:
        if not hasattr(sequence, "columns"):
            return np.asarray(sequence)
        odd = [column for column in sequence.columns if not _is_numeric(sequence[column])]
        if odd:
            raise ValueError(f"columns {odd} hold dates or text: leave them out, or number them")
        options = {"ensure_min_samples": 0, "ensure_min_features": 0, "ensure_all_finite": False}
        frame: Array = check_array(sequence, dtype=None, **options)
        return frame
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"sequence {at} of {name} is no array of numbers: {error}") from error


def _is_numeric(column: Any) -> bool:
    """Whether a column of a frame holds numbers, or what NumPy makes numbers of."""
    values = np.asarray(column)
    if values.dtype.kind in "mM":
        return False
    try:
        values.astype(np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _joined(name: str, rows: list[Array]) -> Array:
    """Return the steps of all rows; those of none, whose dtype means nothing, have no say in it."""
    rows = [row for row in rows if len(row)] or rows
    if len({row.dtype.kind in "SU" for row in rows}) > 1:
        raise ValueError(f"{name} must hold numbers or strings, got both")
    return np.concatenate(rows)


def _as_objects(rows: list[Any]) -> Array:
    objects = np.empty(len(rows), object)
    objects[:] = rows
    return objects
