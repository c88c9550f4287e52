"""What a trainer learns from: batches, and the ways to cut and order them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .arrays import Array, check_size


class Batch(NamedTuple):
    """What one update learns from; a plain tuple that starts the same way serves as well.

    `lengths` (B,) goes to the model and `mask` to the loss. `carry` starts from the state in which
    the previous batch ended, with gradients cut there: truncated back-propagation through time.
    """

    inputs: Any
    targets: Array
    lengths: Array | None = None
    mask: Array | None = None
    carry: bool = False

    @property
    def counted(self) -> float:
        """How many targets count."""
        share = 1.0 if self.mask is None else float(np.mean(self.mask))
        return np.size(self.targets) * share


#: A batch, or a plain tuple of its first fields.
BatchLike: TypeAlias = tuple[Any, ...]

#: One epoch: the same at every pass, or made anew by a function from the generator it is given.
Batches: TypeAlias = Iterable[BatchLike] | Callable[[np.random.Generator], Iterable[BatchLike]]


def chunked(
    inputs: Array, targets: Array, length: int, mask: Array | None = None
) -> Iterator[Batch]:
    """Cut long sequences, arrays (T, B, ...), into chunks that carry the state on.

    Every chunk has at most `length` steps, and their lengths differ by one at most.
    """
    steps = len(inputs)
    pieces = -(-steps // check_size("length", length))
    for start, end in pairwise(i * steps // pieces for i in range(pieces + 1)):
        part = None if mask is None or mask[start:end].all() else mask[start:end]
        yield Batch(inputs[start:end], targets[start:end], mask=part, carry=start > 0)


def shuffled(batches: Iterable[BatchLike]) -> Batches:
    """Give the same batches in a new order every epoch. Not for batches that carry a state."""
    kept = list(batches)

    def epoch(rng: np.random.Generator) -> Iterator[BatchLike]:
        return (kept[i] for i in rng.permutation(len(kept)))

    return epoch
