"""A pool of sessions: clients that come and go, whose frames are run in batches of one stream."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count, check_flag, check_number, short
from .base import Stream
from .residents import Residents
from .spill import SpillFile
from .waiting import Client, Limits, Piece, Request, Turn, Waiting


class _Model(Protocol):
    """What has streams."""

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream of so many rows."""


class Session:
    """A client of `Sessions`: a sequence of its own. `Sessions.open` makes it."""

    def __init__(self, sessions: Sessions) -> None:
        # What serves a client knows nothing of these: sessions that nobody refers to end.
        self._sessions, self._client = sessions, Client()

    @property
    def closed(self) -> bool:
        """Whether it takes no more frames."""
        return self._client.closed

    def submit(
        self, frames: npt.ArrayLike, *, block: bool = True, timeout: float | None = None
    ) -> Future[Array]:
        """`Sessions.submit` of this session."""
        return self._sessions.submit(self, frames, block=block, timeout=timeout)

    async def run(self, frames: npt.ArrayLike) -> Array:
        """`Sessions.run` of this session."""
        return await self._sessions.run(self, frames)

    def snapshot(self) -> dict[str, Array]:
        """`Sessions.snapshot` of this session."""
        return self._sessions.snapshot(self)

    def close(self) -> None:
        """`Sessions.close` of this session."""
        self._sessions.close(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Usage(NamedTuple):
    """How much of `Sessions` is in use.

    sessions: open ones. resident: of these with a state in memory. waiting: frames that wait.
    batches, frames: taken so far.
    """

    sessions: int
    resident: int
    waiting: int
    batches: int
    frames: int


class Sessions:
    """Sequences of many clients whose frames come when they come, run in batches of one stream.

        with Sessions(model) as sessions:
            session = sessions.open()
            y = session.submit(frames).result()   # (n, I) -> (n, O); or: await session.run(frames)
            session.close()

    A thread of its own takes whatever has come while the last batch ran as the next one; each
    session's frames in the order of `submit`, and its outputs to the bit those of a stream of its
    own. Any thread and any event loop may call. The thread sleeps while no frames wait.

    delay: seconds that the first frame of a batch waits for others, 0: none. max_rows: sessions
    whose states are in memory. spill: a folder; there a file without a name, which ends with the
    process, takes the states of sessions that have been idle for longest while more than max_rows
    are open. Without it no more can be open. max_waiting: frames that may wait in all, and
    max_waiting_each of one session; `submit` blocks or raises beyond that. finite: refuse frames
    that hold NaN or infinity, which would stay in the session's state.

    Raises `TypeError` and `ValueError` for a model that has no stream, or one that looks ahead: its
    rows go together.
    """

    def __init__(
        self,
        model: _Model,
        *,
        delay: float = 0.0,
        max_rows: int = 1024,
        spill: str | os.PathLike[str] | None = None,
        max_waiting: int = 16384,
        max_waiting_each: int = 1024,
        finite: bool = False,
    ) -> None:
        most, frames = check_count("max_rows", max_rows), check_count("max_waiting", max_waiting)
        each = min(check_count("max_waiting_each", max_waiting_each), frames)
        if not 0 <= check_number("delay", delay) <= 86400:
            raise ValueError(f"delay must be in 0..86400 seconds, got {delay}")
        self._finite = check_flag("finite", finite)
        self._like = model.stream(1)  # what frames and snapshots are checked against
        self._like._check_apart()
        self._features = _features(self._like)
        first = self._like.snapshot()
        file = None if spill is None else SpillFile(spill, first)
        self._most, self._limit = most, most if file is None else None
        self._residents = Residents(model.stream(min(most, 16)), most, file)
        self._residents.first = first
        self._waiting = Waiting(Limits(frames, each, float(delay)), most)
        self._lock = threading.Lock()  # of what is checked, and of the number of sessions
        self._open = 0
        self._worker = _Worker(self._waiting, self._residents)
        # The thread holds no reference to this object: it ends with it.
        self._ends = weakref.finalize(self, self._worker.end)

    def open(self, snapshot: Mapping[str, Array] | None = None) -> Session:
        """Return a new session, which stands at the first state, or where a snapshot was taken.

        Close it when its client has gone. Raises `RuntimeError` if max_rows are open and there is
        no spill, `ValueError` and `TypeError` for a snapshot that does not fit, as
        `Stream.restore`.
        """
        session = Session(self)
        self._worker.check()
        with self._lock:
            self._waiting.check_open()
            if snapshot is not None:
                self._like.restore(snapshot, rows=[0])
                session._client.saved = self._like.snapshot()
            if self._limit is not None and self._open >= self._limit:
                raise RuntimeError(
                    f"{self._open} sessions are open, max_rows of them: close one, or say where "
                    "states may be kept (spill=...)"
                )
            self._open += 1
        return session

    def submit(
        self,
        session: Session,
        frames: npt.ArrayLike,
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> Future[Array]:
        """Have a session take frames `(n, I)`, or one frame `(I,)`; return a future of the outputs.

        The result is `(n, O)` or `(O,)`, an array of its own. `future.cancel()` takes the frames
        back while they wait. Where too many wait, this blocks until there is room, at most
        `timeout` seconds; then, or with block=False, it raises `queue.Full`. It raises at once, as
        `Stream.run`, if frames are not what the model takes, and `RuntimeError` for a session that
        is closed. What the model raises, the future raises; the session then stands where it stood
        before these frames, and later ones go on from there. Other sessions do not notice.
        """
        client = self._client(session)
        self._worker.check()
        request = Request(*self._as_frames(frames))
        self._waiting.put(client, request, block, timeout)
        return request.future

    async def run(self, session: Session, frames: npt.ArrayLike) -> Array:
        """`submit`, and the outputs once they are there; the event loop is free meanwhile.

        Where too many frames wait, it waits for room without blocking the loop. Await one before
        the next of the same session, so that their order is certain.
        """
        try:
            future = self.submit(session, frames, block=False)
        except queue.Full:
            future = await asyncio.to_thread(partial(self.submit, session, frames))
        return await asyncio.wrap_future(future)

    def step(self, sessions: Sequence[Session], frames: npt.ArrayLike) -> Array:
        """Have R different sessions take one frame each `(R, I)` now; return the outputs `(R, O)`.

        For whoever has frames of many at once: without a future for each it costs less by far. It
        runs in the calling thread, after what waits of these sessions; at most max_rows at once. It
        raises as `Stream.step`; then all of them stand where they stood.
        """
        clients = [self._client(session) for session in sessions]
        if len(set(clients)) < len(clients):
            raise ValueError(f"sessions must be different ones, got {len(set(clients))} of them")
        if len(clients) > self._most:
            raise ValueError(f"sessions must be at most {self._most}, got {len(clients)}")
        x = self._like._array("frames", frames)
        self._check_finite(x)
        self._waiting.hold(clients)
        try:
            self._residents.reclaim()
            return self._residents.step(clients, x)
        finally:
            self._waiting.done(clients)

    def snapshot(self, session: Session) -> dict[str, Array]:
        """Return where a session stands after the frames whose outputs have come, as named arrays.

        Those of `Stream.snapshot` of one row: `open` takes them, here or in another process, and
        `rnncore.arrays.save_arrays` writes them to a file. Waits for a batch that runs.
        """
        client = self._client(session)
        self._waiting.check(client)
        return self._residents.snapshot(client)

    def close(self, session: Session) -> None:
        """End a session: frames that wait are cancelled, its row is free for others."""
        client = self._client(session)
        if self._waiting.close(client):
            self._residents.close(client)
            with self._lock:
                self._open -= 1

    def refresh(self) -> None:
        """Take the model's weights as they are now, between two batches; sessions go on."""
        with self._lock:
            self._like.refresh()
            self._like.reset()
            self._residents.refresh(self._like.snapshot())

    @property
    def usage(self) -> Usage:
        """How much is in use."""
        served = self._worker
        counts = self._open, len(self._residents), len(self._waiting)
        return Usage(*counts, served.batches, served.frames)

    def shutdown(self) -> None:
        """End all: frames that wait are cancelled, those that run are finished first."""
        self._ends()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def _client(self, session: Session) -> Client:
        if not isinstance(session, Session) or session._sessions is not self:
            raise ValueError(f"session must be one that these opened, got {short(session)}")
        return session._client

    def _check_finite(self, x: Array) -> None:
        if self._finite and x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError("frames hold NaN or infinity, which finite=True refuses")

    def _as_frames(self, frames: npt.ArrayLike) -> tuple[Array, bool]:
        """Return a copy of frames `(n, ...)`, and whether they were one without an axis."""
        x, axes = np.array(self._like._array("frames", frames), order="C"), self._like._axes
        features = self._features
        if x.ndim not in (axes - 1, axes) or (features and x.shape[-1:] != features):
            wanted = ("features",) * (axes - 1) if features is None else features
            raise ValueError(
                f"frames must have shape {_axes('n', *wanted)} or {_axes(*wanted)}, got {x.shape}"
            )
        self._check_finite(x)
        return (x[None], True) if x.ndim < axes else (x, False)


def _axes(*names: object) -> str:
    """A shape as Python writes it, but for names of axes."""
    return f"({', '.join(map(str, names))}{',' * (len(names) == 1)})"


def _features(stream: Stream) -> tuple[int, ...] | None:
    """The shape of one row's frame; None: the stream does not know."""
    try:
        return stream._no_frames().shape[2:]
    except RuntimeError:
        return None


class _Worker:
    """The thread that runs batches, one after the other."""

    def __init__(self, waiting: Waiting, residents: Residents) -> None:
        self.batches = self.frames = 0
        self._waiting, self._residents, self._process = waiting, residents, os.getpid()
        self._thread = threading.Thread(target=self._serve, name="rnncore-sessions", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to wait for a thread that is not there."""
        if os.getpid() != self._process:
            raise RuntimeError("a forked process has none of its parent's threads: make others")

    def end(self) -> None:
        """Finish what runs, and end. A forked process leaves all to its parent."""
        if os.getpid() != self._process:
            return
        self._waiting.end()
        if threading.current_thread() is not self._thread:  # as in a future's callback
            self._thread.join()
        self._residents.end()

    def _serve(self) -> None:
        try:
            while (turns := self._waiting.take()) is not None:
                try:
                    self._residents.reclaim()
                    self._run(turns)
                except BaseException as error:  # nobody is to wait for ever
                    for turn in turns:
                        self._fail(turn, error)
                self.batches += 1
                self._waiting.done([turn.client for turn in turns])
                del turns  # while it waits, it holds no frames
        finally:
            self._waiting.end()

    def _run(self, turns: Sequence[Turn]) -> None:
        """Run a batch. If it raises its parts are run, down to the request that is the cause."""
        try:
            for turn in turns:
                request, begin, end = turn.pieces[0]
                if not begin and end < len(request.frames):  # it does not end in this batch
                    request.before = self._residents.snapshot(turn.client)
            lengths = np.array([turn.length for turn in turns])
            clients = [turn.client for turn in turns]
            y = self._residents.run(clients, _together(turns, lengths), lengths)
        except Exception as error:
            if len(turns) > 1:
                half = len(turns) // 2
                parts: Sequence[Sequence[Turn]] = turns[:half], turns[half:]
            else:
                client, pieces, _ = turns[0]
                parts = [[Turn(client, [p], p.end - p.begin)] for p in pieces]
            if len(parts) == 1:
                return self._fail(turns[0], error)
            for part in parts:
                self._run(part)
            return None
        self.frames += int(lengths.sum())
        for at, turn in enumerate(turns):
            _deliver(turn.pieces, y[:, at])
        return None

    def _fail(self, turn: Turn, error: BaseException) -> None:
        for request, begin, _ in turn.pieces:
            self._waiting.forget(turn.client, request)
            if begin and request.before:
                self._residents.restore(turn.client, request.before)
            request.fail(error)


def _together(turns: Sequence[Turn], lengths: Array) -> Array:
    """Frames of all `(n, R, ...)`, those of each from the start; zero past their ends."""
    like = turns[0].pieces[0].request.frames
    pieces = [piece for turn in turns for piece in turn.pieces]
    if any(request.frames.dtype != like.dtype for request, _, _ in pieces):
        raise TypeError("frames of one dtype go together")  # and others by themselves
    longest = int(lengths.max())
    if len(pieces) == len(turns) and longest == 1 == lengths.min():
        return np.concatenate([r.frames[begin:end] for r, begin, end in pieces])[None]
    x = np.zeros((longest, len(turns), *like.shape[1:]), like.dtype)
    for at, turn in enumerate(turns):
        done = 0
        for request, begin, end in turn.pieces:
            x[done : done + end - begin, at] = request.frames[begin:end]
            done += end - begin
    return x


def _deliver(pieces: Sequence[Piece], y: Array) -> None:
    """Give outputs `(n, O)` to the requests whose frames they are of."""
    done = 0
    for request, begin, end in pieces:
        own = y[done : done + end - begin]
        done += end - begin
        if begin or end < len(request.frames):
            request.outputs.append(own.copy())
            if end < len(request.frames):
                continue
            own = np.concatenate(request.outputs)
        try:
            request.future.set_result((own[0] if request.single else own).copy())
        except InvalidStateError:  # as when its session was closed meanwhile
            continue
