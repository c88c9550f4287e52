"""Losses: `loss(x, targets, mask=None) -> float`, and `loss.vjp(...) -> (float, pullback)`.

`pullback(dloss=1.0)` gives the gradient of x, the first argument. A mask is true where an element
counts (`length_mask` makes one from lengths), or says in numbers of x's dtype, at least 0, how much
it counts; what counts nothing is never looked at, so that NaN and invalid targets there do no harm,
and its gradient is zero. `reduction="mean"` divides by the number of counted elements, or by the
sum of their weights; where none is counted, the loss is 0 and the gradient zero. The sum is taken
in float64.

`Objective` is all that the trainer and `evaluate` know of a loss. One that takes lengths instead of
a mask derives from it, and says so in `takes`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import (
    Array,
    as_array,
    as_float,
    as_indices,
    as_integers,
    as_shape,
    check_number,
    read,
    short,
)
from .compositions.ragged import length_mask as length_mask
from .configuration import Configured
from .module import Pullback, once
from .notation import written

#: The gradient of the counted rows, times a scale.
_Backward: TypeAlias = Callable[[float], Array]


class Terms(NamedTuple):
    """The loss of every counted element, and how to get the gradient of their sum."""

    values: Array  # (rows, ...)
    backward: _Backward
    weights: Array | None = None  # (rows,), what each adds to the divisor of the mean; None: one


class Objective(Configured):
    """What a trainer minimises: all that it knows of a loss.

    A loss that is no sum over the rows of x derives from this: it names in `takes` what it needs of
    a batch, and defines `vjp` and `counted` with arguments in that order.
    """

    #: The fields of a `Batch` that are the arguments behind x and the targets, in their order.
    takes: tuple[str, ...] = ()

    def __init__(self, reduction: str = "mean") -> None:
        if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {short(reduction)}")
        self.reduction = reduction

    def __repr__(self) -> str:
        """Return the loss as Python, as modules are written."""
        return written(self)

    def __call__(
        self, x: npt.ArrayLike, targets: npt.ArrayLike, *taken: Any, **named: Any
    ) -> float:
        """Return the loss; the arguments are those of `vjp`."""
        return self.vjp(x, targets, *taken, **named)[0]

    def vjp(
        self, x: npt.ArrayLike, targets: npt.ArrayLike, *taken: Any, **named: Any
    ) -> tuple[float, Pullback]:
        """Return the loss and the pullback from dloss, 1 if it is not given, to dx.

        What is `taken` are the fields of a `Batch` that `takes` names, in its order or by name.
        """
        raise NotImplementedError

    def counted(self, targets: npt.ArrayLike, *taken: Any, **named: Any) -> float:
        """Return what the mean divides by, from the arguments of `vjp` without x."""
        raise NotImplementedError


class Loss(Objective):
    """A sum of terms: checks, selects the rows that count, and reduces what `_terms` gives."""

    takes = ("mask",)

    #: What the first argument is called in messages.
    _x = "logits"

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
        beside = self._check_targets(x, targets)
        own = self._counting(x, beside[0], mask)
        kept, weights = (None, None) if own is None else _split(own)
        axes = beside[0].ndim if kept is None else kept.ndim
        rows = [_join_axes(array, axes) for array in (x, *beside)]
        if kept is not None:
            rows = [array[kept.reshape(-1)] for array in rows]
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity pass through quietly
            terms = self._terms(*rows)
            scale = 1 / (_divisor(terms, weights) or 1) if self.reduction == "mean" else 1.0
            # Summed in the order of the rows, however they lie in memory.
            values = np.ascontiguousarray(_weighted(terms.values, weights))
            loss = float(values.sum(dtype=np.float64)) * scale

        def pullback(dloss: float = 1.0) -> Array:
            with np.errstate(invalid="ignore", over="ignore"):
                gradient = _weighted(terms.backward(float(dloss) * scale), weights)
            if kept is None:
                return gradient.reshape(x.shape)
            dx = np.zeros_like(x, order="C")
            dx[kept] = gradient
            return dx

        return loss, once(pullback)

    def counted(self, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
        """Return what the mean divides by: how many targets count, or the sum of their weights."""
        share = 1.0 if mask is None else float(np.asarray(mask).mean(dtype=np.float64))
        return np.size(targets) * share

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        """Return the targets, of a shape and dtype that fit x, and what else goes with each."""
        return (as_shape("targets", targets, x.dtype, x.shape, f"{self._x} are"),)

    def _counting(self, x: Array, targets: Array, mask: npt.ArrayLike | None) -> Array | None:
        """Return what counts, and how much, as a mask; None: all."""
        return None if mask is None else self._check_mask(x, mask)

    def _check_mask(self, x: Array, mask: npt.ArrayLike) -> Array:
        """Return the mask, booleans or weights over the leading axes of x."""
        mask = _as_mask(mask, x.dtype)
        if mask.shape != x.shape[: mask.ndim]:
            raise ValueError(
                f"mask must have the leading axes of {self._x} {x.shape}, got {mask.shape}"
            )
        return mask

    def _terms(self, x: Array, *beside: Array) -> Terms:
        """Return the terms of rows of x, and of what `_check_targets` returned for them."""
        raise NotImplementedError


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
        mask = _as_mask(mask, x.dtype)
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


class MeanSquaredError(Loss):
    """(prediction - target)^2, predictions and targets of one shape and dtype.

    The mask has that shape too, or its leading axes: `(T, B)` for `(T, B, K)`.
    """

    _x = "predictions"

    def _terms(self, x: Array, *beside: Array) -> Terms:
        error = x - beside[0]
        return Terms(error * error, lambda scale: error * (2 * scale))


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


def _as_mask(mask: npt.ArrayLike, dtype: np.dtype[Any]) -> Array:
    """Return booleans, or weights of this dtype."""
    given, _ = read("mask", mask)
    if given.dtype == np.bool_:
        return given
    if given.dtype.kind != "f":
        raise TypeError(f"mask must be boolean, got {given.dtype} (weights are {dtype})")
    return as_weights("mask", as_array("mask", mask, dtype))


def as_weights(name: str, weights: npt.ArrayLike) -> Array:
    """Return weights, finite numbers of at least 0; those without a dtype as float64."""
    array, typed = read(name, weights)
    if array.dtype.kind in "iuf" and not typed:
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    if not np.all((array >= 0) & (array < np.inf)):
        raise ValueError(
            f"{name} must be finite and at least 0, got {array.min()} to {array.max()}"
        )
    return array


def _split(mask: Array) -> tuple[Array, Array | None]:
    """Return what counts as booleans, and the weights of what does, if the mask holds weights."""
    if mask.dtype == np.bool_:
        return mask, None
    kept = mask != 0
    return kept, mask[kept]


def _weighted(rows: Array, weights: Array | None) -> Array:
    """Return rows `(N, ...)` times weights `(N,)`."""
    return rows if weights is None else rows * weights.reshape(-1, *(1,) * (rows.ndim - 1))


def _divisor(terms: Terms, weights: Array | None) -> float:
    """Return what the mean divides by."""
    given = [w for w in (terms.weights, weights) if w is not None]
    if not given:
        return terms.values.size
    total = np.sum(np.prod(given, axis=0), dtype=np.float64)
    return float(total) * math.prod(terms.values.shape[1:])


def _join_axes(array: Array, axes: int) -> Array:
    """Reshape the first `axes` axes to one."""
    return array.reshape(math.prod(array.shape[:axes]), *array.shape[axes:])
