"""A Tree-LSTM over ListOps' trees, training: here, and in PyTorch level by level and node by node.

python benchmarks/trees.py                      # a minute or two, one thread
python benchmarks/trees.py --check              # do all compute the same?

Inputs are vectors at the leaves; the gradient given is that of the roots' h. The last column is the
time of a node over that of a step of this package's sequence LSTM, the batch of which is as many
rows as the trees have in a wave on average.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import listops
import rnncore
from rnncore import Forest
from rnncore.commands.measure.contest import Contestant, Entry, compete, contest
from rnncore.commands.measure.engines import Work
from rnncore.commands.measure.report import table
from rnncore.commands.measure.serve import answer
from rnncore.commands.measure.timing import ratio
from rnncore.trees import brackets


@dataclass(frozen=True)
class Task:
    """So many expressions, drawn anew."""

    trees: int
    hidden: int
    dtype: str = "float32"
    weights: str = ""

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read a task as it is written."""
        return cls(**json.loads(text))

    def forest(self) -> Forest:
        """The trees."""
        return brackets.read([text for text, _ in listops.generate(self.trees, 0, set())])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of the leaves, and the gradient of all h."""
        rng, forest = np.random.default_rng(0), self.forest()
        dh = np.zeros((forest.nodes, self.hidden), np.float32)
        dh[forest.roots] = rng.standard_normal((len(forest), self.hidden))
        return rng.standard_normal((len(forest.leaves), self.hidden), np.float32), dh

    def layer(self) -> rnncore.TreeLSTM:
        """With the parameters that all engines have."""
        return rnncore.TreeLSTM(self.hidden, self.hidden, inputs="leaves", seed=0)


class Trees:
    """This package's Tree-LSTM."""

    def about(self) -> str:
        """Version and instruction set."""
        info = rnncore.info()
        return f"rnncore {info['version']}, {info['instruction_set']}"

    def prepare(self, task: Task) -> Work:
        """Order included; heights are known, as they are to the others."""
        layer, forest, (x, dh) = task.layer(), task.forest(), task.arrays()

        def train() -> tuple[Any, Any]:
            states, pullback = layer.vjp(x, forest)
            return states, pullback(dh)

        def results() -> dict[str, Any]:
            layer.zero_grad()
            (h, _), dx = train()
            return {"h": h[forest.roots], "dx": dx, **layer.grads}

        return Work(train, results)


class Sequence(Trees):
    """This package's LSTM over a batch of as many rows as a wave of the trees has."""

    def prepare(self, task: Task) -> Work:
        """As many waves as the trees have."""
        forest = task.forest()
        waves = int(forest.levels.max()) + 1
        rng = np.random.default_rng(0)
        shape = (waves, -(-forest.nodes // waves), task.hidden)
        layer = rnncore.LSTM(task.hidden, task.hidden, seed=0)
        x, dy = rng.standard_normal((2, *shape), dtype=np.float32)

        def train() -> tuple[Any, Any]:
            outputs, pullback = layer.vjp(x)
            return outputs, pullback(dy)

        return Work(train, dict)


class Torch:
    """PyTorch with autograd, one product for each level of all trees."""

    by_node = False

    def __init__(self) -> None:
        self.torch, self.made = import_module("torch"), import_module("trees_torch")

    def about(self) -> str:
        """Version and instruction set."""
        capability = self.torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {self.torch.__version__}, {capability}"

    def prepare(self, task: Task) -> Work:
        """With the same parameters."""
        torch, forest, (x, dh) = self.torch, task.forest(), task.arrays()
        model = self.made.TreeLSTM(task.layer().params)
        inputs = torch.from_numpy(x).requires_grad_()
        upstream = torch.from_numpy(dh[forest.roots])
        walk = self.made.by_node if self.by_node else self.made.by_level

        def train() -> tuple[Any, Any]:
            h = walk(model, inputs, forest)
            return h, torch.autograd.grad(h, (inputs, *model.parameters()), upstream)

        def results() -> dict[str, Any]:
            h, (dx, *gradients) = train()
            found = {"h": h.detach().numpy(), "dx": dx.numpy()}
            return found | dict(zip(model.names, (g.numpy() for g in gradients), strict=True))

        return Work(train, results)


class TorchByNode(Torch):
    """PyTorch with autograd, node by node."""

    by_node = True


ENGINES: dict[str, Any] = {
    "rnncore": Trees,
    "sequence": Sequence,
    "torch": Torch,
    "torch_by_node": TorchByNode,
}


def start(entry: Entry) -> Contestant:
    """Start an engine's process."""
    return Contestant(entry, [sys.executable, __file__, "--serve", entry.engine])


def check(task: Task, threads: int) -> None:
    """Print how far the engines' results are from this package's, of the largest magnitude."""
    entries = [Entry(name, threads) for name in ENGINES if name != "sequence"]
    with contest(entries, start) as contestants:
        for contestant in contestants:
            contestant.load(task)
        ours, *others = (contestant.results() for contestant in contestants)
    for entry, theirs in zip(entries[1:], others, strict=True):
        error = max(np.abs(theirs[n] - v).max() / np.abs(v).max() for n, v in ours.items())
        print(f"{entry}, {task.trees} trees: off by at most {error:.1e}")


def measure(task: Task, threads: int, rounds: int) -> list[str]:
    """A row of the table."""
    entries = [Entry(name, threads) for name in ENGINES]
    with contest(entries, start) as contestants:
        times = compete(task, contestants, rounds)
    ours, sequence, level, node = (times[str(entry)] for entry in entries)
    forest = task.forest()
    waves = int(forest.levels.max()) + 1
    steps = waves * -(-forest.nodes // waves)
    per_node = ratio(ours, sequence) * steps / forest.nodes
    return [
        f"{task.trees}",
        f"{forest.nodes:,}",
        f"{1e6 * median(ours) / forest.nodes:.2f}",
        f"{ratio(level, ours):.2f}",
        f"{ratio(node, ours):.1f}",
        f"{per_node:.2f}",
    ]


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--serve"]:
        answer(ENGINES[sys.argv[2]](), Task.parse)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trees", type=int, nargs="+", default=[25, 250])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="compare what comes out instead")
    args = parser.parse_args()
    tasks = [Task(trees, args.hidden) for trees in args.trees]
    if args.check:
        for task in tasks:
            check(task, args.threads)
        return
    head = ["trees", "nodes", "µs a node", "by level", "by node", "a node / an LSTM's step"]
    print(table(head, [measure(task, args.threads, args.rounds) for task in tasks]))


if __name__ == "__main__":
    main()
