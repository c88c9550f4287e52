"""Many threads over modules, streams and searches: what the thread sanitizer looks at."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import rnncore
from rnncore import search

THREADS, TIMES = 4, 8
X = np.random.default_rng(0).standard_normal((20, 6, 16), np.float32)


def together(work: Callable[[int], object]) -> None:
    """Let all threads begin at once, and raise what any of them raises."""
    barrier, raised = threading.Barrier(THREADS), []

    def run(number: int) -> None:
        barrier.wait()
        try:
            for _ in range(TIMES):
                work(number)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def translator() -> rnncore.Seq2Seq:
    attention = rnncore.LuongAttention(16, 16, seed=1)
    embedding = rnncore.Embedding(20, 16, seed=2)
    encoder = rnncore.Chain(rnncore.Embedding(20, 16, seed=3), rnncore.GRU(16, 16, seed=4))
    rnn, head = rnncore.GRU(16, 16, seed=5), rnncore.Linear(16, 20, seed=6)
    decoder = rnncore.Decoder(embedding, rnn, attention, head)
    return rnncore.Seq2Seq(encoder, decoder, rnncore.FinalBridge())


def main() -> None:
    rnncore.set_num_threads(3)
    layer = rnncore.LSTM(16, 160, 2, bidirectional=True, seed=0)
    wanted = layer(X)[0].tobytes()

    def call(number: int) -> None:
        assert layer(X)[0].tobytes() == wanted

    def train(number: int) -> None:
        (y, _), pullback = layer.vjp(X)
        pullback(y)

    def change(number: int) -> None:
        if number == 0:
            layer.params["weight_hh_l0"] *= np.float32(1.01)
        layer(X)

    def grow(number: int) -> None:
        rnncore.set_num_threads(1 + number % 3)
        layer(X)

    rows = [rnncore.Linear(16, 300, seed=1), rnncore.Tanh(), rnncore.LayerNorm(300)]
    chain = rnncore.Chain(*rows, rnncore.GRU(300, 64, seed=2))
    streams = [chain.stream(6) for _ in range(THREADS)]
    model, source = translator(), np.random.default_rng(1).integers(0, 20, (9, 5))
    forest = rnncore.Forest.from_nested([((1, 2), (3, 4))] * 40)
    tree, leaves = rnncore.TreeLSTM(16, 64, seed=1), np.ones((forest.nodes, 16), np.float32)
    for work in (
        call,
        train,
        change,
        grow,
        lambda number: streams[number].run(X),
        lambda number: chain(X),
        lambda number: search.beam(model, source, bos=1, eos=2, width=3, max_length=8),
        lambda number: tree.vjp(leaves, forest)[1](np.ones((forest.nodes, 64), np.float32)),
    ):
        together(work)
    print("no race")


if __name__ == "__main__":
    main()
