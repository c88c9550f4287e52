"""Saves that are killed, and saves that are interrupted, at random moments.

    python tests/fuzz/saves.py --kills 1000 --interrupts 1000

After each kill (SIGKILL) the file is the one before or the one after, whole, and after one more
save nothing else lies in its folder. An interrupt (a signal whose handler raises KeyboardInterrupt)
is always a KeyboardInterrupt, and leaves neither files nor open descriptors. Prints what was found;
the exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rnncore.arrays import write_atomic

#: Two contents of one size, neither of them a part of the other.
SIZE = 1 << 20
CONTENTS = [bytes([letter]) * SIZE for letter in b"ab"]

CHILD = """
import sys
from rnncore.arrays import write_atomic
contents = [bytes([letter]) * int(sys.argv[2]) for letter in b"ab"]
print("ready", flush=True)
while True:
    for content in contents:
        write_atomic(sys.argv[1], content)
"""


def fault(path: Path) -> str | None:
    """Say what is wrong with the file, if anything is."""
    return None if path.read_bytes() in CONTENTS else f"{path} is torn"


def killed(count: int, folder: Path, rng: random.Random) -> list[str]:
    """Kill so many saving processes."""
    path, faults = folder / "model", []
    write_atomic(path, CONTENTS[0])
    for _ in range(count):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(SIZE)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.random() * 0.02)
            child.kill()
        if wrong := fault(path):
            faults.append(wrong)
    left = len(os.listdir(folder)) - 1
    print(f"{count} saves killed: {left} temporary files left, before the next save")
    write_atomic(path, CONTENTS[1])
    faults += [f"{name} is left over" for name in os.listdir(folder) if name != path.name]
    return faults


def interrupted(count: int, folder: Path, rng: random.Random) -> list[str]:
    """Interrupt so many saves."""
    path, faults = folder / "model", []
    write_atomic(path, CONTENTS[0])
    before, found = os.listdir("/proc/self/fd"), 0

    def strike(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, strike)
    try:
        for _ in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.random() * 0.004 + 1e-5)
                while True:
                    write_atomic(path, CONTENTS[rng.random() < 0.5][: rng.choice((SIZE, 64))])
            except KeyboardInterrupt:
                found += 1
            except BaseException as error:
                faults.append(f"{type(error).__name__}: {error}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if set(path.read_bytes()) not in ({97}, {98}):
                faults.append(f"{path} is torn")
    finally:
        signal.signal(signal.SIGALRM, previous)
    print(f"{count} saves interrupted: {found} KeyboardInterrupt")
    faults += [f"{name} is left over" for name in os.listdir(folder) if name != path.name]
    opened = len(os.listdir("/proc/self/fd")) - len(before)
    return faults + [f"{opened} files are still open"] * (opened > 0)


def main(arguments: list[str] | None = None) -> int:
    """Run both and print what was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    faults = []
    for run, count in ((killed, args.kills), (interrupted, args.interrupts)):
        with tempfile.TemporaryDirectory() as folder:
            faults += run(count, Path(folder), random.Random(args.seed))
    print(*faults or ["nothing was wrong"], sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
