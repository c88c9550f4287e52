"""One pool of threads for torch and rnncore."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from ..compiled import use_threads
from ..threads import get_num_threads, set_num_threads

_threads = 0


def follow_threads() -> None:
    """Compute on as many threads as torch does, at first and when it is told another number."""
    global _threads
    count = torch.get_num_threads()
    if count != _threads:
        # Whoever has asked for fewer of ours, before the first call, has them.
        set_num_threads(count if _threads else min(count, get_num_threads()))
        _threads = count


def share_threads() -> bool:
    """Have rnncore compute on the threads of torch's OpenMP; return whether that could be done.

    Both pools wait by spinning for a while: beside each other, on the same cores, each keeps the
    other from working.
    """
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)  # what torch uses, and no other
        except OSError:
            continue
        functions = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        addresses = [ctypes.cast(getattr(library, f), ctypes.c_void_p).value for f in functions]
        use_threads(*(address or 0 for address in addresses))
        return True
    return False
