"""What a call of one step costs beside a stream, and what a stream's chunk costs beside a call.

python benchmarks/single_calls.py
python benchmarks/single_calls.py --weights int8 --sizes 32 256
python benchmarks/single_calls.py --quick                        # does it work?

First the loop that everybody writes, `y, state = m(x, state)` with T = 1 and B = 1, where nobody
else holds the parameters; beside it `stream.step` and, where installed, ONNX Runtime in float32 on
the same layer with states in and out. Then `stream.run` of 512 frames beside a call on them, one
row. One thread, from Python, in turns; the medians of the rounds' ratios count.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("RNNCORE_NUM_THREADS", "1")

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rnncore
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import geometric_mean, ratio, time_call
from tqdm import tqdm

FRAMES = 512
SIZES = [32, 64, 128, 256, 512, 1024]
#: Of the audio effects that RTNeural is for: they have one input.
SMALL = [20, 32, 40, 64]
CELLS = {"lstm": rnncore.LSTM, "gru": rnncore.GRU}
Works = dict[str, Callable[[], Any]]


def made(model: rnncore.Module, weights: str) -> rnncore.Module:
    """Return the model, or a quantized copy."""
    return model if weights == "float32" else rnncore.quantize(model, weights)


def single(cell: str, size: int, weights: str) -> Works:
    """Calls of one step, each with a layer of its own, so that nobody else holds its parameters."""

    def layer() -> rnncore.Module:
        return made(CELLS[cell](size, size, seed=0), weights)

    called, stream = layer(), layer().stream()
    x = np.random.default_rng(0).standard_normal((1, 1, size), dtype=np.float32)
    frame, state = x[0].copy(), called(x)[1]

    def call() -> None:
        nonlocal state
        _, state = called(x, state)

    works: Works = {"m(x, state)": call, "stream.step(x)": lambda: stream.step(frame)}
    if find_spec("onnxruntime") and find_spec("onnx"):
        works["ONNX Runtime"] = onnx_step(cell, size, x)
    return works


def onnx_step(cell: str, size: int, x: np.ndarray) -> Callable[[], Any]:
    """A step of the same layer in float32 by ONNX Runtime, which takes and returns the states."""
    import onnxruntime

    layer = CELLS[cell](size, size, seed=0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "layer.onnx")
        rnncore.convert.to_onnx(layer, path, lengths=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()][1:]
    feed = {"x": x, **{name: np.zeros((1, 1, size), np.float32) for name in names}}
    np.testing.assert_allclose(session.run(None, feed)[0], layer(x)[0], atol=1e-5)

    def step() -> None:
        _, *states = session.run(None, feed)
        feed.update(zip(names, states, strict=True))

    return step


def chunk(kind: str, inputs: int, size: int, weights: str) -> Works:
    """A chunk through a stream, and the call; each with a model of its own."""

    def model() -> rnncore.Module:
        if kind in CELLS:
            return made(CELLS[kind](inputs, size, seed=0), weights)
        layer = CELLS[kind.split("+")[0]](inputs, size, seed=0)
        return made(rnncore.Chain(layer, rnncore.Linear(size, 1, seed=1)), weights)

    called, stream = model(), model().stream()
    x = np.random.default_rng(0).standard_normal((FRAMES, 1, inputs), dtype=np.float32)
    np.testing.assert_allclose(stream.run(x), called(x)[0], atol=1e-5)
    return {"stream.run(x)": lambda: stream.run(x), "m(x)": lambda: called(x)}


def in_turns(works: Works, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time everybody once a round: what slows the machine for a while slows them all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(time_call(work, seconds))
    return times


def show_steps(args: argparse.Namespace) -> dict[str, float]:
    """Print the table of single steps; return the worst ratios."""
    rows, to_stream, to_onnx = [], [], []
    choices = [(cell, size) for cell in CELLS for size in args.sizes]
    for cell, size in tqdm(choices, unit="case", leave=False, disable=None):
        times = in_turns(single(cell, size, args.weights), args.rounds, args.seconds)
        call, step, *others = times.values()
        gain = ratio(others[0], call) if others else None
        to_onnx += [] if gain is None else [gain]
        to_stream += [ratio(call, step)] if size >= 128 else []
        rows.append(
            [
                f"{cell}, H {size}",
                *(duration(median(t)) for t in (call, step)),
                f"{ratio(call, step):.2f}",
                *([duration(median(others[0])), f"{gain:.2f}"] if others else ["", ""]),
            ]
        )
    head = ["T = B = 1", "m(x, state)", "stream.step(x)", "call / step"]
    print(f"\n**one step, {args.weights} weights**\n")
    print(table([*head, "ONNX Runtime", "ONNX Runtime / call"], rows))
    if not to_onnx:
        print("left out: ONNX Runtime, which takes the packages onnxruntime and onnx")
    return {
        **({"call_to_step_most_from_128": max(to_stream)} if to_stream else {}),
        **({"onnxruntime_to_call_least": min(to_onnx)} if to_onnx else {}),
        **({"onnxruntime_to_call_mean": geometric_mean(to_onnx)} if to_onnx else {}),
    }


def chunks(sizes: Sequence[int]) -> list[tuple[str, int, int]]:
    """Return models, inputs and sizes: one input at the small ones, I = H at the others."""
    kinds = [*CELLS, *(f"{cell}+linear" for cell in CELLS)]
    shapes = [*((1, size) for size in SMALL), *((size, size) for size in sizes)]
    return [(kind, *shape) for kind in kinds for shape in shapes]


def show_chunks(args: argparse.Namespace) -> dict[str, float]:
    """Print the table of chunks; return the worst ratio."""
    rows, ratios = [], []
    choices = chunks(args.sizes)[:: 5 if args.quick else 1]
    for kind, inputs, size in tqdm(choices, unit="case", leave=False, disable=None):
        works = chunk(kind, inputs, size, args.weights)
        run, call = in_turns(works, args.rounds, args.seconds).values()
        ratios.append(ratio(run, call))
        times = (duration(median(run)), duration(median(call)), f"{median(run) / FRAMES * 1e9:.0f}")
        rows.append([f"{kind}, I {inputs}, H {size}", *times, f"{ratios[-1]:.2f}"])
    print(f"\n**{FRAMES} frames of one row, {args.weights} weights**\n")
    print(table(["model", "stream.run(x)", "m(x)", "ns a frame", "run / call"], rows))
    return {"run_to_call_most": max(ratios), "run_to_call_mean": geometric_mean(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", choices=["float32", "int8", "bfloat16"], default="float32")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="H")
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    parser.add_argument("--seconds", type=float, default=0.02, help="of a turn (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few cases, one round")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rounds, args.seconds = args.sizes[::2], 1, 0.002
    rnncore.set_num_threads(1)
    found = {**show_steps(args), **show_chunks(args)}
    print("result:", " ".join(f"{name}={value:.3g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
