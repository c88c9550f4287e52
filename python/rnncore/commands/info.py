"""Show the version, the instruction set, the threads and the build."""

from __future__ import annotations

import argparse
import platform

import numpy as np

from .. import compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: there are none."""


def run(args: argparse.Namespace) -> None:
    """Print one `name: value` per line."""
    facts = {
        **compiled.info(),
        "threads": compiled.num_threads(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "numpy": f"{np.__version__} ({_blas()})",
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{name + ':':{width}} {shown}")


def _blas() -> str:
    """Which BLAS NumPy was built with: the baseline of every comparison with NumPy."""
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (TypeError, KeyError):  # NumPy before 1.25 has no such mode
        return "BLAS unknown"
