"""A training script of PyTorch's, before and after one line.

    python examples/pytorch_training.py

An nn.GRU reads sequences of any length, packed, and says the sum of the two marked numbers in each
(the adding problem, Hochreiter and Schmidhuber 1997). The script trains the same model twice: as it
is, and after `rnncore.torch.replace(model)`. Guessing costs 1/6 (mean squared error).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import rnncore.torch
import torch
from torch.nn.utils.rnn import pack_padded_sequence


class Adder(torch.nn.Module):
    """A GRU, and a number made of its last state."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(2, hidden)
        self.output = torch.nn.Linear(hidden, 1)

    def forward(self, packed: Any) -> torch.Tensor:
        """Return one number for each sequence, `(B, 1)`."""
        _, h = self.gru(packed)
        return self.output(h[-1])


def draw(rng: np.random.Generator, steps: int, count: int) -> tuple[Any, torch.Tensor]:
    """Return packed sequences of a number and a marker, and what is wanted of each."""
    lengths = rng.integers(steps // 4, steps + 1, count)
    x = np.zeros((lengths.max(), count, 2), np.float32)
    x[..., 0] = rng.random(x.shape[:2])
    wanted = np.zeros((count, 1), np.float32)
    for part in (0, 1):  # of each half one
        marked = rng.integers(part * lengths // 2, (part + 1) * lengths // 2)
        x[marked, range(count), 1] = 1
        wanted[:, 0] += x[marked, range(count), 0]
    packed = pack_padded_sequence(torch.from_numpy(x), lengths, enforce_sorted=False)
    return packed, torch.from_numpy(wanted)


def train(model: torch.nn.Module, args: argparse.Namespace) -> tuple[float, float]:
    """Train a model, and return its error on fresh sequences and the seconds of training."""
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    rng, started = np.random.default_rng(args.seed), time.perf_counter()
    for update in range(1, args.updates + 1):
        x, wanted = draw(rng, args.steps, args.batch)
        loss = torch.nn.functional.mse_loss(model(x), wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if update % max(1, args.updates // 5) == 0:
            print(f"  update {update}: loss {loss.item():.4f}", flush=True)
    seconds = time.perf_counter() - started
    x, wanted = draw(np.random.default_rng(args.seed + 1), args.steps, 512)
    with torch.no_grad():
        return torch.nn.functional.mse_loss(model(x), wanted).item(), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few updates, for a test")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.updates, args.steps, args.batch = (10, 24, 16) if args.quick else (600, 100, 64)
    found = {}
    for name in ("before", "after"):
        torch.manual_seed(args.seed)
        model = Adder(16 if args.quick else 128)
        if name == "after":
            rnncore.torch.replace(model)
        print(f"{name}: {type(model.gru).__module__}")
        found[f"loss_{name}"], found[f"seconds_{name}"] = train(model, args)
    print("result:", " ".join(f"{name}={value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
