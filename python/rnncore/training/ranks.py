"""What a trainer does once for all ranks: files, decisions, and a look whether all are alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..arrays import Array
from ..distributed.collective import Collective, check_collective, from_first, gathered, together

Value = TypeVar("Value")


class Ranks:
    """All ranks of a run, or the one process that trains without a collective."""

    def __init__(self, collective: Collective | None) -> None:
        self.collective = None if collective is None else check_collective(collective)
        #: Whether this is the rank that writes files and shows progress.
        self.first = collective is None or collective.rank == 0

    def from_first(self, value: Value) -> Value:
        """Return what rank 0 has."""
        if self.collective is None or self.collective.size == 1:
            return value
        found: Value = from_first(self.collective, value)
        return found

    def on_first(self, function: Callable[[], Value]) -> Value:
        """Have rank 0 call a function, and return what it returns; what it raises, all raise."""
        if self.collective is None or self.collective.size == 1:
            return function()
        return self.from_first(
            together(self.collective, lambda: function() if self.first else None)  # type: ignore[return-value]
        )

    def agreed(self, wishes: Sequence[bool]) -> list[bool]:
        """Return for each wish whether any rank has it."""
        if self.collective is None or self.collective.size == 1:
            return list(wishes)
        found = self.collective.allgather(np.array(wishes))
        return [bool(wish) for wish in np.any(found, axis=0).tolist()]

    def check_alike(self, arrays: Mapping[str, Array]) -> None:
        """Raise `RuntimeError` where a rank has other numbers than rank 0."""
        if self.collective is None or self.collective.size == 1:
            return
        found = gathered(self.collective, _digests(arrays))
        for rank, digests in enumerate(found):
            other = [name for name in found[0] if digests.get(name) != found[0][name]]
            if other:
                raise RuntimeError(
                    f"rank {rank} has other numbers than rank 0 in {', '.join(other)}: "
                    "only the trainer may change a model while it is trained over ranks"
                )


def _digests(arrays: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: hashlib.blake2b(array.tobytes()).digest() for name, array in arrays.items()}
