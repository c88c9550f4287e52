"""How many threads a call may use.

The number comes from `set_num_threads`, else from the environment variable `RNNCORE_NUM_THREADS` as
it was at import, else from `OMP_NUM_THREADS`, else from the processors this process may run on, as
many of them as a container's CPU quota is worth (control groups of both versions, rounded up).
Results are the same to the bit for any number. Where `threadpoolctl` is installed, its limits hold
for rnncore as well.
"""

from __future__ import annotations

from . import compiled
from .arrays import check_size

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """Return the most threads that one call uses, the calling one among them."""
    return compiled.num_threads()


def set_num_threads(n: int) -> None:
    """Let every later call, from any thread, use up to `n` threads, the calling one among them.

    Small calls use fewer. Raises `ValueError` if n is below 1 and `TypeError` if it is not a whole
    number.
    """
    compiled.set_num_threads(check_size("n", n))


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
