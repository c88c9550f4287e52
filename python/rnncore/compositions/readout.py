"""One vector for a whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_resets, as_shape, check_choice, read
from ..module import Module, once
from ..recurrent.stack import Stacked
from ..states import State, leaves, split_state
from ..widths import width_through
from .bidirectional import Bidirectional, Reversed
from .composition import Part, Sequences, agreed, as_input, run, told_resets
from .merging import merged
from .ragged import inside, lengths_after

READINGS = ("last", "last_step", "mean")
#: From the gradient of a reading, and that of the state beside it, to the state's.
_Unread: TypeAlias = Callable[[Array, State], State]


class Readout(Module):
    """A recurrent layer of which each sequence's end is read, or its mean.

    layer: `RNN` or a relative, `Bidirectional`, `Reversed`. reading: "last", the outputs in which
    the directions of the last layer end (backward, that is the first step), merged as a
    `Bidirectional` merges them; "last_step", y at a sequence's own last step, torch's `y[:, -1]`:
    the backward direction has there read one step alone; or "mean", the mean of y over its own
    steps. For the latter two layer may be any recurrent module with a y for each step.

    Called as the layer is, with y `(B, D * H)`, or `(D * H,)` for one sequence: so that
    `Chain(Readout(LSTM(8, 32)), Linear(32, 5))` classifies ragged sequences. The state is the
    layer's. In a batch lengths may be zero: the reading of no steps is zero, and the state is kept.
    """

    recurrent = True
    takes_resets = True
    keeps_steps = False

    def __init__(self, layer: Module, reading: str = "last") -> None:
        self.reading = check_choice("reading", reading, READINGS)
        if reading == "last" or not isinstance(layer, Module) or not layer.recurrent:
            _check_ends(layer)
        if not layer.keeps_steps:
            raise TypeError(
                f"layer must give y for each step, which {type(layer).__name__} does not"
            )
        super().__init__()
        self.layer: Any = layer
        self.batch_first = bool(agreed("batch_first", {"layer": layer}))
        self.dtype = agreed("dtype", {"layer": layer})
        self.takes_indices = layer.takes_indices

    def __call__(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Return the reading of whole sequences, and their final state."""
        (y, final), _ = self._run(x, state, lengths, resets, False)
        return self._read(y, final, lengths_after(self.layer, lengths)), final

    def vjp(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[tuple[Array, State], Callable[..., tuple[Any, State]]]:
        """As a call, with the pullback: `pullback(dy, dstate=None) -> (dx, dstate)`."""
        (y, final), back = self._run(x, state, lengths, resets, True)
        ends = lengths_after(self.layer, lengths)
        reading = self._read(y, final, ends)

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> Any:
            if dy is None:
                return back(None, dstate)
            d = as_shape("dy", dy, reading.dtype, reading.shape)
            if self.reading == "last":
                d = self._inside(d, ends)
                return back(None, _ending(self.layer, final)[1](d, dstate))
            return back(self._unread(d, y, ends), dstate)

        return (reading, final), once(pullback)

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width_through([("layer", self.layer)], width)

    def _run(
        self, x: Any, state: State, lengths: Any, resets: Any, record: bool
    ) -> tuple[Any, Any]:
        """What the layer returns, and its pullback if it is recorded; lengths may be zero."""
        counts = None if lengths is None else read("lengths", lengths)[0]
        anew = told_resets(self.layer, resets)
        if counts is None or counts.ndim != 1 or counts.all():
            return run(self.layer, record, x, state, lengths=lengths, **anew)
        x, axes = as_input(self, "x", x), 2 if self.takes_indices else 3
        if x.ndim != axes or counts.shape != (batch := x.shape[0 if self.batch_first else 1],):
            return run(self.layer, record, x, state, lengths=lengths)  # which refuses them
        for part in leaves(state):
            if np.ndim(part) < 2 or np.shape(part)[-2] != batch:
                raise ValueError(f"state must have {batch} rows, got shape {np.shape(part)}")
        where = None if resets is None else self._swap(as_resets(resets, x.shape[:2]))
        layer = Part(self.layer, self.batch_first)
        found = layer.run(Sequences(self._swap(x), state, counts, where), record)
        y = self._swap(found.y)

        def back(dy: Array | None, dstate: State) -> tuple[Any, State]:
            dx, dfirst = found.pullback(self._swap(np.zeros_like(y) if dy is None else dy), dstate)
            return None if dx is None else self._swap(dx), dfirst

        return (y, found.state), back

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x

    def _read(self, y: Array, final: State, lengths: npt.ArrayLike | None) -> Array:
        if self.reading == "last":
            return self._inside(_ending(self.layer, final)[0], lengths)
        if y.ndim not in (2, 3) or _longest(lengths) > y.shape[self._time(y)]:
            raise ValueError(f"layer must give y for each step of x, got shape {y.shape}")
        if self.reading == "last_step" and y.shape[self._time(y)]:
            return self._inside(y[self._last_step(y, lengths)], lengths)
        total: Array = inside(y, lengths, self.batch_first).sum(axis=self._time(y))
        mean: Array = total / self._steps(y, lengths)
        return mean

    def _unread(self, d: Array, y: Array, lengths: npt.ArrayLike | None) -> Array:
        """From the gradient of a reading of y to that of y."""
        if self.reading == "mean":
            d = np.expand_dims(d / self._steps(y, lengths), self._time(y))
            return inside(np.broadcast_to(d, y.shape), lengths, self.batch_first)
        dy = np.zeros_like(y)
        if y.shape[self._time(y)]:
            dy[self._last_step(y, lengths)] = self._inside(d, lengths)
        return dy

    def _last_step(self, y: Array, lengths: npt.ArrayLike | None) -> tuple[Any, ...]:
        """Where the last steps stand in y; of a sequence without, anywhere."""
        if lengths is None:
            return (slice(None),) * self._time(y) + (-1,)
        ends = np.asarray(lengths) - 1
        if y.ndim == 2:
            return (ends[0],)
        rows = np.arange(len(ends))
        return (rows, ends) if self.batch_first else (ends, rows)

    def _inside(self, rows: Array, lengths: npt.ArrayLike | None) -> Array:
        """Return rows `(B, ...)` with zeros where a sequence has no steps."""
        if lengths is None or np.all(lengths):
            return rows
        return np.where(np.asarray(lengths)[:, None] > 0, rows, rows.dtype.type(0))

    def _time(self, y: Array) -> int:
        """The axis of time."""
        return 1 if self.batch_first and y.ndim == 3 else 0

    def _steps(self, y: Array, lengths: npt.ArrayLike | None) -> Any:
        """How many steps each sequence has, at least 1: a number, or `(B, 1)`."""
        if lengths is None:
            return y.dtype.type(max(1, y.shape[self._time(y)]))
        steps = np.maximum(lengths, 1).astype(y.dtype)
        return steps[:, None] if y.ndim == 3 else steps


def _longest(lengths: npt.ArrayLike | None) -> int:
    return 0 if lengths is None else int(np.max(lengths, initial=0))


def _check_ends(layer: Module) -> None:
    """Refuse a layer whose last output cannot be told from its state."""
    if isinstance(layer, Bidirectional):
        _check_ends(layer.forward)
        _check_ends(layer.backward)
    elif isinstance(layer, Reversed):
        _check_ends(layer.layer)
    elif not isinstance(layer, Stacked):
        raise TypeError(
            "layer must be a recurrent layer, Bidirectional or Reversed, "
            f"got {type(layer).__name__}"
        )


def _ending(layer: Any, final: State) -> tuple[Array, _Unread]:
    """Return the last output, which is in the final state, and the pullback to its gradient."""
    if isinstance(layer, Reversed):
        return _ending(layer.layer, final)
    if isinstance(layer, Bidirectional):
        return _both_endings(layer, final)
    h = final[0] if layer.has_cell_state else final
    directions = layer.directions

    def unread(dy: Array, dstate: State) -> State:
        given, dc = layer.checked_state("dstate", dstate, h.shape)
        dh = np.zeros_like(h) if given is None else np.array(given)
        dh[-directions:] += np.stack(np.split(dy, directions, axis=-1))
        return layer.join_state(dh, dc)

    return np.concatenate(list(h[-directions:]), axis=-1), unread


def _both_endings(layer: Bidirectional, final: State) -> tuple[Array, _Unread]:
    (ahead, unread_ahead), (behind, unread_behind) = (
        _ending(part, own) for part, own in zip((layer.forward, layer.backward), final, strict=True)
    )
    y, unmerge = merged(layer.merge, {"forward": ahead, "backward": behind})

    def unread(dy: Array, dstate: State) -> State:
        dahead, dbehind = split_state("dstate", dstate, "(forward, backward)", 2)
        d_ahead, d_behind = unmerge(dy)
        return unread_ahead(d_ahead, dahead), unread_behind(d_behind, dbehind)

    return y, unread
