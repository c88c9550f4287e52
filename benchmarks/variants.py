"""Times every variant of the gated family beside its plain cell, one thread, interleaved.

python benchmarks/variants.py                                # a minute or two
python benchmarks/variants.py --shapes 128,1,256,256 --rounds 9 --only lstm
"""

from __future__ import annotations

import os

os.environ.setdefault("RNNCORE_NUM_THREADS", "1")

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore.commands.measure.cases import Shape
from rnncore.commands.measure.timing import ratio, time_call
from tqdm import tqdm

SHAPES = ["128,32,64,64", "128,32,256,256", "128,1,256,256"]


class Variant(NamedTuple):
    """A layer, the plain one it is compared with, and how many times as much its products are."""

    name: str
    make: Callable[..., Any]
    options: dict[str, Any]
    plain: str = ""
    work: float = 1.0


def deep(cell: str, make: Callable[..., Any]) -> list[Variant]:
    """Of three transitions each recurrent product counts once, the input's once in all."""
    return [
        Variant(f"{cell} transition_depth=3", make, {"transition_depth": 3}, cell, 2.0),
        Variant(
            f"{cell} transition_depth=3 shortcut",
            make,
            {"transition_depth": 3, "shortcut": True},
            cell,
            2.5,
        ),
    ]


_LINEAR_OUTPUT = ("sigmoid", "tanh", "identity")
LSTM, GRU, RNN = rnncore.LSTM, rnncore.GRU, rnncore.RNN
#: Work in products relative to the plain cell where I = H.
VARIANTS = [
    Variant("rnn", RNN, {}),
    Variant("rnn leaky_relu", RNN, {"nonlinearity": "leaky_relu"}, "rnn"),
    *deep("rnn", RNN),
    Variant("lstm", LSTM, {}),
    Variant("lstm peephole", LSTM, {"peephole": True}, "lstm"),
    Variant("lstm coupled", LSTM, {"coupled": True}, "lstm", 0.75),
    Variant("lstm no input gate", LSTM, {"input_gate": False}, "lstm", 0.75),
    Variant("lstm no forget gate", LSTM, {"forget_gate": False}, "lstm", 0.75),
    Variant("lstm no output gate", LSTM, {"output_gate": False}, "lstm", 0.75),
    Variant("lstm no output activation", LSTM, {"activations": _LINEAR_OUTPUT}, "lstm"),
    Variant("lstm hard_sigmoid", LSTM, {"activations": ("hard_sigmoid", "tanh", "tanh")}, "lstm"),
    Variant("lstm cell_clip", LSTM, {"cell_clip": 3.0}, "lstm"),
    Variant("lstm layer_norm", LSTM, {"layer_norm": True}, "lstm"),
    Variant("lstm layer_norm per gate", LSTM, {"layer_norm": "gate"}, "lstm"),
    Variant("lstm variational_dropout", LSTM, {"variational_dropout": 0.2}, "lstm"),
    Variant("lstm recurrent_dropout", LSTM, {"recurrent_dropout": 0.2}, "lstm"),
    Variant("lstm zoneout", LSTM, {"zoneout": 0.1}, "lstm"),
    Variant("lstm weight_drop", LSTM, {"weight_drop": 0.2}, "lstm"),
    Variant("lstm checkpoint", LSTM, {"checkpoint": True}, "lstm", 4 / 3),
    *deep("lstm", LSTM),
    Variant("gru", GRU, {}),
    Variant("gru reset before", GRU, {"reset_after": False}, "gru"),
    Variant("mgu", rnncore.MGU, {}, "gru", 2 / 3),
    *deep("gru", GRU),
    Variant("indrnn", rnncore.IndRNN, {}, "rnn", 1 / 2),
    Variant("min_gru", rnncore.MinGRU, {}, "gru", 1 / 3),
    Variant("min_lstm", rnncore.MinLSTM, {}, "gru", 1 / 2),
]  # fmt: skip


def works(variant: Variant, shape: Shape) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Inference and training of a variant."""
    rng = np.random.default_rng(0)
    layer = variant.make(shape.inputs, shape.hidden, seed=0, **variant.options)
    x = rng.standard_normal((shape.steps, shape.batch, shape.inputs), dtype=np.float32)
    dy = rng.standard_normal((shape.steps, shape.batch, shape.hidden), dtype=np.float32)

    def train() -> None:
        _, pullback = layer.vjp(x)
        pullback(dy)

    return (lambda: layer(x)), train


def measure(shape: Shape, variants: list[Variant], rounds: int) -> dict[str, list[list[float]]]:
    """Return the times of inference and of training in each round, by the variant's name."""
    calls = {variant.name: works(variant, shape) for variant in variants}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in calls}
    for name, pair in tqdm(list(calls.items()) * rounds, desc=str(shape)):
        for kept, work in zip(times[name], pair, strict=True):
            kept.append(time_call(work))
    return times


def show(shape: Shape, variants: list[Variant], times: dict[str, list[list[float]]]) -> None:
    """Print a table: times as long as the plain cell, and what its products alone would be."""
    print(f"\n**T,B,I,H = {shape}** (times as long as the plain cell)\n")
    print("| variant | beside | products | inference | training |")
    print("| --- | --- | ---: | ---: | ---: |")
    for v in variants:
        if v.plain:
            inference, training = (
                ratio(a, b) for a, b in zip(times[v.name], times[v.plain], strict=True)
            )
            print(f"| {v.name} | {v.plain} | {v.work:.2f} | {inference:.2f} | {training:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="variants whose name or plain cell has this in it"
    )
    args = parser.parse_args()
    variants = [v for v in VARIANTS if args.only in v.name or args.only == v.plain]
    variants += [v for v in VARIANTS if v.name in {w.plain for w in variants} and v not in variants]
    for shape in map(Shape.parse, args.shapes):
        show(shape, variants, measure(shape, variants, args.rounds))


if __name__ == "__main__":
    main()
