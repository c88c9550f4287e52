"""Masks over time and frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_float,
    as_lengths,
    as_shape,
    check_count,
    check_flag,
    check_number,
)
from ..init import Seed
from ..module import Module, Pullback, once
from ..stream.stages import Stages


class SpecAugment(Module):
    """In training (`vjp`), set runs of frames and of features to zero, for each sequence others.

    The masks of SpecAugment (Park et al. 2019, section 2, without its time warping). Each of
    `n_time_masks` hides t frames, t uniform in 0..min(time_mask_param, p times the length), from
    a start that is uniform among those where it fits. Each of `n_freq_masks` hides f features, f
    uniform in 0..freq_mask_param, or the number of features if that is less. Masks may overlap.
    Zero is the mean of features that are normalised.

    x: `(T, B, C)`, `(B, T, C)` with `batch_first`, or `(T, C)`. lengths: `(B,)` whole numbers in
    1..T; no mask reaches past them, and y is zero there. Inference (a call, a stream) changes
    nothing else. `rng` is the generator that the masks come from, as of `Dropout`; they do not
    depend on the precision or on padding.
    """

    pointwise = True
    takes_lengths = True

    def __init__(
        self,
        n_time_masks: int,
        time_mask_param: int,
        n_freq_masks: int,
        freq_mask_param: int,
        *,
        p: float = 1.0,
        batch_first: bool = False,
        seed: Seed = None,
    ) -> None:
        if not 0 <= check_number("p", p) <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        super().__init__()
        self.n_time_masks = check_count("n_time_masks", n_time_masks, 0)
        self.time_mask_param = check_count("time_mask_param", time_mask_param, 0)
        self.n_freq_masks = check_count("n_freq_masks", n_freq_masks, 0)
        self.freq_mask_param = check_count("freq_mask_param", freq_mask_param, 0)
        self.p, self.batch_first = float(p), check_flag("batch_first", batch_first)
        self.rng = np.random.default_rng(seed)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return nothing to go through."""
        return Stages(None, None, [])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return x, with zeros past the ends of sequences."""
        x, ends = self._taken(x, lengths)
        if lengths is None:
            return x
        return _shown(x, self._over_time(x, _until(ends, x.shape[self._time(x)])))

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return x with what is masked set to zero, and the pullback from dy to dx."""
        x, ends = self._taken(x, lengths)
        steps, features = x.shape[self._time(x)], x.shape[-1]
        widest = np.minimum(self.time_mask_param, (self.p * ends).astype(np.int64))
        frames = self._drawn(self.n_time_masks, widest, ends, steps)
        sizes = np.full_like(ends, features)
        widest = np.minimum(self.freq_mask_param, sizes)
        bands = self._drawn(self.n_freq_masks, widest, sizes, features)
        shown = self._over_time(x, _until(ends, steps) & ~frames)
        shown = shown & (~bands[0] if x.ndim == 2 else np.expand_dims(~bands, self._time(x)))

        def pullback(dy: npt.ArrayLike) -> Array:
            return _shown(as_shape("dy", dy, x.dtype, x.shape), shown)

        return _shown(x, shown), once(pullback)

    def _taken(self, x: npt.ArrayLike, lengths: Any) -> tuple[Array, Array]:
        """Return x and how long its sequences are."""
        array = as_float("x", x)
        if array.ndim not in (2, 3):
            steps = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"x must have shape ({steps}, C) or (T, C), got {array.shape}")
        time = self._time(array)
        steps, batch = array.shape[time], 1 if array.ndim == 2 else array.shape[1 - time]
        ends = as_lengths(lengths, steps, batch)
        return array, np.full(batch, steps, np.int64) if ends is None else ends

    def _time(self, x: Array) -> int:
        return int(self.batch_first and x.ndim == 3)

    def _over_time(self, x: Array, rows: Array) -> Array:
        """Return booleans `(B, T)` as those that go with all features of x."""
        at = rows[0] if x.ndim == 2 else rows if self.batch_first else rows.T
        return np.expand_dims(np.asarray(at), -1)

    def _drawn(self, count: int, widest: Array, sizes: Array, most: int) -> Array:
        """Draw `count` runs for each row; return booleans `(rows, most)`, true within them."""
        shape = (len(sizes), count)
        widths = self.rng.integers(widest[:, np.newaxis], size=shape, endpoint=True)
        starts = self.rng.integers(sizes[:, np.newaxis] - widths, endpoint=True)
        at = np.arange(most)
        after, before = starts[..., np.newaxis] <= at, at < (starts + widths)[..., np.newaxis]
        return np.asarray((after & before).any(axis=1))


def _until(ends: Array, steps: int) -> Array:
    """Return booleans `(B, T)`, true before the ends of sequences."""
    return np.arange(steps) < ends[:, np.newaxis]


def _shown(x: Array, where: Array) -> Array:
    """Return x with zeros elsewhere."""
    return np.where(where, x, x.dtype.type(0))
