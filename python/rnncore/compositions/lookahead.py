"""Looking a limited way into the future: row convolution and windows (and `latency`: chunks).

Frame t is done after a bounded number of further frames, where `Bidirectional` waits for the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import Array, as_array, check_flag, check_size, float_dtype, warn_ignored
from ..init import Seed
from ..module import Module, modules
from ..states import State, add, mapped, split_state
from ..stream.ahead import LookAhead
from ..stream.base import Stream
from ..widths import check_width, width_through
from .composition import (
    Composition,
    Part,
    Run,
    Sequences,
    as_input,
    check_frames,
    check_one_way,
    check_remembers,
    check_same_input,
)
from .merging import check_merge, merged, merged_width
from .ragged import from_end

#: Frames that a batch of windows holds at most, so that memory does not grow with the sequence.
_BLOCK = 1 << 15


class RowConvolution(Composition):
    """Each feature's weighted sum over the present and the next frames (Amodei et al. 2016, 3.7).

        y_t = sum over j = 0..future of W_j * x_(t+j)

    x and y `(T, B, size)`; beyond a sequence's own end x counts as zero. The parameter `weight
    (future + 1, size)` starts near the identity: one for j = 0, zero for the others, plus uniform
    noise in +-0.1/sqrt(future + 1). It has no state: () is taken and returned, for the sake of
    `lengths` in a chain.
    """

    looks_ahead = True
    takes_resets = False

    def __init__(
        self,
        size: int,
        future: int,
        batch_first: bool = False,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        shape = check_frames("future", future) + 1, check_size("size", size)
        bound = 0.1 / math.sqrt(shape[0])
        weight = init.uniform(np.random.default_rng(seed), shape, bound, float_dtype(dtype))
        weight[0] += 1
        super().__init__({}, {"weight": weight})
        self.size, self.future = int(size), int(future)
        self.batch_first, self.dtype = check_flag("batch_first", batch_first), weight.dtype

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.size)
        return self.size

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; each output comes `future` frames after its own."""
        return _Sums(self, batch)

    def _run(self, given: Sequences, record: bool) -> Run:
        x, state, lengths, _ = given
        split_state("state", state, "()", 0)
        if x.shape[2] != self.size:
            raise ValueError(f"x must have {self.size} features, got {x.shape[2]}")
        alive = None if lengths is None else np.arange(len(x))[:, None, None] < lengths[:, None]
        weight, steps = self.params["weight"], len(x)
        reach = range(min(self.future + 1, steps))
        # Sums below are in the order of the steps, however x and dy lie in memory.
        x = np.ascontiguousarray(x if alive is None else np.where(alive, x, 0))
        y = np.zeros(x.shape, x.dtype)
        for j in reach:
            y[: steps - j] += weight[j] * x[j:]
        if alive is not None:
            y *= alive

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            split_state("dstate", dstate, "()", 0)
            dy = np.ascontiguousarray(dy if alive is None else np.where(alive, dy, 0))
            dx, dweight = np.zeros(x.shape, x.dtype), self.grads["weight"]
            for j in reach:
                dx[j:] += weight[j] * dy[: steps - j]
                dweight[j] += np.einsum("tbi,tbi->i", dy[: steps - j], x[j:])
            return dx if alive is None else dx * alive, ()

        return Run(y, (), pullback)


class _Sums(LookAhead):
    """The stream of a row convolution."""

    def __init__(self, model: RowConvolution, batch: int) -> None:
        super().__init__(batch, model.batch_first)
        self._model = model

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return as_array(name, x, self._model.dtype)

    def _no_frames(self) -> Array:
        return np.zeros((0, self.batch, self._model.size), self._model.dtype)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        ready = len(pending) if last else max(len(pending) - self._model.future, 0)
        return self._model._run(Sequences(pending), False).y[:ready], pending[ready:]

    def _read(self) -> tuple[State, ...]:
        return ((),)


class Windowed(Composition):
    """Layers that see `past` frames back and `future` frames ahead of each output.

        y_t = merge(forward's output after x_(t-past)..x_t, backward's after x_(t+future)..x_t)

    None means all frames on that side: that part is then one plain call, and carries a state. Else
    all windows go through the layer as one batch (in blocks), each from the first state, cut short
    at the ends of its sequence; that part has no state, None stands in its place. The cost is that
    of past + 1 (future + 1) plain calls, for memory in `vjp` too. Either layer may be None; each
    must run in one direction. merge as in `Bidirectional`; the state is the pair (forward,
    backward).
    """

    looks_ahead = True
    takes_resets = False

    def __init__(
        self,
        forward: Module | None,
        backward: Module | None,
        past: int | None = None,
        future: int | None = 0,
        merge: str = "concat",
    ) -> None:
        given = {"forward": forward, "backward": backward}
        parts = {name: part for name, part in given.items() if part is not None}
        if not parts:
            raise ValueError("forward and backward must not both be None")
        super().__init__(parts)
        check_same_input(parts)
        for name, part in parts.items():
            check_one_way(name, part)
            check_remembers(name, part)
        self.past = None if past is None else check_frames("past", past)
        self.future = None if future is None else check_frames("future", future)
        self.merge = check_merge(merge)
        self.forward, self.backward = forward, backward
        if forward is None and past is not None:
            warn_ignored("past", "a layer forward")
        if backward is None and future:
            warn_ignored("future", "a layer backward")
        self.out_width(None)

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        named = (("forward", self.forward), ("backward", self.backward))
        parts = [(name, part) for name, part in named if part is not None]
        return merged_width(
            self.merge, {name: width_through([(name, part)], width) for name, part in parts}
        )

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; each output comes `future` frames after its own."""
        if self.backward is not None and self.future is None:
            return super().stream(batch)
        return _Views(self, batch)

    def _run(self, given: Sequences, record: bool) -> Run:
        states = split_state("state", given.state, "(forward, backward)", 2)
        ahead: Run | None = None
        back: Run | None = None
        if self.forward is not None:
            side = partial(self._side, "past", self.forward)
            ahead = side(given._replace(state=states[0]), record)
        if self.backward is not None:
            side = partial(self._side, "future", self.backward)
            back = from_end(side, given._replace(state=states[1]), record)
        if ahead is not None and back is not None:
            y, unmerge = merged(self.merge, {"forward": ahead.y, "backward": back.y})
        else:
            y = ahead.y if ahead else back.y if back else given.x
            unmerge = _same_for_both

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            dlast = split_state("dstate", dstate, "(forward, backward)", 2)
            d_ahead, d_back = unmerge(dy)
            dx, dahead = ahead.pullback(d_ahead, dlast[0]) if ahead else (None, None)
            if back is None:
                return dx, (dahead, None)
            dx_back, dback = back.pullback(d_back, dlast[1])
            return add(dx, dx_back), (dahead, dback)

        return Run(y, tuple(run.state if run else None for run in (ahead, back)), pullback)

    def _side(self, name: str, layer: Module, given: Sequences, record: bool) -> Run:
        part, reach, x = Part(layer, self.batch_first), getattr(self, name), given.x
        if reach is None:
            return part.run(given, record)
        if given.state is not None:
            raise ValueError(
                f"state must hold None where {name} is limited: "
                f"with {name}={reach} every window starts from the first state"
            )
        if reach >= len(x) - 1 or not x.shape[1]:  # every window starts where its sequence does
            whole = part.run(given, record)
            return Run(whole.y, None, lambda dy, _: (whole.pullback(dy, None)[0], None))
        return _windows(part, reach, given, record)


class _Views(LookAhead):
    """The stream of a windowed net.

    The first `_seen` of the frames that are kept have had their outputs, and are past of others.
    """

    def __init__(self, model: Windowed, batch: int) -> None:
        super().__init__(batch, model.batch_first)
        self._model, self._axes = model, 1 if model.takes_indices else 2
        self._sides = [
            None if part is None else Part(part, model.batch_first)
            for part in (model.forward, model.backward)
        ]
        self._kept = model.past or 0 if model.forward else 0
        self._waits = model.future or 0 if model.backward else 0
        self._seen, self._state = 0, None

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        return as_input(self._model, name, x)

    def _no_frames(self) -> Array:
        return no_frames(self._model, self.batch)

    def _settled(self, pending: Array, last: bool) -> tuple[Array, Array]:
        seen, count = self._seen, len(pending)
        ready = count if last else max(count - self._waits, seen)
        ahead, back = self._ahead(pending[:ready], seen), self._back(pending[seen:], count - ready)
        if ahead is None or back is None:
            y = back if ahead is None else ahead
        else:
            y, _ = merged(self._model.merge, {"forward": ahead, "backward": back})
        self._seen = min(ready, self._kept)
        return np.asarray(y), pending[ready - self._seen :]

    def _ahead(self, x: Array, seen: int) -> Array | None:
        """The forward layer's outputs for the frames after those seen."""
        part, past = self._sides[0], self._model.past
        if part is None:
            return None
        if past is not None:
            return _windows(part, past, Sequences(x), False, seen).y[seen:]
        run = part.run(Sequences(x, self._state), False)
        self._state = run.state
        return run.y

    def _back(self, x: Array, later: int) -> Array | None:
        """The backward layer's outputs for all frames but the `later` ones."""
        part, future = self._sides[1], self._model.future
        if part is None or future is None:
            return None
        return _windows(part, future, Sequences(x[::-1]), False, later).y[later:][::-1]

    def _read(self) -> tuple[State, ...]:
        if self._model.past is None:
            self._ahead(self._no_frames(), 0)  # None becomes arrays
        return ((mapped(np.copy, self._state), None),)

    def _write(self, state: Sequence[State] | None, batch: int) -> None:
        self._check_rows(batch)
        own = None if state is None else state[0]
        ahead, back = split_state("state", own, "(forward, backward)", 2)
        carries = self._model.forward is not None and self._model.past is None
        if back is not None or (ahead is not None and not carries):
            raise ValueError("state must hold None for a side that is limited or not there")
        self._state = ahead

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Start again, with all rows: they wait for the same frames."""
        super().reset(rows)
        self._seen = 0

    def _live_parts(self) -> State:
        return super()._live_parts(), np.array(self._seen)

    def _put(self, parts: State, batch: int) -> None:
        rest, seen = parts
        super()._put(rest, batch)
        most = 0 if self._pending is None else len(self._pending)
        if seen.dtype.kind not in "iu" or seen.shape != () or not 0 <= seen <= most:
            raise ValueError(f"the frames seen must be a number in 0..{most}, got {seen}")
        self._seen = int(seen)


def no_frames(model: Composition, batch: int) -> Array:
    """Frames `(0, batch, ...)` as the model's first layer takes them."""
    if model.takes_indices:
        return np.zeros((0, batch), np.intp)
    for module in modules(model):
        for name in ("input_size", "in_features"):
            if hasattr(module, name):
                return np.zeros((0, batch, getattr(module, name)), model.dtype)
    raise RuntimeError("no frames have come: their width is not known")


def _same_for_both(dy: Array) -> tuple[Array, Array]:
    return dy, dy


def _windows(part: Part, past: int, given: Sequences, record: bool, first: int = 0) -> Run:
    """Give each frame of x `(T, B, ...)` the output after it and the `past` frames before it.

    Those before the `first` one are only seen: their outputs are zero.
    """
    x, _, lengths, _ = given
    empty = part.run(Sequences(x[:0]), False).y
    y = np.zeros((*x.shape[:2], *empty.shape[2:]), empty.dtype)
    alive = np.ones(x.shape[:2], bool)
    if lengths is not None:
        alive = np.arange(len(x))[:, None] < lengths
    alive[:first] = False
    ends, rows = np.nonzero(alive)
    blocks = []
    for at in _blocks(len(ends), past + 1):
        end, row = ends[at], rows[at]
        size = np.minimum(end, past) + 1
        steps = (end - size + 1) + np.arange(size.max())[:, None]
        own = Sequences(x[np.minimum(steps, len(x) - 1), row], lengths=size)
        run = part.run(own, record)
        last = size - 1, np.arange(len(end))
        y[end, row] = run.y[last]
        if record:
            blocks.append((end, row, size, last, run.y.shape, run.pullback))

    def pullback(dy: Array, _: State) -> tuple[Any, State]:
        dx = None if x.dtype.kind in "iu" else np.zeros(x.shape, x.dtype)
        for end, row, size, last, shape, back in blocks:
            d = np.zeros(shape, y.dtype)
            d[last] = dy[end, row]
            dframes, _ = back(d, None)
            if dx is not None:
                _add_windows(dx, dframes, end, row, size)
        return dx, None

    return Run(y, None, pullback)


def _blocks(count: int, width: int) -> Iterator[slice]:
    each = max(1, _BLOCK // width)
    return (slice(first, first + each) for first in range(0, count, each))


def _add_windows(dx: Array, dframes: Array, end: Array, row: Array, size: Array) -> None:
    """Add the gradients of the windows' frames to those of the frames, the last frames first."""
    for before in range(len(dframes)):  # no two windows have the same frame in the same place
        which = np.flatnonzero(size > before)
        dx[end[which] - before, row[which]] += dframes[size[which] - 1 - before, which]
