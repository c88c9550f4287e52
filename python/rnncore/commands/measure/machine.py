"""What one core can do at most, measured: its multiply-adds, and how fast its caches can be read.

That takes a C++ compiler (`CXX`, else `c++`, `g++` or `clang++`), for a few lines built on demand.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...compiled import info
from .cases import GATES, Case

SOURCE = Path(__file__).with_name("machine.cpp")
#: A limit is the best of many bursts, each too short (seconds) to be interrupted every time.
BURST = 1e-3
_ARCH = {f"v{n}": f"-march=x86-64-v{n}" for n in (2, 3, 4)} | {"native": "-march=native"}


def compiler() -> str | None:
    """Return the C++ compiler, if there is one."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def cache_sizes() -> dict[str, int]:
    """Bytes of each data cache of a core, as far as the system says; else typical ones."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            sizes[f"L{level}"] = int(size.removesuffix("K")) * 1024
    return sizes or {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


class Machine:
    """The core that this runs on, at the instruction set that the kernels use."""

    def __init__(self) -> None:
        cxx = compiler()
        if cxx is None:
            raise ImportError("measuring the machine takes a C++ compiler: none was found")
        arch = _ARCH.get(info()["instruction_set"])
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "machine.so"
            flags = ["-O3", "-std=c++17", "-shared", "-fPIC", *([arch] if arch else [])]
            subprocess.run([cxx, *flags, str(SOURCE), "-o", str(library)], check=True)
            self._library = ctypes.CDLL(str(library))

    def peak(self, dtype: str, seconds: float) -> float:
        """Floating point operations per second, all of them multiply-adds in registers."""
        function = getattr(self._library, f"multiply_add_{dtype}")
        operations = ctypes.c_double()

        def burst(rounds: int) -> float:
            function(ctypes.c_ssize_t(rounds), ctypes.byref(operations))
            return operations.value

        return _best_rate(burst, seconds)

    def bandwidth(self, size: int, seconds: float) -> float:
        """Bytes per second at which data of about `size` bytes can be read again and again."""
        vectors = 8 * 64  # bytes that the loop takes at a time
        size = -(-size // vectors) * vectors
        buffer = np.ones(size + 64, np.uint8)
        start = ctypes.c_void_p(-(-buffer.ctypes.data // 64) * 64)

        def burst(rounds: int) -> float:
            self._library.read_bytes(start, ctypes.c_ssize_t(size), ctypes.c_ssize_t(rounds))
            return float(rounds * size)

        return _best_rate(burst, seconds)

    def least_time(self, case: Case, seconds: float) -> float:
        """Return the time for a case if each product ran at its own roof.

        The roof of a product is the multiply-add peak or, where fewer rows share what is read of a
        weight, the bandwidth of the cache that holds it. Products with the inputs and for the
        weights' gradients take all steps at once; those with the recurrent weights take a step.
        """
        shape, size = case.shape, np.dtype(case.dtype).itemsize
        peak = self.peak(case.dtype, seconds / 2)

        def product(width: int, passes: int) -> float:
            weights = GATES[case.cell] * shape.hidden * width
            bandwidth = self.bandwidth(weights * size, seconds / 2)
            return max(2 * weights * shape.rows / peak, passes * weights * size / bandwidth)

        recurrent, inputs = product(shape.hidden, shape.steps), product(shape.inputs, 1)
        if not case.training:
            return recurrent + inputs
        gradient = 2 * GATES[case.cell] * shape.hidden * shape.hidden * shape.rows / peak
        return 2 * recurrent + gradient + 3 * inputs


def _best_rate(burst: Callable[[int], float], seconds: float) -> float:
    """Return the highest amount per second that `burst(rounds)` gets done."""

    def clock(rounds: int) -> tuple[float, float]:
        started = time.perf_counter()
        amount = burst(rounds)
        return amount, time.perf_counter() - started

    rounds = 1
    while clock(rounds)[1] < BURST / 2:
        rounds *= 2
    done = (clock(rounds) for _ in range(max(1, round(seconds / BURST))))
    return max(amount / took for amount, took in done)
