"""Standardised features, over the steps of all sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from .sequences import check_features, flatten

#: What a scaler knows of frames, which arrays of steps are not.
_OF_FRAMES = ("feature_names_in_", "_sklearn_output_config")


class Stepwise:
    """`StandardScaler` for what is no table: its steps, without names, through the same scaler.

    A base of its own: scikit-learn wraps the `transform` of a class that has `set_output` and makes
    a frame of what comes out, which sequences are not.
    """

    def partial_fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Any:
        """Add the steps of X to mean and variance; `fit` starts afresh.

        sample_weight: one for each sequence `(N,)`, or for each step, in the form of X.
        """
        given = flatten(X)
        if given.lengths is None:
            return super().partial_fit(X, y, sample_weight)  # type: ignore[misc]
        check_features(self, given, reset=not hasattr(self, "n_samples_seen_"))
        plain = self._plain()
        if sample_weight is not None:
            sample_weight = given.spread("sample_weight", sample_weight)
        plain.partial_fit(given.steps, None, sample_weight)
        learnt = {name: value for name, value in vars(plain).items() if name not in _OF_FRAMES}
        vars(self).update(learnt)
        return self

    def fit_transform(self, X: Any, y: None = None, **options: Any) -> Any:
        """`fit(X, y, ...)`, and then `transform(X)`."""
        return self.fit(X, y, **options).transform(X)  # type: ignore[attr-defined]

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Return the sequences standardised, in the form that they came in."""
        return self._through("transform", X, copy)

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo `transform`."""
        return self._through("inverse_transform", X, copy)

    def _through(self, method: str, X: Any, copy: bool | None) -> Any:
        given = flatten(X)
        if given.lengths is None:
            return getattr(super(), method)(X, copy=copy)
        check_is_fitted(self, "n_samples_seen_")  # a fit that failed has left other attributes
        check_features(self, given, reset=False)
        if not len(given.steps):
            return given.restore(given.steps.astype(np.float64))
        return given.restore(getattr(self._plain(), method)(given.steps, copy=copy))

    def _plain(self) -> StandardScaler:
        plain = StandardScaler()
        known = {name: value for name, value in vars(self).items() if name not in _OF_FRAMES}
        vars(plain).update(known)
        return plain.set_output(transform="default")


class SequenceScaler(Stepwise, StandardScaler):
    """scikit-learn's `StandardScaler` for sequences: each step counts as a sample.

    What a ragged list holds is what counts: a long sequence weighs more than a short one, and there
    is no padding. Takes and gives arrays `(N, T, I)`, lists of arrays `(T_n, I)` and tables `(N,
    I)`, with the parameters and attributes of `StandardScaler`. `set_output` concerns tables alone:
    sequences, frames too, come back as arrays.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.with_mean
        return tags
