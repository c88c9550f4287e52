"""The grid of shapes, every engine, in turns: tables of times and ratios.

python benchmarks/grid.py --cells lstm --shapes 128,32,256,256 7,3,100,300 --rounds 5
python benchmarks/grid.py --check          # nobody computes anything else than the others
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onednn import OneDNN, installed
from rnncore.arrays import Array
from rnncore.commands.bench import (
    add_case_arguments,
    add_effort_arguments,
    add_entry_arguments,
    chosen_cases,
    chosen_entries,
)
from rnncore.commands.measure.cases import Case
from rnncore.commands.measure.contest import Contestant, Entry, contest
from rnncore.commands.measure.engines import Unsupported, available
from rnncore.commands.measure.picture import plot_roofline
from rnncore.commands.measure.report import measure, tables

GRID = [
    "1,1,32,32",
    "128,1,32,32",
    "128,1,128,128",
    "128,1,256,256",
    "128,1,512,512",
    "128,8,128,128",
    "128,32,64,64",
    "128,32,256,256",
    "128,32,512,512",
    "64,64,1024,1024",
    "1000,16,128,128",
    "50,20,39,200",
    "20,100,650,650",
    "10..200,64,128,128",
]
#: Largest difference of a result, in units of its largest magnitude.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 0.05, "int8": 0.1}


def start(entry: Entry) -> Contestant:
    """Start an entry's process."""
    return OneDNN(entry) if entry.engine == "onednn" else Contestant(entry)


def peers() -> list[str]:
    """Return who there is to be measured against."""
    others = [engine for engine in available() if engine not in ("roof", "rnncore")]
    return [*(["onednn"] if installed() else []), *others]


def check(cases: Sequence[Case], contestants: Sequence[Contestant]) -> bool:
    """Print how far everybody's results are from those of the first; return whether all agree."""
    first, *others = (c for c in contestants if c.entry.engine != "roof")
    agree = True
    for case in cases:
        first.load(case)
        expected = first.results()
        for other in others:
            try:
                other.load(case)
            except Unsupported:
                continue
            kind = first.entry.weights or other.entry.dtype
            agree &= _compare(f"{other.entry}: {case}", expected, other.results(), kind)
    return agree


def _compare(what: str, expected: dict[str, Array], results: dict[str, Array], dtype: str) -> bool:
    """Whether all is there, but perhaps gradients of states that were not given, and agrees."""
    missing = set(expected) - set(results) - {"dh", "dc"}
    distances = {name: _distance(results[name], expected[name]) for name in results}
    worst = max(distances, key=lambda name: distances[name])
    good = not missing and distances[worst] <= TOLERANCE[dtype]
    print(
        f"{'ok' if good else 'DIFFERS':8}{what}: {len(results)} results, "
        f"{distances[worst]:.1e} in {worst}{', missing ' if missing else ''}{', '.join(missing)}"
    )
    return good


def _distance(a: Array, b: Array) -> float:
    if a.shape != b.shape or not np.isfinite(a).all():
        return np.inf
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_case_arguments(parser, GRID)
    add_entry_arguments(parser, peers())
    add_effort_arguments(parser, rounds=5)
    parser.add_argument("--check", action="store_true", help="compare results instead of times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all times")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="roofline picture, .png or .svg")
    args = parser.parse_args()
    with contest(chosen_entries(args), start) as contestants:
        if args.check:
            return 0 if check(chosen_cases(args), contestants) else 1
        results = measure(chosen_cases(args), contestants, args.rounds, args.seconds)
    print(tables(results))
    if args.json:
        results.save(args.json)
    if args.plot:
        plot_roofline(results, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
