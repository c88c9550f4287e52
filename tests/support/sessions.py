"""Sessions of a small model, for several files of tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
from rnncore import LSTM, Chain, Linear, Sessions

from tests.support.streams import WIDTH

COUNT, STEPS = 7, 50
MODEL = Chain(LSTM(WIDTH, 5, seed=1), Linear(5, 2, seed=2))


@contextmanager
def held(sessions: Sessions) -> Iterator[None]:
    """No batch runs meanwhile."""
    with sessions._residents.lock:
        yield


def pieces(rng: np.random.Generator, steps: int) -> Iterator[slice]:
    """Cuts of so many steps, some of them of no frames, and one longer than a batch takes."""
    begin = 0
    while begin < steps:
        end = min(begin + int(rng.choice([0, 1, 1, 1, 2, 5, 40])), steps)
        yield slice(begin, end)
        begin = end


def results(futures: list[Future[np.ndarray]]) -> np.ndarray:
    return np.concatenate([future.result(60) for future in futures])
