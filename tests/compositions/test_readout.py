"""What is read of a recurrent layer: its end, its mean, and its pullback."""

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    Conv1d,
    Embedding,
    Linear,
    Readout,
    Reversed,
)
from rnncore.compositions.readout import READINGS

from tests.support.compare import assert_same
from tests.support.gradients import check_recurrent, leaves

LENGTHS = [3, 5, 1]


def layer(kind=LSTM, **options):
    return kind(2, 3, 2, **{"bidirectional": True, "dtype": "float64", "seed": 0, **options})


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_readings(lengths, batch_first, rng):
    recurrence = layer(batch_first=batch_first)
    x = rng.standard_normal((3, 5, 2))
    given = x if batch_first else x.swapaxes(0, 1)
    y, state = recurrence(given, lengths=lengths)
    rows = y if batch_first else y.swapaxes(0, 1)
    own = [row[:n] for row, n in zip(rows, lengths or [5] * 3, strict=True)]
    wanted = {
        "last": np.stack([np.append(row[-1, :3], row[0, 3:]) for row in own]),
        "last_step": np.stack([row[-1] for row in own]),
        "mean": np.stack([row.mean(axis=0) for row in own]),
    }
    for reading, values in wanted.items():
        found, final = Readout(recurrence, reading)(given, lengths=lengths)
        np.testing.assert_allclose(found, values, rtol=1e-12)
        np.testing.assert_array_equal(final, state)


def small(kind, **options):
    return kind(3, 4, **{"dtype": "float64", "seed": 1, **options})


def mul(**options):
    return Bidirectional(small(LSTM, **options), small(GRU, seed=2, **options), "mul")


LAYERS = {
    "rnn": lambda: small(RNN),
    "lstm_deep": lambda: small(LSTM, num_layers=2, bidirectional=True),
    "lstm_projected": lambda: small(LSTM, proj_size=2),
    "gru_batch_first": lambda: small(GRU, batch_first=True),
    "bidirectional": mul,
    "bidirectional_batch_first": lambda: mul(batch_first=True),
    "reversed": lambda: Reversed(small(LSTM)),
    "reversed_within": lambda: Bidirectional(small(RNN), Reversed(small(LSTM, seed=2)), "mean"),
}


@pytest.mark.parametrize("lengths", [None, [4, 1, 6]], ids=["even", "ragged"])
@pytest.mark.parametrize("kind", LAYERS)
class TestEveryLayer:
    def given(self, rng, kind):
        layer = LAYERS[kind]()
        return layer, rng.standard_normal((3, 6, 3) if layer.batch_first else (6, 3, 3))

    def test_last_is_what_stands_at_the_ends_of_y(self, rng, kind, lengths):
        inner, x = self.given(rng, kind)
        whole, state = inner(x, lengths=lengths)
        y, after = Readout(inner)(x, lengths=lengths)
        if inner.batch_first:
            whole = whole.swapaxes(0, 1)
        ends = np.array(lengths or [6] * 3) - 1
        last, first = whole[ends, np.arange(3)], whole[0]
        width = y.shape[-1] // 2
        want = {
            "lstm_deep": lambda: np.hstack((last[:, :width], first[:, width:])),
            "reversed": lambda: first,
            # Of these the parts end at different steps.
            "bidirectional": lambda: state[0][0][0] * state[1][0],
            "bidirectional_batch_first": lambda: state[0][0][0] * state[1][0],
            "reversed_within": lambda: (state[0][0] + state[1][0][0]) / 2,
        }.get(kind, lambda: last)
        assert_same({"y": y}, {"y": want()})
        for got, expected in zip(leaves(after), leaves(state), strict=True):
            np.testing.assert_array_equal(got, expected)

    def test_mean_is_of_own_steps(self, rng, kind, lengths):
        inner, x = self.given(rng, kind)
        whole, _ = inner(x, lengths=lengths)
        rows = whole if inner.batch_first else whole.swapaxes(0, 1)
        want = [row[:n].mean(axis=0) for row, n in zip(rows, lengths or [6] * 3, strict=True)]
        y, _ = Readout(inner, "mean")(x, lengths=lengths)
        np.testing.assert_allclose(y, np.stack(want), rtol=1e-12)

    @pytest.mark.parametrize("reading", READINGS)
    def test_gradients(self, rng, kind, lengths, reading):
        inner, x = self.given(rng, kind)
        check_recurrent(Readout(inner, reading), x, inner(x)[1], lengths=lengths)


@pytest.mark.parametrize("reading", READINGS)
def test_one_sequence_is_a_batch_of_one(reading, rng):
    for made in (small(GRU), small(GRU, batch_first=True), mul(), mul(batch_first=True)):
        readout = Readout(made, reading)
        x = rng.standard_normal((5, 3))
        batch = x[None] if made.batch_first else x[:, None]
        for lengths in (None, [4]):
            np.testing.assert_array_equal(
                readout(x, lengths=lengths)[0], readout(batch, lengths=lengths)[0][0]
            )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients(lengths, kind, reading, rng):
    readout = Readout(layer(kind), reading)
    h = rng.standard_normal((4, 3, 3))
    state = (h, rng.standard_normal((4, 3, 3))) if kind is LSTM else h
    check_recurrent(readout, rng.standard_normal((5, 3, 2)), state, lengths=lengths)
    check_recurrent(readout, rng.standard_normal((5, 2)))


def test_in_a_chain(rng):
    chain = Chain(Readout(layer()), Linear(6, 2, dtype="float64", seed=1))
    check_recurrent(chain, rng.standard_normal((5, 3, 2)), lengths=LENGTHS)
    assert "0.layer.weight_ih_l1_reverse" in chain.params


@pytest.mark.parametrize("reading", READINGS)
def test_without_steps_or_rows(reading):
    readout = Readout(layer(GRU), reading)
    for shape in ((0, 3, 2), (5, 0, 2)):
        (y, state), pullback = readout.vjp(np.zeros(shape))
        assert not y.any()
        dx, dstate = pullback(np.ones_like(y))
        assert dx.shape == shape
        assert dstate.shape == state.shape


def test_nan_stays_in_its_row(rng):
    x = rng.standard_normal((5, 3, 2))
    x[2, 1] = np.nan
    for reading in READINGS:
        y, _ = Readout(layer(), reading)(x)
        assert np.isnan(y).any(axis=1).tolist() == [False, True, False]


def test_refusals():
    for other in (Linear(2, 3), Chain(layer()), Bidirectional(layer(), Chain(layer()))):
        with pytest.raises(
            TypeError, match=r"layer must be a recurrent layer, .*got (Linear|Chain)"
        ):
            Readout(other)
    with pytest.raises(TypeError, match=r"layer must be a recurrent layer, .*got Linear"):
        Readout(Linear(2, 3), "mean")
    with pytest.raises(ValueError, match=r"reading must be one of last, .*, got 'first'"):
        Readout(layer(), "first")
    _, pullback = Readout(layer()).vjp(np.zeros((5, 3, 2)))
    with pytest.raises(ValueError, match=r"dy must have shape \(3, 6\), got \(3, 5\)"):
        pullback(np.zeros((3, 5)))


def test_a_gradient_of_the_state_must_fit():
    (y, _), pullback = Readout(Bidirectional(small(GRU), small(RNN))).vjp(np.zeros((5, 3, 3)))
    with pytest.raises(ValueError, match=r"dstate must have shape \(1, 3, 4\), got \(4,\)"):
        pullback(y, (None, np.zeros(4)))
    with pytest.raises(ValueError, match=r"dstate must be a tuple \(forward, backward\), got 1"):
        pullback(y, (None,))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", LAYERS)
class TestSequencesOfNoSteps:
    LENGTHS = (4, 0, 6)

    def given(self, rng, kind, reading):
        model = Readout(LAYERS[kind](), reading)
        x = rng.standard_normal((3, 6, 3) if model.batch_first else (6, 3, 3))
        _, state = model(x)
        return model, x, state_like(state, rng)

    def test_read_zero_and_keep_their_state(self, rng, kind, reading):
        model, x, state = self.given(rng, kind, reading)
        y, after = model(x, state, lengths=self.LENGTHS)
        whole, others = model(x, state, lengths=(4, 6, 6))
        assert not y[1].any()
        np.testing.assert_array_equal(y[[0, 2]], whole[[0, 2]])
        for before, found, other in zip(*map(leaves, (state, after, others)), strict=True):
            np.testing.assert_array_equal(found[..., 1, :], before[..., 1, :])
            np.testing.assert_array_equal(found[..., [0, 2], :], other[..., [0, 2], :])
        nothing, kept = model(x, state, lengths=(0, 0, 0))
        assert not nothing.any()
        for before, found in zip(leaves(state), leaves(kept), strict=True):
            np.testing.assert_array_equal(found, before)

    def test_gradients(self, rng, kind, reading):
        model, x, state = self.given(rng, kind, reading)
        check_recurrent(model, x, state, lengths=self.LENGTHS)

    def test_refusals(self, rng, kind, reading):
        model, x, _ = self.given(rng, kind, reading)
        for lengths in ([0, 4], [0, -1, 6], [0, 4, 7], [0.0, 1.0, 2.0]):
            with pytest.raises((ValueError, TypeError), match="lengths must"):
                model(x, lengths=lengths)
        more = state_like(model(np.concatenate((x, x), 0 if model.batch_first else 1))[1], rng)
        with pytest.raises(ValueError, match="must have"):
            model(x, more, lengths=self.LENGTHS)
        with pytest.raises(TypeError, match="x is float64"):
            Readout(GRU(3, 4))(x, lengths=self.LENGTHS)


def state_like(state, rng):
    """Numbers at random in the form of a state."""
    if isinstance(state, tuple):
        return tuple(state_like(part, rng) for part in state)
    return rng.standard_normal(state.shape)


class TestAnyLayer:
    """What has a y for each step may be read at its last one, and in the mean."""

    def chain(self):
        return Chain(Embedding(5, 3, dtype="float64", seed=0), mul(), Linear(4, 2, dtype="float64"))

    @pytest.mark.parametrize("reading", ["last_step", "mean"])
    @pytest.mark.parametrize("lengths", [None, [4, 1, 6], [4, 0, 6], [0, 0, 0]], ids=str)
    def test_padding_does_not_count(self, reading, lengths, rng):
        chain, x = self.chain(), rng.integers(5, size=(6, 3))
        y, _ = Readout(chain, reading)(x, lengths=lengths)
        for row, count in enumerate(lengths or [6] * 3):
            own = chain(x[: count or 1, row : row + 1])[0][:, 0]
            want = own[-1] if reading == "last_step" else own.mean(axis=0)
            np.testing.assert_allclose(y[row], want if count else np.zeros(2), rtol=1e-12)
        check_recurrent(Readout(chain, reading), x, lengths=lengths)

    def test_ends_are_those_of_layers_alone(self):
        with pytest.raises(TypeError, match=r"layer must be a recurrent layer, .*got Chain"):
            Readout(self.chain(), "last")
        with pytest.raises(TypeError, match="must give y for each step, which Chain does not"):
            Readout(Chain(Readout(small(GRU)), Linear(4, 2, dtype="float64")), "last_step")

    @pytest.mark.parametrize("reading", ["last_step", "mean"])
    def test_steps_are_those_of_y(self, reading, rng):
        strided = Conv1d(3, 3, 2, 2, dtype="float64", seed=0)
        model, x = Readout(Chain(strided, small(GRU)), reading), rng.standard_normal((7, 3, 3))
        y, _ = model(x, lengths=[4, 2, 7])
        for row, count in enumerate([4, 2, 7]):
            np.testing.assert_allclose(y[row], model(x[:count, row])[0], rtol=1e-12)
        check_recurrent(model, x, lengths=[4, 2, 7])


@pytest.mark.parametrize("lengths", [None, [4, 1, 6]])
def test_the_last_step_is_torchs(lengths, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours = Readout(small(LSTM, num_layers=2, bidirectional=True), "last_step")
    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict({n: torch.from_numpy(p) for n, p in ours.layer.params.items()})
    x = rng.standard_normal((6, 3, 3))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), lengths or [6] * 3, enforce_sorted=False
    )
    whole, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0])
    want = whole[torch.tensor(lengths or [6] * 3) - 1, torch.arange(3)].detach().numpy()
    np.testing.assert_allclose(ours(x, lengths=lengths)[0], want, rtol=1e-12)
