"""GRU-D: sequences with missing values, at irregular times (Che et al. 2018)."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_flag, check_size, float_dtype, take_room
from ..init import RecurrentInit
from ..layers.linear import Linear
from ..module import Module, Pullback, once
from ..recurrent.base import Seed
from ..states import State
from ..widths import check_width
from .layer import Recurrent
from .shelf.gru_d import gru_d


def since_observed(observed: npt.ArrayLike, deltas: npt.ArrayLike) -> Array:
    """Return how long ago each feature was observed last, before this step: `(T, B, I)`.

    observed: `(T, B, I)` booleans; deltas: `(T, B)`, the time since the step before; the first is
    of no account. delta_t = s_t - s_(t-1) + (0 if it was observed at t-1, else delta_(t-1)), zero
    at the first step (eq. 3).
    """
    seen, gaps = np.asarray(observed, bool), np.asarray(deltas)
    if seen.ndim != 3 or gaps.shape != seen.shape[:2]:
        raise ValueError(
            f"observed must have shape (T, B, I) and deltas (T, B), got {seen.shape}, {gaps.shape}"
        )
    found = np.zeros(seen.shape, gaps.dtype)
    for t in range(1, len(seen)):
        found[t] = gaps[t, :, None] + np.where(seen[t - 1], 0, found[t - 1])
    return found


class _Filled(NamedTuple):
    """What stands in for missing values."""

    x: Array  # (T, B, I), missing ones anything finite
    seen: Array  # (T, B, I)
    since: Array  # (T, B, I)
    source: Array  # (T, B, I): the step of the last observation up to here, -1 for none
    last: Array  # (T, B, I): that observation, or the mean


class InputDecay(Module):
    """Missing values: the last observation, which decays to the mean as time goes on (eq. 5).

        g = exp(-max(0, weight * delta + bias))
        x' = x where observed, else g * last + (1 - g) * mean

    Parameters: `weight (I,)`, at first uniform in 0..1, and `bias (I,)`, zero. `mean (I,)`, a
    buffer, zero at first, as of standardised features: write those of the training data into it.
    """

    def __init__(
        self, features: int, *, dtype: npt.DTypeLike = "float32", seed: Seed = None
    ) -> None:
        self.features, self.dtype = check_size("features", features), float_dtype(dtype)
        take_room((features,))
        weight = np.random.default_rng(seed).uniform(0, 1, features).astype(self.dtype)
        super().__init__({"weight": weight, "bias": np.zeros_like(weight)})
        self._buffers = type(self._params)({"mean": np.zeros_like(weight)})

    def __call__(self, x: npt.ArrayLike, observed: Array, since: Array) -> Array:
        """Return x' `(T, B, I)`; observed: booleans, since: see `since_observed`, both like x."""
        return self._filled(self._found(x, observed, since))[0]

    def vjp(self, x: npt.ArrayLike, observed: Array, since: Array) -> tuple[Array, Pullback]:
        """Return x' and the pullback from its gradient to that of x, zero where x is missing."""
        found = self._found(x, observed, since)
        y, g, sums = self._filled(found)
        mean = self._buffers["mean"]

        def pullback(dy: npt.ArrayLike) -> Array:
            d = as_shape("dy", dy, self.dtype, y.shape)
            missing = np.where(found.seen, 0, d)
            dsums = np.where(sums > 0, -missing * (found.last - mean) * g, 0)
            self.grads["weight"] += (dsums * found.since).sum(axis=(0, 1))
            self.grads["bias"] += dsums.sum(axis=(0, 1))
            dx = np.where(found.seen, d, 0)
            places = np.nonzero(~found.seen & (found.source >= 0))
            np.add.at(dx, (found.source[places], *places[1:]), (missing * g)[places])
            return dx

        return y, once(pullback)

    def _found(self, x: npt.ArrayLike, observed: Array, since: Array) -> _Filled:
        x = as_array("x", x, self.dtype)
        if x.ndim != 3 or x.shape[-1] != self.features:
            raise ValueError(f"x must have shape (T, B, {self.features}), got {x.shape}")
        steps = np.arange(len(x)).reshape(-1, 1, 1)
        source = np.maximum.accumulate(np.where(observed, steps, -1), axis=0)
        x = np.where(observed, x, 0)
        last = np.take_along_axis(x, np.maximum(source, 0), axis=0) if len(x) else x
        last = np.where(source < 0, self._buffers["mean"], last)
        return _Filled(x, observed, since, source, last)

    def _filled(self, found: _Filled) -> tuple[Array, Array, Array]:
        """x', g, and the sums that g is made from."""
        sums = self._params["weight"] * found.since + self._params["bias"]
        g = np.exp(-np.maximum(sums, 0))
        guess = g * found.last + (1 - g) * self._buffers["mean"]
        return np.where(found.seen, found.x, guess), g, sums


class GRUD(Module):
    """A GRU for sequences with missing values, at irregular times (Che et al. 2018).

    Missing values of x decay from the last observation to the mean (`input_decay`), the state
    decays by the time since each feature was seen, `exp(-max(0, W delta + b))` (`hidden_decay`, a
    `Linear`), and the cell `rnncore.cells.shelf.gru_d` sees x' and which of it was observed (`rnn`,
    a `Recurrent` of 2 I features).

    x `(T, B, I)` to y `(T, B, H)` and the state `(1, B, H)`; a call takes a whole sequence, as what
    was seen last is no part of the state.
    """

    recurrent = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.batch_first, rng = check_flag("batch_first", batch_first), np.random.default_rng(seed)
        self.input_decay = InputDecay(input_size, dtype=dtype, seed=rng)
        self.hidden_decay = Linear(input_size, hidden_size, dtype=dtype, seed=rng)
        self.rnn = Recurrent(gru_d, 2 * input_size, hidden_size, dtype=dtype, seed=rng, init=init)
        self.dtype, self.hidden_size = self.rnn.dtype, self.rnn.hidden_size

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.input_size)
        return self.hidden_size

    def stream(self, batch: int = 1) -> NoReturn:
        """Raise `TypeError`: what was seen last, and when, is no part of the state."""
        raise TypeError(
            "a GRUD has no stream: what was seen last, and when, is no part of its state. A stream "
            "of its rnn takes x filled in, what was observed, and the decay, frame by frame"
        )

    def __call__(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        deltas: npt.ArrayLike | None = None,
        observed: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run over whole sequences; nothing is recorded.

        x: `(T, B, I)`. deltas: `(T, B)`, the time since the step before, at least 0; None: 1.
        observed: `(T, B, I)` booleans; None: what is not NaN in x.
        """
        x, seen, since = self._inputs(x, deltas, observed)
        faded = np.exp(-np.maximum(self.hidden_decay(since), 0))
        joined = self._joined(self.input_decay(x, seen, since), seen, faded)
        y, state = self.rnn(joined, state, lengths=lengths)
        return self._swapped(y), state

    def vjp(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        deltas: npt.ArrayLike | None = None,
        observed: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[tuple[Array, State], Pullback]:
        """As a call, with the pullback: `pullback(dy, dstate=None) -> (dx, dstate)`.

        dx is zero where x was not observed.
        """
        x, seen, since = self._inputs(x, deltas, observed)
        sums, decay_back = self.hidden_decay.vjp(since)
        faded = np.exp(-np.maximum(sums, 0))
        filled, fill_back = self.input_decay.vjp(x, seen, since)
        joined = self._joined(filled, seen, faded)
        (y, final), back = self.rnn.vjp(joined, state, lengths=lengths)

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            given = None if dy is None else self._swapped(as_array("dy", dy, self.dtype))
            djoined, dfirst = back(given, dstate)
            dfaded = djoined[..., 2 * self.input_size :]
            decay_back(np.where(sums > 0, -faded * dfaded, 0).astype(self.dtype))
            return self._swapped(fill_back(djoined[..., : self.input_size])), dfirst

        return (self._swapped(y), final), once(pullback)

    def _inputs(self, x: Any, deltas: Any, observed: Any) -> tuple[Array, Array, Array]:
        """x, what of it was observed, and since when not, time-major."""
        x = self._swapped(as_array("x", x, self.dtype))
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"x must have shape ({axes}, {self.input_size}), got {np.shape(x)}")
        if observed is None:
            seen = ~np.isnan(x)
        else:
            seen = self._swapped(np.asarray(observed))
            if seen.shape != x.shape or seen.dtype != bool:
                raise ValueError(
                    f"observed must hold booleans like x, got {seen.dtype} of shape {seen.shape}"
                )
        if deltas is None:
            gaps: Array = np.ones(x.shape[:2], self.dtype)
        else:
            gaps = self._swapped(as_array("deltas", deltas, self.dtype))
            if gaps.shape != x.shape[:2] or (gaps < 0).any():
                raise ValueError(f"deltas must be {x.shape[:2]} times of at least 0, time-major")
        return x, seen, since_observed(seen, gaps)

    def _joined(self, x: Array, seen: Array, faded: Array) -> Array:
        features = np.concatenate([x, seen.astype(self.dtype)], axis=-1)
        return self.rnn.join(features, decay=faded)

    def _swapped(self, array: Array) -> Array:
        return array.swapaxes(0, 1) if self.batch_first and array.ndim > 1 else array
