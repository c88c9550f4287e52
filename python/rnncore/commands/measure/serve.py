"""An engine as a process: `python -m rnncore.commands.measure.serve ENGINE`.

    about           what it is
    case CASE       make a case ready, and run it once
    time SECONDS    the time a call takes
    save FILE       write its results by name (npz)

Each line is answered with one: `ok ...`, `unsupported ...` or `error ...`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import Case
from .engines import ENGINES, Unsupported, Work


def answer(engine: Any, parse: Callable[[str], Any] = Case.parse) -> None:
    """Answer until the questions end; `parse` reads a case as it is written."""
    work = None
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        try:
            if verb == "about":
                said = engine.about()
            elif verb == "case":
                work = None  # before the next one is made
                work = engine.prepare(parse(rest))
                work.run()
                said = "ready"
            else:
                said = _of_case(work, verb, rest)
            print("ok", said, flush=True)
        except Unsupported as error:
            print("unsupported", error, flush=True)
        except Exception as error:  # reported to who asked
            print("error", f"{type(error).__name__}:", " ".join(str(error).split()), flush=True)


def _of_case(work: Work | None, verb: str, rest: str) -> str:
    if work is None:
        raise RuntimeError("no case is ready")
    if verb == "time":
        return repr(work.time(float(rest)))
    if verb == "save":
        np.savez(rest, **work.results())  # type: ignore[arg-type]
        return "saved"
    raise RuntimeError(f"no such question: {verb}")


if __name__ == "__main__":
    answer(ENGINES[sys.argv[1]]())
