"""A linear-chain CRF, loss with gradients and decoding, beside loops over time in PyTorch.

python benchmarks/crf.py                    # one thread, then two
python benchmarks/crf.py --quick            # does it work?

The loops are the usual ones: a step is a `logsumexp`, or a `max`, over (B, K, K), and autograd goes
back through them. Both take float32 emissions (T, B, K), and give the mean negative log-likelihood
of known tags with its gradients with respect to emissions, transitions, start and end; or the best
sequences. In turns; medians of the rounds' times and of their ratios. The memory is what a process
of its own needs beyond its inputs at its peak.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import rnncore
import torch
from rnncore.commands.measure.peak import added_at_peak
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import ratio, time_call
from tqdm import tqdm

#: T, B, K.
SHAPES = [(30, 32, 17), (100, 32, 50), (50, 8, 9)]
MEBI = 1 << 20
Shape = tuple[int, int, int]


class Given(NamedTuple):
    """What both compute of."""

    emissions: np.ndarray  # (T, B, K)
    tags: np.ndarray  # (T, B)
    crf: rnncore.CRF


def given(shape: Shape) -> Given:
    rng = np.random.default_rng(0)
    emissions = rng.standard_normal(shape).astype(np.float32)
    return Given(emissions, rng.integers(0, shape[2], shape[:2]), rnncore.CRF(shape[2], seed=0))


def our_loss(shape: Shape) -> Callable[[], np.ndarray]:
    emissions, tags, crf = given(shape)
    loss = rnncore.CRFLoss(crf)

    def call() -> Any:
        crf.zero_grad()
        return loss.vjp(emissions, tags)[1]()

    return call


def our_paths(shape: Shape) -> Callable[[], np.ndarray]:
    emissions, _, crf = given(shape)
    return lambda: crf.decode(emissions)


class Loop:
    """What a CRF computes, over tensors."""

    def __init__(self, shape: Shape) -> None:
        emissions, tags, crf = given(shape)
        self.emissions, self.tags = torch.from_numpy(emissions), torch.from_numpy(tags)
        names = ("transitions", "start", "end")
        self.scores = [torch.from_numpy(crf.params[name].copy()) for name in names]

    def nll(self) -> torch.Tensor:
        """Return the mean negative log-likelihood of the tags."""
        (transitions, start, end), x, y = self.scores, self.emissions, self.tags
        alpha = start + x[0]
        for emission in x[1:]:
            both = alpha[:, :, None] + transitions + emission[:, None, :]
            alpha = torch.logsumexp(both, dim=1)
        total = torch.logsumexp(alpha + end, dim=1)
        own = x.gather(2, y[:, :, None]).sum((0, 2)) + transitions[y[:-1], y[1:]].sum(0)
        return (total - own - start[y[0]] - end[y[-1]]).mean()

    def best(self) -> torch.Tensor:
        """Return the best tags (T, B)."""
        (transitions, start, end), x = self.scores, self.emissions
        score, back = start + x[0], []
        for emission in x[1:]:
            score, before = (score[:, :, None] + transitions).max(dim=1)
            score = score + emission
            back.append(before)
        tags = [(score + end).argmax(dim=1)]
        for before in reversed(back):
            tags.append(before.gather(1, tags[-1][:, None])[:, 0])
        return torch.stack(tags[::-1])


def their_loss(shape: Shape) -> Callable[[], np.ndarray]:
    loop = Loop(shape)
    leaves = [loop.emissions, *loop.scores]
    for leaf in leaves:
        leaf.requires_grad_()

    def call() -> Any:
        for leaf in leaves:
            leaf.grad = None
        loop.nll().backward()
        assert loop.emissions.grad is not None
        return loop.emissions.grad.numpy()

    return call


def their_paths(shape: Shape) -> Callable[[], np.ndarray]:
    loop = Loop(shape)

    def call() -> Any:
        with torch.inference_mode():
            return loop.best().numpy()

    return call


#: Who computes what.
TASKS = {"loss": (our_loss, their_loss), "best": (our_paths, their_paths)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="one round of a small shape")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    shapes = [(6, 3, 5)] if options.quick else SHAPES
    rows = []
    for shape in tqdm(shapes, disable=None):
        for task, makers in TASKS.items():
            own, other = (make(shape) for make in makers)
            np.testing.assert_allclose(own(), other(), atol=1e-5)
            memory = [f"{added_at_peak(make, shape) / MEBI:.1f}" for make in makers]
            for threads in (1, 2):
                rnncore.set_num_threads(threads)
                torch.set_num_threads(threads)
                times = [(time_call(own), time_call(other)) for _ in range(rounds)]
                mine, their = zip(*times, strict=True)
                row = [", ".join(map(str, shape)), task, str(threads), duration(median(mine))]
                row += [duration(median(their)), f"{ratio(their, mine):.0f}"]
                rows.append(row + memory)
    head = ["T, B, K", "", "threads", "ours", "PyTorch", "theirs / ours"]
    print(table([*head, "MiB, ours", "MiB, theirs"], rows))


if __name__ == "__main__":
    main()
