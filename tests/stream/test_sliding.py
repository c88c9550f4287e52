"""Streams of convolutions and pooling: equal to calls to the bit, frames kept, what is refused."""

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    AvgPool1d,
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    GlobalMaxPool,
    Linear,
    MaxPool1d,
    Module,
    Tanh,
)

from tests.support.compare import assert_same
from tests.support.streams import same

STEPS = 9


def causal(inputs, outputs, taps, **options):
    return Conv1d(inputs, outputs, taps, padding="causal", seed=1, **options)


#: What gives an output for each frame.
PROMPT = {
    "causal": causal(3, 4, 3),
    "one tap": causal(3, 4, 1),
    "dilated": causal(3, 40, 2, dilation=3),
    "depthwise": causal(3, 3, 4, groups=3, bias=False),
    "odd and narrow": causal(3, 1, 2),
    "float64": causal(3, 5, 2, dtype="float64"),
    "before a layer": Chain(causal(3, 4, 3), Tanh(), LSTM(4, 5, seed=2)),
    "behind a layer": Chain(GRU(3, 4, seed=2), BatchNorm(4), causal(4, 2, 3)),
    "between layers": Chain(
        Linear(3, 4, seed=2),
        causal(4, 5, 2),
        Chain(GRU(5, 4, seed=3), causal(4, 4, 2, dilation=2)),
        Linear(4, 2, seed=4),
    ),
    "one after the other": Chain(causal(3, 4, 2), causal(4, 3, 2, dilation=2)),
}
AHEAD = {
    "valid": Conv1d(3, 4, 3, seed=1),
    "same": Conv1d(3, 4, 4, padding="same", seed=1),
    "strided": Conv1d(3, 4, 3, stride=2, padding=1, seed=1),
    "apart": Conv1d(3, 4, 2, stride=5, seed=1),
    "causal, strided": Conv1d(3, 4, 3, stride=2, padding="causal", seed=1),
    "causal and more": Conv1d(3, 4, 3, padding=(2, 1), seed=1),
    "max": MaxPool1d(2),
    "mean, apart": AvgPool1d(2, 3),
    "max, dilated": MaxPool1d(2, 1, dilation=3),
    "chain": Chain(
        Conv1d(3, 4, 3, stride=2, seed=1),
        causal(4, 4, 2),
        GRU(4, 3, seed=2),
        MaxPool1d(2),
        Conv1d(3, 2, 2, padding=1, seed=3),
    ),
}


def drawn(module, steps, batch):
    dtype = "float64" if module is PROMPT["float64"] else "float32"
    return np.random.default_rng(0).standard_normal((steps, batch, 3)).astype(dtype)


def outputs(module, x):
    return module(x)[0] if module.recurrent else module(x)


class TestToTheBit:
    @pytest.mark.parametrize("batch", [1, 5])
    @pytest.mark.parametrize("name", PROMPT)
    def test_steps_equal_a_call(self, name, batch):
        module = PROMPT[name]
        x, stream = drawn(module, STEPS, batch), module.stream(batch)
        y = outputs(module, x)
        assert not stream.looks_ahead
        same(np.stack([stream.step(frame) for frame in x]), y)
        stream.reset()
        out = np.empty(y.shape[1:], y.dtype)
        for frame, want in zip(x, y, strict=True):
            assert stream.step(frame, out) is out
            same(out, want)
        assert stream.finish().shape == (0, *y.shape[1:])

    @pytest.mark.parametrize("cuts", [[], [3], [1, 1, 5], range(1, STEPS)], ids=str)
    @pytest.mark.parametrize("name", PROMPT | AHEAD)
    def test_chunks_equal_a_call(self, name, cuts):
        module = (PROMPT | AHEAD)[name]
        x, stream = drawn(module, STEPS, 3), module.stream(3)
        assert stream.looks_ahead == (name in AHEAD)
        for _ in range(2):
            ready = [stream.run(chunk) for chunk in np.split(x, cuts)]
            same(np.concatenate([*ready, stream.finish()]), outputs(module, x))
            stream.reset()

    @pytest.mark.parametrize("steps", range(8))
    @pytest.mark.parametrize("name", AHEAD)
    def test_of_few_frames(self, name, steps):
        module = AHEAD[name]
        x, stream = drawn(module, steps, 2), module.stream(2)
        ready = [stream.run(frame[None]) for frame in x]
        if not steps and isinstance(module, (MaxPool1d, AvgPool1d)):
            with pytest.raises(RuntimeError, match="no frames have come: their width is not known"):
                stream.finish()
            return
        want = outputs(module, x)
        same(np.concatenate([np.zeros_like(want[:0]), *ready, stream.finish()]), want)

    def test_batch_first(self):
        x = drawn(PROMPT["causal"], STEPS, 2)
        for options in ({"padding": "causal"}, {"padding": "same"}, {"stride": 2}):
            first = Conv1d(3, 4, 3, **options, batch_first=True, seed=1)
            swapped = x.swapaxes(0, 1)
            stream = first.stream(2)
            ready = stream.run(swapped[:, :4]), stream.run(swapped[:, 4:]), stream.finish()
            same(np.concatenate(ready, axis=1), first(swapped))
            same(first(swapped), Conv1d(3, 4, 3, **options, seed=1)(x).swapaxes(0, 1))

    def test_a_single_row_needs_no_axis(self):
        module = PROMPT["between layers"]
        x, stream = drawn(module, STEPS, 1), module.stream()
        want = outputs(module, x)[:, 0]
        same(np.stack([stream.step(frame[0]) for frame in x]), want)
        stream.reset()
        same(stream.run(x[:, 0]), want)

    def test_outputs_come_when_their_windows_are_full(self):
        x = drawn(PROMPT["causal"], 12, 1)

        def counts(module):
            stream = module.stream()
            return [len(stream.run(frame[None])) for frame in x]

        assert counts(Conv1d(3, 4, 3)) == [0, 0] + [1] * 10
        assert counts(Conv1d(3, 4, 3, stride=2)) == [0, 0] + [1, 0] * 5
        assert counts(Conv1d(3, 4, 3, padding="same")) == [0] + [1] * 11
        assert counts(MaxPool1d(4)) == [0, 0, 0, 1] * 3
        assert counts(MaxPool1d(1, 3)) == [0, 0, 1] * 4  # and those between two windows

    @pytest.mark.parametrize("name", AHEAD)
    def test_frames_that_no_window_needs_are_let_go(self, name):
        module, stream = AHEAD[name], AHEAD[name].stream(2)
        for frame in drawn(module, 40, 2):
            stream.run(frame[None])
            assert all(len(array) < 9 for array in stream.snapshot().values() if array.ndim)


class TestStates:
    @pytest.mark.parametrize("name", PROMPT)
    def test_rows_join_leave_and_start_anew(self, name):
        module = PROMPT[name]
        x, stream = drawn(module, 4 * STEPS, 3), module.stream(2)
        first = [stream.step(frame[:2]) for frame in x[:STEPS]]
        stream.join()
        second = [stream.step(frame) for frame in x[STEPS : 2 * STEPS]]
        stream.reset([1])
        third = stream.run(x[2 * STEPS : 3 * STEPS])
        stream.leave(0)
        fourth = [stream.step(frame[1:]) for frame in x[3 * STEPS :]]
        parts = (first, second, third)
        same(
            np.concatenate([np.asarray(p)[:, 0] for p in parts]),
            outputs(module, x[: 3 * STEPS, :1])[:, 0],
        )
        again = outputs(module, x[2 * STEPS :, 1:2])[:, 0]
        same(np.concatenate([third[:, 1], np.stack(fourth)[:, 0]]), again)
        late = [np.stack(second)[:, 2], third[:, 2], np.stack(fourth)[:, 1]]
        same(np.concatenate(late), outputs(module, x[STEPS:, 2:])[:, 0])

    @pytest.mark.parametrize("name", PROMPT)
    def test_are_read_and_set(self, name):
        module = PROMPT[name]
        x, (stream, other) = drawn(module, STEPS, 2), (module.stream(2), module.stream(2))
        y = outputs(module, x)
        stream.run(x[:4])
        held = stream.state
        other.state = held
        same(other.run(x[4:]), y[4:])
        same(stream.run(x[4:]), y[4:])
        stream.state = None
        same(stream.run(x), y)

    def test_of_a_convolution_are_the_last_frames(self):
        x, stream = drawn(PROMPT["causal"], STEPS, 2), PROMPT["causal"].stream(2)
        same(stream.state, np.zeros((2, 2, 3), "f"))
        stream.run(x)
        same(stream.state, x[-2:])
        with pytest.raises(ValueError, match=r"state\[0\] must have shape \(2, 2, 3\), got \("):
            stream.state = x[-1:]
        assert AHEAD["same"].stream(2).state == ()

    @pytest.mark.parametrize("name", PROMPT | AHEAD)
    def test_streams_go_back(self, name):
        module = (PROMPT | AHEAD)[name]
        x, stream = drawn(module, STEPS, 2), module.stream(2)
        start = stream.snapshot()
        first = stream.run(x[:4])
        snapshot = stream.snapshot()
        rest = [stream.run(x[4:]), stream.finish()]
        other = module.stream(2)
        for again in (stream, other):
            again.restore(snapshot)
            same(np.concatenate([first, again.run(x[4:]), again.finish()]), outputs(module, x))
            again.restore(start)
            same(np.concatenate([again.run(x), again.finish()]), outputs(module, x))
        same(np.concatenate([first, *rest]), outputs(module, x))


class Fails(Module):
    """Refuses frames with a NaN, and otherwise passes them on."""

    pointwise = True

    def __call__(self, x):
        if np.isnan(x).any():
            raise ArithmeticError("a frame that this layer refuses")
        return x


@pytest.mark.parametrize(
    "layers",
    [
        (causal(3, 4, 3), Fails()),
        (LSTM(3, 4, seed=1), causal(4, 4, 2), Fails(), GRU(4, 2, seed=2)),
        (Conv1d(3, 4, 3, padding=1, seed=1), MaxPool1d(2), Fails()),
        (Conv1d(3, 4, 3, stride=2, seed=1), GRU(4, 4, seed=1), causal(4, 2, 2), Fails()),
    ],
    ids=["causal", "middle", "ahead", "strided"],
)
def test_a_layer_that_fails_half_way_loses_nothing(layers):
    stream = Chain(*layers).stream(2)
    x = drawn(None, 12, 2)
    want = np.concatenate([stream.run(x), stream.finish()])
    stream.reset()
    ready, wrong = [stream.run(x[:5])], x[5:].copy()
    wrong[3] = np.nan
    before = stream.snapshot()
    with pytest.raises(ArithmeticError):
        stream.run(wrong)
    assert_same(stream.snapshot(), before)
    if not stream.looks_ahead:
        with pytest.raises(ArithmeticError):
            stream.step(wrong[3])
        assert_same(stream.snapshot(), before)
    same(np.concatenate([*ready, stream.run(x[5:]), stream.finish()]), want)


class Mine(Module):
    """A layer whose width and dtype nobody knows."""

    pointwise = True

    def __call__(self, x):
        return x


class TestRefusals:
    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (Conv1d(3, 4, 3, padding=1, padding_mode="reflect"), "cannot be padded by 'reflect'"),
            (Conv1d(3, 4, 3, padding=1, padding_mode="replicate"), "cannot be padded by 'replica"),
            (Conv1d(3, 4, 3, 2, padding="same"), "cannot be padded by what its length asks for"),
            (MaxPool1d(3, ceil_mode=True), "cannot have a last window that is cut short"),
            (MaxPool1d(3, padding=1), "a stream of MaxPool1d cannot be padded"),
            (AvgPool1d(2, 1, "same"), "a stream of AvgPool1d cannot be padded"),
        ],
        ids=["reflected", "replicated", "strided, same", "ceil", "padded", "same"],
    )
    def test_padding_that_needs_the_end(self, module, message):
        for whole in (module, Chain(Tanh(), module)):
            with pytest.raises(ValueError, match=message):
                whole.stream()

    @pytest.mark.parametrize("module", [ConvTranspose1d(3, 4, 2), Conv2d(3, 4, 2), GlobalMaxPool()])
    def test_layers_without_streams(self, module):
        for whole in (module, Chain(Tanh(), module)):
            with pytest.raises(TypeError, match=f"{type(module).__name__} cannot run as a stream"):
                whole.stream()

    def test_padding_modes_without_padding_stream(self):
        layer, x = Conv1d(3, 4, 2, padding_mode="reflect", seed=1), drawn(None, STEPS, 1)
        stream = layer.stream()
        same(np.concatenate([stream.run(x), stream.finish()]), layer(x))

    @pytest.mark.parametrize("module", [PROMPT["causal"], AHEAD["same"]])
    def test_frames_that_do_not_fit(self, module):
        stream = module.stream(2)
        for chunk, error, message in (
            (np.zeros((1, 2, 4), "f"), ValueError, "chunk must have 3 features, got 4"),
            (
                np.zeros((1, 3, 3), "f"),
                ValueError,
                r"chunk must have shape \(n, 2, features\), got",
            ),
            (np.zeros((1, 2, 3)), TypeError, "chunk is float64, but this module computes in float"),
            ([[[1, 2, 3]] * 2, [[1, 2]] * 2], ValueError, "chunk must have rows of one length"),
        ):
            with pytest.raises(error, match=message):
                stream.run(chunk)
        assert_same(stream.snapshot(), module.stream(2).snapshot())

    @pytest.mark.parametrize("layer", [PROMPT["causal"], AHEAD["same"], MaxPool1d(2)])
    def test_frames_of_a_layer_before_that_do_not_fit(self, layer):
        """Each is refused before anything of it is kept."""
        stream = Chain(Mine(), layer).stream(2)
        stream.run(np.zeros((2, 2, 3), "f"))
        before = stream.snapshot()
        with pytest.raises(ValueError, match="chunk must have 3 features, got 2"):
            stream.run(np.zeros((1, 2, 2), "f"))
        if layer.dtype is not None:
            with pytest.raises(TypeError, match="chunk is float64, but this module computes in"):
                stream.run(np.zeros((1, 2, 3)))
        assert_same(stream.snapshot(), before)

    def test_steps_of_what_looks_ahead(self):
        with pytest.raises(TypeError, match="outputs of this stream wait for later frames"):
            AHEAD["same"].stream().step(np.zeros((1, 3), "f"))
        stream = AHEAD["max"].stream()
        stream.run(np.zeros((3, 1, 2), "f"))
        stream.finish()
        with pytest.raises(RuntimeError, match="this stream is finished"):
            stream.run(np.zeros((3, 1, 2), "f"))

    def test_rows_of_what_looks_ahead_go_together(self):
        stream = AHEAD["strided"].stream(2)
        for change in (stream.join, lambda: stream.leave(0), lambda: stream.reset([0])):
            with pytest.raises(ValueError, match=r"looks? ahead go together"):
                change()

    def test_compositions_that_cut_time_or_turn_it_around(self):
        """A convolution's frames are in no state: between pieces they would be lost."""
        chain = Chain(causal(3, 4, 2), GRU(4, 4))
        message = "must hold what it remembers in its state, but its Conv1d mixes frames"
        for make in (
            lambda: rnncore.Reversed(chain),
            lambda: rnncore.Bidirectional(chain, GRU(3, 4)),
            lambda: rnncore.Windowed(chain, None),
            lambda: rnncore.LatencyControlled([(chain, GRU(3, 4))], 3),
            lambda: rnncore.Reversed(Chain(Chain(MaxPool1d(2)), GRU(3, 4))),
        ):
            with pytest.raises(ValueError, match=message.replace("Conv1d", "(Conv1d|MaxPool1d)")):
                make()
        rnncore.Reversed(Chain(BatchNorm(3), GRU(3, 4)))
