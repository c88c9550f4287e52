"""CTC, loss and gradient, beside `torch.nn.functional.ctc_loss` behind `log_softmax`.

python benchmarks/ctc.py                    # one thread, then two
python benchmarks/ctc.py --quick            # does it work?

Both take float32 logits (T, B, C) and S labels for each sequence, and give the mean loss and its
gradient with respect to the logits. In turns; medians of the rounds' times and of their ratios. The
memory is what a process of its own needs beyond its inputs at its peak.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import rnncore
import torch
from rnncore.commands.measure.peak import added_at_peak
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import ratio, time_call
from tqdm import tqdm

#: T, B, C, S.
SHAPES = [(200, 16, 30, 30), (1000, 32, 64, 100), (100, 64, 5000, 20)]
MEBI = 1 << 20


def given(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, ...]:
    """Logits, targets, lengths and target lengths."""
    steps, batch, classes, count = shape
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((steps, batch, classes)).astype(np.float32)
    targets = rng.integers(1, classes, (batch, count))
    return logits, targets, np.full(batch, steps), np.full(batch, count)


def ours(shape: tuple[int, int, int, int]) -> Callable[[], np.ndarray]:
    arrays, loss = given(shape), rnncore.CTCLoss()
    return lambda: loss.vjp(*arrays)[1]()


def theirs(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32
) -> Callable[[], np.ndarray]:
    logits, *others = map(torch.from_numpy, given(shape))
    logits = logits.to(dtype).requires_grad_()

    def call() -> Any:
        logits.grad = None
        torch.nn.functional.ctc_loss(logits.log_softmax(-1), *others).backward()
        return logits.grad.numpy()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round of a small shape")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    rows = []
    for shape in tqdm([(20, 4, 10, 5)] if options.quick else SHAPES, disable=None):
        own, other = ours(shape), theirs(shape)
        exact = theirs(shape, torch.float64)()  # in float32 theirs is less exact than ours
        np.testing.assert_allclose(own(), exact, rtol=0, atol=2e-5 * np.abs(exact).max())
        memory = [f"{added_at_peak(make, shape) / MEBI:.0f}" for make in (ours, theirs)]
        for threads in (1, 2):
            rnncore.set_num_threads(threads)
            torch.set_num_threads(threads)
            times = [(time_call(own), time_call(other)) for _ in range(rounds)]
            mine, their = zip(*times, strict=True)
            row = [", ".join(map(str, shape)), str(threads), duration(median(mine))]
            row += [duration(median(their)), f"{ratio(their, mine):.1f}"]
            rows.append(row + memory)
    head = ["T, B, C, S", "threads", "ours", "PyTorch", "theirs / ours", "MiB, ours", "MiB, theirs"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
