"""Numbers that belong to whole sequences."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_consistent_length

from ..arrays import Array
from ..losses import MeanSquaredError
from .base import SequenceEstimator, WholeSequence
from .sequences import Sequences
from .targets import as_numbers, check_has_targets


class Numbers(RegressorMixin, SequenceEstimator):
    """What estimators of numbers share: targets are standardised, predictions are not."""

    _unit: ClassVar[str] = "variances of the target"

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Make one pass over X and y, going on from what was learnt before."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return a prediction for each sequence, of the shape that y had."""
        _, out = self._infer(X)
        values: Array = out * self._scale + self._mean
        return values.reshape(len(out), *self._shape)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions, the mean over all that is predicted of a sequence."""
        rows = [np.asarray(values) for values in (y, self.predict(X))]
        told, found = (values.reshape(len(values), -1) for values in rows)
        return float(r2_score(told, found, sample_weight=sample_weight))

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Array:
        check_has_targets(self, y)
        y = as_numbers(y)
        check_consistent_length(x.lengths, y)
        shape, rows = y.shape[1:], y.reshape(len(y), -1)
        if first:
            self._shape: tuple[int, ...] = shape
            self._standardise(rows, x.weights)
        elif shape != self._shape:
            raise ValueError(f"y must have shape {('N', *self._shape)}, got {('N', *shape)}")
        scaled: Array = ((rows - self._mean) / self._scale).astype(self.dtype)
        return scaled

    def _standardise(self, values: Array, weights: Array | None) -> None:
        """Remember mean and deviation of each column."""
        with np.errstate(over="ignore", invalid="ignore"):
            if weights is None:
                mean, deviation = (f(values, axis=0, dtype=np.float64) for f in (np.mean, np.std))
            else:
                mean = np.average(values, axis=0, weights=weights)
                squares = np.average((values - mean) ** 2, axis=0, weights=weights)
                deviation = np.sqrt(squares)
        if not np.all(np.isfinite(mean) & np.isfinite(deviation)):
            raise ValueError(f"y is too large to be standardised: up to {np.abs(values).max()}")
        self._mean, self._scale = mean, np.where(deviation > 0, deviation, 1.0)

    def _outputs(self, targets: Any) -> int:
        return len(self._scale)

    def _loss(self) -> MeanSquaredError:
        return MeanSquaredError()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class SequenceRegressor(Numbers, WholeSequence):
    """One number, or several, for a whole sequence, learnt with the squared error.

    y `(N,)` or `(N, K)`. It is standardised inside, by mean and deviation of the first y that was
    seen: losses are in those units, predictions in y's. Parameters: `SequenceEstimator`, and
    reading: what the last, linear layer sees, "last" (the states in which the recurrent layers end)
    or "mean" (the mean of their outputs).
    """
