"""A model behind HTTP and websockets: many clients, one stream, and how long they wait.

    pip install '.[serve,plot]'
    python examples/serve_sessions.py --plot latencies.png

Starlette and uvicorn do the web, `rnncore.Sessions` does the rest. A client is a websocket that
sends frames as float32, 40 numbers each, and gets 5 scores for each of them, or a session of HTTP:

    POST /sessions                 {"session": "..."}
    POST /sessions/NAME/frames     frames in the body, scores come back
    DELETE /sessions/NAME
    GET /usage                     how much is in use

Without `--serve` the program starts the service in a process of its own and puts load on it: for
each number of clients, each sends packets of 1 to 5 frames at random times, ten a second. All
answers are compared with those of the model called by itself, to the bit. `--serve 8000` serves
until it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect

FEATURES, PACKETS = 40, 10  # of a frame; packets a second of each client


def made() -> rnncore.Chain:
    """Return the model; another program would load one."""
    return rnncore.Chain(rnncore.LSTM(FEATURES, 96, seed=0), rnncore.Linear(96, 5, seed=1))


# The service


class Service:
    """What the routes share."""

    def __init__(self) -> None:
        # States of 768 bytes: 10,000 of them stay in memory, others are in a file.
        self.sessions = rnncore.Sessions(
            made(), max_rows=10_000, spill=tempfile.gettempdir(), finite=True
        )
        self.named: dict[str, rnncore.Session] = {}

    async def answer(self, session: rnncore.Session, body: bytes) -> bytes:
        """Take frames, return scores; `ValueError` for what are none."""
        if len(body) % (4 * FEATURES):
            raise ValueError(f"a frame has {4 * FEATURES} bytes, got {len(body)} for some of them")
        frames = np.frombuffer(body, "<f4").reshape(-1, FEATURES)
        return (await session.run(frames)).tobytes()

    async def open(self, request: Request) -> Response:
        """POST /sessions."""
        name = secrets.token_urlsafe()
        self.named[name] = self.sessions.open()
        return JSONResponse({"session": name})

    async def take(self, request: Request) -> Response:
        """POST /sessions/NAME/frames."""
        session = self.named.get(request.path_params["name"])
        if session is None:
            return JSONResponse({"error": "there is no such session"}, 404)
        try:
            scores = await self.answer(session, await request.body())
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(scores, media_type="application/octet-stream")

    async def close(self, request: Request) -> Response:
        """DELETE /sessions/NAME."""
        session = self.named.pop(request.path_params["name"], None)
        if session is None:
            return JSONResponse({"error": "there is no such session"}, 404)
        session.close()
        return Response(status_code=204)

    async def usage(self, request: Request) -> Response:
        """GET /usage."""
        return JSONResponse(self.sessions.usage._asdict())

    async def stream(self, websocket: WebSocket) -> None:
        """A session as long as the connection: frames in, scores out."""
        await websocket.accept()
        with self.sessions.open() as session:
            try:
                while True:
                    body = await websocket.receive_bytes()
                    await websocket.send_bytes(await self.answer(session, body))
            except ValueError as error:
                await websocket.close(1003, str(error)[:120])
            except WebSocketDisconnect:
                pass


def application() -> Starlette:
    """Return the service as a web application."""
    service = Service()

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        with service.sessions:
            yield

    routes = [
        Route("/sessions", service.open, methods=["POST"]),
        Route("/sessions/{name}/frames", service.take, methods=["POST"]),
        Route("/sessions/{name}", service.close, methods=["DELETE"]),
        Route("/usage", service.usage),
        WebSocketRoute("/stream", service.stream),
    ]
    return Starlette(routes=routes, lifespan=running)


def serve(port: int) -> None:
    """Serve until the process is told to stop; say at which port."""
    listening = socket.create_server(("127.0.0.1", port), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(application(), log_level="error")
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def served() -> Iterator[int]:
    """Another process serves meanwhile; yields its port."""
    command = [sys.executable, __file__, "--serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


# The load


class Client:
    """What one client sends, and what it gets."""

    def __init__(self, number: int, seconds: float) -> None:
        rng = np.random.default_rng(number)
        count = max(int(PACKETS * seconds), 1)
        self.sizes = rng.integers(1, 6, count)
        self.frames = rng.standard_normal((self.sizes.sum(), FEATURES), np.float32)
        self.pauses = rng.exponential(1 / PACKETS, count)
        self.latencies: list[float] = []
        self.scores: list[np.ndarray] = []

    def packets(self) -> Iterator[tuple[float, bytes]]:
        """Yield how long to wait, and what to send."""
        parts = np.split(self.frames, np.cumsum(self.sizes)[:-1])
        return zip(self.pauses.tolist(), (part.tobytes() for part in parts), strict=True)

    def note(self, start: float, scores: bytes) -> None:
        """Keep an answer."""
        self.latencies.append(time.perf_counter() - start)
        self.scores.append(np.frombuffer(scores, "<f4").reshape(-1, 5))

    async def run(self, websocket: ClientConnection) -> None:
        """Send all packets through a websocket."""
        for pause, packet in self.packets():
            await asyncio.sleep(pause)
            start = time.perf_counter()
            await websocket.send(packet)
            answer = await websocket.recv()
            assert isinstance(answer, bytes)
            self.note(start, answer)

    def run_http(self, port: int) -> None:
        """Send all packets as requests of HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def ask(method: str, path: str, body: bytes = b"", status: int = 200) -> bytes:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
            if response.status != status:
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:200]!r}")
            return answer

        name = json.loads(ask("POST", "/sessions"))["session"]
        for _, packet in self.packets():
            start = time.perf_counter()
            self.note(start, ask("POST", f"/sessions/{name}/frames", packet))
        ask("POST", f"/sessions/{name}/frames", b"123", status=400)
        ask("DELETE", f"/sessions/{name}", status=204)
        ask("POST", f"/sessions/{name}/frames", packet, status=404)
        connection.close()


async def load(port: int, clients: list[Client]) -> None:
    """Run them all at once, each by a websocket."""
    async with AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{port}/stream"
        websockets = [await stack.enter_async_context(connect(url)) for _ in clients]
        await asyncio.gather(*(c.run(w) for c, w in zip(clients, websockets, strict=True)))


def check(model: rnncore.Chain, clients: list[Client]) -> None:
    """Compare all answers with the model's, to the bit."""
    for client in clients:
        want, _ = model(client.frames[:, None])
        if not np.array_equal(np.concatenate(client.scores), want[:, 0]):
            raise SystemExit("a client was given other scores than those of its frames")


def measured(port: int, counts: list[int], seconds: float) -> dict[int, np.ndarray]:
    """Return for each number of clients the milliseconds that their packets took."""
    found, model = {}, made()
    for count in counts:
        clients = [Client(number, seconds) for number in range(count)]
        asyncio.run(load(port, clients))
        check(model, clients)
        found[count] = 1e3 * np.concatenate([client.latencies for client in clients])
        half, most = np.percentile(found[count], [50, 99])
        print(
            f"{count:5} clients, {PACKETS * count:6} packets a second: half of the answers come "
            f"within {half:.1f} ms, 99 % within {most:.1f} ms",
            flush=True,
        )
    return found


def draw(found: dict[int, np.ndarray], path: Path) -> None:
    """Draw which share of the answers comes within how many milliseconds."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for count, times in found.items():
        ax.plot(np.sort(times), np.linspace(0, 100, len(times)), label=f"{count} clients")
    ax.set(xscale="log", xlabel="milliseconds from a packet to its scores", ylabel="% of answers")
    ax.set_ylim(0, 100)
    ax.grid(alpha=0.3)
    ax.legend()
    plt.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve; 0: at any free port")
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 80, 320])
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--plot", type=Path, help="where the latencies are drawn")
    parser.add_argument("--quick", action="store_true", help="a few clients, for a moment")
    args: Any = parser.parse_args()
    if args.serve is not None:
        return serve(args.serve)
    if args.quick:
        args.clients, args.seconds = [3, 9], 0.4
    with served() as port:
        by_http = Client(0, 1)
        by_http.run_http(port)
        check(made(), [by_http])
        found = measured(port, args.clients, args.seconds)
    if args.plot:
        draw(found, args.plot)
    most = args.clients[-1]
    half, nearly_all = np.percentile(found[most], [50, 99])
    print(f"result: bits_equal=1 clients={most} p50_ms={half:.2f} p99_ms={nearly_all:.2f}")
    return None


if __name__ == "__main__":
    main()
