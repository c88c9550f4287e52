"""Frames that wait for their turn: a bounded queue of clients, from which batches are taken."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple

from ..arrays import Array

#: Frames that a client has in one batch at most, and a batch in all, those it is padded with
#: included: so that nobody waits long for somebody who sends much, and memory is bounded.
_LONGEST, _ROOM = 32, 1 << 14
#: Sessions of a batch at most: more do not make it faster.
_MOST = 1024


class Request:
    """Frames of a client that came together."""

    __slots__ = ("before", "frames", "future", "outputs", "single", "taken")

    def __init__(self, frames: Array, single: bool) -> None:
        """frames `(n, ...)`. single: it was one frame without an axis of time."""
        self.frames, self.single = frames, single
        self.future: Future[Array] = Future()
        self.taken = 0  # frames that have been in batches
        self.outputs: list[Array] = []  # of those
        self.before: dict[str, Array] | None = None  # the state, if they do not fit one batch

    @property
    def weight(self) -> int:
        """What it counts for in the queue: one without frames takes room as well."""
        return max(len(self.frames), 1)

    def starts(self) -> bool:
        """Say that its frames are taken; False: they have been taken back."""
        try:
            return self.future.set_running_or_notify_cancel()
        except RuntimeError:  # whoever has the future gave it a result
            return False

    def fail(self, error: BaseException) -> None:
        """Have the future raise this, unless it is done."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class Client:
    """One of many: its requests, and where its state is."""

    __slots__ = ("closed", "frames", "queued", "requests", "row", "saved")

    def __init__(self) -> None:
        # Of the queue, under its lock. queued: it is ready, or in the present batch.
        self.requests: deque[Request] = deque()
        self.frames, self.queued, self.closed = 0, False, False
        # Of the residents, under theirs. Without a row: a slot, a snapshot, or None at the start.
        self.row: int | None = None
        self.saved: int | dict[str, Array] | None = None


class Piece(NamedTuple):
    """Frames of a request that go into one batch."""

    request: Request
    begin: int
    end: int


class Turn(NamedTuple):
    """What one client has in a batch."""

    client: Client
    pieces: list[Piece]
    length: int  # frames of all


class Limits(NamedTuple):
    """How many frames may wait, in all and of one client; how long the first one waits."""

    frames: int
    each: int
    delay: float


class Waiting:
    """The queue. Any thread puts requests; one takes batches, and says when each is done."""

    def __init__(self, limits: Limits, clients: int) -> None:
        """clients: of a batch at most."""
        self._limits, self._most = limits, min(clients, _MOST)
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._released = threading.Condition(self._lock)
        self._ready: deque[Client] = deque()  # with requests, and none in the present batch
        self._frames, self._blocked, self._holders, self._idle = 0, 0, 0, False
        self._since = 0.0  # when the first of those that are ready came
        self._ended = False
        self._taker: int | None = None  # the thread that takes batches

    def __len__(self) -> int:
        return self._frames

    def put(self, client: Client, request: Request, block: bool, timeout: float | None) -> None:
        """Add a request. Raises `queue.Full` if there is no room (in time), if it blocks for it."""
        with self._lock:
            if not self._has_room(client, request.weight):
                self._wait_for_room(client, request.weight, block, timeout)
            self._check(client)
            client.requests.append(request)
            client.frames += request.weight
            self._frames += request.weight
            if not client.queued:
                client.queued = True
                if not self._ready and self._limits.delay:
                    self._since = time.monotonic()
                self._ready.append(client)
                if self._idle and len(self._ready) in (1, self._most):
                    self._arrived.notify()

    def take(self) -> list[Turn] | None:
        """Return the next batch, once there is one; None: there will be none."""
        with self._lock:
            self._taker = threading.get_ident()
            turns: list[Turn] = []
            while not turns:
                if not self._gather():
                    return None
                longest = max(1, min(_LONGEST, _ROOM // min(len(self._ready), self._most)))
                for _ in range(min(len(self._ready), self._most)):
                    client = self._ready.popleft()
                    turn = self._turn(client, longest)
                    if turn.pieces:
                        turns.append(turn)
                    else:
                        client.queued = False  # all were cancelled
                if self._holders:
                    self._released.notify_all()
                if self._blocked:
                    self._room.notify_all()
            return turns

    def hold(self, clients: Sequence[Client]) -> None:
        """Wait until none of these waits or is in a batch, and keep them out of it until `done`."""
        with self._lock:
            if any(client.queued for client in clients):
                self._wait_for_end_of(clients)
            for client in clients:
                self._check(client)
            for client in clients:
                client.queued = True

    def _wait_for_end_of(self, clients: Sequence[Client]) -> None:
        if threading.get_ident() == self._taker:
            raise RuntimeError("a future's callback must not wait for a batch")
        self._holders += 1
        try:
            self._released.wait_for(
                lambda: self._ended or not any(client.queued for client in clients)
            )
        finally:
            self._holders -= 1

    def done(self, clients: Sequence[Client]) -> None:
        """Say that a batch of these is done: they may be in the next one."""
        with self._lock:
            if self._limits.delay and not self._ready:
                self._since = time.monotonic()
            left: list[Request] = []
            for client in clients:
                if self._ended:
                    left += self._drop(client)
                client.queued = bool(client.requests)
                if client.queued:
                    self._ready.append(client)
            if self._ready and self._idle:
                self._arrived.notify()
            if self._holders:
                self._released.notify_all()
        _cancel(left)

    def forget(self, client: Client, request: Request) -> None:
        """Drop what is left of a request of which some frames were taken."""
        with self._lock:
            if client.requests and client.requests[0] is request:
                client.requests.popleft()
                self._leave(client, len(request.frames) - request.taken)

    def close(self, client: Client) -> bool:
        """Take no more requests of a client and cancel those that wait; False: it was closed."""
        with self._lock:
            if client.closed:
                return False
            client.closed = True
            left = self._drop(client)
        _cancel(left)
        return True

    def end(self) -> None:
        """Take no more requests of anybody; what waits is cancelled, `take` returns None."""
        with self._lock:
            self._ended = True
            left = [request for client in self._ready for request in self._drop(client)]
            self._ready.clear()
            self._arrived.notify_all()
            self._room.notify_all()
            self._released.notify_all()
        _cancel(left)

    def check(self, client: Client) -> None:
        """Refuse a client that is closed, or all if there is an end."""
        with self._lock:
            self._check(client)

    def check_open(self) -> None:
        """Refuse all if there is an end."""
        if self._ended:
            raise RuntimeError("these sessions have been shut down")

    def _check(self, client: Client) -> None:
        self.check_open()
        if client.closed:
            raise RuntimeError("this session is closed: open another")

    def _has_room(self, client: Client, weight: int) -> bool:
        frames, each, _ = self._limits
        return self._frames + weight <= frames and client.frames + weight <= each

    def _wait_for_room(
        self, client: Client, weight: int, block: bool, timeout: float | None
    ) -> None:
        if weight > self._limits.each:
            raise ValueError(f"frames must be at most {self._limits.each} at once, got {weight}")

        def proceeds() -> bool:
            return self._ended or client.closed or self._has_room(client, weight)

        # A future's callback runs where batches are taken: waiting there would be for ever.
        block = block and threading.get_ident() != self._taker
        self._blocked += 1
        try:
            if proceeds() or (block and self._room.wait_for(proceeds, timeout)):
                return
        finally:
            self._blocked -= 1
        raise queue.Full(
            f"{client.frames} frames of this session wait, at most {self._limits.each} may; "
            f"{self._frames} in all, at most {self._limits.frames}"
        )

    def _gather(self) -> bool:
        """Wait until something is ready and has waited for the delay; False: there is an end."""
        self._idle = True
        try:
            while not self._ready:
                if self._ended:
                    return False
                self._arrived.wait()
            while not self._ended and 0 < len(self._ready) < self._most:
                left = self._since + self._limits.delay - time.monotonic()
                if left <= 0:
                    break
                self._arrived.wait(left)
        finally:
            self._idle = False
        return bool(self._ready)

    def _turn(self, client: Client, longest: int) -> Turn:
        """Take up to so many frames of a client's requests, in order."""
        pieces: list[Piece] = []
        requests, left = client.requests, longest
        while requests:
            request = requests[0]
            begin, count = request.taken, len(request.frames)
            if pieces and count > left:
                break  # what does not end in this batch begins it
            if not begin and not request.starts():
                requests.popleft()
                self._leave(client, request.weight)
                continue
            end = min(begin + left, count)
            pieces.append(Piece(request, begin, end))
            request.taken, left = end, left - (end - begin)
            self._leave(client, max(end - begin, 1))
            if end < count:
                break
            requests.popleft()
        return Turn(client, pieces, longest - left)

    def _drop(self, client: Client) -> list[Request]:
        left = list(client.requests)
        client.requests.clear()
        self._leave(client, client.frames)
        return left

    def _leave(self, client: Client, weight: int) -> None:
        client.frames -= weight
        self._frames -= weight
        if self._blocked:
            self._room.notify_all()


def _cancel(requests: Sequence[Request]) -> None:
    for request in requests:
        if not request.future.cancel():
            request.fail(RuntimeError("the session was closed before all these frames were taken"))
