"""Streams of layers one after the other: what the compiled core takes together runs as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..states import State
from .base import Rollback, Stream
from .compiled import Compiled, Pointwise, dtypes
from .stages import stages_of

if TYPE_CHECKING:
    from ..module import Module


class Chained(Stream):
    """Streams one after the other."""

    def __init__(self, streams: Sequence[Stream], batch_first: bool) -> None:
        super().__init__(streams[0].batch, batch_first)
        self._streams, self._axes = streams, streams[0]._axes
        self.looks_ahead = any(stream.looks_ahead for stream in streams)
        # What a step may have to undo: the last stream does all of it or nothing.
        self._kept = [stream for stream in streams[:-1] if not isinstance(stream, Pointwise)]

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Take one frame of each row, return the outputs."""
        if self.looks_ahead:
            return super().step(x, out)
        *before, last = self._streams
        with Rollback(*self._kept):
            for stream in before:
                x = stream.step(x)
            return last.step(x, out)

    def refresh(self) -> None:
        """Take the weights as they are now."""
        for stream in self._streams:
            stream.refresh()

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Let all rows, or these, start from the first state again."""
        if rows is not None and self.looks_ahead:
            raise ValueError("rows must be None: the rows of a stream that looks ahead go together")
        for stream in self._streams:
            stream.reset(rows)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._streams[0]._array(name, x)

    def _no_frames(self) -> Array:
        return self._streams[0]._no_frames()

    def _run(self, x: Array) -> Array:
        with Rollback(*self._kept):
            for stream in self._streams:
                x = stream._run(x)
        return x

    def _finish(self) -> Array:
        with Rollback(self):
            y = self._streams[0]._finish()
            for stream in self._streams[1:]:
                y = stream._run(y)
                if stream.looks_ahead:
                    y = np.concatenate((y, stream._finish()))
        return y

    def _read(self) -> tuple[State, ...]:
        return tuple(entry for stream in self._streams for entry in stream._read())

    def _first(self) -> tuple[State, ...]:
        return tuple(entry for stream in self._streams for entry in stream._first())

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        counts = [len(stream._read()) for stream in self._streams]
        entries = (None,) * sum(counts) if state is None else state
        if not isinstance(entries, (tuple, list)) or len(entries) != sum(counts):
            raise ValueError(f"state must be a tuple of {sum(counts)} entries, or None")
        for stream, count in zip(self._streams, counts, strict=True):
            stream._write(tuple(entries[:count]), batch)
            entries = entries[count:]
        self.batch = batch

    def _parts(self) -> State:
        return tuple(stream._parts() for stream in self._streams)

    def _put(self, parts: State, batch: int) -> None:
        for stream, own in zip(self._streams, parts, strict=True):
            stream._put(own, batch)
        self.batch = batch

    def _undo(self) -> Callable[[], None]:
        undo, batch = [stream._undo() for stream in self._streams], self.batch

        def back() -> None:
            for part in undo:
                part()
            self.batch = batch

        return back


def chained(layers: Iterable[Module], batch: int, batch_first: bool) -> Stream:
    """Return a stream of layers one after the other."""
    runs: list[list[Module]] = []
    for layer in layers:
        if runs and _together(*runs[-1], layer):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    runs = [run for run in runs if not _does_nothing(run)]
    if len(runs) < 2 and all(_together(*run) for run in runs):
        return _stream_of(runs[0] if runs else [], batch, batch_first)
    streams = [_stream_of(run, batch) if _together(*run) else run[0].stream(batch) for run in runs]
    return Chained(streams, batch_first)


def _stream_of(modules: Sequence[Module], batch: int, batch_first: bool = False) -> Stream:
    return (Compiled if dtypes(modules) else Pointwise)(modules, batch, batch_first)


def _together(*modules: Module) -> bool:
    return all(module.compiles() for module in modules) and len(dtypes(modules)) < 2


def _does_nothing(run: Sequence[Module]) -> bool:
    """Whether layers do nothing at inference, as dropout: they have no stages."""
    if dtypes(run) or not _together(*run):
        return False
    return not stages_of(run, 1, np.dtype("float32")).stages


def stream_of(module: Module, batch: int) -> Stream:
    """Return the stream of one layer; raise `TypeError` naming one that has none."""
    if module.compiles() and module.dtypes():
        return Compiled([module], batch, bool(module.batch_first), single=module.recurrent)
    if module.pointwise:
        return Pointwise([module], batch)
    why = (
        "it reads sequences from their ends"
        if module.looks_ahead
        else "it does not say how (pointwise = True does, for layers that see one row at a time)"
    )
    raise TypeError(f"{type(module).__name__} cannot run as a stream: {why}")
