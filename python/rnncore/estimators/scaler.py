"""Standardised features, over the steps of all sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from .sequences import flatten


class SequenceScaler(StandardScaler):
    """scikit-learn's `StandardScaler` for sequences: each step counts as a sample.

    What a ragged list holds is what counts: a long sequence weighs more than a short one, and there
    is no padding. Takes and gives arrays `(N, T, I)`, lists of arrays `(T_n, I)` and tables `(N,
    I)`, with the parameters and attributes of `StandardScaler`.
    """

    def partial_fit(self, X: Any, y: None = None, sample_weight: Any = None) -> SequenceScaler:
        """Add the steps of X to mean and variance; `fit` starts afresh."""
        steps, _, _ = flatten(X)
        super().partial_fit(steps, y, sample_weight)
        return self

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Return the sequences standardised, in the form that they came in."""
        return self._through(super().transform, X, copy)

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo `transform`."""
        return self._through(super().inverse_transform, X, copy)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.with_mean
        return tags

    @staticmethod
    def _through(transform: Any, X: Any, copy: bool | None) -> Any:
        steps, lengths, form = flatten(X)
        values = transform(steps, copy)
        if lengths is None:
            return values
        if form == "list":
            return np.split(values, np.cumsum(lengths)[:-1])
        return values.reshape(np.shape(X))
