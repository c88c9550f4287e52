"""Products of matrices, and sums of products that letters describe."""

from __future__ import annotations

import numpy as np

from ....arrays import Array
from .arguments import Operator


def _gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    y: Array = np.matmul(a.T if transA else a, b.T if transB else b)
    y = y if alpha == 1 else y * y.dtype.type(alpha)
    return y if c is None else y + (c if beta == 1 else c * c.dtype.type(beta))


def _einsum(*parts: Array, equation: str) -> Array:
    """At most two arrays: NumPy takes as many, but of more it makes large ones in between."""
    if len(parts) > 2:
        raise ValueError(f"rnncore cannot represent Einsum of {len(parts)} arrays")
    y: Array = np.einsum(equation, *parts, optimize=len(parts) > 1)
    return y


OPERATORS: dict[str, Operator] = {
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": lambda a, b: np.matmul(a, b),
}
