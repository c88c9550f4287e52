"""The transducer's loss and its gradients, the joint network included: here, and in PyTorch.

python benchmarks/transducer.py                 # two minutes, one thread
python benchmarks/transducer.py --check         # do both compute the same?

PyTorch computes all logits (B, T, U+1, V), their log-softmax, and alpha diagonal by diagonal for
all sequences at once; its autograd does the rest. Here the logits are computed some rows at a time.
The processes take turns; memory is what a task adds at its peak, its arrays included.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
import rnncore
from rnncore.commands.measure.contest import Contestant, Entry, compete, contest
from rnncore.commands.measure.engines import Work
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.serve import answer
from rnncore.commands.measure.timing import ratio

MEBI = 1 << 20


@dataclass(frozen=True)
class Task:
    """Sequences, frames, labels of each, kinds of labels, and the width of the joint network."""

    batch: int
    frames: int
    labels: int
    kinds: int
    joint: int
    dtype: str = "float32"
    weights: str = ""

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read a task as it is written."""
        return cls(**json.loads(text))

    @property
    def tensor(self) -> int:
        """Bytes of all logits in float32."""
        return 4 * self.batch * self.frames * (self.labels + 1) * self.kinds

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What encoder and prediction network give, and the targets."""
        rng = np.random.default_rng(0)
        f = rng.standard_normal((self.frames, self.batch, self.joint), np.float32)
        g = rng.standard_normal((self.labels + 1, self.batch, self.joint), np.float32)
        return f, g, rng.integers(1, self.kinds, (self.batch, self.labels))

    def network(self) -> rnncore.TransducerJoint:
        """With the parameters that both engines have."""
        return rnncore.TransducerJoint(self.joint, self.kinds, seed=0)


#: The shape of the promise (B = 8, T = 400, 60 labels, V = 512), and smaller ones.
TASKS = [
    Task(8, 400, 60, 512, 256),
    Task(16, 200, 20, 64, 128),
    Task(32, 100, 7, 11, 64),
]


class Fused:
    """This package's loss: logits are forgotten."""

    def about(self) -> str:
        """Version and instruction set."""
        info = rnncore.info()
        return f"rnncore {info['version']}, {info['instruction_set']}"

    def prepare(self, task: Task) -> Work:
        """Loss and gradients of f, g, weight and bias."""
        (f, g, targets), joint = task.arrays(), task.network()
        loss = rnncore.TransducerLoss()

        def train() -> tuple[Any, Any]:
            value, pullback = loss.vjp(joint(f, g), targets)
            return value, pullback()

        def results() -> dict[str, Any]:
            value, gradients = train()
            return {"loss": np.array(value), **gradients._asdict()}

        return Work(train, results)


class Torch:
    """PyTorch with autograd, with all logits."""

    def __init__(self) -> None:
        self.torch = import_module("torch")

    def about(self) -> str:
        """Version and instruction set."""
        capability = self.torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {self.torch.__version__}, {capability}"

    def prepare(self, task: Task) -> Work:
        """With the same parameters."""
        torch, (f, g, y) = self.torch, task.arrays()
        params = task.network().params
        names = {"f": f, "g": g, "weight": params["output.weight"], "bias": params["output.bias"]}
        inputs = {name: torch.tensor(array, requires_grad=True) for name, array in names.items()}
        targets = torch.from_numpy(y)

        def train() -> tuple[Any, Any]:
            hidden = torch.tanh(
                inputs["f"].transpose(0, 1)[:, :, None] + inputs["g"].transpose(0, 1)[:, None]
            )
            logits = torch.nn.functional.linear(hidden, inputs["weight"], inputs["bias"])
            value = self.loss(logits.log_softmax(-1), targets)
            return value, torch.autograd.grad(value, list(inputs.values()))

        def results() -> dict[str, Any]:
            value, gradients = train()
            found = dict(zip(inputs, (d.numpy() for d in gradients), strict=True))
            return {"loss": value.detach().numpy(), **found}

        return Work(train, results)

    def loss(self, log_p: Any, targets: Any) -> Any:
        """Alpha, diagonal by diagonal: node (t, u) is the place u of diagonal t + u."""
        torch = self.torch
        batch, frames, width, _ = log_p.shape
        index = targets[:, None, :, None].expand(batch, frames, width - 1, 1)
        label = log_p[:, :, :-1].gather(3, index)[..., 0]
        blank = log_p[..., 0]
        # Skewed: row t is moved t places down, so that diagonals are rows.
        t, u = torch.arange(frames)[:, None], torch.arange(width)
        low = -1e30
        blanks = blank.new_full((batch, frames + width, width), low)
        blanks[:, (t + u).reshape(-1), u.expand(frames, width).reshape(-1)] = blank.reshape(
            batch, -1
        )
        labels = blank.new_full((batch, frames + width, width - 1), low)
        v = u[:-1]
        labels[:, (t + v).reshape(-1), v.expand(frames, width - 1).reshape(-1)] = label.reshape(
            batch, -1
        )
        alpha = torch.cat([blank.new_zeros((batch, 1)), blank.new_full((batch, width - 1), low)], 1)
        edge = blank.new_full((batch, 1), low)
        # Taken apart once: the gradient of each slice would be a tensor of all.
        for by_blank, by_label in list(zip(blanks.unbind(1), labels.unbind(1), strict=True))[:-2]:
            moved = torch.cat([edge, alpha[:, :-1] + by_label], 1)
            alpha = torch.logaddexp(alpha + by_blank, moved)
        return -(alpha[:, -1] + blank[:, -1, -1]).mean()


ENGINES: dict[str, Any] = {"rnncore": Fused, "torch": Torch}


def start(entry: Entry) -> Contestant:
    """Start an engine's process."""
    return Contestant(entry, [sys.executable, __file__, "--serve", entry.engine])


def check(task: Task, threads: int) -> None:
    """Print how far the results are from one another, of the largest magnitude."""
    with contest([Entry(name, threads) for name in ENGINES], start) as contestants:
        for contestant in contestants:
            contestant.load(task)
        ours, theirs = (contestant.results() for contestant in contestants)
    error = max(np.abs(theirs[n] - v).max() / np.abs(v).max() for n, v in ours.items())
    print(f"{task}: off by at most {error:.1e}")


def added(entry: Entry, task: Task) -> int:
    """Return the bytes that a task adds at its peak to what a fresh process has."""
    with contest([entry], start) as (contestant,):
        before = contestant.peak_memory()
        contestant.load(task)
        contestant.time(0)
        return contestant.peak_memory() - before


def measure(task: Task, threads: int, rounds: int) -> list[str]:
    """A row of the table."""
    entries = [Entry(name, threads) for name in ENGINES]
    with contest(entries, start) as contestants:
        times = compete(task, contestants, rounds)
    ours, theirs = (times[str(entry)] for entry in entries)
    memory = [added(entry, task) for entry in entries]
    return [
        f"{task.batch}, {task.frames}, {task.labels}, {task.kinds}, {task.joint}",
        duration(median(ours)),
        duration(median(theirs)),
        f"{ratio(theirs, ours):.1f}",
        f"{task.tensor / MEBI:.1f}",
        *(f"{size / MEBI:.1f}" for size in memory),
        f"{task.tensor / max(memory[0], 1):.0f}",
    ]


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--serve"]:
        answer(ENGINES[sys.argv[2]](), Task.parse)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare results, measure nothing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.check:
        for task in TASKS:
            check(task, args.threads)
        return
    rows = [measure(task, args.threads, args.rounds) for task in TASKS]
    head = ["B, T, U, V, H", "rnncore", "PyTorch", "times", "all logits, MiB"]
    head += ["rnncore, MiB", "PyTorch, MiB", "less than all logits"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
