"""Ranks of torch.distributed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np

from ..arrays import Array, check_number
from .collective import Collective, RankLost


class TorchCollective(Collective):
    """The ranks of a process group of torch.distributed, the default group if None is given.

        torchrun --nproc-per-node 4 train.py     # calls init_process_group("gloo") of it

    Arrays are exchanged where they lie, on the CPU: by the backend "gloo", or "mpi". A rank that
    has died raises `RankLost` on all others when they next exchange, one that does not come to an
    exchange does so after `timeout` seconds. Its `ranks` are those that do not say in the group's
    store that they have noticed, within so many seconds again; none if the store has died.
    """

    overlaps = True

    def __init__(self, group: Any = None, timeout: float = 60.0) -> None:
        import torch.distributed

        if not torch.distributed.is_initialized():
            raise RuntimeError('call torch.distributed.init_process_group("gloo") before')
        if not check_number("timeout", timeout) > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        self._torch, self._group, self.timeout = torch, group, float(timeout)
        self.rank, self.size = (
            torch.distributed.get_rank(group),
            torch.distributed.get_world_size(group),
        )

    def allgather(self, array: Array) -> Array:
        """Return the arrays of all ranks `(size, ...)`."""
        mine = np.asarray(array, order="C")
        found = np.empty((self.size, *mine.shape), mine.dtype)
        rows = list(self._bytes(found).chunk(self.size))
        gather = self._torch.distributed.all_gather
        self._exchange(lambda: gather(rows, self._bytes(mine), self._group, True))
        return found

    def alltoall(self, array: Array) -> Array:
        """Return what all ranks have for this one: entry r of `(size, ...)` goes to rank r."""
        mine = np.asarray(array, order="C")
        found = np.empty_like(mine)
        send = self._torch.distributed.all_to_all_single
        self._exchange(
            lambda: send(self._bytes(found), self._bytes(mine), group=self._group, async_op=True)
        )
        return found

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Return the array of one rank."""
        found = np.array(array, order="C")
        send = self._torch.distributed.broadcast
        self._exchange(
            lambda: send(self._bytes(found), group=self._group, async_op=True, group_src=root)
        )
        return found

    def _bytes(self, array: Array) -> Any:
        """A tensor over the memory of an array, whatever its dtype."""
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))

    def _exchange(self, begin: Callable[[], Any]) -> None:
        try:
            begin().wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            missing = self._missing()
            names = f"rank {', '.join(map(str, missing))}" if missing else "a rank"
            raise RankLost(
                f"{names} does not answer rank {self.rank} of {self.size}: {error}. Resume from "
                "the last checkpoint, with any number of ranks",
                missing,
            ) from error

    def _missing(self) -> list[int]:
        """The ranks that do not say in the store that they have noticed, too; none if it is gone.

        (Gloo closes the connections to all ranks when that to one breaks.)
        """
        store: Any = self._torch.distributed.distributed_c10d._get_default_store()
        missing = set(range(self.size)) - {self.rank}
        try:
            store.set(f"rnncore/noticed/{self.rank}", "1")
            until = time.monotonic() + self.timeout
            while len(missing) > 1 and time.monotonic() < until:
                missing = {r for r in missing if not store.check([f"rnncore/noticed/{r}"])}
                time.sleep(0.01)
        except RuntimeError:
            return []
        return sorted(missing)
