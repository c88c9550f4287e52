"""What ranks exchange: a protocol of one function, and what may be built upon it.

A rank is one of several processes that run the same program on the same model. All ranks call the
same functions in the same order; what each returns is the same on all of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..arrays import Array

Value = TypeVar("Value")


class RankLost(RuntimeError):
    """Ranks that did not come to an exchange: `ranks`, as far as they are known."""

    def __init__(self, message: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(ranks)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass from process to process."""
        return type(self), (str(self), self.ranks)


class RankFailed(RuntimeError):
    """An error that another rank raised: its `rank`."""

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass from process to process."""
        return type(self), (str(self), self.rank)


class Collective:
    """Ranks that exchange arrays: a class that derives from it defines `allgather`.

    rank: which one this is, from 0; size: how many there are. The other functions are built upon
    `allgather`; where an engine has its own, an adapter uses that. A rank that does not answer
    within a time that the adapter states raises `RankLost` on all others.
    """

    rank: int = 0
    size: int = 1
    #: Whether gradients may be exchanged by another thread while the main one goes backward.
    overlaps: bool = False

    def allgather(self, array: Array) -> Array:
        """Return the arrays of all ranks `(size, ...)`; all are of one shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define allgather")

    def alltoall(self, array: Array) -> Array:
        """Return what all ranks have for this one: entry r of `(size, ...)` goes to rank r."""
        return np.ascontiguousarray(self.allgather(array)[:, self.rank])

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Return the array of one rank; all give one of its shape and dtype."""
        found: Array = self.allgather(array)[root]
        return found

    def barrier(self) -> None:
        """Return when all ranks have come here."""
        self.allgather(np.zeros(1, np.int8))


class Alone(Collective):
    """A single rank: training over shards, and so with the bits of any number of ranks."""

    def allgather(self, array: Array) -> Array:
        """Return the array `(1, ...)`."""
        return np.array(array)[np.newaxis]


def check_collective(collective: Any) -> Collective:
    """Return what has the attributes and functions of a `Collective`, or raise `TypeError`."""
    wanted = ("rank", "size", "overlaps", "allgather", "alltoall", "broadcast", "barrier")
    missing = [name for name in wanted if not hasattr(collective, name)]
    if missing:
        kind = type(collective).__name__
        raise TypeError(f"collective must have {', '.join(missing)}, got {kind}")
    found: Collective = collective
    return found


def gathered(collective: Collective, value: Any) -> list[Any]:
    """Return the objects of all ranks, sent as pickles."""
    mine = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
    sizes = collective.allgather(np.array([mine.size], np.int64))[:, 0]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: mine.size] = mine
    rows = collective.allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def from_first(collective: Collective, value: Any) -> Any:
    """Return the object of rank 0 on all ranks, sent as a pickle."""
    data = pickle.dumps(value if collective.rank == 0 else None, pickle.HIGHEST_PROTOCOL)
    mine = np.frombuffer(data, np.uint8)
    size = int(collective.broadcast(np.array([mine.size], np.int64))[0])
    sent = mine if collective.rank == 0 else np.empty(size, np.uint8)
    return pickle.loads(collective.broadcast(np.array(sent)).tobytes())


def together(collective: Collective, function: Callable[[], Value]) -> Value:
    """Return what `function` returns; where it raises on any rank, all of them raise.

    The rank whose error it is raises it, the others `RankFailed`. The function exchanges nothing.
    """
    try:
        value, said = function(), None
    except Exception as error:
        agree(collective, f"{type(error).__name__}: {error}")
        raise
    agree(collective, said)
    return value


def agree(collective: Collective, said: str | None) -> None:
    """Raise `RankFailed` where any other rank says that something went wrong there."""
    went_wrong = collective.allgather(np.array([said is not None]))[:, 0]
    if went_wrong.any():
        texts = gathered(collective, said)
        rank = int(np.flatnonzero(went_wrong)[0])
        if said is None:
            raise RankFailed(f"rank {rank} of {collective.size} failed: {texts[rank]}", rank)
