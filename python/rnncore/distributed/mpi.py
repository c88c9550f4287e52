"""Ranks of MPI, by mpi4py."""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import Any

import numpy as np

from ..arrays import Array, check_number
from ..threads import get_num_threads, set_num_threads
from .collective import Collective, RankLost

#: The tag of messages by which ranks say that they are there.
_PRESENT = 1
#: For how long a rank that waits sleeps as shortly as it can, and how long then, in seconds. (To
#: yield and not to sleep leaves two ranks on one processor where another is free.)
_WAKEFUL, _NAP, _SLEEP = 5e-3, 1e-6, 2e-4
#: Bytes a second that exchanges come to at least.
_SLOWEST = 1e8
#: By how many exchanges ranks may be apart: one gets through a broadcast before others have begun.
_APART = 3
#: For how long the ranks that wait are heard, in seconds: they look several thousand times.
_GRACE = 2.0


class MPICollective(Collective):
    """The ranks of an MPI communicator, `mpi4py.MPI.COMM_WORLD` if None is given.

        mpiexec -n 4 python train.py

    When a rank has died, mpiexec ends the others; started by `python -m rnncore.distributed` the
    ranks are named when they die:

        mpiexec -n 4 python -m rnncore.distributed train.py

    A rank that hangs, or whose death nobody sees, is found by the others: one that does not come to
    an exchange within `timeout` seconds is taken for lost, and the others raise `RankLost` that
    names it, some two seconds later; the interpreter's end then aborts the job. So `timeout` must
    be longer than one update or one validation takes.

    Unless RNNCORE_NUM_THREADS or OMP_NUM_THREADS is set, the ranks on one machine share its
    processors: each uses that share of threads. Functions are called by one thread at a time.
    """

    def __init__(self, comm: Any = None, timeout: float = 60.0) -> None:
        from mpi4py import MPI

        if not check_number("timeout", timeout) > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        # Messages of the program itself must not meet these.
        self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self.timeout = float(timeout)
        self.overlaps = MPI.Query_thread() >= MPI.THREAD_SERIALIZED
        self._count = 0
        self._pending: list[Any] = []
        #: At which exchange other ranks have called the roll.
        self._said: dict[int, int] = {}
        _share_threads(self._comm, MPI.COMM_TYPE_SHARED)

    def allgather(self, array: Array) -> Array:
        """Return the arrays of all ranks `(size, ...)`."""
        mine = np.asarray(array, order="C")
        found = np.empty((self.size, *mine.shape), mine.dtype)
        self._wait(self._comm.Iallgather(_bytes(mine), _bytes(found)), mine, found)
        return found

    def alltoall(self, array: Array) -> Array:
        """Return what all ranks have for this one: entry r of `(size, ...)` goes to rank r."""
        mine = np.asarray(array, order="C")
        found = np.empty_like(mine)
        self._wait(self._comm.Ialltoall(_bytes(mine), _bytes(found)), mine, found)
        return found

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Return the array of one rank."""
        found = np.array(array, order="C")
        self._wait(self._comm.Ibcast(_bytes(found), root), found)
        return found

    def barrier(self) -> None:
        """Return when all ranks have come here."""
        self._wait(self._comm.Ibarrier())

    def _wait(self, request: Any, *arrays: Array) -> None:
        """Wait for an exchange, or find out who does not come to it."""
        self._count += 1
        # Memory that MPI may still write to, should waiting end with an error.
        self._pending = [request, *arrays]
        began = time.perf_counter()
        # Bytes move only while MPI is asked: to sleep would make long exchanges longer.
        wakeful = _WAKEFUL + sum(array.nbytes for array in arrays) / _SLOWEST
        while not request.Test():
            waited = time.perf_counter() - began
            if waited < wakeful:
                time.sleep(_NAP)
                continue
            if waited > self.timeout or self._heard():
                self._call_roll(request)
                began = time.perf_counter()
            time.sleep(_SLEEP)
        self._pending = []

    def _heard(self) -> bool:
        """Note who calls the roll at this exchange; return whether somebody does."""
        from mpi4py import MPI

        while self._comm.Iprobe(MPI.ANY_SOURCE, _PRESENT):
            status, at = MPI.Status(), np.empty(1, np.int64)
            self._comm.Recv(at, MPI.ANY_SOURCE, _PRESENT, status)
            self._said[status.Get_source()] = int(at[0])
        return len(self._there()) > 1

    def _there(self) -> set[int]:
        """The ranks that call the roll at this exchange, or at one beside it.

        Of two ranks that wait one may have got through an exchange that the other has not.
        """
        near = {r for r, at in self._said.items() if abs(at - self._count) <= _APART}
        return near | {self.rank}

    def _call_roll(self, request: Any) -> None:
        """Find out who is there; return when all are, or the exchange has come to its end.

        Raises `RankLost` if a rank does not answer. One that still computes has time until then.
        """
        at = np.array([self._count], np.int64)
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._pending += [self._comm.Isend(at, rank, _PRESENT) for rank in others] + [at]
        until = time.perf_counter() + _GRACE
        while time.perf_counter() < until and len(self._there()) < self.size:
            if request.Test():
                return
            self._heard()
            time.sleep(_SLEEP)
        missing = sorted(set(range(self.size)) - self._there())
        if missing and not request.Test():
            self._give_up(missing)
        self._said.clear()

    def _give_up(self, missing: list[int]) -> None:
        atexit.register(self._abort)
        names = ", ".join(map(str, missing))
        said = f"rank {names} does" if len(missing) == 1 else f"ranks {names} do"
        raise RankLost(
            f"{said} not answer rank {self.rank} of {self.size}: died, or computes for longer than "
            f"timeout={self.timeout:g} s. Resume from the last checkpoint, with any number "
            "of ranks",
            missing,
        )

    def _abort(self) -> None:
        """End the job: to finalise MPI would wait for the lost rank."""
        sys.stderr.flush()
        time.sleep(0.5)  # mpiexec then drops what ranks have said and it has not yet written
        self._comm.Abort(1)


def _bytes(array: Array) -> Any:
    """The memory of an array, whatever its dtype."""
    from mpi4py import MPI

    return [array.reshape(-1).view(np.uint8), MPI.BYTE]


def _share_threads(comm: Any, kind: Any) -> None:
    if {"RNNCORE_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
        return
    here = comm.Split_type(kind)
    own = get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        mine = os.sched_getaffinity(0)
        every = set().union(*here.allgather(mine))
        if own >= len(mine):  # no quota: ranks that are bound to processors have some of them all
            own = min(own, len(every) // here.Get_size())
            set_num_threads(max(1, own))
            return
    set_num_threads(max(1, own // here.Get_size()))
