"""How long a cell remembers: the adding problem and the copy task.

    python examples/long_memory.py --plot long_memory.png --flow gradient_flow.png

adding (Hochreiter and Schmidhuber 1997, as in Le et al. 2015): 600 steps of a number in [0, 1] and
a marker, which is 1 at one step of the first half and at one of the second; wanted at the end is
the sum of the two marked numbers. Saying 1 every time costs 1/6 (mean squared error).

copy (as in Arjovsky et al. 2016): 10 symbols out of 8, 100 blanks, a sign to
begin, then wanted are the 10 symbols in order. Guessing costs log 8 = 2.079 nats per symbol.

Errors are those on 512 sequences never trained on, at the best validation on 128 others.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rnncore
from rnncore import init
from rnncore.batches import Batch
from rnncore.losses import Loss
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer, evaluate
from rnncore.training.gradient_flow import gradient_flow, plot_gradient_flow

SYMBOLS, LENGTH = 8, 10  # of the copy task


@dataclass(frozen=True)
class Task:
    """Sequences without end: `draw(rng, steps, count)` makes a batch of them."""

    draw: Callable[[np.random.Generator, int, int], Batch]
    loss: Loss
    steps: int  # of the adding problem's sequences; of the copy task's blanks
    inputs: int
    outputs: int
    updates: int
    batch: int
    hidden: int = 64


def adding(rng: np.random.Generator, steps: int, count: int) -> Batch:
    x = np.zeros((steps, count, 2), np.float32)
    x[..., 0] = rng.random((steps, count))
    halves = rng.integers(0, steps // 2, count), rng.integers(steps // 2, steps, count)
    wanted = np.zeros((steps, count, 1), np.float32)
    for marked in halves:
        x[marked, range(count), 1] = 1
        wanted[-1, :, 0] += x[marked, range(count), 0]
    return Batch(x, wanted, mask=_from(steps - 1, steps, count))


def copy(rng: np.random.Generator, steps: int, count: int) -> Batch:
    symbols = rng.integers(0, SYMBOLS, (LENGTH, count))
    shown = np.full((steps + 2 * LENGTH, count), SYMBOLS)
    shown[:LENGTH] = symbols
    shown[-LENGTH - 1] = SYMBOLS + 1
    wanted = np.zeros_like(shown)
    wanted[-LENGTH:] = symbols
    x = np.eye(SYMBOLS + 2, dtype=np.float32)[shown]
    return Batch(x, wanted, mask=_from(len(x) - LENGTH, len(x), count))


def _from(first: int, steps: int, count: int) -> np.ndarray:
    """A mask `(T, B)` of the steps that count."""
    return np.repeat(np.arange(steps)[:, None] >= first, count, axis=1)


TASKS = {
    "adding": Task(adding, rnncore.MeanSquaredError(), 600, 2, 1, 3000, 32),
    "copy": Task(copy, rnncore.SoftmaxCrossEntropy(), 100, SYMBOLS + 2, SYMBOLS, 3000, 32, 128),
}


def rnn(task: Task, seed: np.random.Generator) -> rnncore.Module:
    return rnncore.RNN(task.inputs, task.hidden, seed=seed, init="orthogonal")


def gru(task: Task, seed: np.random.Generator) -> rnncore.Module:
    """A GRU whose units start with memories of 1 to T steps (Tallec and Ollivier 2018)."""
    layer = rnncore.GRU(task.inputs, task.hidden, seed=seed, init="orthogonal")
    remember(layer, task.steps, seed)
    return layer


def remember(gru: rnncore.Module, steps: int, rng: np.random.Generator) -> None:
    """Set the update gates' biases so that every unit forgets after another number of steps."""
    bias = gru.params["bias_ih_l0"]
    hidden = bias.size // 3
    bias[hidden : 2 * hidden] = np.log(rng.uniform(1, steps, hidden))


def indrnn(task: Task, seed: np.random.Generator) -> rnncore.Module:
    """Two layers of IndRNN; the second starts as sums over time (Li et al. 2018)."""
    layer = rnncore.IndRNN(task.inputs, task.hidden, 2, seed=seed, init=_indrnn_start)
    layer.params["weight_hh_l1"][...] = 1
    layer.params["weight_ih_l1"] *= 0.05
    return layer


def _indrnn_start(
    rng: np.random.Generator, name: str, shape: Any, hidden_size: int, dtype: Any
) -> np.ndarray:
    if name.startswith("bias"):
        return np.zeros(shape, dtype)
    if name.startswith("weight_hh"):
        return rng.uniform(0, 1, shape).astype(dtype)
    return init.xavier_uniform(rng, shape, dtype=dtype)


#: The cells, with the learning rate of each.
CELLS = {"gru": (gru, 1e-2), "rnn": (rnn, 1e-3), "indrnn": (indrnn, 5e-3)}


class Bounded(rnncore.Adam):
    """Adam that keeps each recurrent weight of an IndRNN within 2^(1/T) (Li et al. 2018)."""

    def __init__(self, layer: rnncore.Module, model: rnncore.Module, steps: int, lr: Any) -> None:
        super().__init__(model, lr=lr)
        self.bound = 2 ** (1 / steps)
        self.recurrent = [p for n, p in layer.params.items() if n.startswith("weight_hh")]

    def step(self) -> None:
        """Update every parameter, then bound the recurrent weights."""
        super().step()
        for weight in self.recurrent:
            np.clip(weight, -self.bound, self.bound, out=weight)


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    test_loss: float
    steps: int
    history: list[dict[str, Any]]
    parameters: int
    seconds: float


def run(task: Task, cell: str, seed: int) -> Result:
    make, lr = CELLS[cell]
    rng = np.random.default_rng(seed)
    layer = make(task, rng)
    model = rnncore.Chain(layer, rnncore.Linear(task.hidden, task.outputs, seed=rng))
    held_out = np.random.default_rng(1000 + seed)
    valid, test = (task.draw(held_out, task.steps, count) for count in (128, 512))

    def batches(rng: np.random.Generator) -> Iterator[Batch]:
        while True:
            yield task.draw(rng, task.steps, task.batch)

    schedule = warmup_cosine(lr, task.updates, warmup=task.updates // 50, final=0.02 * lr)
    bounded = cell == "indrnn"
    trainer = Trainer(
        model,
        task.loss,
        Bounded(layer, model, task.steps, schedule) if bounded else rnncore.Adam(model, schedule),
        batches,
        validate=lambda: evaluate(model, task.loss, [valid]),
        clip_norm=1.0,
        seed=seed,
    )
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # the table says enough
        trainer.fit(task.updates, validate_every=max(1, task.updates // 40), show_progress=False)
    trainer.restore_best()
    return Result(
        evaluate(model, task.loss, [test]),
        task.steps,
        trainer.history,
        sum(param.size for param in model.params.values()),
        time.perf_counter() - started,
    )


def plot(results: dict[tuple[str, str], Result], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    adding_axes, copy_axes = figure.subplots(1, 2)
    adding_axes.set(ylabel="mean squared error", yscale="log")
    copy_axes.set(ylabel="nats per symbol", ylim=(0, 1.1 * math.log(SYMBOLS)))
    axes_of = {"adding": (adding_axes, 1 / 6), "copy": (copy_axes, math.log(SYMBOLS))}
    for task, (axes, chance) in axes_of.items():
        axes.set(title=f"{task}, T = {results[task, 'gru'].steps}", xlabel="update")
        for cell in CELLS:
            history = results[task, cell].history
            points = [(entry["step"], entry["validation_loss"]) for entry in history]
            axes.plot(*zip(*points, strict=True), label=cell)
        axes.axhline(chance, color="grey", linestyle=":", label="guessing")
        axes.grid(alpha=0.3)
    figure.legend(*adding_axes.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=150)


def plot_flow(path: str, steps: int, seed: int) -> None:
    """Draw how gradients fade before training, over the adding problem's sequences."""
    task = replace(TASKS["adding"], steps=steps)
    x = adding(np.random.default_rng(seed), steps, 32).inputs.astype(np.float64)
    options: dict[str, Any] = {"dtype": "float64", "seed": seed}
    sizes = task.inputs, task.hidden
    cells = {
        "RNN, tanh": rnncore.RNN(*sizes, **options),
        "LSTM": rnncore.LSTM(*sizes, **options),
        "LSTM, forget bias 1": rnncore.LSTM(*sizes, **options),
        "LSTM, forget bias 5": rnncore.LSTM(*sizes, **options),
        "GRU": rnncore.GRU(*sizes, **options),
        "GRU, update bias log U(1, T)": rnncore.GRU(*sizes, **options),
        "IndRNN, u = 1": rnncore.IndRNN(*sizes, **options),
    }
    init.set_forget_bias(cells["LSTM, forget bias 1"], 1)
    init.set_forget_bias(cells["LSTM, forget bias 5"], 5)
    remember(cells["GRU, update bias log U(1, T)"], steps, np.random.default_rng(seed))
    cells["IndRNN, u = 1"].params["weight_hh_l0"][...] = 1
    flows = {name: gradient_flow(cell, x) for name, cell in cells.items()}
    plot_gradient_flow(flows, path, "before training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few updates on short sequences")
    parser.add_argument("--plot", metavar="FILE", help="draw the validation losses")
    parser.add_argument("--flow", metavar="FILE", help="draw how gradients fade per cell")
    args = parser.parse_args()

    results = {}
    print(f"{'task':8}{'cell':8}{'error':>10}{'parameters':>12}{'updates':>9}{'seconds':>9}")
    for task_name, task in TASKS.items():
        if args.quick:
            task = replace(task, steps=20, updates=20, hidden=16)
        for cell in CELLS:
            result = run(task, cell, args.seed)
            results[task_name, cell] = result
            print(
                f"{task_name:8}{cell:8}{result.test_loss:10.5f}{result.parameters:12,}"
                f"{task.updates:9,}{result.seconds:9.1f}",
                flush=True,
            )
    if args.plot:
        plot(results, args.plot)
    if args.flow:
        plot_flow(args.flow, 20 if args.quick else 100, args.seed)
    keys = [("adding", cell) for cell in CELLS] + [("copy", "gru"), ("copy", "rnn")]
    print("result:", *(f"{task}_{cell}={results[task, cell].test_loss:.5f}" for task, cell in keys))


if __name__ == "__main__":
    main()
