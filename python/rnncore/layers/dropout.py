"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_shape, check_number
from ..init import Seed
from ..module import Module, Pullback, once
from ..stream.stages import Stages


class Dropout(Module):
    """In training (`vjp`), zero each element with probability `p` and scale the rest by 1/(1-p).

    Inference (a call) returns x itself. `rng` is the generator that the masks come from; its
    `bit_generator.state` can be read and set. One seed gives the same mask in both precisions.
    """

    pointwise = True

    def __init__(self, p: float = 0.5, *, seed: Seed = None) -> None:
        if not 0 <= check_number("p", p) <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        super().__init__()
        self.p = float(p)
        self.rng = np.random.default_rng(seed)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return nothing to go through."""
        return Stages(None, None, [])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return x."""
        return as_float("x", x)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return x with elements dropped, and the pullback from dy to dx; keeps the mask."""
        x = as_float("x", x)
        if not self.p:
            return x, once(lambda dy: as_shape("dy", dy, x.dtype, x.shape))
        keep = self.rng.random(x.shape, dtype=np.float32) >= self.p
        scale = x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)

        def drop(value: Array) -> Array:
            return np.asarray(value * keep * scale)

        def pullback(dy: npt.ArrayLike) -> Array:
            return drop(as_shape("dy", dy, x.dtype, x.shape))

        return drop(x), once(pullback)
