"""Exchange of gradients while backward still runs, a bucket of layers after the other.

Gradients of the last layers are there first. When all pullbacks of a bucket's layers have run, for
the last shard of this rank, its sums go out in another thread, while the layers before go backward.
All ranks have the same buckets in the same order, and each sum the order that it has without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..arrays import Array
from ..layers.tied import TiedLinear
from ..module import Module, modules
from .collective import Collective
from .order import Summing

#: Bytes of a bucket at least: smaller ones are sent with their neighbours.
LEAST = 1 << 20


class Bucket:
    """Layers whose gradients lie side by side, `where` of all."""

    def __init__(self, collective: Collective, where: slice, parts: list[Module], dtype: Any):
        self.where, self.parts = where, parts
        #: One more number than gradients: not zero where a rank has failed.
        self.summing = Summing(collective, where.stop - where.start + 1, dtype)
        self.sum: Future[Array] | None = None
        self.mark: Any = None


class Overlap:
    """The buckets of a model, from the last layers to the first."""

    def __init__(self, model: Module, collective: Collective, grads: Array) -> None:
        self._grads, self._collective = grads, collective
        self.buckets = [
            Bucket(collective, where, parts, grads.dtype) for where, parts in _cut(model, grads)
        ]
        if sum(bucket.where.stop - bucket.where.start for bucket in self.buckets) != grads.size:
            self.buckets = []  # arrays that several layers have as their own
        self._thread = ThreadPoolExecutor(1, "rnncore-exchange")
        self._open: dict[int, int] = {}

    def backward(self, pullback: Callable[[], Any], before: Sequence[Array], count: int) -> None:
        """Run a pullback of the model and send each bucket when it is there.

        before: sums of shards of this rank to add to, the nearest first. What the pullback raises
        is raised after all buckets have been sent, since the other ranks wait for them.
        """
        failed = True
        try:
            pullback()
            failed = False
        finally:
            for bucket in self.buckets:
                if bucket.sum is None:
                    self._send(bucket, before, count, failed)

    def sums(self) -> bool:
        """Put the sums over all ranks into the gradients; return whether a rank has failed."""
        failed = False
        for bucket in self.buckets:
            assert bucket.sum is not None
            whole, bucket.sum = bucket.sum.result(), None
            own = self._grads[bucket.where]
            if bucket.mark != _mark(own):
                raise RuntimeError(
                    "a layer's gradients changed after all its pullbacks had run: exchange them "
                    "after backward, by `collective.overlaps = False`"
                )
            failed |= bool(whole[own.size])
            own[...] = whole[: own.size]
        return failed

    @contextmanager
    def watched(self, before: Sequence[Array], count: int) -> Iterator[None]:
        """Watch every `vjp` within, and send a bucket when the pullbacks of its layers have run."""
        self._open = {}
        held = {id(part): part for bucket in self.buckets for part in bucket.parts}
        try:
            for part in held.values():
                vars(part)["vjp"] = self._counting(part, before, count)
            yield
        finally:
            for part in held.values():
                vars(part).pop("vjp", None)

    def _counting(self, part: Module, before: Sequence[Array], count: int) -> Callable[..., Any]:
        vjp, users = part.vjp, [part]
        if isinstance(part, TiedLinear):  # whose pullback adds to the table's gradient
            users.append(part.embedding)

        def counted(*args: Any, **options: Any) -> tuple[Any, Any]:
            for user in users:
                self._open[id(user)] = self._open.get(id(user), 0) + 1
            output, pullback = vjp(*args, **options)

            def counted_pullback(*gradients: Any, **others: Any) -> Any:
                found = pullback(*gradients, **others)
                for user in users:
                    self._open[id(user)] -= 1
                self._send_ready(before, count)
                return found

            return output, counted_pullback

        return counted

    def _send_ready(self, before: Sequence[Array], count: int) -> None:
        for bucket in self.buckets:
            if bucket.sum is None:
                if any(self._open.get(id(part)) != 0 for part in bucket.parts):
                    return
                self._send(bucket, before, count, False)

    def _send(self, bucket: Bucket, before: Sequence[Array], count: int, failed: bool) -> None:
        own = self._grads[bucket.where]
        bucket.mark = _mark(own)
        into = bucket.summing.take()
        into[: own.size] = own
        for earlier in before:
            np.add(earlier[bucket.where], into[: own.size], out=into[: own.size])
        into[own.size] = failed
        bucket.sum = self._thread.submit(bucket.summing.over_ranks, count, [into])


def _mark(array: Array) -> Any:
    """A number that tells whether bits have changed."""
    return np.bitwise_xor.reduce(array.view(f"u{array.itemsize}"))


def _cut(model: Module, grads: Array) -> Iterator[tuple[slice, list[Module]]]:
    """Yield where the gradients of some layers lie, and the layers, the last first."""
    stop, size, parts = grads.size, 0, []
    for part in reversed(list({id(part): part for part in modules(model)}.values())):
        own = part._own_grads().values()
        if own:
            parts.append(part)
            size += sum(array.size for array in own)
        if size * grads.itemsize >= LEAST:
            yield slice(stop - size, stop), parts
            stop, size, parts = stop - size, 0, []
    if size:
        yield slice(0, stop), parts
