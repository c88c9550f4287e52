"""Sessions: the bits of a stream for each, from threads and event loops; what one does wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, Conv1d, Linear, Module, RowConvolution, Session, Sessions
from rnncore.stream.spill import SpillFile

from tests.stream.test_refusals import Fails
from tests.stream.test_rows import OTHERS, Own, alone
from tests.support.processes import run_python
from tests.support.streams import PROMPT, WIDTH, frames, same

ALL = PROMPT | OTHERS
COUNT, STEPS = 7, 50
MODEL = Chain(LSTM(WIDTH, 5, seed=1), Linear(5, 2, seed=2))


@pytest.fixture
def x() -> np.ndarray:
    return frames(MODEL, STEPS, COUNT)


@contextmanager
def held(sessions: Sessions) -> Iterator[None]:
    """No batch runs meanwhile."""
    with sessions._residents.lock:
        yield


def pieces(rng: np.random.Generator, steps: int) -> Iterator[slice]:
    """Cuts of so many steps, some of them of no frames, and one longer than a batch takes."""
    begin = 0
    while begin < steps:
        end = min(begin + int(rng.choice([0, 1, 1, 1, 2, 5, 40])), steps)
        yield slice(begin, end)
        begin = end


def results(futures: list[Future[np.ndarray]]) -> np.ndarray:
    return np.concatenate([future.result(60) for future in futures])


# To the bit


@pytest.mark.parametrize("name", ["LSTM", "GRU", "text", "chain", "residual", "tanh", *OTHERS])
def test_sessions_are_streams_of_their_own(name: str) -> None:
    module, rng = ALL[name], np.random.default_rng(3)
    x = frames(module, STEPS, COUNT)
    with Sessions(module) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        futures: list[list[Future[np.ndarray]]] = [[] for _ in opened]
        cuts = [list(pieces(rng, STEPS)) for _ in opened]
        for turn in range(max(map(len, cuts))):
            for at in rng.permutation(COUNT):
                for cut in cuts[at][turn : turn + 1]:
                    futures[at].append(opened[at].submit(x[cut, at]))
        for at in range(COUNT):
            same(results(futures[at]), alone(module, x[:, at]))
        frame = sessions.open().submit(x[0, 0]).result()
        same(frame, alone(module, x[:1, 0])[0])
        assert frame.flags.owndata
        assert sessions.usage.frames == STEPS * COUNT + 1


def test_batch_first() -> None:
    layer = GRU(WIDTH, 4, batch_first=True, seed=0)
    x = frames(layer, 9, 3)
    with Sessions(layer) as sessions:
        opened = [sessions.open() for _ in range(3)]
        with held(sessions):
            futures = [session.submit(x[: at + 1, at]) for at, session in enumerate(opened)]
        for at, future in enumerate(futures):
            same(future.result(), layer(x[: at + 1, at])[0])


def test_many_threads(x: np.ndarray) -> None:
    with Sessions(MODEL, max_waiting=40, max_waiting_each=8) as sessions:
        found: dict[int, np.ndarray] = {}

        def client(at: int) -> None:
            rng = np.random.default_rng(at)
            with sessions.open() as session:
                futures = []
                for cut in pieces(rng, STEPS):
                    for part in np.array_split(x[cut, at], 5):  # what may wait at once
                        futures.append(session.submit(part))
                found[at] = results(futures)

        threads = [threading.Thread(target=client, args=(at,)) for at in range(COUNT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for at in range(COUNT):
            same(found[at], alone(MODEL, x[:, at]))
        assert sessions.usage[:3] == (0, sessions.usage.resident, 0)


def test_an_event_loop(x: np.ndarray) -> None:
    async def client(session: Session, own: np.ndarray) -> np.ndarray:
        return np.stack([await session.run(frame) for frame in own])

    async def all_of_them(sessions: Sessions) -> list[np.ndarray]:
        opened = [sessions.open() for _ in range(COUNT)]
        wrapped = asyncio.wrap_future(sessions.open().submit(x[:, 0]))
        found = await asyncio.gather(*(client(s, x[:, at]) for at, s in enumerate(opened)))
        return [*found, await wrapped]

    with Sessions(MODEL, max_waiting=60) as sessions:  # there is not always room
        found = asyncio.run(all_of_them(sessions))
    for at in range(COUNT):
        same(found[at], alone(MODEL, x[:, at]))
    same(found[-1], found[0])


def test_an_event_loop_is_free_while_there_is_no_room(x: np.ndarray) -> None:
    async def client(sessions: Sessions) -> Any:
        session = sessions.open()
        with held(sessions):
            first = session.submit(x[:2, 0])
            while len(sessions._waiting):  # until it is in a batch
                await asyncio.sleep(0.001)
            tasks = [asyncio.create_task(session.run(x[n : n + 2, 0])) for n in (2, 4)]
            await asyncio.sleep(0.05)
            assert sessions.usage.waiting == 2
            assert not any(task.done() for task in tasks)
        return [first.result(60), *[await task for task in tasks]]

    with Sessions(MODEL, max_waiting=2) as sessions:
        same(np.concatenate(asyncio.run(client(sessions))), alone(MODEL, x[:6, 0]))


# States in memory and on disk


@pytest.mark.parametrize("name", ["chain", "text", "convolution in a chain", "float64"])
def test_idle_sessions_are_spilled(name: str, tmp_path: Any) -> None:
    module, rng = ALL[name], np.random.default_rng(4)
    x = frames(module, STEPS, COUNT)
    with Sessions(module, max_rows=2, spill=tmp_path) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        futures: list[list[Any]] = [[] for _ in opened]
        for at in rng.permutation(np.repeat(np.arange(COUNT), STEPS)):
            futures[at].append(opened[at].submit(x[len(futures[at]) : len(futures[at]) + 1, at]))
        for at in range(COUNT):
            same(results(futures[at]), alone(module, x[:, at]))
        assert sessions.usage.sessions == COUNT
        assert sessions.usage.resident == 2
        slots = sessions._residents._spill._slots  # type: ignore[union-attr]
        assert slots <= COUNT
        for _ in range(3):  # those of sessions that were closed are used again
            for session in opened:
                session.close()
            opened = [sessions.open() for _ in range(COUNT)]
            results([session.submit(x[:1, 0]) for session in opened])
        assert sessions._residents._spill._slots <= COUNT + 2  # type: ignore[union-attr]
    assert not list(tmp_path.iterdir())


def test_without_a_spill_max_rows_are_open(x: np.ndarray) -> None:
    with Sessions(MODEL, max_rows=3) as sessions:
        opened = [sessions.open() for _ in range(3)]
        with pytest.raises(RuntimeError, match="3 sessions are open, max_rows of them: close one"):
            sessions.open()
        for turn in range(5):
            same(results([s.submit(x[:2, turn]) for s in opened])[:2], alone(MODEL, x[:2, turn]))
            for session in opened:
                session.close()
            opened = [sessions.open() for _ in range(3)]
        assert sessions._residents._stream.batch == 3


def test_rows_grow_while_sessions_go_on(x: np.ndarray) -> None:
    module = PROMPT["chain"]
    x = frames(module, 6, 100)
    with Sessions(module, max_rows=100) as sessions:
        opened, futures = [], []
        for at in range(100):
            opened.append(sessions.open())
            futures.append([opened[-1].submit(x[:3, at])])
        for at in reversed(range(100)):
            futures[at].append(opened[at].submit(x[3:, at]))
        want = module(x)[0]
        for at in range(100):
            same(results(futures[at]), want[:, at])


def test_sessions_move(x: np.ndarray, tmp_path: Any) -> None:
    with Sessions(MODEL, max_rows=1, spill=tmp_path) as sessions, Sessions(MODEL) as other:
        session = sessions.open()
        fresh = session.snapshot()
        results([session.submit(x[:5, 0])])
        here = session.snapshot()
        results([sessions.open().submit(x[:5, 1])])  # it is on disk meanwhile
        for snapshot in (here, session.snapshot()):
            moved = other.open(snapshot)
            unused = moved.snapshot()
            assert all(np.array_equal(unused[key], here[key]) for key in here)
            same(moved.submit(x[5:, 0]).result(), alone(MODEL, x[:, 0])[5:])
        same(other.open(fresh).submit(x[:, 2]).result(), alone(MODEL, x[:, 2]))
        with pytest.raises(ValueError, match="snapshot must hold batch, 0, 1; got batch"):
            other.open({"batch": np.array(1)})
        with pytest.raises(ValueError, match="snapshot must be of 1 rows, got 2"):
            other.open(MODEL.stream(2).snapshot())
        usage = other.usage
        session.close()
        with pytest.raises(RuntimeError, match="this session is closed"):
            session.snapshot()
        assert other.usage.sessions == usage.sessions == 3


def test_refresh(x: np.ndarray) -> None:
    module = LSTM(WIDTH, 4, learned_state=True, seed=0)
    with Sessions(module) as sessions:
        results([sessions.open().submit(x[:3, 0])])
        for param in module.params.values():
            param += 0.25
        before = sessions.open().submit(x[:3, 0]).result()
        sessions.refresh()
        after = sessions.open().submit(x[:3, 0]).result()
        same(after, alone(module, x[:3, 0]))
        assert (before != after).any()
        state = sessions.open().snapshot()
        same(state["0"], module.stream().snapshot()["0"])


# Batches


def test_frames_that_wait_are_one_batch(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        first = opened[0].submit(x[:1, 0])
        first.result()
        with held(sessions):
            opened[0].submit(x[1:2, 0])
            while len(sessions._waiting):
                time.sleep(0.001)
            rest = [s.submit(x[t : t + 1, 0]) for t in range(3) for s in opened[1:]]
        results(rest)
        assert sessions.usage.batches == 3


def test_delay(x: np.ndarray) -> None:
    """As many as a batch has room for wait for nobody; others for so long."""
    with Sessions(MODEL, max_rows=2, delay=600) as sessions:
        futures = [sessions.open().submit(x[:1, at]) for at in range(2)]
        results(futures)
        assert sessions.usage.batches == 1
    with Sessions(MODEL, delay=0.01) as sessions:
        same(sessions.open().submit(x[:4, 0]).result(60), alone(MODEL, x[:4, 0]))
        start = time.monotonic()
        sessions.open().submit(x[:1, 0]).result(60)
        assert time.monotonic() - start >= 0.01


def test_a_step_of_many_at_once(x: np.ndarray, tmp_path: Any) -> None:
    with Sessions(MODEL, max_rows=4, spill=tmp_path) as sessions:
        opened, rng = [sessions.open() for _ in range(COUNT)], np.random.default_rng(0)
        given: list[list[np.ndarray]] = [[] for _ in opened]
        waiting: list[list[Future[np.ndarray]]] = [[] for _ in opened]
        for _ in range(40):
            which = rng.permutation(COUNT)[: rng.integers(0, 5)].tolist()
            for at in which[1:]:  # what waits comes first
                t = len(given[at])
                waiting[at].append(opened[at].submit(x[t : t + 1, at]))
                given[at].append(np.zeros(0))
            now = np.array([x[len(given[at]), at] for at in which], "f4").reshape(-1, WIDTH)
            y = sessions.step([opened[at] for at in which], now)
            for at, own in zip(which, y, strict=True):
                given[at].append(own)
        for at in range(COUNT):
            for t, own in enumerate(given[at]):
                given[at][t] = own if own.size else waiting[at].pop(0).result()[0]
            same(np.stack(given[at]), alone(MODEL, x[: len(given[at]), at]))
        before = [session.snapshot() for session in opened]
        for some, message in (
            ([0, 0], "sessions must be different ones, got 1 of them"),
            ([0, 1, 2, 3, 4], "sessions must be at most 4, got 5"),
            ([0, 1, 2], r"x must have shape \(3, 3\), got \(2, 3\)"),
        ):
            with pytest.raises(ValueError, match=message):
                sessions.step([opened[at] for at in some], x[0, :2])
        opened[1].close()
        with pytest.raises(RuntimeError, match="this session is closed"):
            sessions.step(opened[:2], x[0, :2])
        for at in (0, 2, 3):
            after = opened[at].snapshot()
            assert all(np.array_equal(after[key], before[at][key]) for key in after)
        assert sessions.usage.waiting == 0


def test_a_step_makes_room(x: np.ndarray) -> None:
    module = PROMPT["chain"]
    x = frames(module, 2, 100)
    with Sessions(module, max_rows=100) as sessions:
        opened = [sessions.open() for _ in range(100)]
        first = sessions.step(opened[:40], x[0, :40])
        same(np.stack((first, sessions.step(opened, x[1])[:40])), module(x[:, :40])[0])


def test_steps_and_frames_that_wait_in_many_threads(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        found: list[np.ndarray] = []

        def steps() -> None:
            for t in range(10, STEPS):
                found.append(sessions.step(opened, x[t]))

        with held(sessions):
            first = [session.submit(x[:10, at]) for at, session in enumerate(opened)]
            thread = threading.Thread(target=steps)
            thread.start()
        thread.join()
        for at in range(COUNT):
            own = np.concatenate((first[at].result(), np.stack(found)[:, at]))
            same(own, alone(MODEL, x[:, at]))

        def waits(_: Any) -> None:
            try:
                sessions.step(opened, x[0])
            except RuntimeError as error:
                said.append(str(error))

        said: list[str] = []
        opened[0].submit(x[0, 0]).add_done_callback(waits)
        results([opened[1].submit(x[:1, 0])])
        while not said:
            time.sleep(0.001)
        assert said == ["a future's callback must not wait for a batch"]


# Back pressure


def test_the_queue_is_bounded(x: np.ndarray) -> None:
    with Sessions(MODEL, max_waiting=10, max_waiting_each=6) as sessions:
        one, two, three = (sessions.open() for _ in range(3))
        with held(sessions):
            taken = three.submit(x[:1, 2])
            while len(sessions._waiting):
                time.sleep(0.001)
            futures = [one.submit(x[:6, 0])]
            with pytest.raises(queue.Full, match="6 frames of this session wait, at most 6 may"):
                one.submit(x[6, 0], block=False)
            futures.append(two.submit(x[:4, 1]))
            with pytest.raises(queue.Full, match="10 in all, at most 10"):
                two.submit(x[4, 1], block=False)
            with pytest.raises(queue.Full):
                two.submit(x[4, 1], timeout=0.01)
            with pytest.raises(queue.Full):  # frames that are none take room, too
                two.submit(x[:0, 1], block=False)
            blocked = threading.Thread(target=lambda: futures.append(two.submit(x[4:6, 1])))
            blocked.start()
            blocked.join(0.05)
            assert blocked.is_alive()
            assert sessions.usage.waiting == 10
        blocked.join()
        same(futures[0].result(), alone(MODEL, x[:6, 0]))
        same(results(futures[1:]), alone(MODEL, x[:6, 1]))
        assert taken.done()
        with pytest.raises(ValueError, match="frames must be at most 6 at once, got 7"):
            one.submit(x[:7, 0])


def test_who_waits_for_room_learns_of_the_end(x: np.ndarray) -> None:
    sessions = Sessions(MODEL, max_waiting=1)
    one, two = sessions.open(), sessions.open()
    said: list[str] = []

    def submit(session: Session) -> None:
        try:
            session.submit(x[1, 0])
        except RuntimeError as error:
            said.append(str(error))

    with held(sessions):
        running = one.submit(x[0, 0])
        while len(sessions._waiting):
            time.sleep(0.001)
        waits = one.submit(x[1, 0])
        threads = [threading.Thread(target=submit, args=(s,)) for s in (one, two)]
        for thread in threads:
            thread.start()
        while sessions._waiting._blocked < 2:
            time.sleep(0.001)
        one.close()
        threads[0].join()
        assert waits.cancelled()
        end = threading.Thread(target=sessions.shutdown)
        end.start()
        threads[1].join()
    end.join()
    assert running.done()
    assert sorted(said) == [
        "these sessions have been shut down",
        "this session is closed: open another",
    ] or said == ["this session is closed: open another"]


def test_callbacks_do_not_wait_for_their_own_thread(x: np.ndarray) -> None:
    with Sessions(MODEL, max_waiting=2) as sessions:
        session, said = sessions.open(), Future[Any]()

        def more(_: Any) -> None:
            try:
                session.submit(x[1:3, 0])
                session.submit(x[3:5, 0])
            except queue.Full as error:
                said.set_result(error)

        session.submit(x[0, 0]).add_done_callback(more)
        assert isinstance(said.result(60), queue.Full)


# What one client does wrong


def test_frames_that_are_refused(x: np.ndarray) -> None:
    with Sessions(MODEL, finite=True) as sessions, Sessions(PROMPT["text"]) as text:
        session, wrong = sessions.open(), x[:3, 0].copy()
        wrong[1, 2] = np.inf
        for given, error, message in (
            (x[0, 0, :2], ValueError, r"must have shape \(n, 3\) or \(3,\), got \(2,\)"),
            (x[:, :2], ValueError, r"must have shape \(n, 3\) or \(3,\), got \(50, 2, 3\)"),
            (x[:3, 0].astype("f8"), TypeError, "frames is float64, but this module computes in"),
            ("abc", TypeError, "frames"),
            (wrong, ValueError, "frames hold NaN or infinity, which finite=True refuses"),
            (np.ma.masked_array(x[0, 0]), TypeError, "frames must not be a masked array"),
        ):
            with pytest.raises(error, match=message):
                session.submit(given)
        with pytest.raises(ValueError, match="which finite=True refuses"):
            sessions.step([session], wrong[1:2])
        letters = text.open()
        with pytest.raises(ValueError, match=r"frames must be in 0\.\.2, got 3"):
            letters.submit([0, 3])
        with pytest.raises(
            ValueError, match=r"frames must have shape \(n,\) or \(\), got \(1, 2\)"
        ):
            letters.submit([[0, 1]])
        with pytest.raises(ValueError, match="session must be one that these opened, got <"):
            sessions.submit(letters, [0])
        with pytest.raises(ValueError, match="session must be one that these opened, got 1"):
            sessions.submit(1, x[0, 0])  # type: ignore[arg-type]
        same(session.submit(x[:3, 0]).result(), alone(MODEL, x[:3, 0]))


def test_frames_are_copied(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        own, want = x[:3, 0].copy(), alone(MODEL, x[:3, 0])
        with held(sessions):
            future = sessions.open().submit(own)
            own[...] = 7
        same(future.result(), want)


FAILING = Chain(Own(), LSTM(4, 5, seed=1), Fails(), Conv1d(5, 2, 2, padding=(1, 0), seed=2))


def test_what_the_model_raises_is_for_one_session(x: np.ndarray) -> None:
    """The layer in between refuses a batch that holds NaN; the others' frames do not suffer."""
    x = np.random.default_rng(0).standard_normal((STEPS, COUNT, 4)).astype("f4")
    wrong = x.copy()
    wrong[3, 2] = np.nan
    wrong[45, 4] = np.nan
    with Sessions(FAILING) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        with held(sessions):
            busy = sessions.open().submit(x[:1, 0])
            while len(sessions._waiting):
                time.sleep(0.001)
            futures = [session.submit(wrong[:, at]) for at, session in enumerate(opened)]
            early = opened[5].submit(wrong[3:4, 2])
            late = [opened[5].submit(x[:3, 6]), opened[2].submit(x[:4, 2])]
            narrow = sessions.open().submit(x[:4, 1, :3])
            double = sessions.open().submit(x[:4, 1].astype("f8"))
        for at in (2, 4):  # the frames are more than one batch takes: one fails at once, one later
            with pytest.raises(ArithmeticError, match="a frame that this layer refuses"):
                futures[at].result()
        for at in (0, 1, 3, 5, 6):
            same(futures[at].result(), alone(FAILING, x[:, at]))
        with pytest.raises(ArithmeticError):
            early.result()
        both = np.concatenate((x[:, 5], x[:3, 6]))  # without the frame that was refused
        same(late[0].result(), alone(FAILING, both)[-3:])
        whole = np.concatenate((late[1].result(), opened[2].submit(x[4:, 2]).result()))
        same(whole, alone(FAILING, x[:, 2]))
        same(opened[4].submit(x[:, 4]).result(), alone(FAILING, x[:, 4]))
        with pytest.raises(ValueError, match="chunk must have 4 features, got 3"):
            narrow.result()
        with pytest.raises(TypeError, match="chunk is float64, but this module computes in float3"):
            double.result()
        assert busy.done()
        assert sessions.usage.waiting == 0


def test_nan_stays_in_its_session(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        opened, wrong = [sessions.open() for _ in range(2)], x[:4].copy()
        wrong[1, 0] = np.nan
        with held(sessions):
            futures = [session.submit(wrong[:, at]) for at, session in enumerate(opened)]
        assert np.isnan(futures[0].result()[1:]).all()
        same(futures[1].result(), alone(MODEL, x[:4, 1]))


# Ends


def test_frames_are_taken_back(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        session, other = sessions.open(), sessions.open()
        with held(sessions):
            first = other.submit(x[:1, 1])
            while len(sessions._waiting):
                time.sleep(0.001)
            futures = [session.submit(x[n : n + 1, 0]) for n in range(3)]
            lone = sessions.open().submit(x[:1, 0])
            assert futures[1].cancel()
            assert lone.cancel()
        same(futures[2].result(), alone(MODEL, x[[0, 2], 0])[1:])
        assert first.done()
        assert sessions.usage.waiting == 0


def test_futures_that_others_settle(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        session, other = sessions.open(), sessions.open()
        with held(sessions):
            runs = other.submit(x[:2, 1])
            while len(sessions._waiting):
                time.sleep(0.001)
            waits, last = session.submit(x[:1, 0]), session.submit(x[1:3, 0])
            for future in (runs, waits):
                future.set_result(x)
        same(last.result(), alone(MODEL, x[1:3, 0]))


def test_sessions_that_are_closed(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        one, two = sessions.open(), sessions.open()
        with held(sessions):
            runs = one.submit(x[:40, 0])  # more than one batch takes
            while len(sessions._waiting) == 40:
                time.sleep(0.001)
            waits, others = one.submit(x[:3, 0]), two.submit(x[:3, 1])
            one.close()
            one.close()
            assert one.closed
            assert not two.closed
        with pytest.raises(RuntimeError, match="closed before all these frames were taken"):
            runs.result()
        with pytest.raises(CancelledError):
            waits.result()
        with pytest.raises(RuntimeError, match="this session is closed: open another"):
            one.submit(x[:1, 0])
        same(others.result(), alone(MODEL, x[:3, 1]))
        same(sessions.open().submit(x[:, 2]).result(), alone(MODEL, x[:, 2]))
        assert sessions.usage[:3] == (2, 2, 0)


def test_shutdown(x: np.ndarray) -> None:
    sessions = Sessions(MODEL)
    session, other = sessions.open(), sessions.open()
    with held(sessions):
        runs = session.submit(x[:3, 0])
        while len(sessions._waiting):
            time.sleep(0.001)
        waits = [session.submit(x[3:5, 0]), other.submit(x[:1, 1])]
        end = threading.Thread(target=sessions.shutdown)
        end.start()
        while not sessions._waiting._ended:
            time.sleep(0.001)
    end.join()
    sessions.shutdown()
    same(runs.result(), alone(MODEL, x[:3, 0]))
    assert all(future.cancelled() for future in waits)
    for call in (sessions.open, lambda: session.submit(x[0, 0]), session.snapshot):
        with pytest.raises(RuntimeError, match="these sessions have been shut down"):
            call()


def test_sessions_that_nobody_refers_to_end(x: np.ndarray) -> None:
    before = threading.active_count()
    sessions = Sessions(MODEL)
    sessions.open().submit(x[:3, 0]).result()
    found = weakref.ref(sessions)
    del sessions
    gc.collect()
    assert found() is None
    assert threading.active_count() == before


def test_models_that_cannot_choose_rows() -> None:
    with pytest.raises(ValueError, match="rows of a stream that looks ahead go together"):
        Sessions(Chain(GRU(WIDTH, 4), RowConvolution(4, 1)))
    with pytest.raises(ValueError, match="a bidirectional GRU cannot run as a stream"):
        Sessions(GRU(WIDTH, 4, bidirectional=True))
    for options, message in (
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"max_waiting": 0}, "max_waiting must be at least 1"),
        ({"delay": -1}, r"delay must be in 0\.\.86400 seconds, got -1"),
        ({"delay": float("nan")}, r"delay must be in 0\.\.86400 seconds, got nan"),
        ({"delay": float("inf")}, r"delay must be in 0\.\.86400 seconds, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            Sessions(MODEL, **options)  # type: ignore[arg-type]


class Sleeps(Module):
    """A layer that an exception of another kind ends."""

    pointwise = True

    def __call__(self, x: Any) -> Any:
        raise SystemExit(3)


def test_nobody_waits_for_ever() -> None:
    with Sessions(Chain(GRU(WIDTH, 4), Sleeps())) as sessions:
        for _ in range(2):
            with pytest.raises(SystemExit):
                sessions.open().submit(np.zeros((2, WIDTH), "f4")).result(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told() -> None:
    said = run_python("""
import os
import numpy as np
import rnncore

sessions = rnncore.Sessions(rnncore.GRU(3, 4, seed=0))
session = sessions.open()
session.submit(np.zeros((2, 3), "f4")).result()
child = os.fork()
if not child:
    try:
        session.submit(np.zeros((2, 3), "f4"))
    except RuntimeError as error:
        os._exit("forked process" in str(error))
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert said.strip() == "1"


def test_idle_sessions_use_no_processor(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]
        results([session.submit(x[:3, 0]) for session in opened])
        time.sleep(0.02)
        before = os.times()
        time.sleep(0.3)
        after = os.times()
    assert after.user + after.system - before.user - before.system <= 0.02


def test_memory_does_not_grow(x: np.ndarray) -> None:
    with Sessions(MODEL) as sessions:
        opened = [sessions.open() for _ in range(COUNT)]

        def go() -> None:
            for t in range(STEPS):
                results([s.submit(x[t : t + 1, at]) for at, s in enumerate(opened)])
            for at in range(COUNT):
                opened[at].close()
                opened[at] = sessions.open()

        tracemalloc.start()
        try:
            for _ in range(3):
                go()
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(6):
                go()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 5000  # of 2100 frames


def test_a_full_disk_leaves_no_client_with_the_state_of_another(
    x: np.ndarray, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two clients without rows the first one gets a free row, the second one none."""

    def full(*_: Any) -> int:
        raise OSError("no space left on device")

    with Sessions(MODEL, max_rows=2, spill=tmp_path) as sessions:
        gone, idle, first, second = (sessions.open() for _ in range(4))
        sessions.step([gone, idle], x[0, :2])
        gone.close()
        monkeypatch.setattr(SpillFile, "write", full)
        with pytest.raises(OSError, match="no space left"):
            sessions.step([first, second], x[1, :2])
        monkeypatch.undo()
        found = sessions.step([first], x[2, :1])
    assert found.tobytes() == MODEL.stream(1).step(x[2, :1]).tobytes()
