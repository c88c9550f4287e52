"""What is read of a recurrent layer: its end, its mean, and the way back from them."""

import numpy as np
import pytest
from gradients import check_recurrent
from rnncore import GRU, LSTM, Chain, Linear, Readout

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
        "mean": np.stack([row.mean(axis=0) for row in own]),
    }
    for reading, values in wanted.items():
        found, final = Readout(recurrence, reading)(given, lengths=lengths)
        np.testing.assert_allclose(found, values, rtol=1e-12)
        np.testing.assert_array_equal(final, state)


@pytest.mark.parametrize("reading", ["last", "mean"])
def test_one_sequence_is_a_batch_of_one(reading, rng):
    for batch_first in (False, True):
        readout = Readout(layer(GRU, batch_first=batch_first), reading)
        x = rng.standard_normal((5, 2))
        batch = x[None] if batch_first else x[:, None]
        for lengths in (None, [4]):
            np.testing.assert_array_equal(
                readout(x, lengths=lengths)[0], readout(batch, lengths=lengths)[0][0]
            )


@pytest.mark.parametrize("reading", ["last", "mean"])
@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients(lengths, kind, reading, rng):
    readout = Readout(layer(kind), reading)
    h = rng.standard_normal((4, 3, 3))
    state = (h, rng.standard_normal((4, 3, 3))) if kind is LSTM else h
    check_recurrent(readout, rng.standard_normal((5, 3, 2)), state, lengths=lengths)
    check_recurrent(readout, rng.standard_normal((5, 2)))


def test_gradients_of_a_projected_state(rng):
    readout = Readout(LSTM(2, 3, proj_size=2, batch_first=True, dtype="float64", seed=0))
    check_recurrent(readout, rng.standard_normal((3, 5, 2)), lengths=LENGTHS)


def test_in_a_chain(rng):
    chain = Chain(Readout(layer()), Linear(6, 2, dtype="float64", seed=1))
    check_recurrent(chain, rng.standard_normal((5, 3, 2)), lengths=LENGTHS)
    assert "0.layer.weight_ih_l1_reverse" in chain.params


@pytest.mark.parametrize("reading", ["last", "mean"])
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
    for reading in ("last", "mean"):
        y, _ = Readout(layer(), reading)(x)
        assert np.isnan(y).any(axis=1).tolist() == [False, True, False]


def test_refusals():
    with pytest.raises(TypeError, match="layer must be a recurrent layer, got Linear"):
        Readout(Linear(2, 3))
    with pytest.raises(ValueError, match="reading must be 'last' or 'mean', got 'first'"):
        Readout(layer(), "first")
    _, pullback = Readout(layer()).vjp(np.zeros((5, 3, 2)))
    with pytest.raises(ValueError, match=r"dy must have shape \(3, 6\), got \(3, 5\)"):
        pullback(np.zeros((3, 5)))
