"""Times, and what they say about each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

#: A measurement repeats a call for so many seconds, and at least so many times.
SECONDS, LEAST = 0.02, 5
#: ... unless that takes longer than this many times as much.
PATIENCE = 10
#: Calls shorter than this are timed in groups: reading the clock takes time too.
GROUP = 5e-5


def time_call(work: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Return the median time of a call, after one that warms up."""
    first = _time(work, 1)
    if first > PATIENCE * seconds:
        return first
    size = max(1, round(GROUP / max(_time(work, 1), 1e-9)))
    times: list[float] = []
    total = 0.0
    while total < seconds or (len(times) < LEAST and total < PATIENCE * seconds):
        times.append(_time(work, size))
        total += times[-1] * size
    return median(times)


def _time(work: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Return how many times as long as `base` it takes: the median of the rounds' ratios."""
    return median(a / b for a, b in zip(times, base, strict=True))


def geometric_mean(values: Iterable[float]) -> float:
    """Return the mean of ratios; NaN if there are none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
