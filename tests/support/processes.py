"""Fresh interpreters: for what can only be seen there, and for what might hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

#: For tests of limits: with a sanitizer (`tests/sanitizers/run`) memory has a shadow for which a
#: limit on addresses leaves no room, and a call takes some twenty times as long.
not_sanitized = pytest.mark.skipif(
    "san.so" in os.environ.get("LD_PRELOAD", ""), reason="limits do not hold under a sanitizer"
)


def run_python(*args: str, timeout: float = 300, **environment: str) -> str:
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
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *args],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the children that it forked
        output, complaints = process.communicate()
        raise AssertionError(f"hung for {timeout} s\n{output}\n{complaints}") from None
    assert process.returncode == 0, f"exit code {process.returncode}\n{output}\n{complaints}"
    return output
