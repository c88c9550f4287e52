"""One vector for a whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_shape
from .kernels import State
from .module import Module, once
from .stack import Layers, Pullback

READINGS = ("last", "mean")


class Readout(Module):
    """A recurrent layer of which each sequence's end is read, or its mean.

    reading: "last", the states in which the directions of the last layer end (backward, that is the
    first step), or "mean", the mean of y over a sequence's own steps.

    Called as the layer is, with y `(B, D * H)`, or `(D * H,)` for one sequence: so that
    `Chain(Readout(LSTM(8, 32)), Linear(32, 5))` classifies ragged sequences.
    """

    recurrent = True

    def __init__(self, layer: Layers, reading: str = "last") -> None:
        if not isinstance(layer, Layers):
            raise TypeError(f"layer must be a recurrent layer, got {type(layer).__name__}")
        if reading not in READINGS:
            raise ValueError(f"reading must be 'last' or 'mean', got {reading!r}")
        super().__init__()
        self.layer, self.reading = layer, reading
        self.batch_first, self.dtype = layer.batch_first, layer.dtype

    def __call__(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Return the reading of whole sequences, and their final state."""
        y, final = self.layer(x, state, lengths=lengths)
        return self._read(y, final, lengths), final

    def vjp(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, State], Pullback]:
        """As a call, and the way back: `pullback(dy, dstate=None) -> (dx, dstate)`."""
        (y, final), back = self.layer.vjp(x, state, lengths=lengths)
        reading = self._read(y, final, lengths)

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            if dy is None:
                return back(None, dstate)
            d = as_shape("dy", dy, self.dtype, reading.shape)
            if self.reading == "last":
                return back(None, self._into_state(d, final, dstate))
            d = np.expand_dims(d / self._steps(y, lengths), self._time(y))
            return back(np.broadcast_to(d, y.shape), dstate)

        return (reading, final), once(pullback)

    def _read(self, y: Array, final: State, lengths: npt.ArrayLike | None) -> Array:
        if self.reading == "mean":
            mean: Array = y.sum(axis=self._time(y)) / self._steps(y, lengths)
            return mean
        ends = self._hidden(final)[-self.layer.directions :]  # (D, B, H)
        return np.concatenate(list(ends), axis=-1)

    def _into_state(self, d: Array, final: State, dstate: State) -> State:
        """Return the gradient of the final state: `dstate`, and `d` where the reading is from."""
        h = self._hidden(final)
        given, dc = self.layer._state("dstate", dstate, h.shape)
        dh = np.zeros_like(h) if given is None else np.array(given)
        directions = self.layer.directions
        dh[-directions:] += np.stack(np.split(d, directions, axis=-1))
        return self.layer._join(dh, dc)

    def _hidden(self, final: State) -> Array:
        h: Array = final[0] if self.layer.has_cell_state else final
        return h

    def _time(self, y: Array) -> int:
        """The axis of time."""
        return 1 if self.batch_first and y.ndim == 3 else 0

    def _steps(self, y: Array, lengths: npt.ArrayLike | None) -> Any:
        """How many steps each sequence has: a number, or `(B, 1)`."""
        if lengths is None:
            return y.dtype.type(max(1, y.shape[self._time(y)]))
        steps = np.asarray(lengths).astype(y.dtype)
        return steps[:, None] if y.ndim == 3 else steps
