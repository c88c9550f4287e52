"""Some rows of a stream take frames, the others stay: the bits of each row alone."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Chain, Conv1d, Embedding, Linear, Module, Parallel, Residual

from tests.stream.test_refusals import Fails
from tests.support.streams import DELAYED, PROMPT, WIDTH, frames, learned, same

BATCH = 5


class Own(Module):
    """Somebody's own layer, which is called in Python."""

    pointwise = True

    def __call__(self, x: Any) -> Any:
        return x * x - 1


#: Streams in Python, and weights of fewer bits.
OTHERS: dict[str, Module] = {
    "convolution": Conv1d(WIDTH, 4, 3, padding=(2, 0), seed=1),
    "convolution in a chain": Chain(
        Conv1d(WIDTH, 4, 3, dilation=2, padding=(4, 0), seed=1),
        LSTM(4, 5, 2, seed=2),
        Own(),
        Conv1d(5, 5, 2, padding=(1, 0), seed=3),
        learned(GRU(5, 3, learned_state=True, seed=4)),
    ),
    "beside convolutions": Parallel(
        Conv1d(WIDTH, 4, 2, padding=(1, 0), seed=1), LSTM(WIDTH, 4, seed=2), Own()
    ),
    "around convolutions": Chain(
        Residual(Chain(Conv1d(WIDTH, WIDTH, 2, padding=(1, 0), seed=1), GRU(WIDTH, WIDTH, seed=2))),
        Linear(WIDTH, 2, seed=3),
    ),
    "called in between": Chain(Own(), GRU(WIDTH, 4, seed=1), Own(), LSTM(4, 3, seed=2), Own()),
    "many operations": Chain(GRU(WIDTH, 200, 2, seed=1), Linear(200, 3, seed=2)),
    "int8": rnncore.quantize(
        Chain(LSTM(WIDTH, 70, 2, seed=1), GRU(70, 33, seed=2), Linear(33, 4, seed=3)), "int8"
    ),
    "bfloat16": rnncore.quantize(
        Chain(LSTM(WIDTH, 70, seed=1), GRU(70, 33, seed=2), Linear(33, 4, seed=3)), "bfloat16"
    ),
    "int8 behind a convolution": rnncore.quantize(
        Chain(Conv1d(WIDTH, 40, 3, padding=(2, 0), seed=1), GRU(40, 33, seed=2)), "int8"
    ),
}
ALL = PROMPT | OTHERS


def alone(module: Module, x: np.ndarray) -> np.ndarray:
    """What one sequence `(n, ...)` gives by itself."""
    return module.stream().run(x[:, None])[:, 0]


@pytest.mark.parametrize("name", ALL)
def test_rows_are_sequences_of_their_own(name: str) -> None:
    """Steps and chunks of random rows, with as many frames for each as come."""
    module, rng = ALL[name], np.random.default_rng(5)
    x = frames(module, 24, BATCH)
    stream, taken = module.stream(BATCH), np.zeros(BATCH, int)
    given: list[list[np.ndarray]] = [[] for _ in range(BATCH)]
    for turn in range(12):
        rows = rng.permutation(BATCH)[: rng.integers(1, BATCH + 1)]
        lengths = np.ones(len(rows), int) if turn % 2 else rng.integers(0, 4, len(rows))
        steps = max(lengths.max(), 1)
        chunk = np.stack([x[taken[row] : taken[row] + steps, row] for row in rows], axis=1)
        if turn % 2:
            y = stream.step(chunk[0], rows=rows)[None]
        else:
            y = stream.run(chunk, rows=rows, lengths=lengths)
            assert not any(y[n:, at].any() for at, n in enumerate(lengths))
        for at, row in enumerate(rows):
            given[row] += list(y[: lengths[at], at])
        taken[rows] += lengths
    for row in range(BATCH):
        if taken[row]:
            same(np.stack(given[row]), alone(module, x[: taken[row], row]))


@pytest.mark.parametrize("name", ["LSTM", "chain", "text", "residual", "beside", *OTHERS])
def test_rows_that_start_anew(name: str) -> None:
    module, rng = ALL[name], np.random.default_rng(6)
    x, resets = frames(module, 9, BATCH), rng.random((9, BATCH)) < 0.3
    rows, lengths = np.array([4, 0, 2]), np.array([9, 0, 6])
    stream, other = module.stream(BATCH), module.stream(BATCH)
    for each in (stream, other):
        each.run(x[:4])
    y = stream.run(x[:, rows], resets[:, rows], rows=rows, lengths=lengths)
    for at, row in enumerate(rows):
        for t in range(lengths[at]):
            now = other.step(x[t, [row]], resets=resets[t, [row]], rows=[row])
            same(y[t, at], now[0])
    same(stream.run(x), other.run(x))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "chain", "convolution in a chain"])
def test_what_stays_is_not_touched(name: str) -> None:
    module = ALL[name]
    x = frames(module, 8, BATCH)
    stream = module.stream(BATCH)
    stream.run(x)
    before, arrays = stream.snapshot(), [id(a) for a in rnncore.states.leaves(stream._live())]
    for _ in range(3):
        stream.step(x[0, [3, 1]], rows=[3, 1])
        stream.run(x[:4, [1, 3]], rows=[1, 3], lengths=[4, 2])
    stream.reset([1])
    stream.restore(stream.snapshot([3]), rows=[1])
    after = stream.snapshot()
    assert [id(a) for a in rnncore.states.leaves(stream._live())] == arrays
    for key in before.keys() - {"batch"}:
        same(after[key][..., [0, 2, 4], :], before[key][..., [0, 2, 4], :])
        assert (after[key][..., [1, 3], :] != before[key][..., [1, 3], :]).any()
        same(after[key][..., 1, :], after[key][..., 3, :])


@pytest.mark.parametrize("name", ["LSTM", "text", "convolution in a chain", "called in between"])
def test_how_rows_are_given(name: str) -> None:
    module = ALL[name]
    x = frames(module, 6, BATCH)
    streams = [module.stream(BATCH) for _ in range(5)]
    mask = np.array([False, True, False, True, False])
    ways: tuple[Any, ...] = ([1, 3], (1, 3), np.array([1, 3], "u1"), mask, np.arange(1, 5, 2))
    want = module.stream(2).step(x[0, [1, 3]])
    for stream, rows in zip(streams, ways, strict=True):
        same(stream.step(x[0, [1, 3]], rows=rows), want)
        out = np.empty_like(want)
        assert stream.step(x[1, [1, 3]], out, rows=rows) is out
    stream = module.stream(BATCH)
    same(stream.step(x[0, 1], rows=1), want[0])  # a single row without its axis
    same(stream.run(x[1:, 1], rows=[1]), alone(module, x[:, 1])[1:])
    assert stream.step(x[0, []], rows=[]).shape == (0, *want.shape[1:])
    assert stream.run(x[:, []], rows=[]).shape == (6, 0, *want.shape[1:])
    assert not stream.run(x, lengths=[0] * BATCH).any()
    assert stream.run(x[:0], lengths=[0] * BATCH).shape == (0, BATCH, *want.shape[1:])


def test_batch_first() -> None:
    layer = LSTM(WIDTH, 4, batch_first=True, seed=0)
    x = np.ascontiguousarray(frames(layer, 6, BATCH).swapaxes(0, 1))
    stream = layer.stream(BATCH)
    y = stream.run(x[[4, 1]], rows=[4, 1], lengths=[2, 6])
    same(y[1:], layer(x[1:2])[0])
    same(y[:1, :2], layer(x[4:, :2])[0])
    assert not y[0, 2:].any()


def test_what_is_past_the_end_is_not_read() -> None:
    module = PROMPT["chain"]
    x = frames(module, 6, 2)
    x[3:, 0] = np.nan
    y = module.stream(2).run(x, lengths=[3, 6])
    same(y[:3, 0], alone(module, x[:3, 0]))
    same(y[:, 1], alone(module, x[:, 1]))
    assert not y[3:, 0].any()


def test_rows_join_and_keep_their_numbers() -> None:
    module = PROMPT["chain"]
    x = frames(module, 6, 40)
    stream = module.stream(2)
    first = stream.run(x[:3, :2])
    for count in (1, 37):
        stream.join(count)
    rows = [39, 1, 0]
    y = stream.run(x[3:, rows], rows=rows)
    same(y[:, 0], alone(module, x[3:, 39]))
    same(np.concatenate((first[:, 1], y[:, 1])), alone(module, x[:, 1]))
    same(np.concatenate((first[:, 0], y[:, 2])), alone(module, x[:, 0]))


@pytest.mark.parametrize("name", ["LSTM", "text", "chain", "convolution in a chain"])
def test_refusals_leave_the_state_as_it_was(name: str) -> None:
    module = ALL[name]
    x = frames(module, 6, BATCH)
    stream = module.stream(BATCH)
    stream.run(x)
    before, two = stream.snapshot(), x[0, :2]
    for rows, error, message in (
        ([1, 1], ValueError, "rows must be different ones, got 1 2 times"),
        ([0, 5], ValueError, r"rows must be in 0\.\.4, got 5"),
        ([-1, 0], ValueError, r"rows must be in 0\.\.4, got -1"),
        (np.array([0, 5]), ValueError, r"rows must be in 0\.\.4, got 5"),
        (np.array([2, 2]), ValueError, "rows must be different ones, got 2 2 times"),
        ([[0, 1]], ValueError, r"rows must have one axis, got shape \(1, 2\)"),
        ([0.0, 1.0], TypeError, "rows must be integers, got float64"),
        ([0, 1, 2], ValueError, r"x must have shape \(3"),
        ([0], ValueError, r"x must have shape \(1"),
    ):
        with pytest.raises(error, match=message):
            stream.step(two, rows=rows)
        if "x must" not in message:
            with pytest.raises(error, match=message):
                stream.run(x[:, :2], rows=rows)
    for lengths, message in (
        ([7, 1], r"lengths must be in 0\.\.6, the number of steps; got 1\.\.7"),
        ([-1, 1], r"lengths must be in 0\.\.6"),
        ([1, 1, 1], r"lengths must have shape \(2,\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.run(x[:, :2], rows=[0, 1], lengths=lengths)
    with pytest.raises(TypeError, match="lengths must be whole numbers"):
        stream.run(x[:, :2], rows=[0, 1], lengths=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"resets must have shape \(2,\), got \(5,\)"):
        stream.step(two, resets=np.zeros(BATCH, bool), rows=[0, 1])
    with pytest.raises(ValueError, match=r"chunk must have shape \(n, 2"):
        stream.run(x, rows=[0, 1])
    with pytest.raises(ValueError, match="snapshot must be of 2 rows, got 1"):
        stream.restore(stream.snapshot([1]), rows=[0, 1])
    after = stream.snapshot()
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_snapshots_that_do_not_fit_change_no_row() -> None:
    stream = Chain(LSTM(WIDTH, 4, seed=0), Own(), GRU(4, 2, seed=1)).stream(3)
    stream.run(frames(PROMPT["chain"], 4, 3))
    before, own = stream.snapshot(), stream.snapshot([0])
    for key, array in own.items():
        if key != "batch":
            wrong = {**{k: a + 1 for k, a in own.items() if k != "batch"}, "batch": own["batch"]}
            wrong[key] = array[..., :1]
            with pytest.raises(ValueError, match="state of 1 rows must have shape"):
                stream.restore(wrong, rows=[2])
    after = stream.snapshot()
    assert all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("behind", ["Fails", "GRU"])
def test_a_layer_that_fails_half_way_loses_nothing(behind: str) -> None:
    layers = [LSTM(WIDTH, 4, seed=0), Conv1d(4, 4, 2, padding=(1, 0), seed=2), Fails()]
    module = Chain(*layers, GRU(4, 2, seed=1)) if behind == "GRU" else Chain(*layers)
    x = frames(PROMPT["chain"], 9, 3)
    stream = module.stream(3)
    first, wrong = stream.run(x[:3]), x[3:].copy()
    wrong[2, 1] = np.nan
    with pytest.raises(ArithmeticError):
        stream.run(wrong[:, [2, 1]], rows=[2, 1], lengths=[1, 4])
    with pytest.raises(ArithmeticError):
        stream.step(wrong[2, [2, 1]], rows=[2, 1])
    y = stream.run(x[3:, [2, 1]], rows=[2, 1], lengths=[6, 3])
    same(np.concatenate((first[:, 2], y[:, 0])), alone(module, x[:, 2]))
    same(np.concatenate((first[:, 1], y[:3, 1])), alone(module, x[:6, 1]))


@pytest.mark.parametrize("name", DELAYED)
def test_rows_that_wait_for_the_same_frames(name: str) -> None:
    module = DELAYED[name]
    stream, x = module.stream(2), frames(module, 6, 2)
    together = "rows of a stream that looks ahead go together"
    with pytest.raises(ValueError, match=together):
        stream.run(x[:, :1], rows=[0])
    with pytest.raises(ValueError, match=together):
        stream.run(x, lengths=[6, 3])
    with pytest.raises(ValueError, match=together):
        stream.restore(stream.snapshot(), rows=[0, 1])


@pytest.mark.usefixtures("set_threads")
@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("name", ["LSTM", "chain", "many operations", "int8"])
def test_steps_of_rows_allocate_nothing(name: str, count: int) -> None:
    rnncore.set_num_threads(1)
    module = ALL[name]
    stream, rng = module.stream(64), np.random.default_rng(0)
    x = frames(module, 1, 64)[0]
    sizes = [count - 1, count, count - 2]
    rows = [rng.permutation(64)[:size] for size in sizes]
    given = [x[some].copy() for some in rows]
    out = [
        np.empty_like(stream.step(one, rows=some)) for one, some in zip(given, rows, strict=True)
    ]

    def go() -> None:
        for _ in range(20):
            for one, to, some in zip(given, out, rows, strict=True):
                stream.step(one, to, rows=some)

    go()
    tracemalloc.start()
    try:
        go()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        go()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 400  # bound methods and the like, but no array of any size


def test_numbers_past_the_end_are_in_range_too() -> None:
    stream = Chain(Embedding(3, 4, seed=0), GRU(4, 2, seed=1)).stream(2)
    with pytest.raises(ValueError, match=r"chunk must be in 0\.\.2, got 3"):
        stream.run([[0, 0], [1, 3]], lengths=[2, 1])
