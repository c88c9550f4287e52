"""Fresh interpreters: for what can only be seen there, and for what might hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(*args: str, timeout: float = 120, **environment: str) -> str:
    """Run Python with warnings as errors and return what it prints; fail with all of it otherwise.

    One argument of several lines is code; others are the interpreter's own arguments. `environment`
    is added to the present one, without what would choose threads or instruction sets.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RNNCORE_ISA", "RNNCORE_NUM_THREADS", "OMP_NUM_THREADS")
    }
    if len(args) == 1:
        args = ("-c", textwrap.dedent(args[0]))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", *args],
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"hung: nothing after {timeout} s\n{late.stderr}") from None
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
