"""Bidirectional and Reversed: against the built-in one to the bit, gradients, refusals."""

import copy
import pickle

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    Dropout,
    Embedding,
    LatencyControlled,
    LayerNorm,
    Linear,
    Module,
    Reversed,
    Tanh,
    Windowed,
)

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent

DTYPES = ["float32", "float64"]
RAGGED = [4, 7, 1]


def split(whole, **options):
    """The parts of a one-layer bidirectional layer as layers of their own."""
    parts = [type(whole)(whole.input_size, whole.hidden_size, **options) for _ in range(2)]
    for suffix, part in zip(("", "_reverse"), parts, strict=True):
        for name in part.params:
            part.params[name] = whole.params[name + suffix]
    return parts


def stacked(seed=0, dtype="float64"):
    """A stack in one direction, of different layers."""
    return Chain(
        Linear(3, 2, dtype=dtype, seed=seed),
        GRU(2, 3, dtype=dtype, seed=seed + 1),
        LayerNorm(3, dtype=dtype),
        Chain(LSTM(3, 2, dtype=dtype, seed=seed + 2)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", [RNN, LSTM, GRU])
def test_equals_the_built_in_one_to_the_bit(rng, layer, batch_first, lengths, dtype):
    options = {"batch_first": batch_first, "dtype": dtype}
    whole = layer(3, 17, bidirectional=True, seed=1, **options)
    ours = Bidirectional(*split(whole, **options))
    shape = (3, 7) if batch_first else (7, 3)
    x = rng.standard_normal((*shape, 3)).astype(dtype)
    h, c = (rng.standard_normal((2, 3, 17)).astype(dtype) for _ in range(2))
    pair = layer is LSTM
    state = (h, c) if pair else h
    states = tuple((h[k : k + 1], c[k : k + 1]) if pair else h[k : k + 1] for k in range(2))
    dy = rng.standard_normal((*shape, 34)).astype(dtype)

    (want, last), back = whole.vjp(x, state, lengths=lengths)
    (got, lasts), our_back = ours.vjp(x, states, lengths=lengths)
    assert_same({"y": got}, {"y": want})
    assert_same({"y": ours(x, states, lengths=lengths)[0]}, {"y": want})
    for at in range(2 if pair else 1):
        ends = [end[at] if pair else end for end in lasts]
        assert_same({"h": np.concatenate(ends)}, {"h": last[at] if pair else last})

    dx, _ = back(dy, state)
    our_dx, dfirst = our_back(dy, states)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    assert_close({"dx": our_dx}, {"dx": dx}, tolerance)
    assert np.shape(dfirst[1][0] if pair else dfirst[1]) == (1, 3, 17)
    for name, gradient in ours.grads.items():
        part, own = name.split(".")
        suffix = "_reverse" if part == "backward" else ""
        assert_close({name: gradient}, {name: whole.grads[own + suffix]}, 10 * tolerance)


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize("merge", ["concat", "sum", "mean", "mul"])
def test_is_what_it_says(rng, merge, lengths):
    ahead, back = stacked(0), stacked(5)
    x = rng.standard_normal((7, 3, 3))
    y, _ = Bidirectional(ahead, back, merge)(x, lengths=lengths)
    for row, end in enumerate(lengths or [7] * 3):
        own = x[:end, row]
        a, b = ahead(own)[0], back(own[::-1])[0][::-1]
        want = {"concat": np.hstack([a, b]), "sum": a + b, "mean": (a + b) / 2, "mul": a * b}
        np.testing.assert_allclose(y[:end, row], want[merge], rtol=0, atol=1e-14)
        assert not y[end:, row].any()


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize("merge", ["concat", "sum", "mean", "mul"])
def test_gradients(rng, merge, lengths):
    ours = Bidirectional(stacked(0), stacked(5), merge)
    x = rng.standard_normal((7, 3, 3))
    _, state = ours(x)
    check_recurrent(ours, x, lengths=lengths)
    if merge == "concat":
        check_recurrent(ours, x, state, lengths=lengths)


def test_gradients_with_dropout_and_nested(rng):
    def inner(seed):
        return Bidirectional(
            Chain(GRU(3, 2, dtype="float64", seed=seed), Dropout(0.3, seed=seed)),
            RNN(3, 2, dtype="float64", seed=seed + 1),
        )

    ours = Chain(inner(1), Bidirectional(*(LSTM(4, 3, dtype="float64", seed=s) for s in (3, 4))))
    check_recurrent(ours, rng.standard_normal((5, 3, 3)), lengths=[2, 5, 4])


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_without_a_batch_axis(rng, batch_first):
    options = {"dtype": "float64", "batch_first": batch_first}
    ours = Bidirectional(LSTM(3, 4, seed=1, **options), GRU(3, 4, seed=2, **options))
    x = rng.standard_normal((6, 3))
    y, ((h, c), g) = ours(x)
    batch = ours(np.expand_dims(x, 0 if batch_first else 1))[0]
    assert_same({"y": y}, {"y": np.squeeze(batch, 0 if batch_first else 1)})
    assert h.shape == c.shape == g.shape == (1, 4)
    check_recurrent(ours, x, ((h, c), g))


@pytest.mark.parametrize("batch_first", [False, True])
def test_over_integers(rng, batch_first):
    def part(seed):
        gru = GRU(3, 4, dtype="float64", seed=seed, batch_first=batch_first)
        return Chain(Embedding(9, 3, dtype="float64", seed=seed), gru)

    ours, x = Bidirectional(part(1), part(2)), rng.integers(0, 9, (3, 3))
    check_recurrent(ours, x, lengths=[1, 3, 2])
    one = ours(x[0] if batch_first else x[:, 0])[0]
    assert_same({"y": one}, {"y": ours(x)[0][0] if batch_first else ours(x)[0][:, 0]})


@pytest.mark.parametrize("steps", [0, 1])
def test_short_and_empty(rng, steps):
    ours = Bidirectional(stacked(0), stacked(5))
    y, state = ours(np.zeros((2, 3, 3)))
    x = rng.standard_normal((steps, 3, 3))
    (y, after), back = ours.vjp(x, state)
    assert y.shape == (steps, 3, 4)
    dx, _ = back(np.ones_like(y))
    assert dx.shape == x.shape
    if not steps:
        assert_same({"h": after[1][0]}, {"h": state[1][0]})
    assert ours(np.zeros((4, 0, 3)))[0].shape == (4, 0, 4)


def test_padding_may_hold_anything(rng):
    ours = Bidirectional(stacked(0), stacked(5), "mul")
    x = rng.standard_normal((7, 3, 3))
    padded = x.copy()
    for row, end in enumerate(RAGGED):
        padded[end:, row] = np.nan
    (y, _), back = ours.vjp(x, lengths=RAGGED)
    (other, _), other_back = ours.vjp(padded, lengths=RAGGED)
    dy = rng.standard_normal(y.shape)
    assert_same({"y": other, "dx": other_back(dy)[0]}, {"y": y, "dx": back(dy)[0]})


def test_protocol(rng):
    ours, x = Bidirectional(stacked(0), stacked(5), "sum"), rng.standard_normal((5, 2, 3))
    twin = pickle.loads(pickle.dumps(ours))
    assert_same({"y": twin(x)[0]}, {"y": ours(x)[0]})
    assert_same({"y": copy.deepcopy(ours)(x)[0]}, {"y": ours(x)[0]})
    assert "backward.3.0.weight_hh_l0" in ours.params
    (y, _), back = ours.vjp(x)
    dx, _ = back(None)
    assert not dx.any()
    with pytest.raises(RuntimeError, match="already run"):
        back(np.ones_like(y))
    single = Bidirectional(LSTM(2, 3), LSTM(2, 3))
    assert single([[1, 2], [3, 4]])[0].dtype == np.float32


def test_refusals(rng):
    lstm, x = LSTM(3, 4, dtype="float64"), rng.standard_normal((5, 2, 3))
    with pytest.raises(TypeError, match="backward must be a recurrent Module, got Linear"):
        Bidirectional(lstm, Linear(3, 4))
    with pytest.raises(TypeError, match="forward must be a recurrent Module, got str"):
        Bidirectional("lstm", lstm)
    with pytest.raises(ValueError, match="merge must be one of concat, sum, mean, mul, got 'max'"):
        Bidirectional(lstm, lstm, "max")
    with pytest.raises(ValueError, match="same batch_first: forward has False, backward has True"):
        Bidirectional(lstm, LSTM(3, 4, dtype="float64", batch_first=True))
    with pytest.raises(ValueError, match="same dtype: forward has float64, backward has float32"):
        Bidirectional(lstm, LSTM(3, 4))
    ours = Bidirectional(lstm, GRU(3, 4, dtype="float64"), "sum")
    with pytest.raises(TypeError, match=r"state must be a tuple \(forward, backward\), got nd"):
        ours(x, np.zeros((2, 2, 4)))
    with pytest.raises(ValueError, match=r"state must be a tuple \(forward, backward\), got 1 ent"):
        ours(x, (None,))
    with pytest.raises(TypeError, match="x is complex128"):
        ours(x + 0j)
    with pytest.raises(ValueError, match=r"x must have shape \(T, B, features\) or .*got \(3,\)"):
        ours(x[0, 0])
    with pytest.raises(ValueError, match="x must have shape"):
        ours(x[..., :2])
    for lengths in ([5], [0, 5], [6, 1]):
        with pytest.raises(ValueError, match="lengths must"):
            ours(x, lengths=lengths)
    with pytest.raises(TypeError, match="lengths must be whole numbers, got float64"):
        ours(x, lengths=[5.0, 5.0])
    with pytest.raises(ValueError, match=r"dy must have shape \(5, 2, 4\), got \(5, 2, 8\)"):
        ours.vjp(x)[1](np.zeros((5, 2, 8)))
    with pytest.raises(TypeError, match="dstate must be a tuple"):
        ours.vjp(x)[1](None, x)
    other = Bidirectional(lstm, GRU(3, 5, dtype="float64"), "mul")
    with pytest.raises(ValueError, match="same width, got 4 from forward and 5 from backward"):
        other(x)


@pytest.mark.parametrize(
    ("forward", "backward", "what"),
    [
        (LSTM(3, 4), GRU(4, 4), "forward takes 3 features, backward 4 features"),
        (Chain(Tanh(), Linear(5, 3), LSTM(3, 4)), LSTM(3, 4), "takes 5 features, backward 3"),
        (LSTM(3, 4), Chain(Embedding(9, 3), LSTM(3, 4)), "takes 3 features, backward indices"),
        (LSTM(3, 4), Reversed(Bidirectional(RNN(2, 4), RNN(2, 4))), "backward 2 features"),
    ],
    ids=["alone", "chain", "indices", "nested"],
)
def test_other_widths_are_refused_when_it_is_built(forward, backward, what):
    for make in (Bidirectional, Windowed, lambda *parts: LatencyControlled([parts], 3)):
        if make is Bidirectional or not isinstance(backward, Reversed):
            with pytest.raises(ValueError, match=f"must take the same width: .*{what}"):
                make(forward, backward)


def test_widths_that_are_not_known_are_left_to_the_call(rng):
    class Doubled(Module):
        pointwise = True

        def __call__(self, x):
            return np.concatenate([x, x], axis=-1)

    ours = Bidirectional(Chain(Doubled(), GRU(6, 4)), GRU(3, 4))
    assert ours(rng.standard_normal((5, 2, 3)).astype("f4"))[0].shape == (5, 2, 8)


class TestReversed:
    @pytest.mark.parametrize("lengths", [None, [4, 1, 6]], ids=["even", "ragged"])
    def test_is_the_backward_direction_to_the_bit(self, rng, lengths):
        both = GRU(3, 4, bidirectional=True, dtype="float64", seed=1)
        inner = GRU(3, 4, dtype="float64", seed=1)
        for name in inner.params:
            inner.params[name] = both.params[f"{name}_reverse"]
        x = rng.standard_normal((6, 3, 3))
        y, h = Reversed(inner)(x, lengths=lengths)
        want, last = both(x, lengths=lengths)
        assert_same({"y": y, "h": h}, {"y": want[..., 4:].copy(), "h": last[1:]})

    def test_gradients(self, rng):
        layer = Reversed(LSTM(3, 4, dtype="float64", seed=1))
        check_recurrent(layer, rng.standard_normal((6, 3, 3)), lengths=[4, 1, 6])
