"""Streams: equal to whole calls to the bit, rows that come and go, weights, memory, threads."""

import gc
import threading
import tracemalloc

import numpy as np
import pytest
import rnncore
from compare import assert_same
from rnncore import GRU, LSTM, Chain, Linear, Module, RowConvolution, Tanh
from rnncore.arrays import load_arrays, save_arrays
from rnncore.checkpoint import leaves, skeleton
from streams import DELAYED, PROMPT, WIDTH, called, frames

STEPS = 7
ALL = PROMPT | DELAYED


def named(state):
    return {str(n): np.asarray(part) for n, part in enumerate(leaves(state))}


def same(got, want):
    assert_same({"y": np.ascontiguousarray(got)}, {"y": np.ascontiguousarray(want)})


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
    tracemalloc.start()
    try:
        stream.step(x, out)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in steps:
            stream.step(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 200  # bound methods and the like, but no array of any size


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


# What is refused


def test_frames_that_do_not_fit():
    stream = Chain(LSTM(WIDTH, 4), Linear(4, 2)).stream(2)
    for x, message in (
        (np.zeros((2, 4), "f4"), r"x must have shape \(2, 3\), got \(2, 4\)"),
        (np.zeros(3, "f4"), r"x must have shape \(2, 3\), got \(3,\)"),
        (np.zeros((1, 2, 3), "f4"), r"x must have shape \(2, 3\), got \(1, 2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.step(x)
    with pytest.raises(ValueError, match=r"x must have shape \(1, 3\) or \(3,\), got \(4,\)"):
        LSTM(WIDTH, 4).stream().step(np.zeros(4, "f4"))
    with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
        stream.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"chunk must have shape \(n, 2, features\), got \(5, 3\)"):
        stream.run(np.zeros((5, 3), "f4"))
    with pytest.raises(ValueError, match=r"chunk must have 3 features, got 4"):
        stream.run(np.zeros((5, 2, 4), "f4"))
    with pytest.raises(ValueError, match=r"chunk must have shape \(2, n, features\)"):
        GRU(WIDTH, 4, batch_first=True).stream(2).run(np.zeros((3, 2, 3), "f4"))
    with pytest.raises(ValueError, match=r"x must have shape \(2, features\), got \(3, 3\)"):
        Tanh().stream(2).step(np.zeros((3, 3), "f4"))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 3), "f4"),
        np.empty(2, "f4"),
        np.empty((2, 2)),
        np.empty((2, 4), "f4")[:, ::2],
        [1],
    ],
    ids=["width", "axes", "dtype", "strides", "list"],
)
def test_out_that_does_not_fit(out):
    stream = Chain(LSTM(WIDTH, 4), Linear(4, 2)).stream(2)
    with pytest.raises(ValueError, match=r"out must be a contiguous .* float32 and shape \(2, 2\)"):
        stream.step(np.zeros((2, 3), "f4"), out)


def test_out_that_must_not_be_written():
    out = np.zeros((1, 4), "f4")
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be a contiguous array to write to"):
        LSTM(WIDTH, 4).stream().step(np.zeros((1, 3), "f4"), out)
    for dtype, x, out in (
        ("float32", "f4", np.zeros((1, 3), "f4")),
        ("float32", "f4", [[0.0, 0.0]]),
        ("float64", "f8", np.zeros((1, 2), "f4")),  # would be filled, and then forgotten
    ):
        message = rf"out must be an array of {dtype} and shape \(1, 2\)"
        with pytest.raises(ValueError, match=message):
            Tanh().stream().step(np.zeros((1, 2), x), out)


def snapshots_agree(stream, before):
    after = stream.snapshot()
    return before.keys() == after.keys() and all(
        np.array_equal(before[name], after[name]) for name in before
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, h: s.step(np.ones((2, 3), "f4"), np.ones((2, 9), "f4")), "out must be"),
        (lambda s, h: setattr(s, "state", ((h + 7, h[:, :1]), None)), r"state\[0\]\[1\] must have"),
        (lambda s, h: setattr(s, "state", ((h, h), h)), r"state\[1\] must have shape"),
        (lambda s, h: s.restore({**s.snapshot(), "batch": np.array(3)}), "must have shape"),
        (lambda s, h: s.restore({**s.snapshot(), "batch": np.array(0)}), "batch must be at least"),
        (lambda s, h: s.restore({**s.snapshot(), "1": h[:, :1], "0": h + 7}), "must have shape"),
        (lambda s, h: s.reset([0, 2]), r"rows must be in 0\.\.1, got 2"),
        (lambda s, h: s.leave([0, -1]), r"rows must be in 0\.\.1, got -1"),
    ],
)
def test_what_is_refused_leaves_the_state_as_it_was(change, message):
    stream = Chain(LSTM(WIDTH, 4, seed=0), Tanh(), GRU(4, 2, seed=1), Tanh()).stream(2)
    stream.step(np.ones((2, 3), "f4"))
    before = stream.snapshot()
    with pytest.raises(ValueError, match=message):
        change(stream, np.zeros((1, 2, 4), "f4"))
    assert snapshots_agree(stream, before)
    stream.run(np.ones((2, 2, 3), "f4"))


class Fails(Module):
    """Refuses frames with a NaN, and otherwise passes them on."""

    pointwise = True

    def __call__(self, x):
        if np.isnan(x).any():
            raise ArithmeticError("a frame that this layer refuses")
        return x


class Amiss(GRU):
    """Refuses them as well."""

    def __call__(self, x, state=None, *, lengths=None):
        Fails()(x)
        return super().__call__(x, state, lengths=lengths)


def chunks():
    pairs = [(Amiss(WIDTH, 4, seed=0), GRU(WIDTH, 4, seed=1))]
    return rnncore.LatencyControlled(pairs, 2, 1)


FAILING = {
    "last": lambda: Chain(LSTM(WIDTH, 4, seed=0), Fails()),
    "middle": lambda: Chain(LSTM(WIDTH, 4, seed=0), Fails(), GRU(4, 2, seed=1)),
    "nested": lambda: Chain(Chain(LSTM(WIDTH, 4, seed=0), Fails()), Tanh(), GRU(4, 2, seed=1)),
    "before look-ahead": lambda: Chain(
        GRU(WIDTH, 4, seed=0), RowConvolution(4, 2, seed=1), Fails(), GRU(4, 2, seed=2)
    ),
    "look-ahead": chunks,
    "behind chunks": lambda: Chain(chunks(), Fails()),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_layer_that_fails_half_way_loses_nothing(name):
    stream = FAILING[name]().stream(2)
    x = np.random.default_rng(0).standard_normal((12, 2, WIDTH)).astype("f4")
    want = np.concatenate([stream.run(x), stream.finish()])
    stream.reset()
    ready, wrong = [stream.run(x[:5])], x[5:].copy()
    wrong[4] = np.nan
    before = stream.snapshot()
    with pytest.raises(ArithmeticError):
        stream.run(wrong)
    assert snapshots_agree(stream, before)
    if not stream.looks_ahead:
        with pytest.raises(ArithmeticError):
            stream.step(wrong[4])
        assert snapshots_agree(stream, before)
    ready += [stream.run(x[5:]), stream.finish()]
    same(np.concatenate(ready), want)


def test_an_end_that_fails_loses_nothing():
    failing = Fails()
    stream = Chain(GRU(WIDTH, 4, seed=0), RowConvolution(4, 2, seed=1), failing).stream(2)
    stream.run(np.ones((4, 2, WIDTH), "f4"))
    before = stream.snapshot()
    failing.__class__ = Backwards
    with pytest.raises(AttributeError):
        stream.finish()
    failing.__class__ = Fails
    assert snapshots_agree(stream, before)
    assert stream.finish().shape == (2, 2, 4)


def test_widths_that_do_not_fit_lose_nothing():
    stream = Chain(LSTM(WIDTH, 4, seed=0), Fails(), GRU(5, 2, seed=1)).stream()
    before = stream.snapshot()
    with pytest.raises(ValueError, match=r"x must have shape \(1, 5\)"):
        stream.step(np.ones((1, WIDTH), "f4"))
    with pytest.raises(ValueError, match="chunk must have 5 features, got 4"):
        stream.run(np.ones((2, 1, WIDTH), "f4"))
    assert snapshots_agree(stream, before)


def test_deep_streams_keep_their_state_where_out_does_not_fit():
    stream = PROMPT["deep"].stream()
    before = stream.snapshot()
    with pytest.raises(ValueError, match="out must be a contiguous array"):
        stream.step(np.ones((1, WIDTH), "f4"), np.empty(1, "f4"))
    assert snapshots_agree(stream, before)


@pytest.mark.parametrize("change", ["join", "leave", "reset"])
def test_rows_before_a_layer_that_looks_ahead_stay(change):
    stream = Chain(LSTM(WIDTH, 4, seed=0), RowConvolution(4, 2, seed=1)).stream(2)
    stream.run(np.ones((4, 2, 3), "f4"))
    before = stream.snapshot()
    with pytest.raises(ValueError, match=r"looks? ahead go together"):
        getattr(stream, change)(1)
    assert snapshots_agree(stream, before)
    assert stream.run(np.ones((4, 2, 3), "f4")).shape == (4, 2, 4)


def test_rows_by_number_or_mask():
    streams = [GRU(WIDTH, 4, seed=0).stream(3) for _ in range(2)]
    for stream, rows in zip(streams, ([0, 2], [True, False, True]), strict=True):
        stream.run(np.ones((2, 3, 3), "f4"))
        stream.reset([])
        assert stream.state.all()
        stream.reset(rows)
    same(streams[0].state, streams[1].state)
    assert streams[0].state.any(axis=(0, 2)).tolist() == [False, True, False]
    with pytest.raises(TypeError, match="rows must be integers, got float64"):
        streams[0].leave(0.5)


def test_states_that_do_not_fit():
    stream = Chain(LSTM(WIDTH, 4), GRU(4, 2)).stream(2)
    h, c = np.zeros((1, 2, 4), "f4"), np.zeros((1, 2, 4), "f4")
    for state, message in (
        (h, "state must be a tuple of 2 entries"),
        ((h, c), r"state\[0\] must be a tuple of 2 entries"),
        (((h, c[:, :1]), None), r"state\[0\]\[1\] must have shape \(1, 2, 4\), got \(1, 1, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.state = state
    with pytest.raises(ValueError, match="snapshot must hold batch, 0, 1, 2; got batch, 0"):
        stream.restore(GRU(1, 1).stream().snapshot())


def test_rows_that_cannot_leave_or_join():
    stream = GRU(WIDTH, 4).stream(2)
    with pytest.raises(ValueError, match="one has to stay"):
        stream.leave([0, 1])
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1, got 2"):
        stream.leave(2)
    with pytest.raises(ValueError, match="count must be at least 1"):
        stream.join(0)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        GRU(WIDTH, 4).stream(0)
    ahead = RowConvolution(WIDTH, 2).stream(2)
    for change in (ahead.join, lambda: ahead.leave(0), lambda: ahead.reset([0])):
        with pytest.raises(ValueError, match=r"looks? ahead go together"):
            change()


def test_streams_that_look_ahead():
    stream = Chain(GRU(WIDTH, 4), RowConvolution(4, 2)).stream()
    with pytest.raises(TypeError, match="wait for later frames: use run and finish"):
        stream.step(np.zeros((1, 3), "f4"))
    stream.finish()
    for call in (stream.finish, lambda: stream.run(np.zeros((1, 1, 3), "f4"))):
        with pytest.raises(RuntimeError, match="this stream is finished: reset it"):
            call()
    stream.reset()
    assert stream.run(np.zeros((5, 1, 3), "f4")).shape == (3, 1, 4)


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


class Mine(Module):
    """Somebody's own layer."""

    def __call__(self, x):
        return x + 1


class Twice(Linear):
    """Calls otherwise than the class it comes from."""

    pointwise = True

    def __call__(self, x):
        return 2 * super().__call__(x)


class Backwards(Chain):
    """Another one."""

    def __call__(self, x):
        return super().__call__(x[::-1])


def test_subclasses_that_call_otherwise():
    model = Chain(Linear(WIDTH, 4, seed=0), Twice(4, 4, seed=1), Linear(4, 2, seed=2))
    x = frames(model, STEPS, 2)
    same(model.stream(2).run(x), model(x))
    with pytest.raises(TypeError, match="Backwards cannot run as a stream"):
        Backwards(Tanh()).stream()


def test_layers_that_do_not_fit_each_other():
    with pytest.raises(ValueError, match="one gives 4 features, the next takes 5"):
        Chain(LSTM(WIDTH, 4), Linear(5, 2)).stream()


def test_modules_without_streams():
    with pytest.raises(ValueError, match="a bidirectional GRU cannot run as a stream"):
        Chain(Tanh(), GRU(WIDTH, 4, bidirectional=True)).stream()
    both = rnncore.Bidirectional(GRU(WIDTH, 4), GRU(WIDTH, 4))
    with pytest.raises(TypeError, match="Bidirectional cannot run as a stream: it reads sequences"):
        Chain(both, Linear(8, 2)).stream()
    for module in (rnncore.GRUCell(3, 4), rnncore.Softmax(0), rnncore.LayerNorm((2, 3)), Mine()):
        with pytest.raises(TypeError, match=f"{type(module).__name__} cannot run as a stream"):
            module.stream()
    mine = Mine()
    mine.pointwise = True
    x = np.ones((4, 1, 2), "f4")
    same(mine.stream().run(x), x + 1)
