"""A cell that is nowhere else, written in nine lines, beside LSTM and GRU.

    pip install 'rnncore[examples]'
    python examples/own_cell.py --data JSB_Chorales.mat

The cell has two memories: one that a gate overwrites, as in a GRU, and a slow one that every unit
averages its candidates in, at a rate of its own that is learnt. All three are trained by the same
recipe on the adding problem (Hochreiter and Schmidhuber 1997; mean squared error, T steps; saying 1
costs 1/6) and on next-frame prediction of chorales (the file of Bai et al. 2018; nats per frame).
Errors are of the test part, at the best validation. The overhead is the time of an LSTM written the
same way over that of the built-in one, forward and back.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import rnncore
from long_memory import adding
from polyphonic_music import batch_of, load
from rnncore import Chain, Dropout, Linear, cells
from rnncore.batches import Batch
from rnncore.cells import check, sigmoid, tanh
from rnncore.cells.symbols import Symbol
from rnncore.losses import Loss
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer, evaluate


@cells.define(gates="fgo", states="hcs", units={"rate": (-5, 0)})
def two_speed(f: Symbol, g: Symbol, o: Symbol, c: Symbol, s: Symbol, rate: Symbol) -> Any:
    """c' = f c + (1 - f) g    s' = s + r (g - s)    h' = o tanh(c' + s')."""
    f, g, rate = sigmoid(f), tanh(g), sigmoid(rate)
    c = g + f * (c - g)
    s = s + rate * (g - s)
    return sigmoid(o) * tanh(c + s), c, s


@cells.define(gates="ifgo", states="hc")
def own_lstm(i: Symbol, f: Symbol, g: Symbol, o: Symbol, c: Symbol) -> Any:
    """As `rnncore.LSTM`."""
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


class Kind(NamedTuple):
    """What makes a layer, and which of its gates keeps memory, by its number."""

    make: Callable[..., rnncore.Module]
    keeps: int


KINDS = {
    "lstm": Kind(rnncore.LSTM, 1),
    "gru": Kind(rnncore.GRU, 1),
    "two_speed": Kind(two_speed, 0),
}


@dataclass(frozen=True)
class Task:
    """Batches to train on, a loss, and how long and fast."""

    batches: Callable[[np.random.Generator], Iterator[Batch]]
    valid: Batch
    test: Batch
    loss: Loss
    outputs: int
    hidden: int
    updates: int
    lr: float
    clip_norm: float
    memory: int  # steps: units start with memories of 1 to so many
    dropout: float = 0.0
    scale: float = 1.0  # of the loss, as it is printed


def adding_problem(steps: int, seed: int) -> Task:
    held_out = np.random.default_rng(1000 + seed)
    valid, test = (adding(held_out, steps, count) for count in (128, 512))

    def batches(rng: np.random.Generator) -> Iterator[Batch]:
        while True:
            yield adding(rng, steps, 32)

    return Task(batches, valid, test, rnncore.MeanSquaredError(), 1, 64, 3000, 1e-2, 1.0, steps)


def chorales(path: str) -> Task:
    songs = load(path)
    train, loss = songs["train"], rnncore.BinaryCrossEntropy()

    def batches(rng: np.random.Generator) -> Iterator[Batch]:
        order = rng.permutation(len(train))
        for at in range(0, len(order), 8):
            yield batch_of([train[i] for i in order[at : at + 8]])

    valid, test = batch_of(songs["valid"]), batch_of(songs["test"])
    updates, keys = 50 * -(-len(train) // 8), train[0].shape[1]
    return Task(batches, valid, test, loss, keys, 256, updates, 1e-2, 0.05, 20, 0.5, keys)


def start(rng: np.random.Generator, name: str, shape: Any, hidden_size: int, dtype: Any) -> Any:
    """Zero biases, orthogonal recurrence, other weights by Glorot and Bengio 2010."""
    if name.startswith("bias"):
        return np.zeros(shape, dtype)
    if name.startswith("weight_hh"):
        return rnncore.init.orthogonal(rng, shape, blocks=shape[0] // hidden_size, dtype=dtype)
    return rnncore.init.xavier_uniform(rng, shape, dtype=dtype)


def remember(layer: rnncore.Module, gate: int, steps: int, rng: np.random.Generator) -> None:
    """Let every unit forget after another number of steps (Tallec and Ollivier 2018)."""
    hidden = layer.params["weight_hh_l0"].shape[1]
    rows = slice(gate * hidden, (gate + 1) * hidden)
    layer.params["bias_ih_l0"][rows] = np.log(rng.uniform(1, steps, hidden))


def train(task: Task, kind: Kind, seed: int) -> float:
    rng = np.random.default_rng(seed)
    features = task.valid.inputs.shape[-1]
    options = {"variational_dropout": task.dropout} if task.dropout else {}
    layer = kind.make(features, task.hidden, seed=rng, init=start, **options)
    remember(layer, kind.keeps, task.memory, rng)
    model = Chain(
        layer,
        Dropout(task.dropout, seed=rng),
        Linear(task.hidden, task.outputs, seed=rng),
    )
    schedule = warmup_cosine(task.lr, task.updates, warmup=task.updates // 50, final=0.02 * task.lr)
    trainer = Trainer(
        model,
        task.loss,
        rnncore.AdamW(model, lr=schedule, weight_decay=0.01),
        task.batches,
        validate=lambda: evaluate(model, task.loss, [task.valid]),
        clip_norm=task.clip_norm,
        seed=seed,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the table says enough
        trainer.fit(task.updates, validate_every=max(1, task.updates // 40), show_progress=False)
    trainer.restore_best()
    return evaluate(model, task.loss, [task.test]) * task.scale


def overhead(rounds: int) -> float:
    """Time an LSTM written as a cell and the built-in one in turns, one thread."""
    x = np.random.default_rng(0).standard_normal((64, 32, 128), np.float32)
    ratios = []
    layers = [layer(128, 128, seed=0) for layer in (own_lstm, rnncore.LSTM)]
    threads = rnncore.get_num_threads()
    rnncore.set_num_threads(1)
    for _ in range(rounds):
        times = []
        for layer in layers:
            started = time.perf_counter()
            (y, _), pullback = layer.vjp(x)
            pullback(y)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    rnncore.set_num_threads(threads)
    return median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="FILE", help="JSB_Chorales.mat")
    parser.add_argument("--steps", type=int, default=200, help="of the adding problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few updates of small models")
    args = parser.parse_args()

    print(two_speed)
    check(two_speed)
    steps = 20 if args.quick else args.steps
    tasks = {"adding": adding_problem(steps, args.seed), "jsb": chorales(args.data)}
    if args.quick:
        tasks = {name: replace(task, hidden=16, updates=4) for name, task in tasks.items()}
    errors = {}
    print(f"{'task':8}{'cell':12}{'error':>10}{'seconds':>9}")
    for name, task in tasks.items():
        for cell, kind in KINDS.items():
            started = time.perf_counter()
            errors[name, cell] = train(task, kind, args.seed)
            seconds = time.perf_counter() - started
            print(f"{name:8}{cell:12}{errors[name, cell]:10.5f}{seconds:9.1f}", flush=True)
    found = {name: errors[name, "two_speed"] for name in tasks}
    ratio = overhead(3 if args.quick else 31)
    print(f"result: overhead={ratio:.2f} adding={found['adding']:.5f} jsb={found['jsb']:.2f}")


if __name__ == "__main__":
    main()
