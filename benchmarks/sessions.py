"""Thousands of clients whose frames come at random: one stream for all beside one for each.

python benchmarks/sessions.py

In every hop of 10 ms some of the clients have a frame. Every way takes the same arrivals as fast as
it can, and all outputs are compared to the bit. Then: how long frames wait where they come at
random times, what memory does over ten minutes of frames, and what processor time a pool uses while
nothing comes.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import rnncore
from rnncore.commands.measure.report import table

HOP = 0.01  # seconds of a frame


class Arrivals:
    """In each hop one frame `(I,)` of each of some random clients."""

    def __init__(self, hops: int, share: float, clients: int, width: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        now = [rng.permutation(np.flatnonzero(rng.random(clients) < share)) for _ in range(hops)]
        self.ends = np.cumsum([len(some) for some in now])
        self.clients = np.concatenate(now)
        self.frames = rng.standard_normal((len(self.clients), width), np.float32)
        self.among = clients

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield client and frame, in the order in which they come."""
        return zip(self.clients.tolist(), self.frames, strict=True)

    def hops(self) -> list[slice]:
        """Which arrivals are those of each hop."""
        ends = self.ends.tolist()
        return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def stream_for_each(model: rnncore.LSTM, came: Arrivals) -> Callable[[np.ndarray], None]:
    """A step of its own for each frame."""
    streams = [model.stream() for _ in range(came.among)]

    def run(y: np.ndarray) -> None:
        for (client, frame), out in zip(came, y, strict=True):
            streams[client].step(frame, out)

    return run


def rows_of_one(model: rnncore.LSTM, came: Arrivals) -> Callable[[np.ndarray], None]:
    """One step for the rows that have a frame in a hop."""
    stream = model.stream(came.among)

    def run(y: np.ndarray) -> None:
        for hop in came.hops():
            stream.step(came.frames[hop], y[hop], rows=came.clients[hop])

    return run


def pool_at_once(sessions: rnncore.Sessions, came: Arrivals) -> Callable[[np.ndarray], None]:
    """The same through handles."""
    opened = [sessions.open() for _ in range(came.among)]

    def run(y: np.ndarray) -> None:
        for hop in came.hops():
            now = [opened[client] for client in came.clients[hop].tolist()]
            y[hop] = sessions.step(now, came.frames[hop])

    return run


def executor_for_each(model: rnncore.LSTM, came: Arrivals) -> Callable[[np.ndarray], None]:
    """A stream for each client and a future for each frame, in two threads."""
    streams = [model.stream() for _ in range(came.among)]
    threads = [ThreadPoolExecutor(1) for _ in range(2)]  # a client's frames stay in order in one

    def run(y: np.ndarray) -> None:
        futures = [threads[c % 2].submit(streams[c].step, frame) for c, frame in came]
        for out, future in zip(y, futures, strict=True):
            out[...] = future.result()

    return run


def pool(sessions: rnncore.Sessions, came: Arrivals) -> Callable[[np.ndarray], None]:
    """A session for each client and a future for each frame."""
    opened = [sessions.open() for _ in range(came.among)]

    def run(y: np.ndarray) -> None:
        futures = [opened[client].submit(frame) for client, frame in came]
        for out, future in zip(y, futures, strict=True):
            out[...] = future.result()

    return run


def throughput(
    model: rnncore.LSTM, args: argparse.Namespace, sessions: rnncore.Sessions
) -> list[float]:
    """Frames a second of each way, over the same arrivals; ends unless all bits are equal."""
    came = Arrivals(args.hops, args.rate * HOP, args.clients, model.input_size)
    ways: dict[str, Callable[[np.ndarray], None]] = {
        "a stream for each client": stream_for_each(model, came),
        "rows of one stream": rows_of_one(model, came),
        "sessions.step": pool_at_once(sessions, came),
        "a stream for each, futures": executor_for_each(model, came),
        "sessions.submit, futures": pool(sessions, came),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {name: np.zeros((len(came.clients), model.hidden_size), np.float32) for name in ways}
    want = found["a stream for each client"]
    gc.collect()
    gc.freeze()  # as a service would: thousands of objects that stay are not walked again and again
    for _ in range(args.rounds):  # in turns: what slows the machine slows all of them
        for name, run in ways.items():
            gc.collect()
            start = time.perf_counter()
            run(found[name])
            times[name].append(time.perf_counter() - start)
        for name, y in found.items():
            if not np.array_equal(y, want) or not y.any():
                raise SystemExit(f"{name}: outputs differ from those of a stream for each client")
    count = len(came.clients)
    rates = [count / min(seconds) for seconds in times.values()]
    rows = [
        [name, f"{rate:,.0f}", f"{1e6 / rate:.2f}"] for name, rate in zip(ways, rates, strict=True)
    ]
    print(table(["way", "frames a second", "us a frame"], rows))
    print(f"{count:,} frames; all outputs of all {args.clients:,} clients are equal to the bit\n")
    return rates


def latencies(sessions: rnncore.Sessions, rate: float, args: argparse.Namespace) -> np.ndarray:
    """Seconds from when each frame comes to its output: so many a second, at random times."""
    rng = np.random.default_rng(1)
    opened = [sessions.open() for _ in range(args.clients)]
    due = np.cumsum(rng.exponential(1 / rate, int(rate * args.seconds) + 1))
    clients = rng.integers(0, args.clients, len(due)).tolist()
    frames = rng.standard_normal((len(due), args.input), np.float32)
    found, left = np.zeros(len(due)), threading.Semaphore(0)

    def noted(at: int, start: float) -> Callable[[Future[np.ndarray]], None]:
        def note(_: Future[np.ndarray]) -> None:
            found[at] = time.perf_counter() - start
            left.release()

        return note

    begin = time.perf_counter()
    for at, client in enumerate(clients):
        start = begin + due[at]
        while (wait := start - time.perf_counter()) > 0:
            time.sleep(wait)
        opened[client].submit(frames[at]).add_done_callback(noted(at, start))
    for _ in clients:
        left.acquire()
    for session in opened:
        session.close()
    return found


def resident() -> float:
    """MiB of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(sessions: rnncore.Sessions, args: argparse.Namespace) -> list[float]:
    """What this process has after each minute of frames, which are taken as fast as it goes."""
    rng = np.random.default_rng(3)
    opened = [sessions.open() for _ in range(args.clients)]
    frames = rng.standard_normal((args.clients, args.input), np.float32)
    found, futures = [], []
    for _ in range(args.minutes):
        for _ in range(int(60 / HOP)):
            now = np.flatnonzero(rng.random(args.clients) < args.seldom * HOP)
            futures = [opened[client].submit(frames[client]) for client in now.tolist()]
        for future in futures:
            future.result()
        gc.collect()
        found.append(resident())
    for session in opened:
        session.close()
    return found


def idle_share(seconds: float) -> float:
    """Processor time of this process for each second in which nothing comes."""
    before, start = os.times(), time.perf_counter()
    time.sleep(seconds)
    after, end = os.times(), time.perf_counter()
    return (after.user + after.system - before.user - before.system) / (end - start)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--input", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--hops", type=int, default=200, help="of arrivals, in each round")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    parser.add_argument("--rate", type=float, default=10, help="frames a second of each client")
    parser.add_argument("--load", type=float, default=0.3, help="of the pool, for latencies")
    parser.add_argument("--seconds", type=float, default=5, help="that latencies are measured")
    parser.add_argument("--minutes", type=int, default=10, help="of frames that memory is watched")
    parser.add_argument("--seldom", type=float, default=2, help="the rate during these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="some seconds: to see that it works")
    args = parser.parse_args(given)
    if args.quick:
        args.clients, args.hops, args.rounds = 200, 20, 1
        args.seconds, args.minutes, args.seldom = 0.3, 2, 0.1
    return args


def main() -> None:
    args = arguments()
    rnncore.set_num_threads(args.threads)
    model = rnncore.LSTM(args.input, args.hidden, seed=0)
    most = 4 * args.clients  # those of all parts
    with rnncore.Sessions(model, max_rows=most) as sessions:
        alone, together, stepped, futures, served = throughput(model, args, sessions)
        rate = args.load * served
        waits: Any = np.percentile(latencies(sessions, rate, args), [50, 99]) * 1e3
        print(
            f"{rate:,.0f} frames a second at random times: half of the outputs come within "
            f"{waits[0]:.2f} ms, 99 % within {waits[1]:.2f} ms\n"
        )
        sizes = memory(sessions, args)
        half = len(sizes) // 2  # growth: the most of the second half over that of the first
        print("MiB after each minute of frames:", " ".join(f"{size:.0f}" for size in sizes))
        time.sleep(0.1)
        idle = idle_share(0.5 if args.quick else 5)
        print(f"processor time while nothing comes: {100 * idle:.2f} %\n")
    print(
        f"result: bits_equal=1 rows_speedup={together / alone:.2f} "
        f"step_speedup={stepped / alone:.2f} submit_speedup={served / futures:.2f} "
        f"p50_ms={waits[0]:.2f} p99_ms={waits[1]:.2f} "
        f"growth_mib={max(sizes[half:]) - max(sizes[: half or None]):.1f} "
        f"idle_percent={100 * idle:.2f}"
    )


if __name__ == "__main__":
    main()
