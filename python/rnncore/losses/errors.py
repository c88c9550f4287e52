"""Losses of numbers: squared and absolute errors, what lies between them, quantiles."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_number, short
from .base import Loss, Terms, as_weights


class MeanSquaredError(Loss):
    """(prediction - target)^2, predictions and targets of one shape and dtype.

    The mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def _terms(self, x: Array, *beside: Array) -> Terms:
        error = x - beside[0]
        return Terms(error * error, lambda scale: error * (2 * scale))


class MeanAbsoluteError(Loss):
    """`|prediction - target|`, predictions and targets of one shape and dtype.

    It is least where the prediction is the median; torch's `L1Loss`. The gradient is zero where
    both are equal. The mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def _terms(self, x: Array, *beside: Array) -> Terms:
        error = x - beside[0]
        return Terms(np.abs(error), lambda scale: np.sign(error) * error.dtype.type(scale))


class Huber(Loss):
    """Squares of small errors, magnitudes of large ones.

        l(e) = e^2 / 2                    where |e| <= delta, e = prediction - target
        l(e) = delta (|e| - delta / 2)    elsewhere

    Large errors count linearly, so that outliers do not rule (Huber 1964, "Robust Estimation of a
    Location Parameter"); torch's `HuberLoss`. Predictions and targets of one shape and dtype; the
    mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        if not 0 < check_number("delta", delta) < math.inf:
            raise ValueError(f"delta must be positive and finite, got {delta}")
        super().__init__(reduction)
        self.delta = float(delta)

    def _terms(self, x: Array, *beside: Array) -> Terms:
        error = x - beside[0]
        slope = np.clip(error, -self.delta, self.delta)
        return Terms(slope * (error - slope / 2), lambda scale: slope * scale)


class Pinball(Loss):
    """Errors that count q where the target lies above the prediction, 1 - q where it lies below.

        l(u) = max(q u, (q - 1) u),  u = target - prediction

    It is least where the prediction is the quantile q of the targets (Koenker and Bassett 1978,
    "Regression Quantiles"). `quantile` is q, in (0, 1): a number, or one for each entry of the last
    axis, `(K,)`. Predictions and targets of one shape and dtype; the mask has that shape too, or
    its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def __init__(self, quantile: npt.ArrayLike = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.quantile = as_weights("quantile", quantile)
        if self.quantile.ndim > 1 or not np.all((self.quantile > 0) & (self.quantile < 1)):
            raise ValueError(
                f"quantile must be a number in (0, 1) or some of them (K,), got {short(quantile)}"
            )

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        beside = super()._check_targets(x, targets)
        if self.quantile.shape not in ((), x.shape[-1:]):
            raise ValueError(
                f"quantile has shape {self.quantile.shape}, but predictions have shape {x.shape}"
            )
        return (*beside, np.broadcast_to(self.quantile.astype(x.dtype), x.shape))

    def _terms(self, x: Array, *beside: Array) -> Terms:
        error = beside[0] - x
        slope = beside[1] - (error < 0)
        return Terms(slope * error, lambda scale: slope * -scale)
