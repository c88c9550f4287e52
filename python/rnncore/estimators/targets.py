"""What is to be learnt, as users have it.

scikit-learn's `validate_data(estimator, y=y)` would forget the names of X's columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..arrays import Array
from .sequences import check_plain


def check_has_targets(estimator: Any, y: Any) -> None:
    """Refuse None, in scikit-learn's words."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None")


def as_labels(y: Any) -> Array:
    """Return labels `(N,)`, or raise `ValueError`."""
    check_plain("y", y)
    labels: Array = column_or_1d(y, warn=True)
    try:
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        np.unique(labels)
    except TypeError as error:  # they cannot be compared with one another
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise ValueError(f"y must be labels of one kind, none missing, got {kinds}") from error
    return labels


def as_numbers(y: Any) -> Array:
    """Return real numbers `(N, ...)` without NaN, or raise `ValueError`."""
    check_plain("y", y)
    numbers: Array = check_array(y, ensure_2d=False, allow_nd=True, dtype=None, input_name="y")
    if numbers.dtype.kind == "O":
        try:
            numbers = numbers.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must be numbers: {error}") from error
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"y must be numbers, got {numbers.dtype}")
    return numbers
