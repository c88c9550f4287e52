"""A batch cut into shards by its rows, in a way that its number of rows alone tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, check_count
from ..batches import Batch
from ..compositions.composition import agreed
from ..module import Module
from ..states import State, leaves, mapped

#: Rows of a shard and most shards of a batch where nobody says how many, as of parts for threads.
ROWS, MOST = 16, 8


def shard_count(rows: int, shards: int | None) -> int:
    """Return into how many shards a batch of so many rows is cut: none is empty."""
    wanted = min(MOST, -(-rows // ROWS)) if shards is None else check_count("shards", shards)
    return max(1, min(wanted, rows))


class Cut:
    """The shards of a batch: row b is one of shard b modulo their number.

    Rows are along the second axis of inputs, the first one with `batch_first` or where each row is
    seen by itself (`Module.pointwise`). Targets, masks and weights have theirs where the outputs
    have: in the same place if a model keeps steps, else first. Raises `TypeError` for inputs that
    are no arrays, `ValueError` naming what has another number of rows.
    """

    def __init__(self, batch: Batch, model: Module, shards: int | None) -> None:
        self.batch = batch
        first = bool(agreed("batch_first", {"model": model})) or (
            model.pointwise and batch.lengths is None and not _by_rows(batch.weights)
        )
        self._axis = 0 if first else 1
        arrays = list(_arrays(batch.inputs))
        if any(array.ndim <= self._axis for array in arrays):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"inputs must have a batch axis to be cut into shards, got {shapes}")
        self.rows = arrays[0].shape[self._axis]
        self.count = shard_count(self.rows, shards)
        self._outputs = self._axis_of_outputs(batch, model)

    def _axis_of_outputs(self, batch: Batch, model: Module) -> int:
        if batch.target_lengths is not None:
            return 0
        order = (self._axis, 0) if model.keeps_steps else (0, self._axis)
        shape = np.shape(batch.targets)
        fits = [axis for axis in order if len(shape) > axis and shape[axis] == self.rows]
        if not fits:
            raise ValueError(f"targets must have {self.rows} rows as inputs, got shape {shape}")
        return fits[0]

    def __getitem__(self, shard: int) -> Batch:
        """Return a shard, itself a batch."""
        if self.count == 1:
            return self.batch
        batch, outputs = self.batch, self._outputs

        def rows(name: str, axis: int) -> Any:
            given = getattr(batch, name)
            return None if given is None else self._rows(name, np.asarray(given), axis, shard)

        inputs = _mapped_inputs(
            batch.inputs, lambda array: self._rows("inputs", array, self._axis, shard)
        )
        return Batch(
            inputs,
            rows("targets", outputs),
            rows("lengths", 0),
            rows("mask", outputs),
            batch.carry,
            rows("target_lengths", 0),
            rows("weights", 0 if _by_rows(batch.weights) else outputs),
            rows("resets", self._axis),
        )

    def _rows(self, name: str, array: Array, axis: int, shard: int) -> Array:
        if array.ndim <= axis or array.shape[axis] != self.rows:
            raise ValueError(
                f"{name} must have {self.rows} rows along axis {axis} to be cut into shards, "
                f"got shape {array.shape}"
            )
        return array[(*(slice(None),) * axis, slice(shard, None, self.count))]


def _by_rows(weights: Array | None) -> bool:
    return weights is not None and np.ndim(weights) == 1


def _arrays(inputs: Any) -> Any:
    if isinstance(inputs, (tuple, list)):
        for part in inputs:
            yield from _arrays(part)
    elif isinstance(inputs, np.ndarray):
        yield inputs
    else:
        kind = type(inputs).__name__
        raise TypeError(f"inputs must be arrays, or tuples of them, to be cut, got {kind}")


def _mapped_inputs(inputs: Any, function: Any) -> Any:
    if isinstance(inputs, (tuple, list)):
        return tuple(_mapped_inputs(part, function) for part in inputs)
    return function(inputs)


def cut_state(state: State, shards: int | None) -> dict[int, State]:
    """Return the state of each shard from that of a batch, arrays `(..., B, H)`."""
    first = next(leaves(state), None)
    if first is None:
        return {}
    count = shard_count(first.shape[-2], shards)
    return {
        shard: mapped(lambda array, at=shard: array[..., at::count, :].copy(), state)
        for shard in range(count)
    }


def joined_state(states: dict[int, State]) -> State:
    """Undo `cut_state`."""
    count = len(states)
    if not count or states[0] is None:
        return None

    def join(*parts: Array) -> Array:
        rows = sum(part.shape[-2] for part in parts)
        whole = np.empty((*parts[0].shape[:-2], rows, parts[0].shape[-1]), parts[0].dtype)
        for shard, part in enumerate(parts):
            whole[..., shard::count, :] = part
        return whole

    return mapped(join, *(states[shard] for shard in range(count)))
