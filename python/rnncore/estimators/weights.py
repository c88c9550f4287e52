"""How much sequences, steps and classes count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.class_weight import compute_class_weight

from ..arrays import Array
from ..losses import Objective
from ..module import Pullback
from .sequences import Sequences


def check_weights(weights: Any, count: int, what: str = "sequence") -> Array | None:
    """Return sample weights `(count,)` as float64, None where all count alike.

    Raises `ValueError` for other shapes, negative or infinite numbers, and if all are zero.
    """
    if weights is None:
        return None
    array: Array = check_array(
        np.full(count, weights) if isinstance(weights, Real) else weights,
        dtype=np.float64,
        ensure_2d=False,
        allow_nd=True,
        ensure_min_samples=0,
        input_name="sample_weight",
    )
    if array.shape != (count,):
        raise ValueError(
            f"sample_weight must have shape ({count},), one for each {what}, got {array.shape}"
        )
    if array.min(initial=0) < 0:
        raise ValueError(f"sample_weight must be at least 0, got {array.min()}")
    if not array.any():
        raise ValueError("sample_weight must have at least one entry that is not zero")
    return array


def sequence_weights(x: Sequences) -> Array:
    """Return how much each sequence counts, `(N,)`: what its steps that count do, all alike."""
    assert x.step_weights is not None
    weights = np.zeros(len(x.lengths))
    for at, (start, length) in enumerate(zip(x.starts, x.lengths, strict=True)):
        own = x.step_weights[start : start + length]
        counted = own[own > 0]
        if len(counted) and counted.min() < counted.max():
            raise ValueError(
                "with crf=True all steps of a sequence must count the same or nothing, by "
                f"sample_weight; in sequence {at} some count "
                f"{counted.max() / counted.min():.4g} times what others do"
            )
        weights[at] = counted.max(initial=0)
    return weights


def evened(weights: Array) -> Array:
    """Return weights of about 1, divided by a power of two, which changes none of their digits."""
    if not weights.any():
        raise ValueError("sample_weight and class_weight together leave no weight above zero")
    return np.ldexp(weights, -int(np.round(np.log2(mean_weight([weights])))))


def mean_weight(weights: Iterable[Any]) -> float:
    """Return the mean of all weights above 0, 0 if there are none."""
    sums = [(w.sum(dtype=np.float64), np.count_nonzero(w)) for w in weights]
    total, count = np.sum(sums, axis=0)
    return float(total / count) if count else 0.0


def class_factors(given: Any, classes: Array, places: Array, weights: Array | None) -> Array | None:
    """Return how much each class counts, `(K,)`, None if all count alike.

    given: None, a dict of labels (others count 1), or "balanced": all classes that there are have
    the same weight in all. places: of the labels among `classes`, with their weights, if any.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        for label, weight in given.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
                raise ValueError(
                    "class_weight must be finite numbers of at least 0, "
                    f"got {weight!r} for {label!r}"
                )
        factors: Array = compute_class_weight(dict(given), classes=classes, y=classes)
        return factors
    if not isinstance(given, str) or given != "balanced":
        raise ValueError(f"class_weight must be None, 'balanced' or a dict, got {given!r}")
    sums = np.bincount(places, weights, minlength=len(classes))
    balanced: Array = np.ones(len(classes))
    np.divide(sums.sum() / np.count_nonzero(sums), sums, out=balanced, where=sums > 0)
    return balanced


def weight_field(loss: Objective) -> str:
    """Return the field of a `Batch` by which a loss is told how much each item counts."""
    return "mask" if "mask" in loss.takes else "weights"


class ByWeight(Objective):
    """A loss whose gradient counts each item by its weight, whatever the others of its batch weigh.

    A mean divides by the weights of its batch, so that those of a batch of one would count nothing.
    The weights are a batch's mask, or what else the loss takes; `mean`: that of them all.
    """

    def __init__(self, loss: Objective, mean: float) -> None:
        self.loss, self.mean = loss, mean
        self.reduction, self.takes = loss.reduction, loss.takes

    def vjp(self, x: Any, targets: Any, *args: Any) -> tuple[float, Pullback]:
        """Return the mean over the batch, and the pullback to x."""
        value, pullback = self.loss.vjp(x, targets, *args)
        share = mean_weight([args[self.takes.index(weight_field(self))]]) / self.mean
        return value, lambda dloss=1.0: pullback(dloss * share)

    def counted(self, targets: Any, *args: Any) -> float:
        """Return what the mean divides by."""
        return self.loss.counted(targets, *args)
