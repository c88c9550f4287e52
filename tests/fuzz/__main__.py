"""Try files and calls that nobody would make on purpose, and say what goes wrong.

    python -m tests.fuzz                           every target, a minute
    python -m tests.fuzz --inputs 100000 --seconds 3600
    python -m tests.fuzz --targets keras --seed 0 --number 17      one input again, with its error

Right is: the input is accepted, or refused with an error that the documentation names, within
limits on memory and time. All else is a finding: a signal, a hang, another error, a peak of memory
beyond the budget, a damaged file's error that does not name the file in one line, a result that
depends on how an array lies in memory. An input is known by target, seed and number.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

# One thread of the BLAS: its arenas are no part of what an input takes. And forks are simple.
os.environ.update(OPENBLAS_NUM_THREADS="1", RNNCORE_NUM_THREADS="2", MALLOC_ARENA_MAX="1")

import numpy as np

from .child import Child, Target, attempt

#: How many inputs one child runs before another takes its place.
ROUND = 2000


@dataclass
class Finding:
    """What went wrong in one way, and the first input that did."""

    target: str
    kind: str
    where: str
    number: int
    text: str
    times: int = 1


@dataclass
class Record:
    """What was found, one entry for each target, kind and place; and the counts of a target."""

    seed: int
    keep: Path | None
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    def add(self, target: Target, kind: str, where: str, number: int, text: str) -> None:
        """Note a finding; the first of its kind is printed and its file kept."""
        key = (target.name, kind, where)
        if key in self.findings:
            self.findings[key].times += 1
            return
        self.findings[key] = found = Finding(target.name, kind, where, number, text)
        print(f"FOUND {found.target}: {kind} at {where}\n  {self.command(found)}", flush=True)
        if self.keep is not None:
            self._keep(target, found)

    def command(self, found: Finding) -> str:
        """The line that tries an input again."""
        return (
            f"python -m tests.fuzz --targets {found.target} "
            f"--seed {self.seed} --number {found.number}"
        )

    def _keep(self, target: Target, found: Finding) -> None:
        assert self.keep is not None
        self.keep.mkdir(parents=True, exist_ok=True)
        path = self.keep / f"{found.target}-{self.seed}-{found.number}{target.suffix}"
        Path(f"{path}.txt").write_text(f"{self.command(found)}\n{found.kind}\n{found.text}\n")
        if target.suffix:
            target.prepare(target.luck(self.seed, found.number), path)


def run(target: Target, inputs: int, deadline: float, record: Record) -> Counter[str]:
    """Try inputs of one target in children, as many as there is time for."""
    shared = np.frombuffer(mmap.mmap(-1, 24), np.int64)
    first = 0
    while first < inputs and time.monotonic() < deadline:
        numbers = range(first, min(first + ROUND, inputs))
        first = _round(target, numbers, deadline, record, shared)
    return Counter(accepted=int(shared[1]), refused=int(shared[2]))


def _round(
    target: Target, numbers: range, deadline: float, record: Record, shared: np.ndarray
) -> int:
    """Run some inputs in one child; return the number to go on with."""
    reads, writes = os.pipe()
    with tempfile.TemporaryFile("w+") as crash, tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which wait
            pid = os.fork()
        if not pid:
            _in_child(target, numbers, deadline, record.seed, Path(folder), shared, writes, crash)
        os.close(writes)
        with os.fdopen(reads) as lines:
            for line in lines:
                record.add(target, **json.loads(line))
        status = os.waitpid(pid, 0)[1]
        if not status:
            return numbers.stop
        crash.seek(0)
        _add_death(target, status, int(shared[0]), crash.read(), record)
        return int(shared[0]) + 1


def _in_child(
    target: Target,
    numbers: range,
    deadline: float,
    seed: int,
    folder: Path,
    shared: np.ndarray,
    writes: int,
    crash: TextIO,
) -> None:
    status = 1
    try:
        warnings.simplefilter("ignore")
        child = Child(target, seed, folder, shared, writes)
        child.run(numbers, crash, lambda: time.monotonic() > deadline)
        status = 0
    except BaseException:  # of this program
        traceback.print_exc(file=crash)
        crash.flush()
    finally:
        os._exit(status)


def _add_death(target: Target, status: int, number: int, text: str, record: Record) -> None:
    """Note a child that ended before its inputs did."""
    code = os.waitstatus_to_exitcode(status)
    kind = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    if kind == "SIGALRM":
        kind = f"hang of {target.seconds:g} s"
    found = re.search(r'File ".*?([^/"]+)", line (\d+) in (\S+)', text)
    record.add(target, kind, "{}:{} {}".format(*found.groups()) if found else "", number, text)


def again(target: Target, seed: int, number: int) -> int:
    """Try one input in this process, and print what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        found = attempt(target, seed, number, Path(folder))
    print(found["text"].rstrip() if isinstance(found, dict) else "accepted" if found else "refused")
    return int(isinstance(found, dict))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--inputs", type=int, default=10**9, help="how many in all, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long, at most (60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="", help="names, with commas between (all)")
    parser.add_argument("--number", type=int, help="try this input alone, in this process")
    parser.add_argument("--keep", type=Path, help="a folder for what is found")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, targets: Sequence[Target] | None = None) -> int:
    args = parsed(argv)
    if targets is None:
        from . import targets_calls, targets_commands, targets_files

        kinds = (targets_files, targets_commands, targets_calls)
        targets = [target for kind in kinds for target in kind.targets()]
    named = {target.name: target for target in targets}
    chosen = [named[name] for name in args.targets.split(",")] if args.targets else [*targets]
    if args.number is not None:
        return again(chosen[0], args.seed, args.number)
    record, left = Record(args.seed, args.keep), sum(target.share for target in chosen)
    inputs, end = args.inputs, time.monotonic() + args.seconds
    for target in chosen:  # what one leaves over of its time goes to those after it
        started, part = time.monotonic(), target.share / left
        count = run(target, round(inputs * part), started + (end - started) * part, record)
        inputs, left = inputs - round(inputs * part), left - target.share
        seconds = time.monotonic() - started
        print(
            f"{target.name:15} {count['accepted']:7,} accepted {count['refused']:7,} refused "
            f"{seconds:6.1f} s",
            flush=True,
        )
    for found in record.findings.values():
        print(f"{found.times:6} times {found.target}: {found.kind} at {found.where}")
        print(f"       {record.command(found)}")
    print(f"{len(record.findings)} findings")
    return int(bool(record.findings))


if __name__ == "__main__":
    sys.exit(main())
