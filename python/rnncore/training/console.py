"""The terminal: text in any encoding, a progress bar, and Ctrl-C that waits for a good moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any


def print_any_text() -> None:
    """Let stdout take every character: in UTF-8 where no terminal reads it and nobody chose.

    Elsewhere an escape stands for a character that the encoding lacks.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        free = not sys.stdout.isatty() and "PYTHONIOENCODING" not in os.environ
        sys.stdout.reconfigure(encoding="utf-8" if free else None, errors="backslashreplace")


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in the list given instead of raising; the second one raises at once.

    Only the main thread hears of Ctrl-C: in another one the list stays empty.
    """
    pressed: list[int] = []

    def note(number: int, _: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


def progress_bar(total: int, initial: int, *, show: bool) -> Any:
    """Make a tqdm bar on stderr; where that is a file, it writes a line every ten seconds only."""
    from tqdm import tqdm  # here, not above: `import rnncore` does not pay for it

    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total,
        initial=initial,
        disable=not show,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=interval,
        maxinterval=interval,
    )
