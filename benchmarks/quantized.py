"""Layers with int8 and bfloat16 weights beside float32, and beside others' with such weights.

python benchmarks/quantized.py                                  # some three minutes
python benchmarks/quantized.py --cells gru --sizes 64 256 --rounds 9
python benchmarks/quantized.py --quick                          # does it work?

Whole calls, inference, I = H; every entry in a process of its own, in turns. The tables show how
many times as fast as our float32 an entry is (the median of the rounds' ratios), and the largest
error of y, beside our float32. Of ONNX Runtime's int8, with a scale for a matrix or for each row,
the better counts: the faster for times, the more exact for errors. PyTorch and oneDNN in bfloat16
are given x in that type, oneDNN's int8 is given x in 8 bits. All are called from Python, but oneDNN
from C++.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from claims import Value, every, mean
from grid import peers, start
from rnncore.arrays import Array
from rnncore.commands.bench import add_effort_arguments
from rnncore.commands.measure.cases import GATES, Case, Shape
from rnncore.commands.measure.contest import Contestant, Entry, compete, contest
from rnncore.commands.measure.machine import cache_sizes
from rnncore.commands.measure.report import Record, Results, duration, table
from rnncore.commands.measure.timing import geometric_mean
from rnncore.training.plots import require_matplotlib, save_figure
from tqdm import tqdm

STEPS_AND_ROWS = ["1,1", "64,1", "64,4", "64,16", "32,64"]
SIZES = [32, 64, 128, 256, 512, 1024]
OURS, INT8, BFLOAT16, DOT = (
    "rnncore",
    "rnncore:int8",
    "rnncore:bfloat16",
    "rnncore:bfloat16_dot",
)
ORT = ("onnxruntime:int8", "onnxruntime:int8_per_channel")
TORCH = "torch:int8"
ENTRIES = [
    *(OURS, INT8, BFLOAT16, DOT, *ORT, TORCH, "torch:bfloat16", "onednn:int8", "onednn:bfloat16")
]
#: Columns of the tables, each with the entries of which the best counts.
COLUMNS = {
    "int8": [INT8],
    "bfloat16": [BFLOAT16],
    "bfloat16_dot": [DOT],
    "ONNX Runtime int8": list(ORT),
    "PyTorch int8": [TORCH],
    "PyTorch bfloat16": ["torch:bfloat16"],
    "oneDNN int8": ["onednn:int8"],
    "oneDNN bfloat16": ["onednn:bfloat16"],
}


@dataclass
class Row:
    """The times of all entries in a case, and by how much their y is off."""

    record: Record
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def case(self) -> Case:
        """What was measured."""
        return self.record.case

    def gain(self, entry: str, base: str = OURS) -> float:
        """How many times as fast as `base` an entry is; NaN where one of them is missing."""
        return self.record.ratio(base, entry)

    def best_gain(self, entries: Iterable[str], base: str = OURS) -> float:
        """That of the fastest."""
        known = [gain for e in entries if not math.isnan(gain := self.gain(e, base))]
        return max(known, default=math.nan)

    def least_error(self, entries: Iterable[str]) -> float:
        """That of the most exact."""
        return min((self.errors[e] for e in entries if e in self.errors), default=math.nan)


def measure(case: Case, contestants: Sequence[Contestant], rounds: int, seconds: float) -> Row:
    """Time a case, then compare what it came to."""
    times = compete(case, contestants, rounds, seconds)
    outputs: dict[str, Array] = {
        str(c.entry): c.results()["y"] for c in contestants if str(c.entry) in times
    }
    exact = outputs.pop(OURS)
    errors = {name: float(np.abs(y - exact).max()) for name, y in outputs.items()}
    return Row(Record(case, times), errors)


def speeds(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of times: our float32's, and how many times as fast the others are."""

    def cells(row: Row) -> list[str]:
        gains = (row.best_gain(COLUMNS[name]) for name in names)
        return [_name(row), duration(row.record.time(OURS)), *(_shown(g, ".2f") for g in gains)]

    return table(["T,B,H", "float32", *names], [cells(row) for row in rows])


def errors(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of the largest errors of y."""

    def cells(row: Row) -> list[str]:
        return [_name(row), *(_shown(row.least_error(COLUMNS[n]), ".4f") for n in names)]

    return table(["T,B,H", *names], [cells(row) for row in rows])


def _name(row: Row) -> str:
    return f"{row.case.shape.steps},{row.case.shape.batch},{row.case.shape.hidden}"


def _shown(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def beyond_l2(case: Case) -> bool:
    """Whether the weights in float32 do not fit into the second cache."""
    size = 4 * GATES[case.cell] * case.shape.hidden * (case.shape.inputs + case.shape.hidden)
    return size > cache_sizes().get("L2", 1 << 20)


class Found:
    """Geometric means and lowest rows, by name, and whether what was promised holds."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows, self.lines = rows, list[str]()
        self.numbers: dict[str, float] = {}

    def add(
        self,
        name: str,
        text: str,
        gain: Callable[[Row], float],
        suits: Callable[[Row], bool],
        *,
        least: float,
        average: float | None = None,
    ) -> None:
        """Compare the ratios of some rows with their goals."""
        values = [Value(row.case, gain(row)) for row in self.rows if suits(row)]
        values = [value for value in values if not math.isnan(value.number)]
        if not values:
            self.lines.append(f"unmeasured  {text}")
            return
        self.lines.append(str(every(text, least, values)))
        if average is not None:
            self.lines.append(str(mean(text, average, values)))
        numbers = [value.number for value in values]
        self.numbers |= {f"{name}_mean": geometric_mean(numbers), f"{name}_least": min(numbers)}

    def show(self) -> None:
        """Print all."""
        print("\n## what must be shown\n", *self.lines, sep="\n")
        numbers = (f"{name}={value:.4g}" for name, value in self.numbers.items())
        print("result:", *numbers)


def compare(rows: Sequence[Row]) -> Found:
    """What the rows say about what must be shown, numbered as there."""
    found = Found(rows)

    def of(cell: str, size: int) -> Callable[[Row], bool]:
        return lambda row: row.case.cell == cell and row.case.shape.hidden >= size

    def from_size(size: int) -> Callable[[Row], bool]:
        return lambda row: row.case.shape.hidden >= size

    found.add(
        "lstm_int8_to_onnxruntime",
        "1. int8 LSTM against ONNX Runtime's",
        lambda row: 1 / row.best_gain(ORT, INT8),
        of("lstm", 64),
        least=1,
        average=1.3,
    )
    _add_errors(found, [row for row in rows if of("lstm", 64)(row)])
    found.add(
        "gru_int8_to_torch",
        "2. int8 GRU against PyTorch's",
        lambda row: row.gain(INT8, TORCH),
        of("gru", 0),
        least=1.5,
        average=3,
    )
    parts: list[tuple[str, str, str, Callable[[Row], bool], float]] = [
        ("int8", INT8, "from H 256", from_size(256), 3),
        ("int8", INT8, "from H 32", from_size(32), 1),
        ("bfloat16", BFLOAT16, "beyond L2", lambda row: beyond_l2(row.case), 1.7),
        ("bfloat16", BFLOAT16, "from H 32", from_size(32), 1),
        ("bfloat16_dot", DOT, "from H 256", from_size(256), 1.7),
        ("bfloat16_dot", DOT, "from H 32", from_size(32), 1),
    ]
    for kind, entry, where, suits, least in parts:
        name = f"{kind}_{where.lower().replace(' ', '_')}"
        text = f"3. {kind} against float32, {where}"
        found.add(name, text, lambda row, entry=entry: row.gain(entry), suits, least=least)
    return found


def _add_errors(found: Found, rows: Sequence[Row]) -> None:
    """Compare the largest errors of the LSTM: over all rows, and where they are nearest."""
    known = [row for row in rows if not math.isnan(row.least_error(ORT))]
    if not known:
        return
    ours = max(row.errors[INT8] for row in known)
    theirs = min(max(row.errors[entry] for row in known) for entry in ORT)
    nearest = max(row.errors[INT8] / row.least_error(ORT) for row in known)
    holds = "holds      " if ours <= theirs / 2 else "FALLS SHORT"
    text = "1. the largest error at most half of ONNX Runtime's"
    found.lines.append(f"{holds} {text}: {ours:.4f} to {theirs:.4f}")
    found.numbers |= {
        "lstm_int8_error": ours,
        "onnxruntime_error": theirs,
        "errors_nearest": nearest,
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw error against time, a point for each case and kind of weights; needs matplotlib."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        yscale="log",
        xlabel="time, as a share of our float32's (less is better)",
        ylabel="largest error of y (less is better)",
    )
    for name, entries in COLUMNS.items():
        found = [(1 / row.best_gain(entries), row.least_error(entries)) for row in rows]
        points = [point for point in found if not any(map(math.isnan, point))]
        if points:
            ours = name in ("int8", "bfloat16", "bfloat16_dot")
            label = f"rnncore {name}" if ours else name
            axes.plot(*zip(*points, strict=True), "o" if ours else "x", label=label, alpha=0.8)
    axes.axvline(1, color="grey", lw=1)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    if rows:
        figure.legend(loc="outside right upper")
    save_figure(figure, path)


def chosen_entries() -> tuple[list[Entry], list[str]]:
    """Return who is here, and who is left out."""
    here = {"rnncore", *peers()}
    entries = [Entry.parse(text) for text in ENTRIES]
    missing = dict.fromkeys(entry.engine for entry in entries if entry.engine not in here)
    return [entry for entry in entries if entry.engine in here], list(missing)


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    cells, shapes, sizes = args.cells, args.shapes, args.sizes
    if args.quick:
        shapes, sizes = shapes[:2], sizes[::3]
    return [
        Case(cell, "inference", Shape.parse(f"{shape},{size},{size}"))
        for cell, shape, size in product(cells, shapes, sizes)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", nargs="+", choices=["lstm", "gru"], default=["lstm", "gru"])
    parser.add_argument("--shapes", nargs="+", default=STEPS_AND_ROWS, metavar="T,B")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="H")
    add_effort_arguments(parser, rounds=5)
    parser.add_argument("--quick", action="store_true", help="few cases, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all times")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw error against time")
    args = parser.parse_args()
    rounds, seconds = (1, 0.002) if args.quick else (args.rounds, args.seconds)
    entries, missing = chosen_entries()
    with contest(entries, start) as contestants:
        about = {str(c.entry): c.about for c in contestants}
        bar = tqdm(chosen_cases(args), unit="case", leave=False, disable=None)
        rows = [measure(case, contestants, rounds, seconds) for case in bar]
    print(*(f"- {name}: {text}" for name, text in about.items()), sep="\n")
    for engine in missing:
        print(f"- left out: {engine}, which is not installed")
    for cell in args.cells:
        own = [row for row in rows if row.case.cell == cell]
        names = [
            n for n, those in COLUMNS.items() if any(e in r.errors for e in those for r in own)
        ]
        print(f"\n**{cell}** (times as fast as float32)\n\n{speeds(own, names)}")
        print(f"\n**{cell}, largest error of y**\n\n{errors(own, names)}")
    compare(rows).show()
    if args.json:
        Results(about, [row.record for row in rows]).save(args.json)
    if args.picture:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
