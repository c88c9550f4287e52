"""How many threads a call may use, and how long they wait for the next one.

The number comes from `set_num_threads`, else from the environment variable `RNNCORE_NUM_THREADS` as
it was at import, else from `OMP_NUM_THREADS`, else from the processors this process may run on, as
many of them as a container's CPU quota is worth (control groups of both versions, rounded up).
Results are the same to the bit for any number. Where `threadpoolctl` is installed, its limits hold
for rnncore as well.

Between calls the threads sleep and use no processor. Before that each waits for the next call for
the spin time, on a processor: `set_spin_time`, else `RNNCORE_SPIN_TIME` as it was at import, in
seconds, else half a millisecond. The calling thread waits for the others within a call alone.
"""

from __future__ import annotations

from . import compiled
from .arrays import check_number, check_size

__all__ = ["get_num_threads", "get_spin_time", "set_num_threads", "set_spin_time"]


def get_num_threads() -> int:
    """Return the most threads that one call uses, the calling one among them."""
    return compiled.num_threads()


def set_num_threads(n: int) -> None:
    """Let every later call, from any thread, use up to `n` threads, the calling one among them.

    Small calls use fewer. Raises `ValueError` if n is below 1 and `TypeError` if it is not a whole
    number.
    """
    compiled.set_num_threads(check_size("n", n))


def get_spin_time() -> float:
    """Return for how many seconds a thread waits on a processor for the next call."""
    return compiled.spin_time() / 1e9


def set_spin_time(seconds: float) -> None:
    """Let threads of the pool wait for so many seconds, and then sleep, from now on.

    At 0 they sleep at once: a call then wakes them, which takes some microseconds. The more, the
    sooner does a call begin that comes within this time, and the more processor time is spent
    waiting. Raises `ValueError` if it is not in 0..86400 and `TypeError` if it is not a number.
    """
    if not 0 <= check_number("seconds", seconds) <= 86400:
        raise ValueError(f"seconds must be in 0..86400, got {seconds}")
    compiled.set_spin_time(round(float(seconds) * 1e9))


def _register() -> None:
    """Tell threadpoolctl about the compiled library, which it then finds by its symbols."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:  # not installed, or before 3.2
        return

    class Controller(LibController):  # type: ignore[misc]
        user_api = internal_api = "rnncore"
        filename_prefixes = ("_core",)
        check_symbols = ("rnncore_get_num_threads", "rnncore_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.rnncore_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.rnncore_set_num_threads(num_threads)

        def get_version(self) -> str:
            return str(compiled.info()["version"])

    register(Controller)


_register()
