"""Streams beside one another: all take the same frames, and their outputs are merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..states import State
from .ahead import check_waiting, native
from .base import Rollback, Stream
from .several import Part, Several


class _Model(Protocol):
    """What a module says of itself."""

    batch_first: Any
    passes_x: bool

    def frames(self, name: str, x: npt.ArrayLike) -> Array:
        """Return frames as an array, with whatever axes."""

    def merged(self, arrays: Sequence[Array]) -> tuple[Array, Any]:
        """Return what the layers' outputs become, frames before them if they are passed."""


class Branched(Several):
    """Outputs are merged frame by frame; those that came before others wait for them."""

    def __init__(self, model: _Model, streams: Sequence[Stream]) -> None:
        parts = [Part(stream, lone=True) for stream in streams]
        super().__init__(parts, bool(model.batch_first))
        self._model, self._single = model, bool(super()._read())
        self._waiting: list[Array] | None = None  # None: nothing has come

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Let all rows, or these, start from the first state again."""
        super().reset(rows)
        self._waiting = None if rows is None else self._waiting

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._model.frames(name, x)

    def _no_frames(self) -> Array:
        for stream in self._streams:
            with suppress(RuntimeError):  # its width is not known
                return stream._no_frames()[:0]  # some begin with padding
        raise RuntimeError("no frames have come: their width is not known")

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        return self._take(x, None, rows)

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        with Rollback(self, rows=rows):
            made = [stream._take(x, resets, rows) for stream in self._streams]
            return self._settled(self._passed(x) + made)

    def _finish(self) -> Array:
        none = self._no_frames()
        with Rollback(self):
            ends = [s._finish() if s.looks_ahead else s._run(none) for s in self._streams]
            return self._settled(self._passed(none) + ends)

    def _passed(self, x: Array) -> list[Array]:
        return [x] if self._model.passes_x else []

    def _settled(self, new: list[Array]) -> Array:
        """Merge the outputs that all streams have given; keep the others."""
        if not self.looks_ahead:
            return self._model.merged(new)[0]
        if self._waiting is not None:
            new = [np.concatenate(both) for both in zip(self._waiting, new, strict=True)]
        ready = min(map(len, new))
        self._waiting = [np.copy(array[ready:]) for array in new]
        return self._model.merged([array[:ready] for array in new])[0]

    # The state is the single stream's own where x goes around it, else a tuple of theirs.

    def _read(self) -> tuple[State, ...]:
        return self._whole(super()._read())

    def _live(self) -> tuple[State, ...]:
        return self._whole(super()._live())

    def _first(self) -> tuple[State, ...]:
        return self._whole(super()._first())

    def _whole(self, entries: tuple[State, ...]) -> tuple[State, ...]:
        return (entries,) if entries and not self._model.passes_x else entries

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        whole = state is None or not state or self._model.passes_x
        super()._write(state if whole else state[0], batch)  # type: ignore[index]

    def _live_parts(self) -> State:
        return super()._live_parts(), tuple(self._known()) if self.looks_ahead else ()

    def _put(self, parts: State, batch: int) -> None:
        own, waiting = parts
        if self.looks_ahead:  # before the streams take over that they have ended
            likes, self._waiting = self._known(), [native(array) for array in waiting]
            for array, like in zip(self._waiting, likes, strict=True):
                check_waiting(array, like)
        super()._put(own, batch)

    def _known(self) -> list[Array]:
        """What waits; before frames have come, arrays of none."""
        if self._waiting is None:
            none = self._no_frames()
            with Rollback(*self._streams):
                return self._passed(none) + [s._run(none) for s in self._streams]
        return self._waiting

    def _undo(self, rows: Array | None = None) -> Callable[[], None]:
        back, waiting = super()._undo(rows), self._waiting

        def undo() -> None:
            back()
            self._waiting = waiting

        return undo
