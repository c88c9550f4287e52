"""What a step costs: a stream from Python and without it, a call, a step within a sequence.

python benchmarks/streams.py --size 32

Beside them stands a loop with all sizes known to the compiler, RTNeural's technique
(`streams_fixed.cpp`, built when it is needed). One row, float32, one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rnncore
from rnncore.commands.measure.machine import compiler
from rnncore.commands.measure.report import table
from rnncore.commands.measure.timing import time_call

SOURCE = Path(__file__).with_name("streams_fixed.cpp")
STEPS = 128
CELLS = {"lstm": rnncore.LSTM, "gru": rnncore.GRU}


def fixed_sizes(size: int) -> ctypes.CDLL | None:
    """Return the loops with this size compiled in, or None where there is no compiler."""
    cxx = compiler()
    if cxx is None:
        return None
    flags = ["-O3", "-march=native", "-ffast-math", "-std=c++17", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "streams_fixed.so"
        subprocess.run([cxx, *flags, f"-DSIZE={size}", str(SOURCE), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def fixed_run(
    library: ctypes.CDLL, cell: str, layer: rnncore.Module, x: np.ndarray
) -> Callable[[], Any]:
    """Return a call that takes all steps of x `(STEPS, 1, size)`, checked against the layer."""
    y = np.empty_like(x)
    weights = (ctypes.c_void_p * 4)(*(p.ctypes.data for p in layer.params.values()))
    function, steps = getattr(library, cell), ctypes.c_ssize_t(len(x))

    def run() -> np.ndarray:
        function(weights, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), steps)
        return y

    np.testing.assert_allclose(run(), layer(x)[0], atol=1e-5)
    return run


def entries(cell: str, size: int, fixed: ctypes.CDLL | None) -> dict[str, tuple[Any, int]]:
    """What is timed, by name: a call, and how many steps it takes."""
    layer = CELLS[cell](size, size, seed=0)
    x = np.random.default_rng(0).standard_normal((STEPS, 1, size), dtype=np.float32)
    one, frame, out = x[:1].copy(), x[0].copy(), np.empty((1, size), np.float32)
    _, state = layer(one)
    stream, other, third = layer.stream(), layer.stream(), layer.stream()
    found = {
        "stream.step(x, out)": (lambda: stream.step(frame, out), 1),
        "stream.step(x)": (lambda: other.step(frame), 1),
        "the same without Python": (lambda: third.repeat(frame, STEPS), STEPS),
        f"{cell}(x, state), one step": (lambda: layer(one, state), 1),
        f"{cell}(x), {STEPS} steps": (lambda: layer(x), STEPS),
    }
    if fixed:
        found["sizes compiled in, C++"] = fixed_run(fixed, cell, layer, x), STEPS
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="of input and state (default: 32)")
    parser.add_argument("--rounds", type=int, default=9, help="the median of so many counts")
    args = parser.parse_args()
    rnncore.set_num_threads(1)
    fixed, rows = fixed_sizes(args.size), []
    for cell in CELLS:
        works = entries(cell, args.size, fixed)
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(args.rounds):  # in turns: what slows the machine slows them all
            for name, (work, steps) in works.items():
                times[name].append(time_call(work) / steps)
        rows += [
            [cell, name, f"{median(t) * 1e9:.0f}", f"{min(t) * 1e9:.0f}"]
            for name, t in times.items()
        ]
    print(table(["cell", "what", "ns a step", "at best"], rows))
    names = ("step", "step_new", "step_cpp", "call", "sequence", "fixed")
    keys = [f"{cell}_{name}" for cell in CELLS for name in names[: len(rows) // len(CELLS)]]
    print("result:", " ".join(f"{key}={row[2]}" for key, row in zip(keys, rows, strict=True)))


if __name__ == "__main__":
    main()
