"""What streams refuse, and that nothing is lost by it."""

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Chain, Linear, Module, RowConvolution, Tanh

from tests.support.streams import DELAYED, PROMPT, WIDTH, frames, same


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
        (lambda s, h: s.join(-1), "count must be at least 1, got -1"),
        (lambda s, h: s.join(2**63 - 2), "batch must be at most"),
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


@pytest.mark.parametrize("change", ["join", "leave", "reset", "snapshot"])
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
    with pytest.raises(ValueError, match=r"rows must be in 0\.\.1, got 2"):
        stream.snapshot(2)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        stream.snapshot([])
    with pytest.raises(
        ValueError, match=r"state of 1 rows must have shape \(1, 1, 4\), got \(1, 1, 5\)"
    ):
        stream.join(snapshot=GRU(WIDTH, 5).stream().snapshot())
    with pytest.raises(ValueError, match="count must be at least 1"):
        stream.join(0)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        GRU(WIDTH, 4).stream(0)
    ahead = RowConvolution(WIDTH, 2).stream(2)
    here = ahead.snapshot()
    for change in (
        lambda: ahead.join(snapshot=here),
        ahead.join,
        lambda: ahead.leave(0),
        lambda: ahead.reset([0]),
    ):
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
    x = frames(model, 7, 2)
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


@pytest.mark.parametrize("name", PROMPT | DELAYED)
def test_snapshots_that_do_not_fit(name):
    module = (PROMPT | DELAYED)[name]
    x = frames(module, 7, 2)
    stream = module.stream(2)
    stream.run(x[:3])
    good = stream.snapshot()
    for key, array in good.items():
        for other in (
            *(None, "x", -1, 10**30, np.zeros(3, "i4"), np.zeros(0), np.zeros((2, 3, 4, 5))),
            array.astype("c8"),
            array[None],
            np.concatenate([array, array], -2) if array.ndim > 2 else np.array([array]),
        ):
            with pytest.raises((ValueError, TypeError)):
                stream.restore({**good, key: other})
            with pytest.raises((ValueError, TypeError)):
                stream.join(snapshot={**good, key: other})
            assert snapshots_agree(stream, good)
    with pytest.raises(ValueError, match="snapshot must hold batch"):
        stream.restore([1])
    stream.restore(good)


@pytest.mark.parametrize("name", DELAYED)
def test_states_that_a_stream_that_looks_ahead_refuses_at_once(name):
    stream = DELAYED[name].stream(2)
    stream.run(frames(DELAYED[name], 7, 2)[:3])
    before = stream.snapshot()
    for state in (7, np.zeros((1, 3, 4), "f4"), (np.zeros((1, 3, 5), "f4"), None)):
        with pytest.raises((ValueError, TypeError)):
            stream.state = state
        assert snapshots_agree(stream, before)
