"""`rnncore.torch` against torch's own layers, as a user of torch trains them.

python benchmarks/torch_layers.py --rounds 5 --threads 1
python benchmarks/torch_layers.py --shapes 128,32,256,256 10..100,32,64,64 --cells gru

Timed is a step of training: forward, backward, and Adam. Shapes are T,B,I,H; with T as least..most
sequences are packed. Each side runs in a process of its own, in turns; the table has medians.
"Adam" is torch's optimiser alone, which is the same on both sides. "at most" is how many times as
fast a step would be with it and with products at the processor's peak, and no other work: that
takes a C++ compiler. The last lines are a step of T = 1, B = 1, H = 32 beside a
torch.autograd.Function of the same tensors that computes nothing.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from grid import GRID
from rnncore.commands.measure.cases import GATES, Shape
from rnncore.commands.measure.machine import Machine, compiler
from rnncore.commands.measure.report import table
from rnncore.commands.measure.timing import geometric_mean, ratio, time_call

#: Beside the grid, which has one: lengths as they are met.
PACKED = ["10..100,32,64,64", "5..50,100,200,200", "20..300,16,128,128"]
CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
SIDES = ("rnncore", "torch")


def bare(tensors: list[Any]) -> Callable[[], Any]:
    """A step through a function of as many tensors that computes nothing."""
    import torch

    class Bare(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            ctx.save_for_backward(*given)
            return torch.empty_like(given[0]), torch.empty_like(given[1])

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            return tuple(torch.zeros_like(tensor) for tensor in ctx.saved_tensors)

    def step() -> None:
        y, _ = Bare.apply(*tensors)
        y.backward(torch.ones_like(y))

    return step


def work(side: str, cell: str, shape: str, optimise: bool = True) -> Callable[[], Any]:
    """A step of training one layer."""
    import rnncore.torch
    import torch

    torch.manual_seed(0)
    place = rnncore.torch if side == "rnncore" else torch.nn
    sizes = Shape.parse(shape)
    layer, lengths = getattr(place, CELLS[cell])(sizes.inputs, sizes.hidden), sizes.lengths
    x: Any = torch.randn(sizes.steps, sizes.batch, sizes.inputs)
    if lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    optimiser = torch.optim.Adam(layer.parameters())

    def step() -> None:
        y, _ = layer(x)
        y = y if lengths is None else y.data
        y.backward(torch.ones_like(y))
        if optimise:
            optimiser.step()
            optimiser.zero_grad()

    return step


def adam(cell: str, shape: str) -> Callable[[], Any]:
    """A step of the optimiser alone."""
    import torch

    sizes = Shape.parse(shape)
    weights = list(getattr(torch.nn, CELLS[cell])(sizes.inputs, sizes.hidden).parameters())
    gradients = [torch.randn_like(weight) for weight in weights]
    optimiser = torch.optim.Adam(weights)

    def step() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
        optimiser.zero_grad()

    return step


def operations(cell: str, shape: str) -> float:
    """Those of the products of a step: forward, back to h, and the weights' gradients."""
    sizes = Shape.parse(shape)
    return 2.0 * GATES[cell] * sizes.hidden * (2 * sizes.inputs + 3 * sizes.hidden) * sizes.rows


def small(what: str, cell: str) -> Callable[[], Any]:
    """What a step of one small layer costs, without an optimiser; or the bare function."""
    if what != "bare":
        return work(what, cell, "1,1,32,32", optimise=False)
    import torch

    layer = getattr(torch.nn, CELLS[cell])(32, 32)
    states = [torch.zeros(1, 1, 32) for _ in range(1 + (cell == "lstm"))]
    return bare([torch.randn(1, 1, 32), *states, *layer.parameters()])


def serve(connection: Connection, threads: int) -> None:
    """Time whatever is asked for."""
    import torch

    torch.set_num_threads(threads)
    made: dict[Any, Callable[[], Any]] = {}
    while (asked := connection.recv()) is not None:
        function, *args = asked
        if asked not in made:
            made.clear()
            made[asked] = {"work": work, "adam": adam, "small": small}[function](*args)
        connection.send(time_call(made[asked]))


class Side:
    """A process that times calls."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(theirs, threads), daemon=True)
        self.process.start()

    def time(self, *asked: str) -> float:
        """Have a function of this file make a call, and time it."""
        self.connection.send(asked)
        seconds: float = self.connection.recv()
        return seconds

    def end(self) -> None:
        """Let the process go."""
        self.connection.send(None)
        self.process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=[*GRID, *PACKED], metavar="T,B,I,H")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many")
    parser.add_argument("--threads", type=int, default=1, help="of each side (default: 1)")
    args = parser.parse_args()
    sides = {name: Side(args.threads) for name in SIDES}
    peak = args.threads * Machine().peak("float32", 0.2) if compiler() else math.nan
    rows, ratios = [], {"padded": [], "packed": [], "at_most": []}
    for cell in args.cells:
        for shape in args.shapes:
            times: dict[str, list[float]] = {name: [] for name in (*SIDES, "adam")}
            for _ in range(args.rounds):
                for name, side in sides.items():
                    times[name].append(side.time("work", name, cell, shape))
                times["adam"].append(sides["rnncore"].time("adam", cell, shape))
            gain = ratio(times["torch"], times["rnncore"])
            least = operations(cell, shape) / peak
            most = ratio(times["torch"], [least + adam for adam in times["adam"]])
            ratios["packed" if ".." in shape else "padded"].append(gain)
            if ".." not in shape:
                ratios["at_most"].append(most)
            milliseconds = [f"{median(values) * 1e3:.3f}" for values in times.values()]
            rows.append([cell, shape, *milliseconds, f"{gain:.2f}", f"{most:.2f}"])
    heads = ["cell", "T,B,I,H", "rnncore ms", "torch ms", "Adam ms", "times as fast", "at most"]
    print(table(heads, rows))
    rows, costs = [], []
    for cell in args.cells:
        found = {what: [] for what in (*SIDES, "bare")}
        for _ in range(args.rounds):
            for what, times_of in found.items():
                times_of.append(sides["rnncore"].time("small", what, cell))
        costs.append(ratio(found["rnncore"], found["bare"]))
        rows.append([cell, *(f"{median(t) * 1e6:.1f}" for t in found.values()), f"{costs[-1]:.2f}"])
    print(table(["1,1,32,32", "rnncore us", "torch us", "bare us", "to bare"], rows))
    result = {f"{k}_mean": geometric_mean(v) for k, v in ratios.items() if v}
    result |= {f"{k}_least": min(v) for k, v in ratios.items() if v}
    result |= {f"{cell}_to_bare": cost for cell, cost in zip(args.cells, costs, strict=True)}
    for side in sides.values():
        side.end()
    print("result:", " ".join(f"{name}={value:.2f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
