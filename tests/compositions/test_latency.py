"""Chunks with look-ahead: against whole layers to the bit, a slow computation, and as a stream."""

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, Bidirectional, Chain, Embedding, LatencyControlled, Linear

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent

STEPS = 7
RAGGED = [3, 7, 1, 5]
LENGTHS = pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
CUTS = [(1, 0), (2, 1), (3, 0), (2, 3), (3, 2), (1, 9), (7, 2), (50, 4)]


def pairs(**options):
    """Two bidirectional layers of different cells and merges."""
    options = {"dtype": "float64"} | options
    return [
        Bidirectional(LSTM(3, 2, seed=1, **options), GRU(3, 3, seed=2, **options)),
        Bidirectional(
            RNN(5, 2, seed=3, **options),
            Chain(Linear(5, 3, dtype=options["dtype"], seed=4), LSTM(3, 2, seed=5, **options)),
            "sum",
        ),
    ]


def slowly(layers, x, chunk, right):
    """One sequence (T, I), by the definition."""
    states, outputs = [None] * len(layers), []
    for start in range(0, len(x), chunk):
        frames = x[start : start + chunk + right]
        for at, layer in enumerate(layers):
            ahead = layer.forward(frames, states[at])[0]
            states[at] = layer.forward(frames[:chunk], states[at])[1]
            back = layer.backward(frames[::-1])[0][::-1]
            frames = np.hstack([ahead, back]) if layer.merge == "concat" else ahead + back
        outputs.append(frames[:chunk])
    return np.concatenate(outputs), states


@LENGTHS
@pytest.mark.parametrize(("chunk", "right"), CUTS)
def test_is_what_it_says(rng, chunk, right, lengths):
    layers = pairs()
    x = rng.standard_normal((STEPS, 4, 3))
    y, states = LatencyControlled(layers, chunk, right)(x, lengths=lengths)
    for row, end in enumerate(lengths or [STEPS] * 4):
        want, last = slowly(layers, x[:end, row], chunk, right)
        np.testing.assert_allclose(y[:end, row], want, rtol=0, atol=1e-14)
        assert not y[end:, row].any()
        np.testing.assert_allclose(states[0][1][:, row], last[0][1], rtol=0, atol=1e-14)
        np.testing.assert_allclose(states[1][:, row], last[1], rtol=0, atol=1e-14)


@LENGTHS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_chunk_is_the_whole_stack_to_the_bit(rng, batch_first, dtype, lengths):
    options = {"batch_first": batch_first, "dtype": dtype}
    whole = LSTM(3, 17, 2, bidirectional=True, seed=1, **options)
    layers = []
    for at, width in enumerate((3, 34)):
        parts = LSTM(width, 17, **options), LSTM(width, 17, **options)
        for part, suffix in zip(parts, ("", "_reverse"), strict=True):
            for name in part.params:
                part.params[name] = whole.params[name.replace("l0", f"l{at}") + suffix]
        layers.append(parts)
    x = rng.standard_normal((4, STEPS, 3) if batch_first else (STEPS, 4, 3)).astype(dtype)
    want, (h, c) = whole(x, lengths=lengths)
    y, states = LatencyControlled(layers, STEPS, 3)(x, lengths=lengths)
    assert_same({"y": y}, {"y": want})
    for at in range(2):
        ends = {"h": states[at][0][0], "c": states[at][1][0]}
        assert_same(ends, {"h": h[2 * at], "c": c[2 * at]})


@LENGTHS
@pytest.mark.parametrize(("chunk", "right"), [(1, 0), (2, 1), (2, 3), (3, 9), (9, 1)])
def test_gradients(rng, chunk, right, lengths):
    options = {"dtype": "float64"}
    layers = [
        (LSTM(2, 1, seed=1, **options), RNN(2, 2, seed=2, **options)),
        Bidirectional(GRU(3, 1, seed=3, **options), RNN(3, 1, seed=4, **options), "mul"),
    ]
    model = LatencyControlled(layers, chunk, right)
    x = rng.standard_normal((STEPS, 4, 2))
    check_recurrent(model, x, model(x)[1], lengths=lengths)
    if chunk == 2:
        check_recurrent(model, x, lengths=lengths)


def test_gradient_from_the_final_state_alone(rng):
    model, x = LatencyControlled(pairs(), 2, 1), rng.standard_normal((STEPS, 4, 3))
    (y, state), _ = model.vjp(x)
    absent, _ = model.vjp(x)[1](None, state)
    zero, _ = model.vjp(x)[1](np.zeros_like(y), state)
    assert_same({"dx": absent}, {"dx": zero})
    assert absent.any()


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("batch", [0, 2, None])
def test_short_and_empty(rng, steps, batch):
    model = LatencyControlled(pairs(), 2, 1)
    x = rng.standard_normal((steps, 3) if batch is None else (steps, batch, 3))
    (y, state), back = model.vjp(x)
    assert y.shape == (*x.shape[:-1], 2)
    assert state[1].shape == (1, *x.shape[1:-1], 2)
    dx, dstate = back(y, state)
    assert dx.shape == x.shape
    assert dstate[0][1].shape == state[0][1].shape


def test_the_state_continues_where_no_look_ahead_is(rng):
    model, x = LatencyControlled(pairs(), 2), rng.standard_normal((STEPS, 4, 3))
    whole, last = model(x)
    first, between = model(x[:4])
    second, end = model(x[4:], between)
    assert_same({"y": np.concatenate([first, second])}, {"y": whole})
    assert_same({"h": end[1]}, {"h": last[1]})


def test_padding_may_hold_anything(rng):
    model, x = LatencyControlled(pairs(), 2, 1), rng.standard_normal((STEPS, 4, 3))
    padded = x.copy()
    for row, end in enumerate(RAGGED):
        padded[end:, row] = np.nan
    results = []
    for frames in (x, padded):
        (y, _), back = model.vjp(frames, lengths=RAGGED)
        results.append({"y": y, "dx": back(np.ones_like(y))[0]})
    assert_same(*results)
    assert not results[0]["dx"][3:, 0].any()


def test_all_sequences_may_be_shorter_than_x(rng):
    model, x = LatencyControlled(pairs(), 2, 1), rng.standard_normal((STEPS, 2, 3))
    y, _ = model(x, lengths=[3, 2])
    assert y.shape == (STEPS, 2, 2)
    assert_close({"y": y[:3]}, {"y": model(x[:3], lengths=[3, 2])[0]}, 0)
    check_recurrent(model, x, lengths=[3, 2])


class TestStream:
    @pytest.mark.parametrize("pushed", [1, 3, 50])
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize(("chunk", "right"), CUTS)
    def test_equals_a_call_to_the_bit(self, rng, chunk, right, batch_first, pushed):
        model = LatencyControlled(pairs(batch_first=batch_first, dtype="float32"), chunk, right)
        axis = 1 if batch_first else 0
        x = rng.standard_normal((2, STEPS, 3) if batch_first else (STEPS, 2, 3)).astype("float32")
        want, last = model(x)
        stream = model.stream(batch=2)
        ready, seen, given = [], 0, 0
        for start in range(0, STEPS, pushed):
            frames = x.take(range(start, min(start + pushed, STEPS)), axis).copy()
            seen += frames.shape[axis]
            ready.append(stream.run(frames))
            frames.fill(np.nan)
            given += ready[-1].shape[axis]
            assert seen - given < chunk + right
        ready.append(stream.finish())
        assert_same({"y": np.concatenate(ready, axis)}, {"y": want})
        assert_same({"h": stream.state[1]}, {"h": last[1]})

    def test_from_a_state(self, rng):
        model, x = LatencyControlled(pairs(), 2, 1), rng.standard_normal((STEPS, 1, 3))
        _, state = model(x)
        stream = model.stream()
        stream.state = state
        y = np.concatenate([stream.run(x), stream.finish()])
        assert_same({"y": y}, {"y": model(x, state)[0]})

    def test_over_integers(self, rng):
        def part(seed):
            return Chain(Embedding(9, 3, seed=seed), GRU(3, 2, seed=seed))

        model, x = LatencyControlled([(part(1), part(2))], 3, 1), rng.integers(0, 9, (STEPS, 1))
        stream = model.stream()
        y = np.concatenate([*(stream.run(x[t : t + 1]) for t in range(STEPS)), stream.finish()])
        assert_same({"y": y}, {"y": model(x)[0]})
        with pytest.raises(RuntimeError, match="their width is not known"):
            LatencyControlled([(Chain(Decoy()), Decoy())], 3).stream().finish()

    def test_of_nothing(self):
        stream = LatencyControlled(pairs(), 2, 1).stream(batch=3)
        assert stream.finish().shape == (0, 3, 2)

    def test_refusals(self, rng):
        model = LatencyControlled(pairs(), 2, 1)
        with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
            model.stream(0)
        stream = model.stream(batch=2)
        shape = r"chunk must have shape \(n, 2, "
        with pytest.raises(ValueError, match=shape + r"features\), got \(4, 3\)"):
            stream.run(np.zeros((4, 3)))
        with pytest.raises(ValueError, match=shape + r"features\), got \(4, 1, 3\)"):
            stream.run(np.zeros((4, 1, 3)))
        with pytest.raises(ValueError, match="must have shape"):
            stream.run(np.zeros((1, 2, 4)))
        with pytest.raises(TypeError, match="is complex128"):
            stream.run(np.zeros((1, 2, 3), complex))
        stream.run(np.zeros((1, 2, 3)))
        with pytest.raises(ValueError, match="chunk must have 3 features, got 4"):
            stream.run(np.zeros((1, 2, 4)))
        stream.finish()
        with pytest.raises(RuntimeError, match="finished"):
            stream.run(np.zeros((1, 2, 3)))
        with pytest.raises(RuntimeError, match="finished"):
            stream.finish()


class Decoy(Chain):
    """Recurrent, of unknown width."""

    recurrent = True

    def __init__(self):
        super().__init__()
        self.recurrent = True


def test_over_integers(rng):
    def part(seed):
        gru = GRU(3, 2, dtype="float64", seed=seed)
        return Chain(Embedding(9, 3, dtype="float64", seed=seed), gru)

    model = LatencyControlled([(part(1), part(2))], 3, 1)
    check_recurrent(model, rng.integers(0, 9, (STEPS, 3)), lengths=[7, 2, 4])


def test_parameters_by_layer():
    names = LatencyControlled(pairs(), 2).params
    assert "0.backward.weight_ih_l0" in names
    assert "1.backward.1.bias_hh_l0" in names


def test_refusals(rng):
    lstm = LSTM(3, 2, dtype="float64")
    with pytest.raises(ValueError, match="layers must hold at least one pair"):
        LatencyControlled([], 2)
    with pytest.raises(TypeError, match=r"layers\[0\] must be a Bidirectional or a pair .*got LS"):
        LatencyControlled([lstm], 2)
    with pytest.raises(TypeError, match="backward must be a recurrent Module, got Linear"):
        LatencyControlled([(lstm, Linear(3, 2))], 2)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        LatencyControlled(pairs(), 0)
    with pytest.raises(ValueError, match="right must be at least 0, got -1"):
        LatencyControlled(pairs(), 1, -1)
    both = LSTM(3, 2, dtype="float64", bidirectional=True)
    with pytest.raises(ValueError, match=r"layers\[0\].forward must run in one direction"):
        LatencyControlled([(both, lstm)], 2)
    with pytest.raises(ValueError, match=r"same dtype: layers\[0\] has float64, layers\[1\] has f"):
        LatencyControlled([(lstm, lstm), (LSTM(4, 2), LSTM(4, 2))], 2)
    model, x = LatencyControlled(pairs(), 2, 1), rng.standard_normal((STEPS, 4, 3))
    with pytest.raises(ValueError, match="state must be a tuple of 2, one for each layer's forw"):
        model(x, (None,))
    with pytest.raises(TypeError, match=r"dstate must be a tuple of 2, .* got ndarray"):
        model.vjp(x)[1](None, x)
    with pytest.raises(ValueError, match="lengths must be in 1"):
        model(x, lengths=[8, 1, 1, 1])
    with pytest.raises(ValueError, match="x must have shape"):
        model(x[..., :2])
