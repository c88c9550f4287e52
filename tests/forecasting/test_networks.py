"""The networks of forecasters: finite differences, states, categories."""

import numpy as np
import pytest
from rnncore.forecasting.networks import EncoderDecoder, Forking, Seen, Sizes, decoder_inputs

from tests.support.compare import assert_gradients_of

SIZES = Sizes(5, 4, 3, 2, 6, 2, 0.0, (3, 4), "float64")


def seen(rng, batch=4, steps=3, shift=False):
    codes = np.stack([rng.integers(n, size=batch) for n in SIZES.categories], 1)
    moved = rng.standard_normal((batch, steps, 1)) if shift else None
    x, ahead = rng.standard_normal((batch, steps, 5)), rng.standard_normal((batch, 3, 4))
    return Seen(x, ahead, codes, moved)


@pytest.mark.parametrize("kind", [Forking, EncoderDecoder])
@pytest.mark.parametrize("shift", [False, True])
def test_gradients(kind, shift, rng):
    network, given = kind(SIZES, rng), seen(rng, shift=shift)
    y, pullback = network.vjp(given)
    assert y.shape == (4, 3 if kind is Forking else 1, 6)
    np.testing.assert_array_equal(network(given), y)
    dy = rng.standard_normal(y.shape)
    network.zero_grad()
    pullback(dy)
    with pytest.raises(RuntimeError, match="already run"):
        pullback(dy)
    pairs = [(network.params[name], grad.copy()) for name, grad in network.grads.items()]
    assert all(np.any(grad) for _, grad in pairs)
    assert_gradients_of(lambda: float(np.vdot(network(given), dy)), pairs)


def test_the_shift_moves_the_first_number_of_each_step(rng):
    network, given = Forking(SIZES, rng), seen(rng, shift=True)
    moved = network(given) - network(given._replace(shift=None))
    np.testing.assert_allclose(moved[..., ::2], np.repeat(given.shift, 3, axis=2))
    np.testing.assert_array_equal(moved[..., 1::2], 0)


def test_steps_have_the_bits_of_a_whole_call(rng):
    network, given = Forking(SIZES._replace(dtype="float32"), rng), seen(rng)
    given = Seen(given.x.astype("float32"), given.ahead, given.codes)
    whole, state = network(given), None
    for at in range(3):
        y, state = network.step(given._replace(x=given.x[:, at : at + 1]), state)
        np.testing.assert_array_equal(y[:, 0], whole[:, at])


def test_categories_matter(rng):
    for kind in (Forking, EncoderDecoder):
        network, given = kind(SIZES, rng), seen(rng)
        other = network(given._replace(codes=(given.codes + 1) % 3))
        assert np.abs(other - network(given)).max() > 1e-3


def test_what_a_decoder_sees():
    ahead, naive = np.full((2, 6, 1), 7.0), np.arange(12.0).reshape(2, 6)
    found = decoder_inputs(ahead, naive, 4)
    assert found.shape == (2, 6, 5)
    np.testing.assert_array_equal(found[..., 0], 7)
    np.testing.assert_array_equal(found[..., 1], naive)
    np.testing.assert_allclose(found[0, :, 2], np.arange(6) / 6, rtol=1e-6)
    np.testing.assert_allclose(found[0, 1, 3:], [1, 0], atol=1e-6)
    np.testing.assert_allclose(found[1, 4, 3:], found[1, 0, 3:], atol=1e-6)
