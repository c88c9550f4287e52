"""What a loss is: `Objective`, all that a trainer knows of one, and `Loss`, a sum of terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_float, as_shape, read, short
from ..configuration import Configured
from ..module import Pullback, once
from ..notation import written

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
        mask = as_mask(mask, x.dtype)
        if mask.shape != x.shape[: mask.ndim]:
            raise ValueError(
                f"mask must have the leading axes of {self._x} {x.shape}, got {mask.shape}"
            )
        return mask

    def _terms(self, x: Array, *beside: Array) -> Terms:
        """Return the terms of rows of x, and of what `_check_targets` returned for them."""
        raise NotImplementedError


def as_mask(mask: npt.ArrayLike, dtype: np.dtype[Any]) -> Array:
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
