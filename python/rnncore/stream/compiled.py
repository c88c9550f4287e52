"""Streams of single layers, and of layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_float, as_indices, as_integers
from ..compiled import core
from ..compositions.composition import agreed
from ..layers.activations import Identity
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..module import Module, walk
from ..states import State, fill, mapped
from .base import Stream, Wholly


class _Frame:
    """What a compiled stream takes; it holds no stream, which would then hold itself for ever."""

    def __init__(self, dtype: np.dtype[Any], batch: int, width: int, numbers: int | None) -> None:
        """`numbers`: how many there are, where frames are numbers of rows of a table."""
        self.dtype, self.batch, self.width, self.numbers = dtype, batch, width, numbers

    def array(self, name: str, x: npt.ArrayLike) -> Array:
        """Return frames as an array of the right kind, with whatever axes."""
        if self.numbers is None:
            return as_array(name, x, self.dtype)
        return as_indices(name, x, self.numbers).astype(np.int64, copy=False)

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return x as the compiled stream takes it, or raise saying what is wrong with it."""
        array, features = self.array("x", x), (self.width,) if self.numbers is None else ()
        shape = (self.batch, *features)
        if array.shape != shape and (self.batch > 1 or array.shape != features):
            either = f" or {features}" if self.batch == 1 else ""
            raise ValueError(f"x must have shape {shape}{either}, got {array.shape}")
        return np.require(array, None, ["C", "A"])


class Compiled(Stream):
    """Layers that say what they do, one after the other, in one call of the compiled core."""

    def __init__(
        self,
        modules: Sequence[Any],
        batch: int,
        batch_first: bool = False,
        single: bool = False,
    ) -> None:
        super().__init__(batch, batch_first, single)
        self._modules, (self.dtype,) = modules, _dtypes(modules)
        self._core: Any = None
        self._prepare(batch)

    def _prepare(self, batch: int) -> None:
        """Make states for so many rows, and the compiled stream that works on them."""
        width, states, stages = stages_of(self._modules, batch, self.dtype)
        self._frame = _Frame(self.dtype, batch, width or 0, None if width else stages[0][0].count)
        self._axes = 2 if width else 1
        self._core = core(self.dtype).Stream(
            stages, batch, self._frame.width, self._frame, self._core
        )
        self.batch, self._live = batch, states
        # Nothing in between: a step may take half a microsecond.
        self.step = self._core.step  # type: ignore[method-assign]

    def refresh(self) -> None:
        """Take the weights as they are now."""
        self._core.refresh()

    def repeat(self, x: Array, times: int) -> None:
        """Take the same frame so many times, without Python in between: for measuring."""
        self._core.repeat(x, times)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._frame.array(name, x)

    def _no_frames(self) -> Array:
        if self._frame.numbers is not None:
            return np.zeros((0, self.batch), np.int64)
        return np.zeros((0, self.batch, self._frame.width), self.dtype)

    def _run(self, x: Array) -> Array:
        width = self._frame.width
        if self._frame.numbers is None and x.shape[2] != width:
            raise ValueError(f"chunk must have {width} features, got {x.shape[2]}")
        y: Array = self._core.run(x)
        return y

    def _read(self) -> tuple[State, ...]:
        return tuple(mapped(np.copy, self._live))

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        if batch != self.batch:
            self._prepare(batch)
        fill("state", self._live, state)


class Pointwise(Stream):
    """Layers that see one row at a time, and have no state; how wide frames are, they show."""

    def __init__(self, modules: Sequence[Any], batch: int, batch_first: bool = False) -> None:
        super().__init__(batch, batch_first)
        self._modules = modules
        self._axes = 1 if modules and isinstance(modules[0], Embedding) else 2
        self._none: Array | None = None
        self._kernels: dict[np.dtype[Any], list[Any]] = {}
        if all(compiles(module) for module in modules):
            for dtype in (np.dtype("float32"), np.dtype("float64")):
                stages = stages_of(modules, batch, dtype)[2]
                self._kernels[dtype] = [kernel for kernel, *_ in stages]

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Take one frame of each row, return the outputs."""
        if not self._as_given(x, out):
            return super().step(x, out)
        y: Any = x
        for kernel in self._kernels[y.dtype]:
            y = kernel.forward(y, out)
        if y is x:
            np.copyto(out, y)  # type: ignore[arg-type]
        return out  # type: ignore[return-value]

    def _as_given(self, x: Any, out: Any) -> bool:
        """Whether the kernels take x and write to `out`, with nothing to be made of them before."""
        return (
            type(x) is type(out) is np.ndarray
            and x.dtype == out.dtype
            and x.dtype in self._kernels
            and x.shape == out.shape
            and (x.ndim == 2 or self.batch == x.ndim == 1)
            and (x.ndim == 1 or len(x) == self.batch)
            and out.flags.carray
        )

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        if self._axes == 1:
            return as_integers(name, x)
        dtypes = _dtypes(self._modules)
        return as_array(name, x, dtypes.pop()) if len(dtypes) == 1 else as_float(name, x)

    def _no_frames(self) -> Array:
        if self._axes == 1:
            return np.zeros((0, self.batch), np.intp)
        if self._none is None:
            raise RuntimeError("no frames have come: their width is not known")
        return np.zeros((0, self.batch, *self._none.shape[2:]), self._none.dtype)

    def _run(self, x: Array) -> Array:
        self._none = x[:0]
        for module in self._modules:
            x = module(x)
        return x


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

    def _read(self) -> tuple[State, ...]:
        return tuple(entry for stream in self._streams for entry in stream._read())

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


def chained(layers: Sequence[Module], batch: int) -> Stream:
    """Return a stream of layers one after the other."""
    runs: list[list[Module]] = []
    for layer in layers:
        if isinstance(layer, (Dropout, Identity)):
            continue  # at inference they do nothing
        if runs and _together(*runs[-1], layer):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    batch_first = bool(agreed("batch_first", {str(at): layer for at, layer in enumerate(layers)}))
    if len(runs) < 2 and all(_together(*run) for run in runs):
        return _stream_of(runs[0] if runs else [], batch, batch_first)
    streams = [_stream_of(run, batch) if _together(*run) else run[0].stream(batch) for run in runs]
    return Chained(streams, batch_first)


def _stream_of(modules: Sequence[Module], batch: int, batch_first: bool = False) -> Stream:
    return (Compiled if _dtypes(modules) else Pointwise)(modules, batch, batch_first)


def _together(*modules: Module) -> bool:
    return all(compiles(module) for module in modules) and len(_dtypes(modules)) < 2


def stages_of(
    modules: Sequence[Any], batch: int, dtype: np.dtype[Any]
) -> tuple[int | None, tuple[State, ...], list[Any]]:
    """What a stream goes through: the width of its frames, states of recurrent layers, stages.

    A width of 0 says that frames are numbers, None that they may have any.
    """
    found: list[Any] = []
    width, states = None, []
    for module in modules:
        own, state, stages = module.stages(batch, dtype)
        if own == 0 and found:
            raise TypeError("an Embedding takes integers: in a chain it must be the first layer")
        width = own if width is None else width
        states += [] if state is None else [state]
        found += stages
    return width, tuple(states), found


def compiles(module: Module) -> bool:
    """Whether `stages` tells what a call does: a class of somebody's own may call otherwise."""
    found = (
        name
        for cls in type(module).__mro__
        for name in ("stages", "stream", "__call__")
        if name in vars(cls)
    )
    return next(found) == "stages" and all(compiles(part) for _, part in module.children())


def _dtypes(modules: Sequence[Module]) -> set[np.dtype[Any]]:
    """In what the modules compute that have a dtype of their own."""
    parts = (part for module in modules for part in walk(module))
    return {dtype for part in parts if (dtype := getattr(part, "dtype", None)) is not None}


def stream_of(module: Any, batch: int) -> Stream:
    """Return the stream of one layer; raise `TypeError` naming one that has none."""
    if compiles(module) and _dtypes([module]):
        batch_first = getattr(module, "batch_first", False)
        return Compiled([module], batch, batch_first, single=module.recurrent)
    if module.pointwise:
        return Pointwise([module], batch)
    why = (
        "it reads sequences from their ends"
        if getattr(module, "looks_ahead", False)
        else ("it does not say how (pointwise = True does, for layers that see one row at a time)")
    )
    raise TypeError(f"{type(module).__name__} cannot run as a stream: {why}")
