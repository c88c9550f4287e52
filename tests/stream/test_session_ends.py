"""Sessions: queues that are full, what one client does wrong, and ends."""

from __future__ import annotations

import gc
import os
import queue
import threading
import time
import tracemalloc
import weakref
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, Conv1d, Module, RowConvolution, Session, Sessions
from rnncore.stream.spill import SpillFile

from tests.stream.test_refusals import Fails
from tests.stream.test_rows import Own, alone
from tests.support.processes import run_python
from tests.support.sessions import COUNT, MODEL, STEPS, held, results
from tests.support.streams import PROMPT, WIDTH, frames, same


@pytest.fixture
def x() -> np.ndarray:
    return frames(MODEL, STEPS, COUNT)


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
