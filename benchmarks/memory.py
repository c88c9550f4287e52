"""Peak memory of a case, above what the process needs to start: rnncore beside PyTorch (Linux).

python benchmarks/memory.py --cells lstm --shapes 128,32,512,512
"""

from __future__ import annotations

import argparse

from grid import GRID, start
from rnncore.commands.bench import add_case_arguments, chosen_cases
from rnncore.commands.measure.cases import Case
from rnncore.commands.measure.contest import Entry
from rnncore.commands.measure.report import table

MEBI = 1 << 20


def used(entry: Entry, case: Case) -> tuple[int, int]:
    """Return the bytes of a fresh process, and those that the case adds at its peak."""
    contestant = start(entry)
    try:
        before = contestant.peak_memory()
        contestant.load(case)
        contestant.time(0)
        return before, contestant.peak_memory() - before
    finally:
        contestant.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_case_arguments(parser, GRID)
    parser.add_argument("--engines", nargs="+", default=["rnncore", "torch"], metavar="ENGINE")
    args = parser.parse_args()
    entries = [Entry.parse(engine) for engine in args.engines]
    rows, idle = [], {}
    for case in chosen_cases(args):
        added = []
        for entry in entries:
            idle[str(entry)], more = used(entry, case)
            added.append(f"{more / MEBI:.1f}")
        rows.append([f"{case.cell}, {case.mode}, {case.shape}", *added])
    head = [f"{name} (MiB above {size / MEBI:.0f})" for name, size in idle.items()]
    print(table(["case", *head], rows))


if __name__ == "__main__":
    main()
