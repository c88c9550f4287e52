"""Losses of classes: cross-entropies."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_indices, as_integers, check_number, short
from .base import Loss, Terms, as_mask, as_weights


class SoftmaxCrossEntropy(Loss):
    """-sum_k w_k q_k log softmax(logits)_k, where q is one at the target, and 0 elsewhere.

    logits `(..., K)`, targets integers `(...)` in 0..K-1, mask `(...)`. With `label_smoothing` e,
    q is e/K everywhere and 1 - e more at the target (Szegedy et al. 2016, section 7).
    `class_weight` `(K,)` is w, one if None; the mean divides by the sum of the targets' weights.
    Targets of `ignore_index`, an integer, count nothing, as if the mask were false there; None:
    there are none. torch's `CrossEntropyLoss`, whose `weight` is `class_weight`, and whose
    `ignore_index` is -100 unless told otherwise.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        *,
        class_weight: npt.ArrayLike | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if not 0 <= check_number("label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        super().__init__(reduction)
        self.label_smoothing = float(label_smoothing)
        self.class_weight = _as_class_weight(class_weight)
        self.ignore_index = None if ignore_index is None else _as_ignored(ignore_index)

    def counted(self, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
        """Return what the mean divides by: the sum of the weights of the targets that count."""
        if self.class_weight is None and self.ignore_index is None:
            return super().counted(targets, mask)
        targets = np.asarray(targets)
        own = self._known(targets, np.broadcast_to(True if mask is None else mask, targets.shape))
        kept = own != 0
        weights = own[kept].astype(np.float64)
        if self.class_weight is not None:
            weights *= self.class_weight[targets[kept]]
        return float(weights.sum())

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        if x.ndim < 1 or x.shape[-1] < 1:
            raise ValueError(f"logits must have shape (..., classes), got {x.shape}")
        if self.class_weight is not None and len(self.class_weight) != x.shape[-1]:
            raise ValueError(
                f"class_weight has {len(self.class_weight)} classes, "
                f"but logits have shape {x.shape}"
            )
        if np.shape(targets) == x.shape:
            raise ValueError(
                f"targets must be numbers of classes {x.shape[:-1]}, got {x.shape}: "
                "of rows with a one at the class, write targets.argmax(-1)"
            )
        targets = as_integers("targets", targets)
        if targets.shape != x.shape[:-1]:
            raise ValueError(f"targets must have shape {x.shape[:-1]}, got {targets.shape}")
        return (targets,)

    def _check_mask(self, x: Array, mask: npt.ArrayLike) -> Array:
        mask = as_mask(mask, x.dtype)
        if mask.shape != x.shape[:-1]:
            raise ValueError(f"mask must have shape {x.shape[:-1]}, got {mask.shape}")
        return mask

    def _counting(self, x: Array, targets: Array, mask: npt.ArrayLike | None) -> Array | None:
        own = super()._counting(x, targets, mask)
        if self.ignore_index is None:
            return own
        return self._known(targets, np.ones(targets.shape, bool) if own is None else own)

    def _known(self, targets: Array, own: Array) -> Array:
        """Return a mask without the targets that are to be ignored."""
        if self.ignore_index is None:
            return own
        return np.where(targets == self.ignore_index, own.dtype.type(0), own)

    def _terms(self, x: Array, *beside: Array) -> Terms:
        classes, smoothing = x.shape[1], self.label_smoothing
        targets = self._classes(beside[0], classes)
        weight = None if self.class_weight is None else self.class_weight.astype(x.dtype)
        weights = None if weight is None else weight[targets]
        # What logits are pulled towards: `own` at the target, `rest` at every class.
        own: Any = (1 - smoothing) * (1 if weights is None else weights)
        rest = np.full(classes, smoothing / classes, x.dtype)
        if weight is not None:
            rest *= weight
        mass = 1 if weight is None else own + rest.sum()
        at_target = np.arange(len(x)) * classes + targets
        z: Array = x - x.max(axis=1, keepdims=True)
        flat = z.reshape(-1)  # a view: indexing it once is twice as fast as by row and column
        values: Array = -own * flat[at_target]
        if smoothing:
            values -= z @ rest
        np.exp(z, out=z)
        total = z @ np.ones(classes, z.dtype)
        values += mass * np.log(total)

        def backward(scale: float) -> Array:
            np.multiply(z, (scale * mass / total)[:, None], out=z)
            if smoothing:
                np.subtract(z, scale * rest, out=z)
            flat[at_target] -= scale * own
            return z

        return Terms(values, backward, weights)

    def _classes(self, targets: Array, classes: int) -> Array:
        """Return targets ready to index with."""
        try:
            return as_indices("targets", targets, classes)
        except ValueError as error:
            if self.ignore_index is not None or not np.any(targets < 0):
                raise
            lowest = targets.min()
            hint = f"ignore_index={lowest} lets targets of {lowest} count nothing"
            raise ValueError(f"{error}: {hint}") from None


class BinaryCrossEntropy(Loss):
    """-(w t log p + (1 - t) log(1 - p)), where p = sigmoid(logits).

    logits and targets of one shape and dtype (boolean targets serve as well), targets in [0, 1];
    the mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`. `pos_weight` is w, a
    number or one for each entry of the last axis, `(K,)`, one if None. As in torch, the mean does
    not divide by it.
    """

    def __init__(self, reduction: str = "mean", *, pos_weight: npt.ArrayLike | None = None) -> None:
        super().__init__(reduction)
        self.pos_weight = None if pos_weight is None else as_weights("pos_weight", pos_weight)
        if self.pos_weight is not None and self.pos_weight.ndim > 1:
            raise ValueError(
                f"pos_weight must be a number or have shape (K,), got {self.pos_weight.shape}"
            )

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        beside = super()._check_targets(x, targets)
        if self.pos_weight is None:
            return beside
        if self.pos_weight.shape not in ((), x.shape[-1:]):
            raise ValueError(
                f"pos_weight has shape {self.pos_weight.shape}, but logits have shape {x.shape}"
            )
        return (*beside, np.broadcast_to(self.pos_weight.astype(x.dtype), x.shape))

    def _terms(self, x: Array, *beside: Array) -> Terms:
        targets = beside[0]
        if targets.size and not (targets.min() >= 0 and targets.max() <= 1):
            raise ValueError(f"targets must be in [0, 1], got {targets.min()} to {targets.max()}")
        # With z = exp(-|x|): log(1 + exp(x)) = max(x, 0) + log(1 + z), sigmoid(|x|) = 1 / (1 + z).
        z = np.exp(-np.abs(x))
        values = np.maximum(x, 0)
        values -= x * targets
        values += np.log1p(z)
        extra = None
        if len(beside) > 1:  # w - 1 times the loss of the positives
            extra = (beside[1] - 1) * targets
            values += extra * (np.log1p(z) - np.minimum(x, 0))

        def backward(scale: float) -> Array:
            dx = np.where(x >= 0, x.dtype.type(1), z)
            np.divide(dx, 1 + z, out=dx)
            if extra is not None:
                dx += extra * (dx - 1)
            dx -= targets
            dx *= scale
            return dx

        return Terms(values, backward)


def _as_class_weight(weight: npt.ArrayLike | None) -> Array | None:
    if weight is None:
        return None
    if isinstance(weight, (str, Mapping)):  # as estimators take it, which know the labels
        raise TypeError(
            "class_weight must be an array (classes,), a number for each class in the order of "
            f"the logits, got {short(weight)}"
        )
    given = as_weights("class_weight", weight)
    if given.ndim != 1:
        raise ValueError(f"class_weight must have shape (classes,), got {given.shape}")
    return given


def _as_ignored(index: int) -> int:
    if isinstance(index, (bool, np.bool_)) or not hasattr(index, "__index__"):
        raise TypeError(f"ignore_index must be a whole number or None, got {short(index)}")
    return operator.index(index)
