"""Streams of layers one after the other: what the compiled core takes together runs as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from .base import Rollback, Stream
from .compiled import Compiled, Pointwise, dtypes
from .several import Part, Several
from .stages import stages_of

if TYPE_CHECKING:
    from ..module import Module


class Chained(Several):
    """Streams one after the other."""

    def __init__(self, parts: Sequence[Part], batch_first: bool) -> None:
        super().__init__(parts, batch_first)
        # What a step may have to undo: the last stream does all of it or nothing.
        self._kept = [part for part in self._streams[:-1] if not isinstance(part, Pointwise)]

    def step(
        self,
        x: npt.ArrayLike,
        out: Array | None = None,
        resets: npt.ArrayLike | None = None,
        *,
        rows: npt.ArrayLike | None = None,
    ) -> Array:
        """Take one frame of all or some rows, return the outputs."""
        if self.looks_ahead:
            return super().step(x, out, resets, rows=rows)
        which = self._chosen(rows)
        *before, last = self._streams
        with Rollback(*self._kept, rows=which):
            for stream in before:
                x = stream.step(x, resets=resets, rows=which)
            return last.step(x, out, resets, rows=which)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._streams[0]._array(name, x)

    def _no_frames(self) -> Array:
        return self._streams[0]._no_frames()

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        return self._take(x, None, rows)

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        if resets is not None and self.looks_ahead:
            raise ValueError(
                "resets must be None: the rows of a stream that looks ahead go together"
            )
        with Rollback(*self._kept, rows=rows):
            for stream in self._streams:
                x = stream._take(x, resets, rows)
        return x

    def _finish(self) -> Array:
        with Rollback(self):
            y = self._streams[0]._finish()
            for stream in self._streams[1:]:
                y = stream._run(y)
                if stream.looks_ahead:
                    y = np.concatenate((y, stream._finish()))
        return y


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
    parts = [
        Part(_stream_of(run, batch), lone=False)
        if _together(*run)
        else Part(run[0].stream(batch), lone=True)
        for run in runs
    ]
    return Chained(parts, batch_first)


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
    why = "it does not say how (pointwise = True does, for layers that see one row at a time)"
    if module.looks_ahead:
        why = "it reads sequences from their ends"
    elif not module.keeps_steps:
        why = "it has no output for each frame. What is within may: Chain(readout.layer, ...)"
    raise TypeError(f"{type(module).__name__} cannot run as a stream: {why}")
