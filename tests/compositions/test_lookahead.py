"""Row convolution and windows: against a slow obvious computation, gradients, refusals."""

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    Embedding,
    Linear,
    RowConvolution,
    Windowed,
)
from rnncore.compositions import lookahead

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent

STEPS = 6
RAGGED = [4, 6, 1]
LENGTHS = pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])


def layers(**options):
    """One layer for each side."""
    options = {"dtype": "float64"} | options
    return LSTM(3, 2, seed=1, **options), Chain(
        Linear(3, 2, dtype=options["dtype"], seed=2), GRU(2, 2, seed=3, **options)
    )


def ends_of(lengths, batch=3, steps=STEPS):
    return [steps] * batch if lengths is None else lengths


class TestRowConvolution:
    @LENGTHS
    @pytest.mark.parametrize("future", [0, 2, 5, 9])
    def test_is_what_it_says(self, rng, future, lengths):
        layer = RowConvolution(4, future, dtype="float64", seed=1)
        x, weight = rng.standard_normal((STEPS, 3, 4)), layer.params["weight"]
        want = np.zeros_like(x)
        for row, end in enumerate(ends_of(lengths)):
            for t in range(end):
                for j in range(future + 1):
                    if t + j < end:
                        want[t, row] += weight[j] * x[t + j, row]
        y, state = layer(x, lengths=lengths)
        assert state == ()
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-14)

    @LENGTHS
    @pytest.mark.parametrize("future", [0, 2, 9])
    def test_gradients(self, rng, future, lengths):
        layer = RowConvolution(4, future, dtype="float64", seed=1)
        check_recurrent(layer, rng.standard_normal((STEPS, 3, 4)), lengths=lengths)

    def test_starts_near_the_identity(self, rng):
        layer = RowConvolution(50, 3, seed=1)
        weight = layer.params["weight"]
        assert weight.shape == (4, 50)
        assert weight.dtype == np.float32
        noise = weight - np.eye(4, 1, dtype=np.float32)
        assert 0.04 < np.abs(noise).max() <= 0.05 + 1e-6
        assert_same({"w": RowConvolution(50, 3, seed=1).params["weight"]}, {"w": weight})

    @LENGTHS
    def test_float32_and_batch_first(self, rng, lengths):
        x = rng.standard_normal((STEPS, 3, 4))
        exact = RowConvolution(4, 2, dtype="float64", seed=1)
        layer = RowConvolution(4, 2, batch_first=True, seed=1)
        exact.params["weight"] = layer.params["weight"]
        y, _ = layer(np.float32(x).swapaxes(0, 1), lengths=lengths)
        assert y.dtype == np.float32
        want = exact(np.float32(x), lengths=lengths)[0]
        assert_close({"y": y.swapaxes(0, 1)}, {"y": want}, 1e-6)

    def test_in_a_chain_with_lengths(self, rng):
        chain = Chain(
            LSTM(3, 4, dtype="float64", seed=1),
            RowConvolution(4, 2, dtype="float64", seed=2),
            Linear(4, 2, dtype="float64", seed=3),
        )
        x = rng.standard_normal((STEPS, 3, 3))
        check_recurrent(chain, x, lengths=RAGGED)
        y, state = chain(x, lengths=RAGGED)
        assert state[1] == ()
        own, _ = chain(x[:4, 0])
        np.testing.assert_allclose(y[:4, 0], own, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("steps", [0, 1])
    def test_short_and_unbatched(self, rng, steps):
        layer, x = RowConvolution(4, 3, dtype="float64", seed=1), rng.standard_normal((steps, 4))
        (y, state), back = layer.vjp(x, ())
        np.testing.assert_allclose(y, layer.params["weight"][0] * x)
        dx, dstate = back(np.ones_like(y))
        assert (state, dstate, dx.shape) == ((), (), x.shape)

    def test_padding_may_hold_anything(self, rng):
        layer = RowConvolution(4, 3, dtype="float64", seed=1)
        x = rng.standard_normal((STEPS, 3, 4))
        x[4:, 0] = x[1:, 2] = np.nan
        (y, _), back = layer.vjp(x, lengths=RAGGED)
        dy = np.where(np.isnan(x), np.nan, 1.0)
        dx, _ = back(dy)
        assert np.isfinite(y).all()
        assert np.isfinite(dx).all()
        assert np.isfinite(layer.grads["weight"]).all()
        assert not dx[4:, 0].any()

    def test_refusals(self, rng):
        with pytest.raises(ValueError, match="future must be at least 0, got -1"):
            RowConvolution(4, -1)
        with pytest.raises(ValueError, match="size must be at least 1, got 0"):
            RowConvolution(0, 1)
        with pytest.raises(ValueError, match="dtype must be float32 or float64"):
            RowConvolution(4, 1, dtype="int32")
        layer = RowConvolution(4, 1)
        with pytest.raises(ValueError, match="x must have 4 features, got 3"):
            layer(np.zeros((5, 2, 3), np.float32))
        with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
            layer(np.zeros((5, 2, 4)))
        with pytest.raises(TypeError, match="state must be a tuple"):
            layer(np.zeros((5, 2, 4), np.float32), np.zeros(3))
        with pytest.raises(ValueError, match=r"state must be a tuple \(\), got 1 entries"):
            layer(np.zeros((5, 2, 4), np.float32), (None,))


def after_window(layer, frames):
    return layer(frames)[0][-1]


def slowly(forward, backward, x, past, future, lengths):
    """The two sides of every frame, one window at a time; the whole side where it is None."""
    ahead, back = np.zeros((*x.shape[:2], 2)), np.zeros((*x.shape[:2], 2))
    for row, end in enumerate(ends_of(lengths)):
        for t in range(end):
            first = 0 if past is None else max(0, t - past)
            last = end if future is None else min(end, t + future + 1)
            ahead[t, row] = after_window(forward, x[first : t + 1, row])
            back[t, row] = after_window(backward, x[t:last, row][::-1])
    return ahead, back


class TestWindowed:
    @LENGTHS
    @pytest.mark.parametrize("past", [None, 0, 2, 99])
    @pytest.mark.parametrize("future", [None, 0, 3, 4, 99])
    def test_is_what_it_says(self, rng, past, future, lengths):
        forward, backward = layers()
        x = rng.standard_normal((STEPS, 3, 3))
        y, _ = Windowed(forward, backward, past, future)(x, lengths=lengths)
        want = np.concatenate(slowly(forward, backward, x, past, future, lengths), axis=-1)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-14)

    @LENGTHS
    @pytest.mark.parametrize("merge", ["sum", "mean", "mul"])
    def test_merges(self, rng, merge, lengths):
        forward, backward = layers()
        x = rng.standard_normal((STEPS, 3, 3))
        a, b = slowly(forward, backward, x, 1, 2, lengths)
        want = {"sum": a + b, "mean": (a + b) / 2, "mul": a * b}[merge]
        y, _ = Windowed(forward, backward, 1, 2, merge)(x, lengths=lengths)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-14)
        check_recurrent(Windowed(*layers(), 1, 2, merge), x[:4, :2])

    @LENGTHS
    def test_one_side_alone(self, rng, lengths):
        forward, backward = layers()
        x = rng.standard_normal((STEPS, 3, 3))
        a, b = slowly(forward, backward, x, 2, 3, lengths)
        for layer, want in (
            (Windowed(forward, None, past=2), a),
            (Windowed(None, backward, future=3), b),
        ):
            np.testing.assert_allclose(layer(x, lengths=lengths)[0], want, rtol=0, atol=1e-14)
            check_recurrent(layer, x, lengths=lengths)

    @LENGTHS
    @pytest.mark.parametrize(("past", "future"), [(None, 2), (2, None), (0, 1), (3, 99)])
    def test_gradients(self, rng, past, future, lengths):
        layer = Windowed(*layers(), past, future)
        x = rng.standard_normal((STEPS, 3, 3))
        check_recurrent(layer, x, lengths=lengths)
        _, state = layer(x, lengths=lengths)
        if past is None:
            check_recurrent(layer, x, state, lengths=lengths)

    @LENGTHS
    def test_many_blocks_are_one(self, rng, lengths, monkeypatch):
        x = rng.standard_normal((STEPS, 3, 3))
        dy = rng.standard_normal((STEPS, 3, 4))
        results = []
        for size in (1 << 15, 7):
            monkeypatch.setattr(lookahead, "_BLOCK", size)
            layer = Windowed(*layers(), 2, 1)
            (y, _), back = layer.vjp(x, lengths=lengths)
            results.append({"y": y, "dx": back(dy)[0]} | layer.grads)
        assert_close(*results, 1e-14)

    @LENGTHS
    def test_everything_seen_is_bidirectional_to_the_bit(self, rng, lengths):
        parts = layers()
        x = rng.standard_normal((STEPS, 3, 3))
        want, last = Bidirectional(*parts)(x, lengths=lengths)
        y, state = Windowed(*parts, None, None)(x, lengths=lengths)
        assert_same({"y": y, "h": state[0][0]}, {"y": want, "h": last[0][0]})
        assert_same({"y": Windowed(*parts, 99, 99)(x, lengths=lengths)[0]}, {"y": want})

    def test_the_past_can_be_carried(self, rng):
        layer, x = Windowed(*layers(), None, 0), rng.standard_normal((STEPS, 3, 3))
        whole, last = layer(x)
        first, between = layer(x[:2])
        second, end = layer(x[2:], between)
        assert_same({"y": np.concatenate([first, second])}, {"y": whole})
        assert_same({"c": end[0][1]}, {"c": last[0][1]})
        assert end[1] is None

    @LENGTHS
    def test_float32_and_batch_first(self, rng, lengths):
        x = rng.standard_normal((STEPS, 3, 3)).astype("float32")
        exact = Windowed(*layers(), 2, 1)
        layer = Windowed(*layers(batch_first=True, dtype="float32"), 2, 1)
        for name, value in layer.params.items():
            exact.params[name][...] = value
        y, _ = layer(x.swapaxes(0, 1), lengths=lengths)
        assert y.dtype == np.float32
        want = exact(x.astype("float64"), lengths=lengths)[0]
        assert_close({"y": y.swapaxes(0, 1)}, {"y": want}, 1e-6)

    @pytest.mark.parametrize("steps", [0, 1])
    @pytest.mark.parametrize("batch", [0, 2, None])
    def test_short_and_empty(self, rng, steps, batch):
        layer = Windowed(*layers(), 2, 1)
        x = rng.standard_normal((steps, 3) if batch is None else (steps, batch, 3))
        (y, state), back = layer.vjp(x)
        assert y.shape == (*x.shape[:-1], 4)
        assert state == (None, None)
        assert back(y)[0].shape == x.shape

    def test_over_integers(self, rng):
        parts = [
            Chain(Embedding(9, 3, dtype="float64", seed=s), RNN(3, 2, dtype="float64", seed=s))
            for s in (1, 2)
        ]
        check_recurrent(Windowed(*parts, 2, 1), rng.integers(0, 9, (5, 3)), lengths=[5, 2, 3])

    def test_padding_may_hold_anything(self, rng):
        layer = Windowed(*layers(), 2, 1)
        x = rng.standard_normal((STEPS, 3, 3))
        padded = x.copy()
        padded[4:, 0] = padded[1:, 2] = np.nan
        results = []
        for frames in (x, padded):
            (y, _), back = layer.vjp(frames, lengths=RAGGED)
            results.append({"y": y, "dx": back(np.ones_like(y))[0]})
        assert_same(*results)

    def test_refusals(self, rng):
        forward, backward = layers()
        with pytest.raises(ValueError, match="forward and backward must not both be None"):
            Windowed(None, None)
        with pytest.raises(ValueError, match="past must be at least 0, got -1"):
            Windowed(forward, backward, -1)
        with pytest.raises(ValueError, match="future must be at least 0, got -2"):
            Windowed(forward, backward, None, -2)
        with pytest.raises(TypeError, match="future must be a whole number"):
            Windowed(forward, backward, None, 1.5)
        with pytest.raises(ValueError, match="merge must be one of"):
            Windowed(forward, backward, merge="max")
        with pytest.raises(ValueError, match="backward must run in one direction, but its LSTM"):
            Windowed(forward, LSTM(3, 2, bidirectional=True, dtype="float64"))
        with pytest.raises(ValueError, match="forward must run in one direction, but its RowConv"):
            Windowed(Chain(backward, RowConvolution(2, 1, dtype="float64")), None)
        layer, x = Windowed(forward, backward, 2, 1), rng.standard_normal((STEPS, 3, 3))
        with pytest.raises(ValueError, match="state must hold None where past is limited"):
            layer(x, (np.zeros((1, 3, 2)), None))
        with pytest.raises(ValueError, match="x must have shape"):
            layer(x[..., :2])
        with pytest.raises(ValueError, match="same width, got 2 from forward and 3 from backward"):
            Windowed(forward, GRU(3, 3, dtype="float64"), 1, 1, "sum")(x)


def test_gradients_do_not_depend_on_layouts(rng):
    layer = RowConvolution(3, 2)
    x = rng.standard_normal((20, 4, 3)).astype("float32")
    found = []
    for order in (np.ascontiguousarray, np.asfortranarray):
        layer.zero_grad()
        (y, _), pullback = layer.vjp(order(x))
        pullback(order(np.cos(y)), ())
        found.append([grad.tobytes() for grad in layer.grads.values()])
    assert found[0] == found[1]
