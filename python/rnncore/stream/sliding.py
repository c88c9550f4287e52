"""Streams of layers that slide windows over time: the frames that later windows read are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_float
from ..states import State, fill
from .ahead import LookAhead
from .base import Stream


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

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        past = self._past if rows is None else self._past[:, rows]
        seen = np.concatenate((past, _as_frames(self._layer, "chunk", x)))
        y = self._layer.slide(seen)
        if rows is None:
            self._past = seen[len(x) :]
        else:
            self._past[:, rows] = seen[len(x) :]
        return y

    def _live(self) -> tuple[State, ...]:
        return (self._past,)

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        channels = self._layer.in_channels
        past = np.zeros((self._layer.axis.before, batch, channels or 0), self._layer.dtype)
        fill("state", (past,), state, (past[:, :1],))
        self._past, self.batch = past, batch


class SlidingAhead(LookAhead):
    """Outputs come when their windows are full; frames that no window needs any more are let go.

    Where windows leave out frames, those between two have to come, too.
    """

    def __init__(self, layer: _Layer, batch: int) -> None:
        super().__init__(batch, bool(layer.batch_first))
        self._layer, self._single = layer, False  # there is no state

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return _as_frames(self._layer, name, x)

    def _no_frames(self) -> Array:
        shape = self._layer.axis.before, self.batch, self._layer.in_channels or 0
        return np.zeros(shape, self._layer.dtype)

    def _ahead_of(self, x: Array) -> Array:
        return np.zeros((self._layer.axis.before, *x.shape[1:]), x.dtype)

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        return super()._run(_as_frames(self._layer, "chunk", x))

    def _finish(self) -> Array:
        if self._pending is None and self._layer.in_channels is None:
            raise RuntimeError("no frames have come: their width is not known")
        return super()._finish()

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        axis, stride = self._layer.axis, self._layer.axis.stride
        if last:
            end = np.zeros((axis.after, *pending.shape[1:]), pending.dtype)
            pending = np.concatenate((pending, end))
        wanted = axis.span if last else max(axis.span, stride)
        count = max((len(pending) - wanted) // stride + 1, 0)
        used = (count - 1) * stride + axis.span if count else 0
        return self._layer.slide(pending[:used]), pending[count * stride :]

    def _check_waiting(self, pending: Array) -> None:
        if self._layer.in_channels is not None:
            super()._check_waiting(pending)
        elif as_float("frames that wait", pending).shape[1:2] != (self.batch,) or pending.ndim != 3:
            wanted = ("n", self.batch, "features")
            raise ValueError(f"frames that wait must have shape {wanted}, got {pending.shape}")

    def _put(self, parts: State, batch: int) -> None:
        super()._put(parts, batch)
        if self._pending is not None and not self._pending.shape[2]:
            self._pending = None  # none have come: any width may
