"""A module for each step of a sequence."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ..arrays import Array, check_kind, read
from ..module import Module, Pullback, once
from .composition import run


class TimeDistributed(Module):
    """A module that sees each step of a batch of sequences by itself: `(B, T, ...)`.

        y[b, t] = layer(x[b, t])

    The B T items go through the layer as one batch, and so may be sequences themselves, of which a
    recurrent layer starts each from the zero state. A `pointwise` module needs no such help.
    """

    batch_first = True

    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer = check_kind("layer", layer, Module)
        self.takes_indices = layer.takes_indices

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        return self._run(x, False)[0]

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx."""
        y, back = self._run(x, True)
        return y, once(back)

    def _run(self, x: npt.ArrayLike, record: bool) -> tuple[Array, Any]:
        given, _ = read("x", x)
        if given.ndim < 2:
            raise ValueError(f"x must have shape (B, T, ...), got {given.shape}")
        axes = given.shape[:2]
        output, back = run(self.layer, record, given.reshape(-1, *given.shape[2:]))
        y: Array = output[0] if self.layer.recurrent else output

        def pullback(dy: npt.ArrayLike) -> Array | None:
            d, _ = read("dy", dy)
            dx = back(d.reshape(y.shape))
            dx = dx[0] if self.layer.recurrent else dx
            return None if dx is None else dx.reshape(given.shape)

        return y.reshape(*axes, *y.shape[1:]), pullback
