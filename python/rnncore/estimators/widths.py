"""How wide a network is that has so many parameters, or learns for so many seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

#: No network of this width or more is tried.
MOST = 2**16


def parameters(estimator: Any) -> int:
    """Return how many parameters the network of an estimator has, `network_`."""
    return sum(array.size for array in estimator.network_.params.values())


def width_of_size(estimator: Any, X: Any, y: Any, budget: int) -> int:
    """Return the largest hidden_size with at most `budget` parameters.

    The number of parameters is a polynomial of the width, of the second degree, so that three
    networks tell it; those next to the width found are counted.
    """

    def count(width: int) -> int:
        return parameters(clone(estimator).set_params(hidden_size=width).initialise(X, y))

    few = (8, 16, 32)
    polynomial = np.polyfit(few, [count(width) for width in few], 2)
    width = last_within(lambda width: float(np.polyval(polynomial, width)), budget + 0.5)
    while width > 1 and count(width) > budget:
        width -= 1
    while width < MOST and count(width + 1) <= budget:
        width += 1
    if count(width) > budget:
        raise ValueError(f"parameters must be at least {count(1)}, those of width 1, got {budget}")
    return width


def width_of_time(estimator: Any, X: Any, y: Any, budget: float) -> int:
    """Return the hidden_size of which `max_iter` passes take about `budget` seconds here.

    One pass each is measured for widths of 8, 16, ... up to one that takes longer, about as much
    together as two passes of the width that is found.
    """
    passes: int = estimator.max_iter

    def seconds(width: int) -> float:
        trial = clone(estimator).set_params(hidden_size=width, max_iter=1, random_state=0)
        started = time.perf_counter()
        trial.fit(X, y)
        return passes * (time.perf_counter() - started)

    seconds(1)  # what is done for the first time takes longer
    low, below = 4, seconds(4)
    if below > budget:
        raise ValueError(f"seconds must be at least {below:.3g}, those of width 4, got {budget}")
    while low < MOST:
        above = seconds(2 * low)
        if above > budget:
            share = math.log(budget / below) / math.log(above / below) if above > below else 0.0
            return round(low * 2**share)
        low, below = 2 * low, above
    return low


def last_within(cost: Callable[[int], float], budget: float) -> int:
    """Return the largest width from 1 to `MOST` within a budget, of costs that grow; 1 if none."""
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low
