"""Sessions: the bits of a stream for each, from threads and event loops; memory, disk, batches."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, Session, Sessions

from tests.stream.test_rows import OTHERS, alone
from tests.support.sessions import COUNT, MODEL, STEPS, held, pieces, results
from tests.support.streams import PROMPT, WIDTH, frames, same

ALL = PROMPT | OTHERS


@pytest.fixture
def x() -> np.ndarray:
    return frames(MODEL, STEPS, COUNT)


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
