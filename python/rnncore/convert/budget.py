"""How much memory a file may ask for: in proportion to its size, checked before it is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: A file may ask for so many times its size, and for so many bytes whatever its size.
RATIO, LEAST = 16, 1 << 24


def bytes_as_floats(array: Any) -> int:
    """Return the bytes of an array as float32, or as what it is if that is wider."""
    return int(array.size) * max(4, int(array.itemsize))


class Budget:
    """How many bytes may still be made of a file of `size` bytes. All that reads it shares one."""

    def __init__(self, size: int) -> None:
        self.size, self.left = size, RATIO * size + LEAST

    def add(self, size: int) -> None:
        """Say that so many bytes of another file belong to this one."""
        self.size += size
        self.left += RATIO * size

    def check(self, what: str, shape: Sequence[int], itemsize: int = 1) -> int:
        """Return the bytes of an array of this shape; `ValueError` if so many are not left."""
        wanted = math.prod(shape) * itemsize
        if min(shape, default=0) < 0 or wanted > self.left:
            raise ValueError(
                f"{what} of shape {tuple(shape)!s:.80} is too large: "
                f"a file of {self.size} bytes may ask for {self.left} more"
            )
        return wanted

    def take(self, what: str, shape: Sequence[int], itemsize: int = 1) -> None:
        """Say that an array of this shape comes to be; raises as `check`."""
        self.left -= self.check(what, shape, itemsize)
