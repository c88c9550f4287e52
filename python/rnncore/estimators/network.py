"""The network of every estimator: recurrent layers, what is read of them, a linear layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..chain import Chain
from ..layers import Pullback
from ..module import Module, once
from ..stack import Layers

READINGS = ("last", "mean", "steps")


class Network(Module):
    """Recurrent layers with `batch_first`, and a head on what is read of the last one.

    reading: "last", the state in which each direction ends, or "mean", the mean over a sequence's
    own steps: `(B, T, I)` to `(B, K)`; "steps": to `(B, T, K)`.
    """

    def __init__(self, recurrence: Layers, head: Chain, reading: str = "last") -> None:
        if reading not in READINGS:
            raise ValueError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
        super().__init__()
        self.recurrence, self.head, self.reading = recurrence, head, reading

    def __call__(self, x: Array, *, lengths: Array | None = None) -> Array:
        """Return what the head makes of the reading."""
        y, state = self.recurrence(x, lengths=lengths)
        features: Array = self.head(self._read(y, state, lengths))
        return features

    def vjp(self, x: Array, *, lengths: Array | None = None) -> tuple[Array, Pullback]:
        """Return what a call returns, and the pullback from its gradient to dx."""
        (y, state), back = self.recurrence.vjp(x, lengths=lengths)
        out, head_back = self.head.vjp(self._read(y, state, lengths))

        def pullback(dout: Array) -> Array:
            dx: Array = back(*self._spread(head_back(dout), y, state, lengths))[0]
            return dx

        return out, once(pullback)

    def _read(self, y: Array, state: Any, lengths: Array | None) -> Array:
        if self.reading == "steps":
            return y
        if self.reading == "mean":
            mean: Array = y.sum(axis=1) / self._count(y, lengths)
            return mean
        h = self._last(state[0] if isinstance(state, tuple) else state)  # (D, B, H)
        return h.swapaxes(0, 1).reshape(h.shape[1], -1)

    def _spread(self, d: Array, y: Array, state: Any, lengths: Array | None) -> tuple[Any, Any]:
        """Return the gradients of y and of the final state from that of the reading."""
        if self.reading == "steps":
            return d, None
        if self.reading == "mean":
            return np.repeat((d / self._count(y, lengths))[:, None], y.shape[1], axis=1), None
        several = isinstance(state, tuple)
        dstate = tuple(np.zeros_like(part) for part in (state if several else (state,)))
        dh = self._last(dstate[0])
        dh[...] = d.reshape(len(d), len(dh), -1).swapaxes(0, 1)
        return None, dstate if several else dstate[0]

    def _last(self, h: Array) -> Array:
        """The last layer's part of the states h (layers * D, B, H)."""
        return h[-self.recurrence.directions :]

    @staticmethod
    def _count(y: Array, lengths: Array | None) -> Array:
        """How many steps each sequence of y has, (B, 1)."""
        count = np.full(len(y), y.shape[1]) if lengths is None else lengths
        return count[:, None].astype(y.dtype)
