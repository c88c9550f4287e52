"""Engines in processes of their own, taking turns on the same case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...arrays import Array
from .cases import WEIGHTS, Case
from .engines import Unsupported
from .peak import peak_of
from .timing import SECONDS

#: Everybody's way to be told how many threads.
_THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "RNNCORE")
#: Everybody's way to be held to an instruction set.
_LEVELS = {
    "v2": {
        "RNNCORE_ISA": "v2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "v3": {
        "RNNCORE_ISA": "v3",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}


@dataclass(frozen=True)
class Entry:
    """An engine and how it is run, written with colons: "rnncore:2:float64", "numpy:Haswell".

    A number is how many threads; v2 or v3 an instruction set to be held to; int8,
    int8_per_channel or bfloat16 what weights are held in; anything else the kind of processor whose
    kernels OpenBLAS shall use.
    """

    engine: str
    threads: int = 1
    dtype: str = "float32"
    level: str | None = None
    blas: str | None = None
    weights: str | None = None

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read an entry as it is written."""
        engine, *options = text.split(":")
        entry = cls(engine)
        for option in options:
            if option.isdigit() and int(option):
                entry = replace(entry, threads=int(option))
            elif option in ("float32", "float64"):
                entry = replace(entry, dtype=option)
            elif option in _LEVELS:
                entry = replace(entry, level=option)
            elif option in WEIGHTS:
                entry = replace(entry, weights=option)
            else:
                entry = replace(entry, blas=option)
        return entry

    def __str__(self) -> str:
        threads = str(self.threads) if self.threads > 1 else None
        dtype = self.dtype if self.dtype != "float32" else None
        options = (threads, dtype, self.weights, self.level, self.blas)
        return ":".join([self.engine, *(option for option in options if option)])

    def environment(self) -> dict[str, str]:
        """Return the variables that make it so."""
        blas = {"OPENBLAS_CORETYPE": self.blas} if self.blas else {}
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in _THREADS}
        return {**os.environ, **threads, **_LEVELS.get(self.level or "", {}), **blas}

    def cores(self) -> set[int]:
        """Return the cores it is held to: the last ones that this process may use."""
        if not hasattr(os, "sched_getaffinity"):
            return set()
        return set(sorted(os.sched_getaffinity(0))[-self.threads :])


class Contestant:
    """An entry's process. It is asked in lines of text and answers each with one."""

    def __init__(self, entry: Entry, command: Sequence[str] = ()) -> None:
        self.entry = entry
        command = command or [sys.executable, "-m", "rnncore.commands.measure.serve", entry.engine]
        with _pinned(entry.cores()):
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=entry.environment(),
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._questions, self._answers = self.process.stdin, self.process.stdout
        try:
            self.about = self.ask("about")
        except BaseException:
            self.close()
            raise

    def ask(self, *words: object) -> str:
        """Return the answer; raises what the process complains about.

        Between questions the process stands still: threads that spin while they wait for more work
        would take the others' time.
        """
        self._signal("SIGCONT")
        try:
            print(*words, file=self._questions, flush=True)
            answer = self._answers.readline().strip()
        except BrokenPipeError:
            answer = ""
        self._signal("SIGSTOP")
        kind, _, text = answer.partition(" ")
        if kind == "ok":
            return text
        if kind == "unsupported":
            raise Unsupported(f"{self.entry}: {text}")
        raise RuntimeError(f"{self.entry}: {text or f'its process died at {words[0]!r}'}")

    def load(self, case: Case) -> None:
        """Make a case ready; raises `Unsupported`."""
        self.ask("case", replace(case, dtype=self.entry.dtype, weights=self.entry.weights or ""))

    def time(self, seconds: float = SECONDS) -> float:
        """Seconds that a call takes, measured for about so long."""
        return float(self.ask("time", seconds))

    def results(self) -> dict[str, Array]:
        """Return what the case comes to, by name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.npz"
            self.ask("save", path)
            with np.load(path) as file:
                return dict(file)

    def peak_memory(self) -> int:
        """Bytes of memory it has used at most since its start (Linux only)."""
        return peak_of(self.process.pid)

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows
            self.process.send_signal(getattr(signal, name))

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        with suppress(BrokenPipeError):  # what a process that died has not read
            self._questions.close()
        self._answers.close()
        self.process.wait()


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Start what is started in here on these cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def contest(
    entries: Sequence[Entry], start: Callable[[Entry], Contestant] = Contestant
) -> Iterator[list[Contestant]]:
    """Start a process for each entry, and end them."""
    started: list[Contestant] = []
    try:
        for entry in entries:
            started.append(start(entry))
        yield started
    finally:
        for contestant in started:
            contestant.close()


def compete(
    case: Case, contestants: Sequence[Contestant], rounds: int, seconds: float = SECONDS
) -> dict[str, list[float]]:
    """Time a case `rounds` times, each time with everybody in turn who can do it."""
    ready = []
    for contestant in contestants:
        try:
            contestant.load(case)
            ready.append(contestant)
        except Unsupported:
            continue
    times: dict[str, list[float]] = {str(contestant.entry): [] for contestant in ready}
    for _ in range(rounds):
        for contestant in ready:
            times[str(contestant.entry)].append(contestant.time(seconds))
    return times
