"""What comes after a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from ..arrays import Array, check_size
from ..batches import Batch
from ..losses import length_mask
from .network import Network
from .regressor import Numbers
from .sequences import Sequences, read


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Numbers):
    """The next values of a series, all in one prediction, learnt with the squared error.

    `fit(X)` takes series and learns at each of their steps to tell the `horizon` steps that follow
    (the training of Wen et al. 2017, "forking sequences"); series longer than `window` are cut into
    pieces of so many steps (None: never). `predict(X)` returns the steps after each series, `(N,
    horizon, I)`. `fit(X, y)` learns other values, which follow each sequence: `(N,)`, `(N, horizon)`
    or `(N, horizon, K)`, and `predict` returns such. Inputs and targets are standardised inside.

    The other parameters: `SequenceEstimator`. Early stopping on series alone validates on the last
    of their pieces. A bidirectional network would see what it is to tell: it needs y.
    """

    horizon: int = 1
    window: int | None = 64

    def fit(self, X: Any, y: Any = None) -> Forecaster:
        """Learn from series X, or from sequences X and what follows them, y."""
        super().fit(X, y)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Forecaster:
        """Make one pass over X (and y), going on from what was learnt before."""
        super().partial_fit(X, y)
        return self

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions; without y, of those for the last `horizon` steps of X."""
        if y is None:
            X, y = self._cut_off(X)
            y = y.reshape(-1, y.shape[-1])
            found = self.predict(X).reshape(y.shape)
            sample_weight = (
                None if sample_weight is None else np.repeat(sample_weight, self._shape[0])
            )
        else:
            found, y = (np.asarray(values) for values in (self.predict(X), y))
            found, y = (values.reshape(len(values), -1) for values in (found, y))
        return float(r2_score(y, found, sample_weight=sample_weight))

    def _cut_off(self, X: Any) -> tuple[list[Array], Array]:
        """Return series without their last steps, and these."""
        x, ahead = read(self, X, reset=False, dtype=np.float64), self._shape[0]
        if x.lengths.min() <= ahead:
            raise ValueError(
                f"X must have sequences of more than {ahead} steps, the horizon, to be scored "
                f"without y, got one of {x.lengths.min()}"
            )
        series = [x.steps[at : at + n] for at, n in zip(x.starts, x.lengths, strict=True)]
        return [s[:-ahead] for s in series], np.stack([s[-ahead:] for s in series])

    def _sequences(self, X: Any, first: bool) -> Sequences:
        x = read(self, X, reset=first, dtype=np.float64)
        if first:
            self._inputs = StandardScaler().fit(x.steps)
        return x._replace(steps=self._inputs.transform(x.steps).astype(self.dtype))

    def _read(
        self, X: Any, y: Any, *, first: bool, classes: Any = None
    ) -> tuple[Sequences, Array | None]:
        x = self._sequences(X, first)
        if first:
            self._series = y is None
        elif self._series != (y is None):
            raise ValueError(f"y must be {'None' if self._series else 'given'}, as at first")
        if y is not None:
            return x, self._targets(x, y, first, classes)
        if self.bidirectional:
            raise ValueError("bidirectional=True needs y: it would see the values to be told")
        if first:
            self._shape = (check_size("horizon", self.horizon), x.steps.shape[1])
            self._mean = np.tile(self._inputs.mean_, self.horizon)
            self._scale = np.tile(self._inputs.scale_, self.horizon)
        return self._pieces(x), None

    def _pieces(self, x: Sequences) -> Sequences:
        """Cut series into pieces: `window` steps to read and those to be told after them."""
        window = check_size("window", self.window or int(x.lengths.max()))
        counts = -(-(x.lengths - 1) // window)
        if not counts.any():
            raise ValueError("X must have sequences of at least 2 steps where y is None")
        series = np.repeat(np.arange(len(counts)), counts)
        first = np.cumsum(counts) - counts
        offset = (np.arange(len(series)) - first[series]) * window
        lengths = np.minimum(window + self._shape[0], x.lengths[series] - offset)
        return x._replace(starts=x.starts[series] + offset, lengths=lengths)

    def _batch(self, x: Sequences, targets: Array | None, rows: Array) -> Batch:
        if targets is not None:
            return super()._batch(x, targets, rows)
        part, horizon = x.pick(rows), self._shape[0]
        values, _ = part.padded()  # (B, L, I)
        batch, longest, width = values.shape
        steps = min(self.window or longest, longest - 1)
        inside = length_mask(part.lengths, longest, batch_first=True)[..., None]
        ahead = np.full((batch, steps + horizon - 1, width), np.nan, values.dtype)
        told = np.where(inside, values, np.nan)[:, 1 : steps + horizon]
        ahead[:, : told.shape[1]] = told
        windows = np.lib.stride_tricks.sliding_window_view(ahead, horizon, axis=1)  # (B, T, I, h)
        future = np.moveaxis(windows, 3, 2).reshape(batch, steps, horizon * width)
        lengths = np.minimum(part.lengths - 1, steps)
        return Batch(values[:, :steps], future, lengths, ~np.isnan(future))

    def _split(self, count: int, targets: Array | None) -> tuple[Array, Array]:
        if targets is not None:
            return super()._split(count, targets)
        held_out = max(1, round(count * self.validation_fraction))
        if held_out >= count:
            raise ValueError(
                f"early_stopping needs at least 2 pieces of series, X has {count}: "
                "choose a smaller window"
            )
        return np.arange(count - held_out), np.arange(count - held_out, count)

    def _learner(self) -> Network:
        if not self._series:
            return self.network_
        return Network(self.network_.recurrence, self.network_.head, "steps")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
