"""What a call needs of memory beyond what is there before it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Makes inputs, and returns the call to be measured on them.
Prepare = Callable[..., Callable[[], Any]]


def peak_of(pid: int | str) -> int:
    """Return the bytes that a process has had at most since its program started (Linux only)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_memory() -> int:
    """Return the bytes that this process has had at most, 0 where that cannot be told."""
    with suppress(OSError, LookupError):
        return peak_of("self")
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def added_at_peak(prepare: Prepare, *arguments: Any) -> int:
    """Return the bytes by which `prepare(*arguments)()` raises the peak of a process of its own.

    `prepare` is a function of a module: the process, which starts from nothing, imports it.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, prepare, *arguments))
    process.start()
    theirs.close()
    try:
        found: int = ours.recv()
    except EOFError:
        raise RuntimeError(f"{prepare.__name__} ended its process: see above") from None
    finally:
        process.join()
    return found


def _forget_peak() -> None:
    """Let the peak be what is there now, where the system can: importing may have taken more."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _measure(to: Connection, prepare: Prepare, *arguments: Any) -> None:
    call = prepare(*arguments)
    _forget_peak()
    before = peak_memory()
    call()
    to.send(peak_memory() - before)
