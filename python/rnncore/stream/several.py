"""A stream made of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy.typing as npt

from ..arrays import Array
from ..states import State
from .base import Stream


class Part:
    """One of them, and whether it is that of a single module, whose state is one entry of all."""

    def __init__(self, stream: Stream, lone: bool) -> None:
        self.stream = stream
        self._nests = lone and not stream._single and bool(stream._read())

    def read(self, entries: tuple[State, ...]) -> tuple[State, ...]:
        """Return entries of the stream's state as those of the whole."""
        return (entries,) if self._nests else entries

    def write(self, entries: Sequence[State], batch: int) -> None:
        """Have the stream take over its entries of the whole state."""
        self.stream._write(entries[0] if self._nests else entries, batch)


class Several(Stream):
    """What streams made of others share; a subclass says how frames go through them."""

    def __init__(self, parts: Sequence[Part], batch_first: bool, single: bool = False) -> None:
        streams = [part.stream for part in parts]
        super().__init__(streams[0].batch, batch_first, single)
        self._made_of, self._streams, self._axes = parts, streams, streams[0]._axes
        self.looks_ahead = any(stream.looks_ahead for stream in streams)

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

    def _read(self) -> tuple[State, ...]:
        return tuple(e for part in self._made_of for e in part.read(part.stream._read()))

    def _live(self) -> tuple[State, ...]:
        return tuple(e for part in self._made_of for e in part.read(part.stream._live()))

    def _first(self) -> tuple[State, ...]:
        return tuple(e for part in self._made_of for e in part.read(part.stream._first()))

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        counts = [len(part.read(part.stream._read())) for part in self._made_of]
        entries = (None,) * sum(counts) if state is None else state
        if not isinstance(entries, (tuple, list)) or len(entries) != sum(counts):
            raise ValueError(f"state must be a tuple of {sum(counts)} entries, or None")
        for part, count in zip(self._made_of, counts, strict=True):
            part.write(tuple(entries[:count]), batch)
            entries = entries[count:]
        self.batch = batch

    def _live_parts(self) -> State:
        return tuple(stream._live_parts() for stream in self._streams)

    def _put(self, parts: State, batch: int) -> None:
        for stream, own in zip(self._streams, parts, strict=True):
            stream._put(own, batch)
        self.batch = batch

    def _undo(self, rows: Array | None = None) -> Callable[[], None]:
        undo, batch = [stream._undo(rows) for stream in self._streams], self.batch

        def back() -> None:
            for part in undo:
                part()
            self.batch = batch

        return back
