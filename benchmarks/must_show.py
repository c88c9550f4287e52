"""Measures all that the project promises about its speed, and says what holds.

python benchmarks/must_show.py results.json                    # everything: half an hour
python benchmarks/must_show.py results.json --parts threads    # that part anew, the others kept
python benchmarks/must_show.py results.json --parts            # nothing anew: compare what is there
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from claims import compare
from grid import GRID, start
from rnncore.commands.bench import add_effort_arguments
from rnncore.commands.measure.cases import GATES, MODES, Case, Shape
from rnncore.commands.measure.contest import Entry, contest
from rnncore.commands.measure.picture import plot_roofline
from rnncore.commands.measure.report import Results, measure, tables


@dataclass(frozen=True)
class Part:
    """Cases, and who competes in them."""

    entries: Sequence[str]
    suits: Callable[[Case], bool] = lambda case: True

    def measure(self, cells: Sequence[str], rounds: int, seconds: float) -> Results:
        """Measure its share of the grid."""
        choices = product(cells, MODES, map(Shape.parse, GRID))
        cases = [case for case in (Case(*choice) for choice in choices) if self.suits(case)]
        with contest([Entry.parse(text) for text in self.entries], start) as contestants:
            return measure(cases, contestants, rounds, seconds)


def compute_bound(case: Case) -> bool:
    """Whether nearly all time goes into large matrix products."""
    return case.shape.hidden >= 256 and case.shape.batch >= 16


PARTS = {
    "speed": Part(["rnncore", "roof", "onednn", "torch", "onnxruntime"]),
    "numpy": Part(
        ["rnncore", "numpy", "numpy:Haswell", "numpy:SkylakeX"],
        lambda case: compute_bound(case) or str(case.shape) in ("1,1,32,32", "128,1,32,32"),
    ),
    "threads": Part(["rnncore", "rnncore:2", "onednn:2", "torch:2", "onnxruntime:2"]),
    "float64": Part(["rnncore", "rnncore:float64"], compute_bound),
    "avx2": Part(["rnncore:v3", "onednn:v3", "torch:v3"]),
}


def show(parts: Mapping[str, Results]) -> None:
    """Print every table, then every claim and whether it holds."""
    for name, results in parts.items():
        print(f"\n## {name}\n\n{tables(results)}")
    claims = compare(parts)
    print("\n## what must be shown\n", *claims, sep="\n")
    print(f"\n{sum(claim.holds for claim in claims)} of {len(claims)} hold")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, help="file of all times, to be read and written")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cells", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="roofline picture of `speed`")
    add_effort_arguments(parser, rounds=7)
    args = parser.parse_args()
    kept = json.loads(args.results.read_text()) if args.results.exists() else {}
    for name in args.parts:
        results = PARTS[name].measure(args.cells, args.rounds, args.seconds)
        kept[name] = results.as_json()
        args.results.write_text(json.dumps(kept, indent=1) + "\n")
    parts = {name: Results.from_json(kept[name]) for name in PARTS if name in kept}
    show(parts)
    if args.plot and "speed" in parts:
        plot_roofline(parts["speed"], args.plot)


if __name__ == "__main__":
    main()
