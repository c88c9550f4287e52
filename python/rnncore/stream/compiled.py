"""Streams of what the compiled core takes, and of layers that see one row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_array,
    as_different_rows,
    as_float,
    as_indices,
    as_integers,
    as_resets,
)
from ..compiled import core
from ..states import State, fill
from .base import Stream
from .stages import Stage, stages_of

if TYPE_CHECKING:
    from ..module import Module


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

    def resets(self, resets: npt.ArrayLike, count: int) -> Array:
        """Return where the rows of a step start anew."""
        return as_resets(resets, (count,))

    def rows(self, rows: npt.ArrayLike) -> Array:
        """Return the numbers of the rows that a step is about."""
        return as_different_rows("rows", rows, self.batch)

    def __call__(self, x: npt.ArrayLike, count: int) -> Array:
        """Return a frame of so many rows as the compiled stream takes it, or say what is wrong."""
        array, features = self.array("x", x), (self.width,) if self.numbers is None else ()
        shape = (count, *features)
        if array.shape != shape and (count != 1 or array.shape != features):
            either = f" or {features}" if count == 1 else ""
            raise ValueError(f"x must have shape {shape}{either}, got {array.shape}")
        return np.require(array, None, ["C", "A"])


class Compiled(Stream):
    """Layers that say what they do, one after the other, in one call of the compiled core."""

    def __init__(
        self,
        modules: Sequence[Module],
        batch: int,
        batch_first: bool = False,
        single: bool = False,
    ) -> None:
        super().__init__(batch, batch_first, single)
        self._modules, (self.dtype,) = modules, dtypes(modules)
        self._core: Any = None
        self._start = self._now()
        self._prepare(batch)

    def _prepare(self, batch: int) -> None:
        """Make states for so many rows, and the compiled stream that works on them."""
        width, states, stages = stages_of(self._modules, batch, self.dtype)
        first = stages[0]
        numbers = first.layer.count if width == 0 and isinstance(first, Stage) else None
        self._frame = _Frame(self.dtype, batch, width or 0, numbers)
        self._axes = 2 if numbers is None else 1
        self._core = core(self.dtype).Stream(
            stages, batch, self._frame.width, self._frame, self._core
        )
        self.batch, self._state = batch, tuple(states)
        # Nothing in between: a step may take half a microsecond.
        self.step = self._core.step  # type: ignore[method-assign]

    def refresh(self) -> None:
        """Take the weights as they are now."""
        now = stages_of(self._modules, 1, self.dtype)
        self._core.refresh(now.stages)
        self._start = now.state

    def _now(self) -> State:
        """The first state, of one row, as the modules have it now."""
        return stages_of(self._modules, 1, self.dtype).state

    def repeat(self, x: Array, times: int) -> None:
        """Take the same frame so many times, without Python in between: for measuring."""
        self._core.repeat(x, times)

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return self._frame.array(name, x)

    def _no_frames(self) -> Array:
        if self._frame.numbers is not None:
            return np.zeros((0, self.batch), np.int64)
        return np.zeros((0, self.batch, self._frame.width), self.dtype)

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        return self._take(x, None, rows)

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        return self._ragged(x, resets, rows, None)

    def _ragged(
        self, x: Array, resets: Array | None, rows: Array | None, lengths: Array | None
    ) -> Array:
        width = self._frame.width
        if self._frame.numbers is None:
            x = self._frame.array("chunk", x)  # another layer's outputs may be of another dtype
            if x.shape[2] != width:
                raise ValueError(f"chunk must have {width} features, got {x.shape[2]}")
        y: Array = self._core.run(x, resets, rows, lengths)
        return y

    def _live(self) -> tuple[State, ...]:
        return self._state

    def _first(self) -> tuple[State, ...]:
        return self._start  # type: ignore[no-any-return]

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        if batch != self.batch:
            self._prepare(batch)
        fill("state", self._state, state, self._start)


class Pointwise(Stream):
    """Layers that see one row at a time, and have no state; how wide frames are, they show."""

    def __init__(self, modules: Sequence[Module], batch: int, batch_first: bool = False) -> None:
        super().__init__(batch, batch_first)
        self._modules = modules
        self._axes = 1 if modules and modules[0].takes_indices else 2
        self._none: Array | None = None
        self._kernels: dict[np.dtype[Any], list[Any]] = {}
        if all(module.compiles() for module in modules):
            for dtype in (np.dtype("float32"), np.dtype("float64")):
                stages = stages_of(modules, batch, dtype).stages
                kernels = [stage.layer for stage in stages if isinstance(stage, Stage)]
                if len(kernels) == len(stages):
                    self._kernels[dtype] = kernels

    def step(
        self,
        x: npt.ArrayLike,
        out: Array | None = None,
        resets: npt.ArrayLike | None = None,
        *,
        rows: npt.ArrayLike | None = None,
    ) -> Array:
        """Take one frame of all or some rows, return the outputs."""
        if resets is not None or rows is not None or not self._as_given(x, out):
            return super().step(x, out, resets, rows=rows)
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
        found = dtypes(self._modules)
        return as_array(name, x, found.pop()) if len(found) == 1 else as_float(name, x)

    def _no_frames(self) -> Array:
        if self._axes == 1:
            return np.zeros((0, self.batch), np.intp)
        if self._none is None:
            raise RuntimeError("no frames have come: their width is not known")
        return np.zeros((0, self.batch, *self._none.shape[2:]), self._none.dtype)

    def _take(self, x: Array, resets: Array | None, rows: Array | None = None) -> Array:
        return self._run(x)  # there is nothing to start anew

    def _run(self, x: Array, rows: Array | None = None) -> Array:
        self._none = x[:0]
        for module in self._modules:
            x = module(x)
        return x


def dtypes(modules: Iterable[Module]) -> set[np.dtype[Any]]:
    """Return in what the modules compute that have a dtype of their own."""
    return set().union(*(module.dtypes() for module in modules))
