"""An engine as a process: `python -m rnncore.measure.serve ENGINE`.

    about           what it is
    case CASE       make a case ready, and run it once
    time SECONDS    the time a call takes
    save FILE       write its results by name (npz)

Each line is answered with one: `ok ...`, `unsupported ...` or `error ...`.
"""

from __future__ import annotations

import sys

import numpy as np

from .cases import Case
from .engines import ENGINES, Unsupported, Work


def main() -> None:
    """Answer until the questions end."""
    engine, work = ENGINES[sys.argv[1]](), None
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        try:
            if verb == "about":
                answer = engine.about()
            elif verb == "case":
                work = None  # before the next one is made
                work = engine.prepare(Case.parse(rest))
                work.run()
                answer = "ready"
            else:
                answer = _of_case(work, verb, rest)
            print("ok", answer, flush=True)
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
    main()
