"""Sums, means and other numbers of whole axes, and sums along one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....arrays import Array
from .arguments import Operator, axes_of, ends_of


def _reduce(function: Operator) -> Operator:
    """Over some axes, or all; with `noop_with_empty_axes` and no axes, over each number alone."""

    def reduce(
        x: Array,
        given: Array | None = None,
        *,
        axes: Any = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Array:
        along = axes_of(given, axes) or (() if noop_with_empty_axes else None)
        return np.asarray(function(x, axis=along, keepdims=bool(keepdims))).astype(x.dtype)

    return reduce


def _sum_of(inner: Operator, outer: Operator | None = None) -> Operator:
    """The sum of what a function makes of each number, and what another makes of the sum."""

    def total(x: Array, **options: Any) -> Any:
        y = np.sum(inner(x), **options)
        return y if outer is None else outer(y)

    return total


def _log_sum_exp(x: Array, *, axis: Any, keepdims: bool) -> Any:
    most = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    most = np.where(np.isfinite(most), most, 0)  # what is infinite needs no help
    y = np.log(np.sum(np.exp(x - most), axis=axis, keepdims=True)) + most
    return y if keepdims else np.sum(y, axis=axis)  # of one number each


def _cumulative(function: Operator, first: int) -> Operator:
    def accumulate(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
        along = int(axis.item())
        seen = np.moveaxis(x, along, 0)[:: -1 if reverse else 1]
        y = function(seen, axis=0, dtype=x.dtype)
        if exclusive:
            y = np.concatenate((np.full_like(y[:1], first), y[:-1]))
        return np.moveaxis(y[:: -1 if reverse else 1], 0, along)

    return accumulate


OPERATORS: dict[str, Operator] = {
    "CumProd": _cumulative(np.cumprod, 1),
    "CumSum": _cumulative(np.cumsum, 0),
    "ReduceL1": _reduce(_sum_of(np.abs)),
    "ReduceL2": _reduce(_sum_of(np.square, np.sqrt)),
    "ReduceLogSum": _reduce(_sum_of(np.asarray, np.log)),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ReduceMax": _reduce(lambda x, **options: np.max(x, initial=ends_of(x.dtype)[0], **options)),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(lambda x, **options: np.min(x, initial=ends_of(x.dtype)[1], **options)),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceSumSquare": _reduce(_sum_of(np.square)),
}
