"""Models in the worker processes of joblib, Dask, Spark and their like."""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

from .module import load

_held: dict[str, tuple[tuple[int, int], Any]] = {}
_lock = Lock()


def load_once(path: str | os.PathLike[str]) -> Any:
    """Return the module that `Module.save` wrote, the same one at every call in this process.

    For functions that workers run again and again: they get the path, and each process reads the
    file once, or anew when it has been replaced. The module is for inference: whoever trains or
    changes it changes it for all. Raises what `load` raises.
    """
    name, status = os.path.abspath(path), os.stat(path)
    stamp = status.st_mtime_ns, status.st_size
    with _lock:
        if name not in _held or _held[name][0] != stamp:
            _held[name] = stamp, load(path)
        return _held[name][1]
