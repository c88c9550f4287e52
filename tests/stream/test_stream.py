"""Streams: equal to whole calls to the bit, rows that come and go, weights, memory, threads."""

import gc
import threading
import tracemalloc

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, RNN, Chain, Linear, RowConvolution, Tanh
from rnncore.arrays import load_arrays, save_arrays
from rnncore.states import leaves, skeleton

from tests.support.compare import assert_same
from tests.support.streams import DELAYED, PROMPT, WIDTH, called, frames, same

STEPS = 7
ALL = PROMPT | DELAYED


def named(state):
    return {str(n): np.asarray(part) for n, part in enumerate(leaves(state))}


# To the bit


@pytest.mark.parametrize("name", PROMPT)
@pytest.mark.parametrize("batch", [1, 5])
def test_steps_equal_one_call(name, batch):
    module = PROMPT[name]
    x = frames(module, STEPS, batch)
    y, state = called(module, x)
    stream = module.stream(batch)
    same(np.stack([stream.step(frame) for frame in x]), y)
    assert_same(named(stream.state), named(state))
    stream.reset()
    out = np.empty(y.shape[1:], y.dtype)
    for frame, want in zip(x, y, strict=True):
        assert stream.step(frame, out) is out
        same(out, want)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cuts", [[], [3], [1, 1, 5], range(1, STEPS)], ids=str)
def test_chunks_equal_one_call(name, cuts):
    module = ALL[name]
    x = frames(module, STEPS, 3)
    stream = module.stream(3)
    ready = [stream.run(chunk) for chunk in np.split(x, cuts)]
    y, state = called(module, x)
    same(np.concatenate([*ready, stream.finish()]), y)
    assert_same(named(stream.state), named(state))


@pytest.mark.parametrize("name", ALL)
def test_a_single_row_needs_no_axis(name):
    module = ALL[name]
    x = frames(module, STEPS, 1)
    y, _ = called(module, x)
    stream = module.stream()
    if stream.looks_ahead:
        ready = [stream.run(x[:4, 0]), stream.run(x[4:, 0]), stream.finish()[:, 0]]
        same(np.concatenate(ready), y[:, 0])
        return
    same(np.stack([stream.step(frame[0]) for frame in x]), y[:, 0])
    stream.reset()
    same(stream.run(x[:, 0]), y[:, 0])


def test_steps_and_chunks_mix_over_large_layers():
    model = Chain(GRU(WIDTH, 200, 2, seed=0), Linear(200, 70, seed=1))  # steps of many operations
    x = frames(model, 9, 40)
    y, _ = model(x)
    stream = model.stream(40)
    same(np.concatenate([stream.run(x[:4]), stream.step(x[4])[None], stream.run(x[5:])]), y)


def test_batch_first():
    layers = [GRU(WIDTH, 4, batch_first=True, seed=0), RowConvolution(4, 1, True, seed=1)]
    x = frames(layers[0], STEPS, 2).swapaxes(0, 1)
    for model in (layers[0], Chain(*layers), Chain(layers[0], Tanh())):
        y, _ = model(x)
        stream = model.stream(2)
        same(np.concatenate([stream.run(x[:, :3]), stream.run(x[:, 3:]), stream.finish()], 1), y)
    stream = layers[0].stream(2)
    same(np.stack([stream.step(x[:, t]) for t in range(STEPS)], 1), layers[0](x)[0])


def test_numbers_of_any_kind():
    model = PROMPT["text"]
    x = frames(model, STEPS, 2)
    y, _ = model(x)
    stream = model.stream(2)
    same(np.stack([stream.step(frame.astype("u1")) for frame in x]), y)
    stream.reset()
    same(np.stack([stream.step(frame.tolist()) for frame in x]), y)
    stream.reset()
    same(stream.run(x[:, ::-1])[:, ::-1], y)
    for wrong, error, message in (
        ([0, WIDTH], ValueError, r"x must be in 0\.\.2, got 3"),
        ([-1, 0], ValueError, r"x must be in 0\.\.2, got -1"),
        ([0, 1, 2], ValueError, r"x must have shape \(2,\), got \(3,\)"),
        ([0.0, 1.0], TypeError, "x must be integers, got float64"),
    ):
        with pytest.raises(error, match=message):
            stream.step(np.array(wrong))
    with pytest.raises(ValueError, match=r"x must have shape \(1,\) or \(\), got \(2,\)"):
        model.stream().step([0, 1])
    with pytest.raises(TypeError, match="in a chain it must be the first layer"):
        Chain(Tanh(), rnncore.Embedding(3, 2), GRU(2, 2)).stream()


class Doubled(rnncore.Embedding):
    """Calls otherwise than `stages` says."""

    def __call__(self, x):
        return 2 * super().__call__(x)


def test_layers_that_call_otherwise_are_called():
    class Shifted(Tanh):
        def __call__(self, x):
            return super().__call__(x) + 1

    model = Chain(Doubled(WIDTH, 4, seed=0), GRU(4, 4, seed=1), Shifted(), Linear(4, 2, seed=2))
    x = np.random.default_rng(0).integers(0, WIDTH, (STEPS, 2))
    y, _ = model(x)
    stream = model.stream(2)
    same(np.stack([stream.step(frame) for frame in x]), y)
    same(model.layers[0].stream(2).step(x[0]), model.layers[0](x[0]))


def test_rows_as_they_come(rng):
    """Outputs of a lone activation may lie anywhere, also where its inputs lie in part."""
    stream, wide = rnncore.Softmax().stream(2), rng.standard_normal((2, 8)).astype("f4")
    want = rnncore.Softmax()(wide[:, ::2])
    same(stream.step(wide[:, ::2], wide[:, 1::2]), want)
    same(wide[:, 1::2], want)
    flat = np.arange(9, dtype="f4")
    want = rnncore.Softmax()(flat[:8].reshape(2, 4).copy())
    same(stream.step(flat[:8].reshape(2, 4), flat[1:].reshape(2, 4)), want)


def test_any_frames(rng):
    layer = LSTM(WIDTH, 4, seed=0)
    x = frames(layer, STEPS, 2)
    y, _ = layer(x)
    stream = layer.stream(2)
    wide = np.zeros((STEPS, 2, 2 * WIDTH), "float32")
    wide[..., ::2] = x
    same(np.stack([stream.step(frame[..., ::2]) for frame in wide]), y)
    stream.reset()
    same(np.stack([stream.step(frame.tolist()) for frame in x]), y)
    stream.reset()
    square = GRU(4, 4, seed=0)
    x = np.ascontiguousarray(y)
    want, _ = square(x)
    stream = square.stream(2)
    for frame in x:  # outputs may take the place of inputs
        stream.step(frame, frame)
    same(x, want)


def test_nan_stays_in_its_row():
    model = PROMPT["chain"]
    x = frames(model, STEPS, 3)
    y, _ = model(x)
    x[2, 1] = np.nan
    stream = model.stream(3)
    got = np.stack([stream.step(frame) for frame in x])
    same(got[:, [0, 2]], y[:, [0, 2]])
    assert np.isnan(got[2:, 1]).all()


# Rows and states


@pytest.mark.parametrize("name", PROMPT)
def test_rows_join_leave_and_start_anew(name):
    module = PROMPT[name]
    x = frames(module, 4 * STEPS, 3)
    stream = module.stream(2)
    first = [stream.step(frame[:2]) for frame in x[:STEPS]]
    stream.join()
    assert stream.batch == 3
    second = [stream.step(frame) for frame in x[STEPS : 2 * STEPS]]
    stream.reset([1])
    third = [stream.run(x[2 * STEPS : 3 * STEPS])]
    stream.leave(0)
    assert stream.batch == 2
    fourth = [stream.step(frame[1:]) for frame in x[3 * STEPS :]]

    whole, _ = called(module, x[:, :1])
    parts = (first, second, *third)
    same(np.concatenate([np.asarray(p)[:, 0] for p in parts]), whole[: 3 * STEPS, 0])
    again, _ = called(module, x[2 * STEPS :, 1:2])
    same(np.concatenate([third[0][:, 1], np.stack(fourth)[:, 0]]), again[:, 0])
    late, _ = called(module, x[STEPS:, 2:])
    same(
        np.concatenate([np.stack(second)[:, 2], third[0][:, 2], np.stack(fourth)[:, 1]]), late[:, 0]
    )


@pytest.mark.parametrize("name", PROMPT)
def test_rows_move_to_another_stream(name, tmp_path):
    module = PROMPT[name]
    x = frames(module, STEPS, 4)
    y, _ = called(module, x)
    stream = module.stream(4)
    stream.run(x[:3])
    save_arrays(tmp_path / "rows", stream.snapshot([3, 1]))
    moved, _ = load_arrays(tmp_path / "rows")
    other = module.stream(1)
    other.restore(stream.snapshot(0))
    same(other.run(x[3:5, :1]), y[3:5, :1])
    other.join(snapshot=moved)
    assert other.batch == 3
    found = other.run(np.stack([x[5:, 0], x[3:5, 3], x[3:5, 1]], axis=1))
    same(found, np.stack([y[5:, 0], y[3:5, 3], y[3:5, 1]], axis=1))
    other.leave([False, True, True])
    assert_same(other.snapshot(), other.snapshot([True]))


@pytest.mark.parametrize("name", PROMPT)
def test_states_are_read_and_set(name):
    module = PROMPT[name]
    x = frames(module, STEPS, 2)
    y, _ = called(module, x)
    stream, other = module.stream(2), module.stream(2)
    stream.run(x[:3])
    held = stream.state
    other.state = held
    same(other.run(x[3:]), y[3:])
    same(stream.run(x[3:]), y[3:])
    _, middle = called(module, x[:3])
    assert skeleton(held) == skeleton(middle)
    assert_same(named(held), named(middle))  # a copy: later steps have left it alone
    stream.state = None
    same(stream.run(x), y)


@pytest.mark.parametrize("name", ALL)
def test_streams_go_back(name, tmp_path):
    module = ALL[name]
    x = frames(module, STEPS, 2)
    y, _ = called(module, x)
    stream = module.stream(2)
    ready = [stream.run(x[:3])]
    snapshot = stream.snapshot()
    save_arrays(tmp_path / "snapshot", snapshot)
    ready += [stream.run(x[3:]), stream.finish()]
    again, _ = load_arrays(tmp_path / "snapshot")
    for where in (snapshot, again):
        stream.restore(where)
        same(np.concatenate([ready[0], stream.run(x[3:]), stream.finish()]), y)
    if not stream.looks_ahead:
        stream.join(3)
        stream.restore(snapshot)
        assert stream.batch == 2
        same(stream.run(x[3:]), y[3:])


def test_states_nest_as_the_layers_do():
    inner = Chain(GRU(WIDTH, 4, seed=0), RowConvolution(4, 1, seed=1), RNN(4, 3, seed=2))
    model = Chain(inner, Tanh(), Chain(Chain(RowConvolution(3, 1, seed=3)), LSTM(3, 2, seed=4)))
    x = frames(model, STEPS, 2)
    y, state = model(x)
    stream = model.stream(2)
    same(np.concatenate([stream.run(x), stream.finish()]), y)
    assert skeleton(stream.state) == skeleton(state)
    assert_same(named(stream.state), named(state))
    other = model.stream(2)
    other.state = state
    assert skeleton(other.state) == skeleton(state)
    same(np.concatenate([other.run(x), other.finish()]), model(x, state)[0])
    other.reset()
    other.state = (None, state[1])
    same(np.concatenate([other.run(x), other.finish()]), model(x, (None, state[1]))[0])


# Weights


@pytest.mark.parametrize("name", ["LSTM", "chain", "mixed", "deep", "residual"])
def test_weights_stay_until_refresh(name):
    module = PROMPT[name]
    x = frames(module, STEPS, 2)
    kept = module.state_dict()
    stream = module.stream(2)
    before, _ = called(module, x)
    compiled = {n: p for n, p in module.params.items() if p.ndim == 2}  # not a LayerNorm's
    for param in compiled.values():
        param *= 2
    same(stream.run(x[:3]), before[:3])
    same(stream.step(x[3]), before[3])
    stream.join()  # in whatever way the rows change
    stream.leave(2)
    same(stream.step(x[4]), before[4])
    stream.refresh()
    stream.reset()
    after, _ = called(module, x)
    assert (before != after).any()
    same(np.concatenate([stream.run(x[:4]), stream.step(x[4])[None], stream.run(x[5:])]), after)
    module.load_state_dict(kept)


def test_streams_outlive_their_module():
    x = frames(PROMPT["chain"], STEPS, 2)
    model = Chain(GRU(WIDTH, 4, seed=0), Linear(4, 2, seed=1))
    y, _ = model(x)
    stream = model.stream(2)
    del model
    gc.collect()
    same(np.stack([stream.step(frame) for frame in x]), y)


# Memory and threads


@pytest.mark.parametrize("name", PROMPT)
@pytest.mark.parametrize("batch", [1, 33])
def test_steps_allocate_nothing(name, batch):
    module = PROMPT[name]
    stream = module.stream(batch)
    x = frames(module, 1, batch)[0]
    out = np.empty_like(stream.step(x))
    steps = [None] * 300
    for _ in steps:
        stream.step(x, out)

    def growth():
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in steps:
            stream.step(x, out)
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        stream.step(x, out)
        least = min(growth() for _ in range(3))  # threads of a test runner allocate, too
    finally:
        tracemalloc.stop()
    assert least < 200  # bound methods and the like, but no array of any size


@pytest.mark.parametrize("hidden", [16, 256])  # with the GIL, and without it
def test_streams_of_one_model_in_several_threads(hidden):
    model = Chain(LSTM(WIDTH, hidden, seed=0), Linear(hidden, 3, seed=1))
    count, steps = 4, 60
    x = frames(model, steps, count)
    y, _ = model(x)
    results = [None] * count

    def follow(n):
        stream = model.stream()
        results[n] = np.stack([stream.step(frame) for frame in x[:, n : n + 1]])

    threads = [threading.Thread(target=follow, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(np.concatenate(results, axis=1), y)


def test_a_stream_is_for_one_thread():
    stream = LSTM(400, 400, seed=0).stream(32)
    x = np.zeros((20, 32, 400), "float32")
    said = []

    def go():
        for _ in range(40):
            try:
                stream.run(x)
            except RuntimeError as error:
                said.append(str(error))
                return

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) < 2  # of the two one goes on
    assert all("in use by another thread" in message for message in said)


def test_windows_keep_no_more_frames_than_they_see():
    table = rnncore.Embedding(9, WIDTH, seed=0)
    parts = (Chain(table, GRU(WIDTH, 4, seed=1)), Chain(table, LSTM(WIDTH, 4, seed=2)))
    model = rnncore.Windowed(*parts, past=3, future=2)
    x = np.random.default_rng(0).integers(0, 9, (60, 2))
    stream, ready = model.stream(2), []
    for frame in x:
        ready.append(stream.run(frame[None]))
        assert len(stream.snapshot()["0"]) <= 3 + 2
    same(np.concatenate([*ready, stream.finish()]), model(x)[0])
    for state in ((np.zeros((1, 2, 4), "f4"), None), (None, np.zeros((1, 2, 4), "f4"))):
        with pytest.raises(ValueError, match="must hold None for a side that is limited"):
            stream.state = state
    with pytest.raises(TypeError, match="Windowed cannot run as a stream: it reads sequences from"):
        rnncore.Windowed(*parts, past=3, future=None).stream()
