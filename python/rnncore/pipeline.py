"""Streams of single layers, and of layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .activations import Identity
from .arrays import Array, as_array, as_float, as_integers
from .layers import Dropout, Embedding
from .module import Module
from .sequences import Tree, agreed, mapped
from .stream import Stream, Wholly, fill


class Compiled(Stream):
    """Recurrent and linear layers, one after the other, in one call of the compiled core."""

    def __init__(
        self, modules: Sequence[Any], batch: int, batch_first: bool = False, single: bool = False
    ) -> None:
        super().__init__(batch, batch_first, single)
        self._modules, self.dtype = modules, modules[0].dtype
        self._core: Any = None
        self._prepare(batch)

    def _prepare(self, batch: int) -> None:
        """Make states for so many rows, and the compiled stream that works on them."""
        widths, states, stages = zip(*(m.stages(batch) for m in self._modules), strict=True)
        check = partial(_frame, self.dtype, batch, widths[0])
        make = _core.StreamF32 if self.dtype == np.float32 else _core.StreamF64
        layers = [stage for own in stages for stage in own]
        self._core, self.batch = make(layers, batch, check, self._core), batch
        self._width: int = widths[0]
        self._live = tuple(state for state in states if state is not None)
        # Nothing in between: a step may take half a microsecond.
        self.step = self._core.step  # type: ignore[method-assign]

    def refresh(self) -> None:
        """Take the weights as they are now."""
        self._core.refresh()

    def repeat(self, x: Array, times: int) -> None:
        """Take the same frame so many times, without Python in between: for measuring."""
        self._core.repeat(x, times)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return as_array(name, x, self.dtype)

    def _no_frames(self) -> Array:
        return np.zeros((0, self.batch, self._width), self.dtype)

    def _run(self, x: Array) -> Array:
        if x.shape[2] != self._width:
            raise ValueError(f"chunk must have {self._width} features, got {x.shape[2]}")
        y: Array = self._core.run(x)
        return y

    def _read(self) -> tuple[Tree, ...]:
        return tuple(mapped(np.copy, self._live))

    def _write(self, state: Sequence[Tree] | None, batch: int) -> None:
        if batch != self.batch:
            self._prepare(batch)
        fill("state", self._live, state)


def _frame(dtype: np.dtype[Any], batch: int, width: int, x: npt.ArrayLike) -> Array:
    """Return x as the compiled stream takes it, or raise saying what is wrong with it."""
    array = as_array("x", x, dtype)
    if array.shape != (batch, width) and (batch > 1 or array.shape != (width,)):
        either = f" or ({width},)" if batch == 1 else ""
        raise ValueError(f"x must have shape ({batch}, {width}){either}, got {array.shape}")
    return np.ascontiguousarray(array)


class Pointwise(Stream):
    """A layer that sees one row at a time, and has no state."""

    def __init__(self, module: Any, batch: int) -> None:
        super().__init__(batch)
        self._module, self._axes = module, 1 if isinstance(module, Embedding) else 2
        self._none: Array | None = None

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        if self._axes == 1:
            return as_integers(name, x)
        dtype = getattr(self._module, "dtype", None)
        return as_float(name, x) if dtype is None else as_array(name, x, dtype)

    def _no_frames(self) -> Array:
        if self._axes == 1:
            return np.zeros((0, self.batch), np.intp)
        if self._none is None:
            raise RuntimeError("no frames have come: their width is not known")
        return np.zeros((0, self.batch, *self._none.shape[2:]), self._none.dtype)

    def _run(self, x: Array) -> Array:
        self._none = x[:0]
        y: Array = self._module(x)
        return y


class Chained(Stream):
    """Streams one after the other."""

    def __init__(self, streams: Sequence[Stream], batch_first: bool, single: bool = False) -> None:
        super().__init__(streams[0].batch, batch_first, single)
        self._streams, self._axes = streams, streams[0]._axes
        self.looks_ahead = any(stream.looks_ahead for stream in streams)
        # What a step may have to undo: the last stream does all of it or nothing.
        self._kept = [stream for stream in streams[:-1] if not isinstance(stream, Pointwise)]

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Take one frame of each row, return the outputs."""
        if self.looks_ahead:
            return super().step(x, out)
        *before, last = self._streams
        if not before:  # nothing is allocated
            return last.step(x, out)
        with Wholly(*self._kept):
            for stream in before:
                x = stream.step(x)
            return last.step(x, out)

    def refresh(self) -> None:
        """Take the weights as they are now."""
        for stream in self._streams:
            stream.refresh()

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Let all rows, or these, start from the zero state again."""
        if rows is not None and self.looks_ahead:
            raise ValueError("rows must be None: the rows of a stream that looks ahead go together")
        for stream in self._streams:
            stream.reset(rows)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._streams[0]._array(name, x)

    def _no_frames(self) -> Array:
        return self._streams[0]._no_frames()

    def _run(self, x: Array) -> Array:
        with Wholly(*self._kept):
            for stream in self._streams:
                x = stream._run(x)
        return x

    def _finish(self) -> Array:
        with Wholly(self):
            y = self._streams[0]._finish()
            for stream in self._streams[1:]:
                y = stream._run(y)
                if stream.looks_ahead:
                    y = np.concatenate((y, stream._finish()))
        return y

    def _read(self) -> tuple[Tree, ...]:
        return tuple(entry for stream in self._streams for entry in stream._read())

    def _write(self, state: Sequence[Tree] | None, batch: int) -> None:
        counts = [len(stream._read()) for stream in self._streams]
        entries = (None,) * sum(counts) if state is None else state
        if not isinstance(entries, (tuple, list)) or len(entries) != sum(counts):
            raise ValueError(f"state must be a tuple of {sum(counts)} entries, or None")
        for stream, count in zip(self._streams, counts, strict=True):
            stream._write(tuple(entries[:count]), batch)
            entries = entries[count:]
        self.batch = batch

    def _parts(self) -> Tree:
        return tuple(stream._parts() for stream in self._streams)

    def _put(self, parts: Tree, batch: int) -> None:
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


def chained(layers: Sequence[Module], batch: int, single: bool = False) -> Stream:
    """Return a stream of layers one after the other."""
    runs: list[list[Any]] = []
    for layer in layers:
        if isinstance(layer, (Dropout, Identity)):
            continue  # at inference they do nothing
        if runs and _together(runs[-1][0], layer):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    streams = [Compiled(run, batch) if len(run) > 1 else run[0].stream(batch) for run in runs]
    batch_first = bool(agreed("batch_first", {str(at): layer for at, layer in enumerate(layers)}))
    return Chained(streams or [Pointwise(Identity(), batch)], batch_first, single)


def _together(a: Any, b: Any) -> bool:
    return _compiles(a) and _compiles(b) and bool(a.dtype == b.dtype)


def _compiles(module: Module) -> bool:
    """Whether `stages` tells what a call does: a class of somebody's own may call otherwise."""
    found = (
        name for cls in type(module).__mro__ for name in ("stages", "__call__") if name in vars(cls)
    )
    return next(found) == "stages"


def stream_of(module: Any, batch: int) -> Stream:
    """Return the stream of one layer; raise `TypeError` naming one that has none."""
    if _compiles(module):
        batch_first = getattr(module, "batch_first", False)
        return Compiled([module], batch, batch_first, single=module.recurrent)
    if module.pointwise:
        return Pointwise(module, batch)
    why = (
        "it reads sequences from their ends"
        if getattr(module, "looks_ahead", False)
        else ("it does not say how (pointwise = True does, for layers that see one row at a time)")
    )
    raise TypeError(f"{type(module).__name__} cannot run as a stream: {why}")
