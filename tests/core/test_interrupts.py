"""Long calls end when a signal's handler raises, with nothing half done; pieces change no bit."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    RNN,
    AvgPool2d,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    DeepRNN,
    Linear,
    MaxPool1d,
    Softmax,
    _core,
    search,
)

from tests.support import seq2seq_models
from tests.support.processes import not_sanitized
from tests.support.recursive_layers import CELLS, make, random_trees

LATE = 1.0  # seconds of processor time, which other processes take nothing of
RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@contextmanager
def pieces(work: float) -> Iterator[None]:
    before = _core.set_piece_work(work)
    try:
        yield
    finally:
        _core.set_piece_work(before)


def everything(module: Any, *args: Any, **options: Any) -> list[np.ndarray]:
    """All that a call and its pullback give, and the gradients."""
    found: list[np.ndarray] = []

    def collect(value: Any) -> None:
        if isinstance(value, (tuple, list)):
            for part in value:
                collect(part)
        elif value is not None:
            found.append(np.copy(value))

    module.zero_grad()
    collect(module(*args, **options))
    y, pullback = module.vjp(*args, **options)
    collect(y)
    first = y[0] if isinstance(y, tuple) else y
    collect(pullback(np.cos(first)))
    collect(list(module.grads.values()))
    return found


LENGTHS = np.array([40, 3, 27, 40, 1, 12])
X = random(40, 6, 5)
CALLS: dict[str, Callable[[], list[np.ndarray]]] = {
    "vanilla": lambda: everything(RNN(5, 7, 2, seed=0), X),
    "lstm": lambda: everything(LSTM(5, 33, seed=0), X, lengths=LENGTHS),
    "both directions": lambda: everything(GRU(5, 9, 2, bidirectional=True, seed=0), X),
    "both, ragged": lambda: everything(LSTM(5, 9, bidirectional=True, seed=0), X, lengths=LENGTHS),
    "checkpoints": lambda: everything(LSTM(5, 40, checkpoint=True, seed=0), random(900, 6, 5)),
    "many rows": lambda: everything(LSTM(5, 12, seed=0), random(30, 70, 5)),
    "projected": lambda: everything(LSTM(5, 12, proj_size=4, peephole=True, seed=0), X),
    "deep": lambda: everything(DeepRNN(5, 6, num_layers=3, residual=True, seed=0), X),
    "linear": lambda: everything(Linear(5, 3, seed=0), random(5000, 5)),
    "softmax": lambda: everything(Softmax(), random(300, 9)),
    "convolution": lambda: everything(Conv1d(5, 7, 3, padding=1, seed=0), random(900, 6, 5)),
    "convolution, rows first": lambda: everything(
        Conv1d(5, 70, 3, 2, batch_first=True, seed=0), random(60, 90, 5)
    ),
    "convolution, groups": lambda: everything(Conv1d(6, 9, 4, groups=3, seed=0), random(4000, 6)),
    "images": lambda: everything(Conv2d(3, 18, 3, padding=1, seed=0), random(5, 40, 30, 3)),
    "transposed": lambda: everything(ConvTranspose1d(5, 7, 4, 2, seed=0), random(900, 6, 5)),
    "pooling": lambda: everything(MaxPool1d(3, 2), random(900, 6, 5)),
    "means": lambda: everything(AvgPool2d(2, 1, 1), random(5, 40, 30, 3)),
    "stream": lambda: [Chain(GRU(5, 6, seed=0), Linear(6, 3, seed=0)).stream(6).run(X)],
    "attention": lambda: everything(
        rnncore.LuongAttention(5, 5, "concat", seed=0), random(9, 6, 5), X, lengths=LENGTHS
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_pieces_change_no_bit(call: Callable[[], list[np.ndarray]]) -> None:
    want = call()
    for work in (1.0, 1e5):
        with pieces(work):
            for got, expected in zip(call(), want, strict=True):
                assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("cell", CELLS)
def test_pieces_change_no_bit_of_trees(cell: str) -> None:
    forest = random_trees(np.random.default_rng(0), 400, 12, 3)
    layer, x = make(cell, 4, 6, 3, seed=0), random(forest.nodes, 4)

    def call() -> list[np.ndarray]:
        layer.zero_grad()
        states, pullback = layer.vjp(x, forest)
        states = states if isinstance(states, tuple) else (states,)
        return [*states, pullback(*map(np.cos, states)), *map(np.copy, layer.grads.values())]

    want = call()
    with pieces(1.0):
        for got, expected in zip(call(), want, strict=True):
            assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("name", seq2seq_models.MODELS)
def test_pieces_change_no_bit_of_decoders(name: str) -> None:
    model = seq2seq_models.MODELS[name]("float32")
    given = seq2seq_models.tokens(), seq2seq_models.lengths(True)

    def call() -> list[np.ndarray]:
        model.zero_grad()
        logits, pullback = model.vjp(*given[0], **given[1])
        pullback(np.cos(logits))
        return [logits, *map(np.copy, model.grads.values())]

    want = call()
    with pieces(1.0):
        for got, expected in zip(call(), want, strict=True):
            assert got.tobytes() == expected.tobytes()


class Enough(Exception):
    """What a handler raises."""


def stop(*_: Any) -> None:
    raise Enough


@contextmanager
def alarm(handler: Callable[..., None] = stop, after: float = 0.02) -> Iterator[None]:
    """Have a signal handled when the process has computed for `after` seconds."""
    before = signal.signal(signal.SIGPROF, handler)
    try:
        signal.setitimer(signal.ITIMER_PROF, after)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def assert_ends(call: Callable[[], Any]) -> None:
    """It would take more than `LATE`, and does not."""
    start = time.process_time()
    with alarm(), pytest.raises(Enough):
        call()
    assert time.process_time() - start < LATE


#: Each step reads 32 MB of weights: a second and more for all of them.
STEPS, WIDE = 1500, 1024
SLOW = random(STEPS, 1, 16)


@pytest.fixture(scope="module")
def lstm() -> LSTM:
    return LSTM(16, WIDE, seed=0)


@not_sanitized
@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer")
class TestLongCalls:
    def test_forward(self, lstm: LSTM) -> None:
        assert_ends(lambda: lstm(SLOW))
        assert_ends(lambda: lstm.vjp(SLOW))

    @pytest.mark.parametrize("checkpoint", [False, True])
    def test_backward_adds_nothing_and_is_used_up(self, lstm: LSTM, checkpoint: bool) -> None:
        lstm.checkpoint = checkpoint
        (y, _), pullback = lstm.vjp(SLOW)
        lstm.checkpoint = False
        assert_ends(lambda: pullback(y))
        assert not any(grad.any() for grad in lstm.grads.values())
        with pytest.raises(RuntimeError, match="already run"):
            pullback(y)

    def test_a_stream_stands_where_it_stood(self, lstm: LSTM) -> None:
        stream = Chain(GRU(16, 16, seed=0), lstm).stream(1)
        stream.run(SLOW[:3])
        before = stream.state
        assert_ends(lambda: stream.run(SLOW))
        for now, then in zip(stream.state, before, strict=True):
            np.testing.assert_array_equal(now, then)

    def test_linear(self) -> None:
        layer, x = Linear(4096, 4096, seed=0), np.zeros((6_000, 4096), np.float32)
        threads = rnncore.get_num_threads()
        rnncore.set_num_threads(1)
        try:
            _, pullback = layer.vjp(x[:1])
            assert_ends(lambda: layer(x))
            _, pullback = layer.vjp(x)
            assert_ends(lambda: pullback(x))
        finally:
            rnncore.set_num_threads(threads)
        assert not layer.grads["weight"].any()

    def test_transducer(self, set_threads: Callable[[int], None]) -> None:
        joint, loss = rnncore.TransducerJoint(WIDE, WIDE, seed=0), rnncore.TransducerLoss()
        f, g, targets = random(300, 6, WIDE), random(25, 6, WIDE), np.ones((6, 24), int)
        set_threads(1)
        joined, pullback = joint.vjp(f, g)
        assert_ends(lambda: loss(joined, targets))
        _, loss_pullback = loss.vjp(joined, targets)
        assert_ends(lambda: pullback(loss_pullback()))
        assert not joint.grads["output.weight"].any()

    @pytest.mark.parametrize(
        ("layer", "steps", "channels"),
        [(Conv1d(512, 512, 9, seed=0), 60_000, 512), (MaxPool1d(4_000, 1), 90_000, 64)],
        ids=["convolution", "pooling"],
    )
    def test_windows(
        self, layer: Any, steps: int, channels: int, set_threads: Callable[[int], None]
    ) -> None:
        """Of one sequence, which is one image to the kernels."""
        x = np.zeros((steps, channels), np.float32)
        set_threads(1)
        y, pullback = layer.vjp(x)
        assert_ends(lambda: layer(x))
        assert_ends(lambda: pullback(y))
        assert not any(grad.any() for grad in layer.grads.values())

    def test_trees(self) -> None:
        layer = make("tree lstm", 16, WIDE, 2, seed=0)
        chain = rnncore.Forest(np.r_[1:900, -1], [0, 900])
        assert_ends(lambda: layer(random(900, 16), chain))

    def test_decoders(self) -> None:
        attention = rnncore.LuongAttention(WIDE, 16, seed=0)
        decoder = rnncore.Decoder(
            None,
            LSTM(16 + WIDE, WIDE, seed=0),
            attention,
            Linear(WIDE, 1, seed=0),
            input_feeding=True,
        )
        model = rnncore.Seq2Seq(RNN(16, 16, seed=0), decoder)
        assert_ends(lambda: model(SLOW[:3], SLOW))

    @pytest.mark.parametrize("width", [1, 4])
    def test_searches(self, width: int) -> None:
        embedding, head = rnncore.Embedding(9, 16, seed=0), Linear(WIDE, 9, seed=0)
        decoder = rnncore.Decoder(embedding, LSTM(16, WIDE, seed=0), None, head)
        model, steps = rnncore.Seq2Seq(RNN(16, 16, seed=0), decoder), 2 * STEPS
        options = {"bos": 0, "eos": 1, "min_length": steps, "max_length": steps, "width": width}
        assert_ends(lambda: search.beam(model, SLOW[:3], **options))
        assert search.beam(model, SLOW[:3], bos=0, eos=1, max_length=2, width=width)

    def test_attention(self) -> None:
        attention = rnncore.LuongAttention(256, 256, "concat", seed=0)
        query = random(400, 64, 256)
        assert_ends(lambda: attention(query, query))


@not_sanitized
@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer")
class TestHandlers:
    def test_that_return_change_nothing(self, lstm: LSTM) -> None:
        """Even those that call the module whose call they interrupt."""
        seen: list[Any] = []

        def look(*_: Any) -> None:
            seen.append(lstm(SLOW[:400, :, :])[0])

        x, want = SLOW[:400], lstm(SLOW[:400])[0]
        with pieces(1e6), alarm(look):
            got = lstm(x)[0]
        assert len(seen) == 1
        assert got.tobytes() == want.tobytes() == seen[0].tobytes()

    def test_run_while_another_thread_is_in_a_call(self, lstm: LSTM) -> None:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(lstm(SLOW)))

        def wait() -> None:
            while thread.is_alive():
                time.sleep(0.01)

        thread.start()
        with alarm(), pytest.raises(Enough):
            wait()
        assert not found
        thread.join()
        assert found[0][0].shape == (STEPS, 1, WIDE)  # whose call goes on


def test_pullback_names_what_has_happened() -> None:
    layer = GRU(3, 2, seed=0)
    (y, _), pullback = layer.vjp(random(4, 2, 3))
    pullback(y)
    with pytest.raises(RuntimeError, match="already run"):
        pullback(y)
