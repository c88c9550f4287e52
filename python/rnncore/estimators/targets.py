"""What is to be learnt, as users have it.

scikit-learn's `validate_data(estimator, y=y)` would forget the names of X's columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..arrays import Array


def check_has_targets(estimator: Any, y: Any) -> None:
    """Refuse None, in scikit-learn's words."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None")


def as_labels(y: Any) -> Array:
    """Return labels `(N,)`, or raise `ValueError`."""
    labels: Array = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    return labels


def as_numbers(y: Any) -> Array:
    """Return real numbers `(N, ...)` without NaN, or raise `ValueError`."""
    y = check_array(y, ensure_2d=False, allow_nd=True, dtype=None, input_name="y")
    if y.dtype.kind == "O":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must be numbers: {error}") from error
    if y.dtype.kind not in "biuf":
        raise ValueError(f"y must be numbers, got {y.dtype}")
    numbers: Array = y
    return numbers
