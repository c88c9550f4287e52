"""Which client has which row of a stream, and where the states of those without one are."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from .base import Stream
from .spill import SpillFile
from .waiting import Client


class Residents:
    """A stream whose rows clients have, at most `most` of them at a time.

    A client keeps its row while it is resident, whoever comes or goes. Where all rows are taken,
    the client that has been idle for longest is written to the spill file and read back when its
    next frames come.
    """

    def __init__(self, stream: Stream, most: int, spill: SpillFile | None) -> None:
        self.lock = threading.Lock()  # held by whoever uses the stream
        self._stream, self._most, self._spill = stream, most, spill
        self.first: dict[str, Array] = {}  # where a client stands that has taken no frames
        self._free = list(range(stream.batch))
        self._used: OrderedDict[Client, None] = OrderedDict()  # those idle for longest first
        self._closed: deque[Client] = deque()

    def __len__(self) -> int:
        return len(self._used)

    def run(self, clients: Sequence[Client], x: Array, lengths: Array) -> Array:
        """Take frames `(n, R, ...)` of different clients, `lengths` of each; return the outputs."""
        with self.lock:
            rows, stream = self._place(clients), self._stream  # which may become larger
            if len(x) == 1 == lengths.min():
                return stream.step(x[0], rows=rows)[None]
            if stream.batch_first:
                return stream.run(x.swapaxes(0, 1), rows=rows, lengths=lengths).swapaxes(0, 1)
            return stream.run(x, rows=rows, lengths=lengths)

    def step(self, clients: Sequence[Client], x: npt.ArrayLike) -> Array:
        """Take one frame of each of different clients `(R, ...)`; return the outputs."""
        with self.lock:
            rows = self._place(clients)  # which may make the stream larger
            return self._stream.step(x, rows=rows)

    def snapshot(self, client: Client) -> dict[str, Array]:
        """Return where a client stands."""
        with self.lock:
            if client.row is not None:
                return self._stream.snapshot([client.row])
            if isinstance(client.saved, int):
                assert self._spill is not None
                return self._spill.read(client.saved)
            return dict(client.saved or self.first)

    def restore(self, client: Client, snapshot: dict[str, Array]) -> None:
        """Have a client stand there."""
        with self.lock:
            if client.row is not None:
                self._stream.restore(snapshot, rows=[client.row])
            else:
                self._free_slot(client)
                client.saved = snapshot

    def close(self, client: Client) -> None:
        """Let others have a client's row, from the next `reclaim` on: this waits for nobody."""
        self._closed.append(client)

    def reclaim(self) -> None:
        """Take the rows of clients that were closed, but for those that are in a batch."""
        if not self._closed:
            return
        with self.lock:
            for _ in range(len(self._closed)):
                client = self._closed.popleft()
                if client.queued:
                    self._closed.append(client)
                else:
                    self._let_go(client)

    def refresh(self, first: dict[str, Array]) -> None:
        """Take the weights as they are now, and the state that clients start from."""
        with self.lock:
            self._stream.refresh()
            self.first = first

    def end(self) -> None:
        """Let go of the file."""
        if self._spill is not None:
            with self.lock:
                self._spill.close()

    def _place(self, clients: Sequence[Client]) -> Array:
        """Return the clients' rows; those that have none get one, with their states."""
        missing = [client for client in clients if client.row is None]
        if missing:
            self._give_rows(missing, set(clients))
        if self._spill is not None:
            for client in clients:
                self._used.move_to_end(client)
        return np.fromiter((client.row for client in clients), np.int64, len(clients))

    def _give_rows(self, missing: Sequence[Client], keep: set[Client]) -> None:
        """Give rows to clients that have none; `keep`: who is not to lose a row for that."""
        fresh = []
        try:
            for client in missing:
                row = self._free_row(keep)
                if client.saved is None:
                    fresh.append(row)
                else:
                    self._read(client, row)
                client.row = self._free.pop()
                self._used[client] = None
        finally:  # where the disk is full, too: no client has what another left in its row
            self._stream.reset(fresh)

    def _let_go(self, client: Client) -> None:
        if client.row is not None:
            del self._used[client]
            self._free.append(client.row)
        self._free_slot(client)
        client.row = client.saved = None

    def _free_slot(self, client: Client) -> None:
        if isinstance(client.saved, int) and self._spill is not None:
            self._spill.free(client.saved)

    def _free_row(self, keep: set[Client]) -> int:
        """Return a row that nobody has, the last of the free ones."""
        if not self._free and self._stream.batch < self._most:
            begin = self._stream.batch
            self._stream.join(min(begin, self._most - begin))  # those that are there stay in place
            self._free = list(range(begin, self._stream.batch))
        if not self._free:
            self._write(next(client for client in self._used if client not in keep))
        return self._free[-1]

    def _write(self, client: Client) -> None:
        assert self._spill is not None
        assert client.row is not None
        client.saved = self._spill.write(self._stream.snapshot([client.row]))
        self._free.append(client.row)
        client.row = None
        del self._used[client]

    def _read(self, client: Client, row: int) -> None:
        saved = client.saved
        if isinstance(saved, int):
            assert self._spill is not None
            self._stream.restore(self._spill.read(saved), rows=[row])
            self._spill.free(saved)
        elif saved is not None:
            self._stream.restore(saved, rows=[row])
        client.saved = None
