"""Calls of the estimators, which need scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rnncore.estimators import (
    Forecaster,
    SequenceClassifier,
    SequenceLabeller,
    SequenceRegressor,
    SequenceScaler,
)

from .hostile import Hostile, Program

_SMALL = {"hidden_size": 3, "max_iter": 1, "batch_size": 4, "random_state": 0}
_LENGTHS = (4, 1, 3, 2)


def _given(hostile: Hostile) -> Any:
    """Sequences in one of their forms."""
    if hostile.maybe():
        return [hostile.normal(length, 2) for length in _LENGTHS]
    return hostile.normal(4, 5, 2)


def _fitted(kind: Callable[..., Any], target: Callable[[Any], Any]) -> Callable[[Hostile], None]:
    """An estimator with any options, fitted to anything, which predicts from anything."""

    def program(hostile: Hostile) -> None:
        x = _given(hostile)
        estimator = hostile.call(kind, **_SMALL)
        hostile.results.clear()
        y = target(x)
        hostile.call(estimator.fit, x, y)
        hostile.results.clear()
        hostile.call(estimator.predict, _given(hostile))
        if hostile.maybe(0.3):
            hostile.call(estimator.score, x, y)
        if hostile.maybe(0.3):
            hostile.call(estimator.partial_fit, x, y)
            hostile.results.clear()

    return program


def _sums(x: Any) -> np.ndarray:
    return np.array([part.sum() for part in x])


def _scaler(hostile: Hostile) -> None:
    """A scaler: scikit-learn computes in float64 where bytes are in the other order."""
    scaler = hostile.call(SequenceScaler)
    hostile.results.clear()
    hostile.call(scaler.fit, _given(hostile))
    hostile.results.clear()
    hostile.call(scaler.inverse_transform, hostile.call(scaler.transform, _given(hostile)))
    hostile.results.clear()


def _forecaster(hostile: Hostile) -> None:
    series = hostile.normal(30, 2)
    estimator = hostile.call(Forecaster, horizon=2, window=8, **_SMALL)
    hostile.results.clear()
    hostile.call(estimator.fit, series)
    hostile.results.clear()
    hostile.call(estimator.predict, series)


def _small(program: Program) -> Program:
    """Without arrays that take no memory: scikit-learn looks at each of their numbers."""

    def run(hostile: Hostile) -> None:
        hostile.huge = False
        program(hostile)

    return run


PROGRAMS = [
    _small(_fitted(SequenceClassifier, lambda x: _sums(x) > 0)),
    _small(_fitted(SequenceRegressor, _sums)),
    _small(_fitted(SequenceLabeller, lambda x: [part[:, 0] > 0 for part in x])),
    _small(_forecaster),
    _small(_scaler),
]
