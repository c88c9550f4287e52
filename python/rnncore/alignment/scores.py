"""Log-probabilities that searches compare."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..compiled import core

_FLOAT64 = np.dtype(np.float64)


def log_softmax(logits: Array) -> Array:
    """Return log softmax of rows `(N, C)`, in float64; NaN where a row holds NaN or +inf."""
    logs: Array = core(_FLOAT64).log_softmax(logits.astype(_FLOAT64))
    return logs


def likeliest(scores: Array, count: int) -> tuple[Array, Array]:
    """Return rows and columns of the `count` best float64 scores `(N, C)`, fewer if there are none.

    In the order of rows and columns; of equal scores the first. NaN and -inf are never among them.
    """
    flat = np.where(np.isnan(scores), -np.inf, scores).reshape(1, -1)
    best = core(_FLOAT64).likeliest(flat, min(count, flat.size))[0]
    rows, columns = np.divmod(best[flat[0, best] > -np.inf], scores.shape[1])
    return rows, columns
