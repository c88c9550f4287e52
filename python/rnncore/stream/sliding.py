"""Streams of layers that slide windows over time: the frames that later windows read are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_float
from ..states import State, fill
from .base import LookAhead, Stream


class _Axis(Protocol):
    stride: int
    before: int
    after: int

    @property
    def span(self) -> int: ...


class _Layer(Protocol):
    """What a layer says of itself."""

    axis: Any
    batch_first: Any
    dtype: Any
    in_channels: int | None

    def slide(self, x: Array) -> Array:
        """Return the outputs of whole windows over x `(T, B, C)`."""


def _as_frames(layer: _Layer, name: str, x: npt.ArrayLike) -> Array:
    """Return frames as the layer takes them."""
    array = as_float(name, x) if layer.dtype is None else as_array(name, x, layer.dtype)
    if array.ndim and layer.in_channels not in (None, array.shape[-1]):
        raise ValueError(f"{name} must have {layer.in_channels} features, got {array.shape[-1]}")
    return array


class Sliding(Stream):
    """An output for each frame; the state are the last frames `(n, B, C)`, at first zero."""

    def __init__(self, layer: _Layer, batch: int) -> None:
        super().__init__(batch, bool(layer.batch_first), single=True)
        self._layer, self._past = layer, np.zeros(0)
        self._write(None, batch)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return _as_frames(self._layer, name, x)

    def _no_frames(self) -> Array:
        return self._past[:0]

    def _run(self, x: Array) -> Array:
        seen = np.concatenate((self._past, x))
        y = self._layer.slide(seen)
        self._past = seen[len(x) :]
        return y

    def _read(self) -> tuple[State, ...]:
        return (np.copy(self._past),)

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        channels = self._layer.in_channels
        past = np.zeros((self._layer.axis.before, batch, channels or 0), self._layer.dtype)
        fill("state", (past,), state, (past[:, :1],))
        self._past, self.batch = past, batch


class SlidingAhead(LookAhead):
    """Outputs come when their windows are full; frames that no window needs any more are let go."""

    def __init__(self, layer: _Layer, batch: int) -> None:
        super().__init__(batch, bool(layer.batch_first))
        self._layer = layer

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return _as_frames(self._layer, name, x)

    def _no_frames(self) -> Array:
        shape = self._layer.axis.before, self.batch, self._layer.in_channels or 0
        return np.zeros(shape, self._layer.dtype)

    def _run(self, x: Array) -> Array:
        if self._pending is None:
            shape = self._layer.axis.before, *x.shape[1:]
            self._pending = np.zeros(shape, x.dtype)
        return super()._run(x)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        axis = self._layer.axis
        if last:
            end = np.zeros((axis.after, *pending.shape[1:]), pending.dtype)
            pending = np.concatenate((pending, end))
        count = max((len(pending) - axis.span) // axis.stride + 1, 0)
        used = (count - 1) * axis.stride + axis.span if count else 0
        return self._layer.slide(pending[:used]), pending[count * axis.stride :]
