"""Arrays as Keras's layers on cuDNN have them: CuDNNLSTM and CuDNNGRU, known by their biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from .settings import CELLS, plain


def plain_weights(kind: str, weights: list[Array]) -> list[Array]:
    """Return a recurrent layer's arrays as the layer that is not on cuDNN has them.

    cuDNN has two biases: 8 H numbers of an LSTM, which are summed, and 6 H of a GRU, which resets
    after then. Its matrices are transposed, each gate's by itself: a kernel's numbers lie in its
    shape (I, H) as those of an (H, I) in C order do. kind: a class of Keras's.
    """
    if kind.startswith("CuDNN") and not on_cudnn(plain(kind), weights):
        shapes = ", ".join(str(array.shape) for array in weights)
        raise ValueError(f"{kind} has arrays of shapes {shapes}: no biases of cuDNN")
    if not on_cudnn(plain(kind), weights):
        return weights
    kernel, recurrent, bias = weights
    gates = len(CELLS[plain(kind)][1])
    both = bias.reshape(2, -1)
    return [
        _gatewise(kernel, gates, lambda k: k.reshape(k.shape[::-1]).T),
        _gatewise(recurrent, gates, lambda k: k.T),
        both.sum(axis=0) if gates == 4 else both,
    ]


def on_cudnn(kind: str, weights: list[Array]) -> bool:
    """Whether these are the arrays of an LSTM or a GRU on cuDNN."""
    if kind not in ("LSTM", "GRU") or [array.ndim for array in weights] != [2, 2, 1]:
        return False
    size, columns = weights[1].shape
    gates = len(CELLS[kind][1])
    return columns == gates * size and weights[2].shape == (2 * columns,)


def _gatewise(matrix: Array, gates: int, turned: Callable[[Array], Any]) -> Array:
    parts = [np.ascontiguousarray(part) for part in np.split(matrix, gates, axis=1)]
    return np.concatenate([turned(part) for part in parts], axis=1)
