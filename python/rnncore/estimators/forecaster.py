"""What comes after a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ..arrays import Array, check_size
from ..batches import Batch
from ..compositions.chain import Chain
from ..compositions.ragged import length_mask
from ..compositions.readout import Readout
from ..forecasting.indexes import check_times
from ..hinting import put_hints
from ..hints import FORECASTER
from ..losses import Pinball
from .base import AT_ONCE
from .regressor import Numbers
from .sequences import Sequences, as_series, is_table, read


@dataclass(kw_only=True, eq=False, repr=False)
class Forecaster(Numbers):
    """The next values of a series, all in one prediction.

    `fit(X)` takes series and learns at each of their steps to tell the `horizon` steps that follow
    (Wen et al. 2017, "forking sequences"); series longer than `window` are cut into pieces of so
    many steps (None: never). `predict(X)` returns the steps after each series, `(N, horizon, I)`.
    One array or frame `(T, I)` is one series, and so is a column `(T,)`: `predict` then returns
    `(horizon, I)` or `(horizon,)`.

    The squared error is learnt, or, with `quantiles`, increasing numbers in (0, 1), these quantiles
    of each value (`rnncore.losses.Pinball`). Then `predict_quantiles(X)` returns them along a last
    axis, and `predict` the one nearest to the median.

    `fit(X, y)` learns other values that follow each sequence: `(N,)`, `(N, horizon)` or `(N,
    horizon, K)`, and `predict` returns such; the parameters `horizon` and `window` are for series
    alone. Inputs and targets are standardised inside. With y, one array `(T, I)` is a table of
    sequences of one step.

    The other parameters: `SequenceEstimator`. Early stopping on series alone validates on the last
    of their pieces. A bidirectional network would see what it is to tell: it needs y.
    """

    horizon: int = 1
    window: int | None = 64
    quantiles: Sequence[float] | None = None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Forecaster:
        """Learn from series X, or from sequences X and what follows them, y.

        sample_weight `(N,)`: how much each counts, at least 0; 0 is as if it were absent.
        """
        super().fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Forecaster:
        """Make one pass over X (and y), going on from what was learnt before.

        sample_weight: as for `fit`.
        """
        super().partial_fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """Return what follows each sequence, of the shape that y had; of series their next steps.

        `(N, horizon, I)`; of one series `(horizon, I)`, of a column `(horizon,)`.
        """
        found, shape = self._predict(X)
        return found[..., self._middle].reshape(shape)

    def predict_quantiles(self, X: Any) -> Array:
        """Return the quantiles of what `predict` returns, along a last axis, in their order.

        They are learnt each by itself, and sorted where they cross (Chernozhukov et al. 2010,
        "Quantile and Probability Curves Without Crossing").
        """
        found, shape = self._predict(X)
        if not len(self._levels):
            raise ValueError(
                "quantiles must be given before fit: Forecaster(quantiles=[0.1, 0.5, 0.9])"
            )
        return found.reshape(*shape, len(self._levels))

    def _predict(self, X: Any) -> tuple[Array, tuple[int, ...]]:
        """Return predictions (N, K, Q), and the shape of what is returned of each quantile."""
        check_is_fitted(self, "network_")
        single = self._series and is_table(X)
        if self._series:
            check_times(X, "X")
        _, out = self._infer(as_series(X) if single else X)
        out = out.reshape(len(out), -1, max(1, len(self._levels)))
        scale, mean = (np.asarray(values)[:, None] for values in (self._scale, self._mean))
        found: Array = out * scale + mean
        shape = (len(out), *self._shape)
        if single:
            shape = (self._shape[0], *np.shape(X)[1:])
        return np.sort(found, axis=-1), shape

    @property
    def _middle(self) -> int:
        """The place of the quantile that is nearest to the median."""
        return int(np.argmin(np.abs(self._levels - 0.5))) if len(self._levels) else 0

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions; without y, of those made at every step of the series X.

        sample_weight: as for `fit`.
        """
        if y is not None:
            return super().score(X, y, sample_weight)
        check_is_fitted(self, "network_")
        if not self._series:
            raise ValueError("y must be given, as it was to fit")
        series = as_series(X) if is_table(X) else X
        parts = list(self._at_every_step(series, sample_weight))
        if not parts:
            raise ValueError("sample_weight must leave a series of at least 2 steps that counts")
        told, found, weights = (np.concatenate(values) for values in zip(*parts, strict=True))
        return float(r2_score(told, found, sample_weight=weights))

    def _at_every_step(self, X: Any, sample_weight: Any) -> Iterator[tuple[Array, Array, Array]]:
        """Yield what follows the steps of series, what is predicted, and how much it counts.

        `(M, I)`, `(M, I)` and `(M,)`, standardised.
        """
        model, x = self._learner(), self._pieces(self._sequences(X, False, sample_weight), None)
        for part in x.batches(self._rows(x), AT_ONCE):
            batch = self._future(part, None)
            out, _ = model(batch.inputs, lengths=batch.lengths)
            out = np.sort(out.reshape(*batch.targets.shape, -1))[..., self._middle]
            kept = np.asarray(batch.mask) != 0
            told, found, weights = (
                array[kept].reshape(-1, self.n_features_in_)
                for array in (batch.targets, out, np.asarray(batch.mask))
            )
            yield told, found, weights[:, 0].astype(np.float64)

    def _sequences(self, X: Any, first: bool, sample_weight: Any = None) -> Sequences:
        x = self._with_weights(read(self, X, reset=first, dtype=np.float64), sample_weight)
        if first:
            self._inputs = _scaler(x)
        steps = self._inputs.transform(x.steps) if len(x.steps) else x.steps
        with np.errstate(over="ignore"):
            scaled = steps.astype(self.dtype)
        if not np.isfinite(scaled).all():
            most = np.abs(steps).max()
            raise ValueError(f"X has values too far from those of fit: {most:g} deviations of them")
        return x._replace(steps=scaled)

    def _load(
        self, X: Any, y: Any, sample_weight: Any = None, *, first: bool, classes: Any = None
    ) -> tuple[Sequences, Any]:
        if y is None:
            check_times(X, "X")
            X = as_series(X) if is_table(X) else X
        x = self._sequences(X, first, sample_weight)
        if first:
            self._series, self._levels = y is None, _levels(self.quantiles)
        elif self._series != (y is None):
            raise ValueError(f"y must be {'None' if self._series else 'given'}, as it was at first")
        if y is not None:
            targets = self._targets(x, y, first, classes)
            return self._weighed(x, targets), targets
        if self.bidirectional:
            raise ValueError("bidirectional=True needs y: it would see the values to be told")
        if first:
            self._shape = (check_size("horizon", self.horizon), x.steps.shape[1])
            self._mean = np.tile(self._inputs.mean_, self.horizon)
            # Not `scale_`, which is 1 for constants: what follows a constant is that.
            self._scale = np.tile(np.sqrt(self._inputs.var_), self.horizon)
        return self._weighed(self._pieces(x, self.window), None), None

    def _pieces(self, x: Sequences, window: int | None) -> Sequences:
        """Cut series into pieces: `window` steps to read and those to be told after them."""
        longest = int(x.lengths.max(initial=1))
        window = check_size("window", longest if window is None else window)
        counts = -(-np.maximum(x.lengths - 1, 0) // window)
        if not counts.any():
            raise ValueError("X must have sequences of at least 2 steps where y is None")
        series = np.repeat(np.arange(len(counts)), counts)
        first = np.cumsum(counts) - counts
        offset = (np.arange(len(series)) - first[series]) * window
        lengths = np.minimum(window + self._shape[0], x.lengths[series] - offset)
        return x.pick(series)._replace(starts=x.starts[series] + offset, lengths=lengths)

    def _batch(self, x: Sequences, targets: Any, rows: Array) -> Batch:
        if targets is None:
            batch = self._future(x.pick(rows), self.window)
        else:
            batch = super()._batch(x, targets, rows)
        if not len(self._levels):
            return batch
        mask = batch.mask
        if targets is None:  # one for each target; with y there is one for each sequence
            mask = np.repeat(np.asarray(mask), len(self._levels), axis=-1)
        targets = np.repeat(batch.targets, len(self._levels), axis=-1)
        return batch._replace(targets=targets, mask=mask)

    def _future(self, pieces: Sequences, window: int | None) -> Batch:
        """Return pieces of series as inputs (B, T, I), with the steps that follow each of theirs.

        The targets are (B, T, horizon * I); those beyond a piece's end are masked.
        """
        horizon, (values, _) = self._shape[0], pieces.padded()
        batch, longest, width = values.shape
        steps = min(window or longest, longest - 1)
        inside = length_mask(pieces.lengths, longest, batch_first=True)[..., None]
        told = np.where(inside, values, np.nan)[:, 1 : steps + horizon]
        ahead = np.full((batch, steps + horizon - 1, width), np.nan, values.dtype)
        ahead[:, : told.shape[1]] = told
        windows = np.lib.stride_tricks.sliding_window_view(ahead, horizon, axis=1)  # (B, T, I, h)
        future = np.moveaxis(windows, 3, 2).reshape(batch, steps, horizon * width)
        lengths = np.minimum(pieces.lengths - 1, steps)
        mask = ~np.isnan(future)
        if pieces.weights is not None:
            mask = mask * pieces.weights[:, None, None].astype(future.dtype)
        return Batch(values[:, :steps], future, lengths, mask)

    def _split(self, count: int, stratify: Array | None) -> tuple[Array, Array]:
        if not self._series:
            return super()._split(count, stratify)
        held_out = max(1, round(count * self.validation_fraction))
        if held_out >= count:
            raise ValueError(
                f"early_stopping needs at least 2 pieces of series, X has {count}: "
                "choose a smaller window"
            )
        return np.arange(count - held_out), np.arange(count - held_out, count)

    def _outputs(self, targets: Any) -> int:
        return super()._outputs(targets) * max(1, len(self._levels))

    def _loss(self) -> Any:
        levels = self._levels
        return Pinball(np.tile(levels, len(self._scale))) if len(levels) else super()._loss()

    def _learner(self) -> Chain:
        if not self._series:
            return self.network_
        layers = self.network_.layers
        return Chain(*(part.layer if isinstance(part, Readout) else part for part in layers))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


put_hints(Forecaster, FORECASTER)


def _scaler(x: Sequences) -> StandardScaler:
    """Return mean and deviation of each column over all steps."""
    weights = None if x.weights is None else np.repeat(x.weights, x.lengths)
    scaler = StandardScaler().set_output(transform="default")
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.fit(x.steps, sample_weight=weights)
    if not np.all(np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)):
        raise ValueError(f"X is too large to be standardised: up to {np.abs(x.steps).max()}")
    return scaler


def _levels(quantiles: Sequence[float] | None) -> Array:
    """Return the quantiles as an array (Q,), empty if None are asked for."""
    if quantiles is None:
        return np.empty(0)
    levels = np.array(quantiles, np.float64)
    if levels.ndim != 1 or not len(levels) or not np.all(np.diff(levels, prepend=0, append=1) > 0):
        raise ValueError(f"quantiles must be increasing numbers in (0, 1), got {quantiles!r}")
    return levels
