"""What streams that look ahead share: frames that came too early are kept until they serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..states import State
from .base import Rollback, Stream


class LookAhead(Stream):
    """Outputs wait for later frames: those that came too early are kept until they serve."""

    looks_ahead = True

    def __init__(self, batch: int, batch_first: bool) -> None:
        super().__init__(batch, batch_first, single=True)
        self._pending: Array | None = None
        self._finished = False

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Start again, with all rows: they wait for the same frames."""
        if rows is not None:
            raise ValueError("rows must be None: the rows of a stream that looks ahead go together")
        self._pending, self._finished = None, False
        self._write(None, self.batch)

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        if resets is not None:
            raise ValueError(
                "resets must be None: the rows of a stream that looks ahead go together"
            )
        return self._run(x, rows)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        """Return the outputs that are ready (all, if these frames are the last), and what waits."""
        raise NotImplementedError

    def _ahead_of(self, x: Array) -> Array:
        """Return what stands before the first frames that come."""
        return x[:0]

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        if self._finished:
            raise RuntimeError("this stream is finished: reset it, or make another one")
        before = self._ahead_of(x) if self._pending is None else self._pending
        if before.shape[2:] != x.shape[2:]:
            raise ValueError(f"chunk must have {before.shape[2]} features, got {x.shape[2]}")
        with Rollback(self):
            y, self._pending = self._settled(np.concatenate((before, x)), False)
        return y

    def _finish(self) -> Array:
        if self._finished:
            raise RuntimeError("this stream is finished: reset it, or make another one")
        pending = self._no_frames() if self._pending is None else self._pending
        with Rollback(self):
            y, self._pending = self._settled(pending, True)
        self._finished = True
        return y

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        self._check_rows(batch)
        super()._write(state, batch)

    def _check_rows(self, batch: int) -> None:
        if batch != self.batch:
            self._check_apart()

    def _live_parts(self) -> State:
        pending = self._no_frames() if self._pending is None else self._pending
        return self._read(), pending, np.array(self._finished)

    def _put(self, parts: State, batch: int) -> None:
        state, pending, finished = parts
        self._write(state, batch)
        pending = native(pending)
        self._check_waiting(pending)
        if finished.dtype != np.bool_ or finished.shape != ():
            raise ValueError(f"whether a stream is finished must be true or false, got {finished}")
        self._pending, self._finished = pending, bool(finished)

    def _check_waiting(self, pending: Array) -> None:
        check_waiting(pending, self._no_frames())

    def _undo(self, rows: Array | None = None) -> Callable[[], None]:
        return partial(vars(self).update, vars(self).copy())  # nothing in it is ever written to


def native(array: Array) -> Array:
    """Return a copy in the machine's byte order."""
    copy: Array = array.astype(array.dtype.newbyteorder("="))
    return copy


def check_waiting(frames: Array, like: Array) -> None:
    """Refuse frames that wait which are not of one kind with these."""
    if (frames.dtype, frames.shape[1:]) != (like.dtype, like.shape[1:]):
        raise ValueError(
            f"frames that wait must be {like.dtype} of shape {('n', *like.shape[1:])}, got "
            f"{frames.dtype} {frames.shape}"
        )
