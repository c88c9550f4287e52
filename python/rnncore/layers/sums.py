"""Sums over rows, in an order of their own: the same bits however many threads NumPy's BLAS has."""

from __future__ import annotations

import numpy as np

from ..arrays import Array

#: Rows that are summed one by one: a float32 sum of a million of them would lose four digits.
_BLOCK = 1024


def summed(*factors: Array) -> Array:
    """Return the sums `(..., C)` over the rows of arrays `(..., N, C)`, or of their products.

    Zeros after the last row change no bit.
    """
    columns = factors[0].shape[-1]
    if (
        columns == 1
    ):  # which NumPy would sum in strands, whose ends depend on how many rows there are
        factors = tuple(np.repeat(factor, 2, axis=-1) for factor in factors)
    factors = tuple(np.ascontiguousarray(factor) for factor in factors)
    sums = ",".join(["...nc"] * len(factors)) + "->...c"
    blocks = range(0, max(factors[0].shape[-2], 1), _BLOCK)
    parts = [
        np.einsum(sums, *(factor[..., at : at + _BLOCK, :] for factor in factors)) for at in blocks
    ]
    total: Array = parts[0]
    for part in parts[1:]:
        total += part
    return total[..., :columns]
