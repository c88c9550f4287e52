"""One LSTM layer, forward and backward, timed in rnncore and in the NumPy reference.

It runs as a process of its own, where both can be held to one thread: NumPy's BLAS reads its limit
when it is loaded, and beside other work its threads can make it many times slower.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from .. import reference
from ..recurrent.lstm import LSTM

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "RNNCORE_NUM_THREADS": "1",
}


def in_own_process(steps: int, rows: int, inputs: int, hidden: int) -> tuple[float, float]:
    """Return the seconds that rnncore and the reference take, on one thread each."""
    command = [sys.executable, "-m", __name__, *map(str, (steps, rows, inputs, hidden))]
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True, text=True
    )
    ours, numpys = map(float, done.stdout.split())
    return ours, numpys


def measure(steps: int, rows: int, inputs: int, hidden: int) -> tuple[float, float]:
    """Return the seconds that rnncore and the reference take in this process."""
    layer, rng = LSTM(inputs, hidden, seed=0), np.random.default_rng(0)
    x = rng.standard_normal((steps, rows, inputs), np.float32)
    dy = rng.standard_normal((steps, rows, hidden), np.float32)

    def ours() -> None:
        _, pullback = layer.vjp(x)
        pullback(dy)

    def numpys() -> None:
        *_, tape = reference.forward(reference.CELLS["lstm"], layer.params, x)
        reference.backward(tape, dy)

    return _best_time(ours), _best_time(numpys)


def _best_time(work: Callable[[], None], patience: float = 2.0) -> float:
    """Return the shortest time of up to ten, as many as fit into `patience` seconds."""
    times: list[float] = []
    while len(times) < 10 and sum(times) < patience:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    print(*measure(*map(int, sys.argv[1:])))
