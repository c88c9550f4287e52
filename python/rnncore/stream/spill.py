"""States on disk: a file without a name, of slots of one size, which ends with the process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

import numpy as np

from ..arrays import Array


class SpillFile:
    """Snapshots of one row, all of one kind, each in a slot; slots that are free are used again."""

    def __init__(self, folder: str | os.PathLike[str], like: Mapping[str, Array]) -> None:
        """`like`: one of them. Raises `OSError` if there can be no file in the folder."""
        self._like = {name: (array.dtype, array.shape) for name, array in like.items()}
        self._size = sum(array.nbytes for array in like.values())
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._free: list[int] = []
        self._slots = 0

    def write(self, snapshot: Mapping[str, Array]) -> int:
        """Return the number of the slot that holds it from now on."""
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        slot = self._free[-1]
        self._file.seek(slot * self._size)
        self._file.write(b"".join(snapshot[name].tobytes() for name in self._like))
        self._file.flush()  # a full disk is an error now, and the slot stays free
        self._free.pop()
        return slot

    def read(self, slot: int) -> dict[str, Array]:
        """Return what a slot holds."""
        self._file.seek(slot * self._size)
        data, at, found = self._file.read(self._size), 0, {}
        for name, (dtype, shape) in self._like.items():
            count = int(np.prod(shape))
            found[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
            at += found[name].nbytes
        return found

    def free(self, slot: int) -> None:
        """Let others have a slot."""
        self._free.append(slot)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
