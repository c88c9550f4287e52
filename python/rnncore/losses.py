"""Losses: `loss(x, targets, mask=None) -> float`, and `loss.vjp(...) -> (float, pullback)`.

`pullback(dloss=1.0)` gives the gradient of x, the first argument. A mask is true where an element
counts (`length_mask` makes one from lengths); the others are never looked at, so that NaN and
invalid targets there do no harm, and their gradient is zero. `reduction="mean"` divides by the
number of counted elements; where none is counted, the loss is 0 and the gradient zero. The sum is
taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import (
    Array,
    as_booleans,
    as_float,
    as_indices,
    as_integers,
    as_shape,
    check_count,
    check_number,
    short,
)
from .layers import Pullback
from .module import once

#: The gradient of the counted rows, times a scale.
_Backward: TypeAlias = Callable[[float], Array]


class Loss:
    """Base of the losses: checks, selects the rows that count, and reduces what `_terms` gives."""

    #: What the first argument is called in messages.
    _x = "logits"

    def __init__(self, reduction: str = "mean") -> None:
        if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {short(reduction)}")
        self.reduction = reduction

    def __call__(
        self, x: npt.ArrayLike, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None
    ) -> float:
        """Return the loss."""
        return self.vjp(x, targets, mask)[0]

    def vjp(
        self, x: npt.ArrayLike, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None
    ) -> tuple[float, Pullback]:
        """Return the loss and the pullback from dloss to dx."""
        x = as_float(self._x, x)
        targets = self._check_targets(x, targets)
        kept = None if mask is None else self._check_mask(x, mask)
        axes = targets.ndim if kept is None else kept.ndim
        rows, wanted = _join_axes(x, axes), _join_axes(targets, axes)
        if kept is not None:
            rows, wanted = rows[kept.reshape(-1)], wanted[kept.reshape(-1)]
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity pass through quietly
            terms, backward = self._terms(rows, wanted)
            scale = 1 / max(terms.size, 1) if self.reduction == "mean" else 1.0
            loss = float(terms.sum(dtype=np.float64)) * scale

        def pullback(dloss: float = 1.0) -> Array:
            with np.errstate(invalid="ignore", over="ignore"):
                gradient = backward(float(dloss) * scale)
            if kept is None:
                return gradient.reshape(x.shape)
            dx = np.zeros_like(x, order="C")
            dx[kept] = gradient
            return dx

        return loss, once(pullback)

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> Array:
        """Return the targets as an array whose shape and dtype fit x."""
        return as_shape("targets", targets, x.dtype, x.shape, f"{self._x} are")

    def _check_mask(self, x: Array, mask: npt.ArrayLike) -> Array:
        """Return the mask as booleans over the leading axes of x."""
        mask = as_booleans("mask", mask)
        if mask.shape != x.shape[: mask.ndim]:
            raise ValueError(
                f"mask must have the leading axes of {self._x} {x.shape}, got {mask.shape}"
            )
        return mask

    def _terms(self, x: Array, targets: Array) -> tuple[Array, _Backward]:
        """Return the loss of every counted element, and how to get the gradient of their sum."""
        raise NotImplementedError


class SoftmaxCrossEntropy(Loss):
    """-sum_k q_k log softmax(logits)_k, where q is one at the target, and 0 elsewhere.

    logits `(..., K)`, targets integers `(...)` in 0..K-1, mask `(...)`. With `label_smoothing` e,
    q is e/K everywhere and 1 - e more at the target (Szegedy et al. 2016, section 7).
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        if not 0 <= check_number("label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        super().__init__(reduction)
        self.label_smoothing = float(label_smoothing)

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> Array:
        if x.ndim < 1 or x.shape[-1] < 1:
            raise ValueError(f"logits must have shape (..., classes), got {x.shape}")
        targets = as_integers("targets", targets)
        if targets.shape != x.shape[:-1]:
            raise ValueError(f"targets must have shape {x.shape[:-1]}, got {targets.shape}")
        return targets

    def _check_mask(self, x: Array, mask: npt.ArrayLike) -> Array:
        mask = as_booleans("mask", mask)
        if mask.shape != x.shape[:-1]:
            raise ValueError(f"mask must have shape {x.shape[:-1]}, got {mask.shape}")
        return mask

    def _terms(self, x: Array, targets: Array) -> tuple[Array, _Backward]:
        classes, smoothing = x.shape[1], self.label_smoothing
        targets = as_indices("targets", targets, classes)
        at_target = np.arange(len(x)) * classes + targets
        z: Array = x - x.max(axis=1, keepdims=True)
        flat = z.reshape(-1)  # a view: indexing it once is twice as fast as by row and column
        terms: Array = (smoothing - 1) * flat[at_target]
        if smoothing:
            terms -= smoothing * z.mean(axis=1)
        np.exp(z, out=z)
        total = z @ np.ones(classes, z.dtype)
        terms += np.log(total)

        def backward(scale: float) -> Array:
            np.multiply(z, (scale / total)[:, None], out=z)
            if smoothing:
                np.subtract(z, scale * smoothing / classes, out=z)
            flat[at_target] -= scale * (1 - smoothing)
            return z

        return terms, backward


class BinaryCrossEntropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), where p = sigmoid(logits).

    logits and targets of one shape and dtype (boolean targets serve as well), targets in [0, 1];
    the mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    def _terms(self, x: Array, targets: Array) -> tuple[Array, _Backward]:
        if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
            raise ValueError(f"targets must be in [0, 1], got {targets.min()} to {targets.max()}")
        # With z = exp(-|x|): log(1 + exp(x)) = max(x, 0) + log(1 + z), sigmoid(|x|) = 1 / (1 + z).
        z = np.exp(-np.abs(x))
        terms = np.maximum(x, 0)
        terms -= x * targets
        terms += np.log1p(z)

        def backward(scale: float) -> Array:
            dx = np.where(x >= 0, x.dtype.type(1), z)
            np.divide(dx, 1 + z, out=dx)
            dx -= targets
            dx *= scale
            return dx

        return terms, backward


class MeanSquaredError(Loss):
    """(prediction - target)^2, predictions and targets of one shape and dtype.

    The mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def _terms(self, x: Array, targets: Array) -> tuple[Array, _Backward]:
        error = x - targets
        return error * error, lambda scale: error * (2 * scale)


def length_mask(lengths: npt.ArrayLike, T: int, batch_first: bool = False) -> Array:
    """Return booleans `(T, B)`, or `(B, T)`, true at the first `lengths[b]` steps of row b.

    `lengths` are B integers in 0..T; others raise `ValueError`.
    """
    lengths = as_indices("lengths", lengths, check_count("T", T, 0) + 1)
    if lengths.ndim != 1:
        raise ValueError(f"lengths must have shape (B,), got {lengths.shape}")
    steps = np.arange(T)
    return steps < lengths[:, None] if batch_first else steps[:, None] < lengths


def _join_axes(array: Array, axes: int) -> Array:
    """Reshape the first `axes` axes to one."""
    return array.reshape(math.prod(array.shape[:axes]), *array.shape[axes:])
