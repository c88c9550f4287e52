"""Runs a program as one rank of MPI, and names the rank when it dies.

    mpiexec -n 4 python -m rnncore.distributed train.py --epochs 3

The program runs in a process of its own, by `python -m mpi4py`, so that an error ends the job. When
it has died, by a signal or for want of memory, this one says which rank it was and ends with an
error, upon which mpiexec ends the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

#: Where launchers say which rank a process is.
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "SLURM_PROCID")


def main(arguments: list[str]) -> int:
    """Run a program with its arguments; return its code, or 128 and the signal that ended it."""
    if not arguments:
        raise SystemExit(f"usage: mpiexec -n RANKS {sys.executable} -m rnncore.distributed FILE")
    # The launcher's connection, a file that is open here, must be so there.
    with subprocess.Popen(
        [sys.executable, "-m", "mpi4py", *arguments],
        close_fds=False,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    ) as process:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda told, _: process.send_signal(told))
        code = process.wait()
    if code:
        rank = next((os.environ[name] for name in RANKS if name in os.environ), "?")
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        print(f"\nrank {rank} {how} (process {process.pid})", file=sys.stderr, flush=True)
        time.sleep(0.5)  # mpiexec drops what it has not written by then
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    """Have the kernel end this process when the one above it ends: mpiexec knows only that one."""
    import ctypes

    death_signal = 1
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
