"""What is found or put at places that are numbers of the graph: gathers, scatters, orders."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....arrays import Array
from ....compositions.ragged import reverse as reverse_within
from .arguments import Operator, check_plain


def _gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    size = x.shape[axis]
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise ValueError(f"Gather: indices must be in {-size}..{size - 1}")
    return np.take(x, indices, axis)


def _along(indices: Array, axis: int) -> tuple[Any, ...]:
    """An index of NumPy's: the given places along an axis, along the others each its own."""
    places: list[Any] = list(np.ogrid[tuple(map(slice, indices.shape))])
    places[axis] = indices
    return tuple(places)


def _gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    found: Array = x[_along(indices, axis)]
    return found


def _places_nd(x: Array, indices: Array, batch_dims: int) -> tuple[Any, ...]:
    """An index of NumPy's whose last axis says where in the axes behind those of the batch."""
    depth = indices.shape[-1]
    if not 0 <= batch_dims <= batch_dims + depth <= x.ndim or batch_dims >= indices.ndim:
        raise ValueError(f"indices {indices.shape} do not fit an array of shape {x.shape}")
    batch = np.ogrid[tuple(map(slice, indices.shape[:batch_dims]))] if batch_dims else ()
    spread = [own.reshape(own.shape + (1,) * (indices.ndim - 1 - batch_dims)) for own in batch]
    return (*spread, *np.moveaxis(indices, -1, 0))


def _gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    found: Array = x[_places_nd(x, indices, batch_dims)]
    return found


_COMBINED = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _put(x: Array, places: tuple[Any, ...], updates: Array, reduction: str) -> Array:
    """A copy with the updates in their places, or combined with what was there."""
    y = x.copy()
    if reduction == "none":
        y[places] = updates
    elif reduction in _COMBINED:
        _COMBINED[reduction].at(y, places, updates)
    else:
        check_plain(reduction=reduction)
    return y


def _scatter_elements(
    x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    if indices.shape != updates.shape:
        raise ValueError(f"indices {indices.shape} and updates {updates.shape} differ in shape")
    return _put(x, _along(indices, axis), updates, reduction)


def _scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    wanted = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
    if updates.shape != wanted:
        raise ValueError(f"updates must have shape {wanted}, got {updates.shape}")
    return _put(x, _places_nd(x, indices, 0), updates, reduction)


def _compress(x: Array, condition: Array, *, axis: int | None = None) -> Array:
    return np.compress(condition, x, axis)


def _one_hot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """Off and on of `values`; an index beyond the depth is off everywhere."""
    size = int(depth.item())
    off, on = values
    places = np.where(indices < 0, indices + size, indices).astype(np.int64)
    seats = np.arange(size).reshape(-1, *[1] * (indices.ndim - (axis % (indices.ndim + 1))))
    y: Array = np.where(np.expand_dims(places, axis) == seats, on, off).astype(values.dtype)
    return y


def _top_k(
    x: Array,
    given: Array | None = None,
    *,
    k: int = 0,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[Array, Array]:
    """The first k in order, and where they were; of equals the first comes first."""
    count, size = k if given is None else int(given.item()), x.shape[axis]
    if not 0 <= count <= size:
        raise ValueError(f"k must be in 0..{size}, got {count}")
    if largest:  # a stable sort from the back, so that of equals the first comes last
        order = np.flip(size - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = np.take(order, range(count), axis)
    return np.take_along_axis(x, first, axis), first.astype(np.int64)


def _extreme(function: Operator) -> Operator:
    """Where the largest or smallest is, the first of equals unless `select_last_index`."""

    def find(x: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        seen = np.flip(x, axis) if select_last_index else x
        found = np.asarray(function(seen, axis=axis, keepdims=bool(keepdims)))
        return (x.shape[axis] - 1 - found if select_last_index else found).astype(np.int64)

    return find


def _reverse_sequence(
    x: Array, lengths: Array, *, batch_axis: int = 1, time_axis: int = 0
) -> Array:
    if (batch_axis, time_axis) == (0, 1):
        return reverse_within(x.swapaxes(0, 1), lengths).swapaxes(0, 1)
    return reverse_within(x, lengths)


OPERATORS: dict[str, Operator] = {
    "ArgMax": _extreme(np.argmax),
    "ArgMin": _extreme(np.argmin),
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": lambda x: np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1),
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
