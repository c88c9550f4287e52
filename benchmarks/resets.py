"""What it costs that sequences start anew within a call: the same call with and without `resets`.

    python benchmarks/resets.py

Shapes are T,B,I,H; a share of the steps is a reset. Calls take turns; what is printed are medians
of the ratios of neighbouring calls, and the time of a call without: inference, whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import rnncore

SHAPES = (
    (1, 1, 16, 32),
    (20, 1, 16, 32),
    (50, 16, 32, 64),
    (100, 32, 128, 128),
    (50, 32, 256, 512),
)


def seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def compared(
    plain: Callable[[], Any], other: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """The median of the ratios other / plain, and that of plain's times."""
    repeats = max(1, int(2e-3 / max(seconds(plain, 3), 1e-7)))
    times = [(seconds(plain, repeats), seconds(other, repeats)) for _ in range(rounds)]
    return median(b / a for a, b in times), median(a for a, _ in times)


def infers(layer: Any, x: np.ndarray, resets: np.ndarray | None) -> Callable[[], Any]:
    if resets is None:
        return lambda: layer(x)
    return lambda: layer(x, resets=resets)


def trains(layer: Any, x: np.ndarray, resets: np.ndarray | None) -> Callable[[], Any]:
    dy = np.ones((*x.shape[:2], layer.output_size), np.float32)

    def call() -> None:
        _, pullback = layer.vjp(x, resets=resets)
        pullback(dy)

    return call


def steps(layer: Any, x: np.ndarray, resets: np.ndarray | None) -> Callable[[], Any]:
    stream, frame, out = (
        layer.stream(x.shape[1]),
        x[0],
        np.zeros((x.shape[1], layer.output_size), "f"),
    )
    now = None if resets is None else resets[0]
    return lambda: stream.step(frame, out, now)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--share", type=float, default=0.05, help="of steps that are resets")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rnncore.set_num_threads(args.threads)
    print("| layer | T,B,I,H | inference | training | learned state | step | a call |")
    print("|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for kind in (rnncore.LSTM, rnncore.GRU):
        for shape in SHAPES:
            T, B, inputs, hidden = shape
            layer, learns = (kind(inputs, hidden, seed=0, learned_state=on) for on in (False, True))
            x = rng.standard_normal((T, B, inputs), np.float32)
            resets = rng.random((T, B)) < args.share
            resets[0, 0] = True
            pairs = [
                (infers(layer, x, None), infers(layer, x, resets)),
                (trains(layer, x, None), trains(layer, x, resets)),
                (trains(learns, x, None), trains(learns, x, resets)),
                (steps(layer, x, None), steps(layer, x, resets)),
            ]
            found = [compared(*pair, args.rounds) for pair in pairs]
            cells = " | ".join(f"{ratio:.2f}" for ratio, _ in found)
            name = ",".join(map(str, shape))
            print(
                f"| {kind.__name__} | {name} | {cells} | {found[0][1] * 1e6:,.1f} us |", flush=True
            )


if __name__ == "__main__":
    main()
