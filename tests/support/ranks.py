"""Ranks that are threads of one process: what a collective must do, without an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from rnncore.distributed import Collective


class Threads(Collective):
    """One of `size` ranks; `room` is where all of them put their arrays."""

    def __init__(self, rank: int, size: int, room: dict[int, Any], barrier: Any) -> None:
        self.rank, self.size = rank, size
        self._room, self._barrier = room, barrier
        #: How many numbers were given away, for those who count.
        self.sent = 0

    def allgather(self, array):
        self._room[self.rank] = np.array(array)
        self._barrier.wait()
        every = [self._room[rank] for rank in range(self.size)]
        shapes = {(one.shape, one.dtype) for one in every}
        self._barrier.wait()
        assert len(shapes) == 1, f"ranks exchange arrays of several shapes: {shapes}"
        self.sent += np.size(array) * (self.size - 1)
        return np.stack(every)

    def alltoall(self, array):
        before = self.sent
        found = super().alltoall(array)
        self.sent = before + np.size(array) // self.size * (self.size - 1)
        return found


def on_ranks(size: int, function: Callable[[Threads], Any]) -> list[Any]:
    """Run a function on so many ranks; return what each returns, or the error that it raised."""
    room: dict[int, Any] = {}
    barrier = threading.Barrier(size, timeout=60)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = function(Threads(rank, size, room, barrier))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def all_of(size: int, function: Callable[[Threads], Any]) -> list[Any]:
    """Run a function on so many ranks, of which none may raise."""
    found = on_ranks(size, function)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found
