"""A child process that runs one input after the other, each within limits on time and memory."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Makes an input, with a file at the path if it has one, and returns what tries it.
Prepare = Callable[[random.Random, Path], Callable[[], Any]]

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Target:
    """What is tried, and which errors its documentation names."""

    name: str
    prepare: Prepare
    documented: tuple[type[BaseException], ...]
    #: How the file's name ends, where an input is a file.
    suffix: str = ""
    #: How often it is tried, beside the others.
    share: float = 1.0
    seconds: float = 20.0
    #: The memory that an input may take: these bytes, and so many for each byte of its file.
    memory: int = 64 * MEGABYTE
    memory_per_byte: int = 100
    #: Whether an input may ask for more than that, as a shape can, and is refused for it.
    may_ask: bool = False

    def luck(self, seed: int, number: int) -> random.Random:
        """The one source of all that is random about an input."""
        return random.Random(f"{seed} {self.name} {number}")


class Child:
    """Runs inputs of one target and writes what it finds as lines of JSON.

    `shared` is seen by the parent: the number of the present input, and how many were accepted and
    how many refused. A signal leaves a traceback in `crash`.
    """

    def __init__(self, target: Target, seed: int, folder: Path, shared: Any, report: int) -> None:
        self.target, self.seed, self.folder, self.shared = target, seed, folder, shared
        self.report = report

    def run(self, numbers: Iterable[int], crash: Any, until: Callable[[], bool]) -> None:
        """Try these inputs, until it is time."""
        silence()
        faulthandler.enable(crash, all_threads=False)
        faulthandler.register(signal.SIGALRM, crash, all_threads=False, chain=True)
        for number in numbers:
            if until():
                break
            self.shared[0] = number
            found = attempt(self.target, self.seed, number, self.folder)
            if isinstance(found, bool):
                self.shared[1 if found else 2] += 1
            else:
                os.write(self.report, json.dumps(found | {"number": number}).encode() + b"\n")


def attempt(target: Target, seed: int, number: int, folder: Path) -> bool | dict[str, str]:
    """Try one input; return whether it was accepted, or what is wrong."""
    path = folder / f"{number}{target.suffix}"
    action = target.prepare(target.luck(seed, number), path)
    size = path.stat().st_size if path.is_file() else 0
    try:
        with Limits(target.memory + target.memory_per_byte * size, target.seconds):
            action()
        return True
    except BaseException as error:
        if isinstance(error, target.documented + (MemoryError,) * target.may_ask):
            return False
        return described(error)
    finally:
        path.unlink(missing_ok=True)


def described(error: BaseException) -> dict[str, str]:
    """The kind of an error, the innermost place that it came from, and all of it."""
    cause = error.__cause__ if isinstance(error, AssertionError) else None
    frames = traceback.extract_tb((cause or error).__traceback__)
    last = frames[-1] if frames else None
    where = f"{Path(last.filename).name}:{last.lineno} {last.name}" if last else ""
    text = "".join(traceback.format_exception(error))
    return {"kind": type(error).__name__, "where": where, "text": text[-6000:]}


class Limits:
    """A limit on the memory taken from here on, and an alarm that ends the process."""

    def __init__(self, memory: int, seconds: float) -> None:
        self.memory, self.seconds = memory, seconds

    def __enter__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + self.memory
        _, self.hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, self.hard))
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)  # see `hostile.ask_for_much`
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (self.hard, self.hard))


def silence() -> None:
    """Write to nowhere what is printed, by libraries in C as well."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
